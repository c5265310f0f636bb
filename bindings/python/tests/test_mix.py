"""Corpora that are mixed by weight, and epochs of a stated size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flat
import tldr_loader as tldr
from conftest import SIZE, Corpus


@pytest.fixture(scope="module")
def corpora(make_corpus: Callable[[int, int], Corpus]) -> tuple[Corpus, Corpus]:
    return make_corpus(2, 60), make_corpus(1, 40)


def mixed(corpora: tuple[Corpus, Corpus], **options: Any) -> tldr.Loader:
    large, small = corpora
    sources = [tldr.Source(large.urls, weight=3.0), tldr.Source(Path(small.urls).parent, weight=1)]
    return flat.loader(sources, **{"batch_size": 16, "image_size": SIZE, "mode": "full", **options})


def test_every_batch_has_the_stated_proportion(corpora: tuple[Corpus, Corpus]) -> None:
    loader = mixed(corpora, samples_per_epoch=327)
    assert (len(loader), loader.num_samples) == (20, 320)
    batches = list(loader)
    sources = {Path(source["name"]).name: source for source in loader.stats()["sources"]}
    large, small = sources["{00000..00001}.tar"], sources[Path(corpora[1].urls).parent.name]
    assert (large["yielded"], small["yielded"]) == (240, 80)
    assert (large["share"], small["share"]) == (0.75, 0.25)
    assert (large["passes"], small["passes"]) == (2.0, 2.0)
    assert (large["read"], small["read"]) == (240, 80)
    seen = [key for batch in batches for key in batch.ids]
    assert len(set(seen)) == 160
    assert all(seen.count(i) == 2 for i in set(seen))
    again = mixed(corpora, samples_per_epoch=320)
    assert [batch.ids for batch in again] == [batch.ids for batch in batches]


def test_a_state_resumes_a_mix_of_the_same_weights_only(corpora: tuple[Corpus, Corpus]) -> None:
    whole = [batch.ids for batch in mixed(corpora)]
    first = mixed(corpora)
    batches = iter(first)
    assert [next(batches).ids for _ in range(4)] == whole[:4]
    second = mixed(corpora)
    second.load_state_dict(first.state_dict())
    assert [batch.ids for batch in second] == whole[4:]
    with pytest.raises(tldr.StateError, match="rows of the sources in an epoch"):
        mixed(corpora, samples_per_epoch=80).load_state_dict(first.state_dict())


def test_what_cannot_be_mixed_is_refused(corpora: tuple[Corpus, Corpus]) -> None:
    urls = corpora[0].urls
    for weight in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(tldr.ConfigError, match=r"^invalid weight=.*(above 0|a number)"):
            tldr.Loader([tldr.Source(urls, weight=weight)])
    with pytest.raises(
        tldr.ConfigError,
        match=r"^invalid weight=3, and none for .*: expected one for every source, or for none",
    ):
        tldr.Loader([tldr.Source(urls, weight=3.0), tldr.Source(corpora[1].urls)])
    with pytest.raises(tldr.ConfigError, match=r"^invalid (sources|urls)="):
        tldr.Loader([])
    with pytest.raises(tldr.ConfigError, match=r"^invalid samples_per_epoch=15"):
        mixed(corpora, samples_per_epoch=15)
    with pytest.raises(tldr.ConfigError, match=r"^invalid weight=.*eval"):
        mixed(corpora, mode="eval")
    with pytest.raises(tldr.ConfigError, match=r"^invalid weight=\"much\": expected a number"):
        tldr.Loader(tldr.Source(urls, weight="much"))  # type: ignore[arg-type]


def test_each_source_is_read_in_its_own_way(corpora: tuple[Corpus, Corpus], tmp_path: Path) -> None:
    large, small = corpora
    table, listed = tmp_path / "captions.jsonl", tmp_path / "keys.txt"
    table.write_text("".join(f'{{"key": "{pair.key}", "caption": "of the table"}}\n' for pair in large.pairs))
    listed.write_text("".join(f"{pair.key}\n" for pair in small.pairs[:20]))
    sources = [
        tldr.Source(large.urls, name="large", captions={"side": table}, caption_key="side"),
        tldr.Source(small.urls, name="small", subset=listed),
    ]
    loader = flat.loader(sources, mode="eval", batch_size=20, image_size=SIZE)
    found = [pair for batch in loader for pair in zip(batch.keys, batch.original, strict=True)]
    expected = [(pair.key, "of the table") for pair in large.pairs]
    expected += [(pair.key, pair.caption) for pair in small.pairs[:20]]
    assert sorted(found) == sorted(expected)
    assert loader.stats()["counts"]["excluded"] == len(small.pairs) - 20
    # In another order, or with a name taken away, it is another corpus.
    state = loader.state_dict()
    flat.loader(sources, mode="eval", batch_size=20, image_size=SIZE).load_state_dict(state)
    other = flat.loader(
        [sources[0], tldr.Source(small.urls, name="small")], mode="eval", batch_size=20, image_size=SIZE
    )
    with pytest.raises(tldr.StateError, match="subset"):
        other.load_state_dict(state)
