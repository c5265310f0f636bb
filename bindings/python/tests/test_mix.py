"""Corpora that are mixed by weight, and epochs of a stated size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tldr_loader as tldr
from conftest import SIZE, Corpus


@pytest.fixture(scope="module")
def corpora(make_corpus: Callable[[int, int], Corpus]) -> tuple[Corpus, Corpus]:
    return make_corpus(2, 60), make_corpus(1, 40)


def mixed(corpora: tuple[Corpus, Corpus], **options: Any) -> tldr.Loader:
    large, small = corpora
    weights = {large.urls: 3.0, str(Path(small.urls).parent): 1}
    return tldr.Loader(weights, **{"batch_size": 16, "image_size": SIZE, "mode": "full", **options})


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
    with pytest.raises(tldr.StateError, match="places of the sources in an epoch"):
        mixed(corpora, samples_per_epoch=80).load_state_dict(first.state_dict())


def test_what_cannot_be_mixed_is_refused(corpora: tuple[Corpus, Corpus]) -> None:
    urls = corpora[0].urls
    for weight in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(tldr.ConfigError, match=r"^weights = .*above 0"):
            tldr.Loader({urls: weight})
    with pytest.raises(tldr.ConfigError, match=r"^urls = \{\}"):
        tldr.Loader({})
    with pytest.raises(tldr.ConfigError, match=r"^samples_per_epoch = 15"):
        mixed(corpora, samples_per_epoch=15)
    with pytest.raises(tldr.ConfigError, match=r"^weights = .*eval"):
        mixed(corpora, mode="eval")
    with pytest.raises(tldr.ConfigError, match=r"^urls = .*'much'\}: a pattern of shards"):
        tldr.Loader({urls: "much"})  # type: ignore[arg-type]
