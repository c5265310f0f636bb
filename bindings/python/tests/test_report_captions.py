"""Promise: the caption that the report says a sample is trained on is that of a loader in epoch 0."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

import reporting
import tldr_loader as tldr
from conftest import add_member, png

COLOURS = ["red", "green", "blue"]
SEED = 5
SELECTION = tldr.Selection(keep_ratio=0.4, gate=tldr.Top(0.6), window=64)


class Judge:
    """A caption fits if it names the brightest channel."""

    preview_size, resize, batch_size, fingerprint = 8, "squash", 16, "judge"

    def score(self, previews: Any, captions: list[str]) -> Mapping[str, Any]:
        means = np.asarray(previews, np.float32).mean((2, 3)) + 1.0
        names = [COLOURS[int(row)] for row in means.argmax(1)]
        fits = [1.0 if name in text else 0.0 for name, text in zip(names, captions, strict=True)]
        spread = means.max(1) - means.min(1)
        return {"embedding": means - means.mean(), "alignment": np.array(fits) + spread / 1e6}


class Writer(Judge):
    """Writes captions too: right ones for every other sample."""

    fingerprint, caption_fingerprint = "writer", "one"

    def caption(self, previews: Any, ids: list[int]) -> list[str]:
        brightest = np.asarray(previews).mean((2, 3)).argmax(1)
        return [f"mostly {COLOURS[(int(row) + id % 2) % 3]}" for row, id in zip(brightest, ids, strict=False)]


@dataclass
class Corpus:
    """Pictures of one colour, of which a third have the caption of another, and a table of captions."""

    folder: Path
    writer: tldr.FittedScorer
    judge: tldr.FittedScorer

    def source(self, has_table: bool = True, **options: Any) -> tldr.Source:
        tables = {"table": self.folder / "table.jsonl"} if has_table else {}
        return tldr.Source(f"{self.folder}/shards/{{00000..00001}}.tar", captions=tables, **options)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("captions")
    (folder / "shards").mkdir()
    draw = np.random.default_rng(1)
    rows = []
    for shard in range(2):
        with tarfile.open(folder / "shards" / f"{shard:05d}.tar", "w") as tar:
            for at in range(90):
                key, colour = f"{shard}{at:04d}", at % 3
                said = COLOURS[colour if at % 4 else (colour + 1) % 3]
                pixels = draw.integers(0, 60, (20, 24, 3), dtype=np.uint8)
                pixels[..., colour] += 150
                texts = [f"a {said} picture number {at}", f"{said} and nothing else", f"{said}: {at}"]
                add_member(tar, f"{key}.png", png(pixels))
                add_member(tar, f"{key}.txt", texts[0].encode())
                add_member(tar, f"{key}.json", json.dumps({"texts": texts}).encode())
                if at % 5:
                    rows.append({"key": key, "caption": [f"table {key}", f"another {key}"]})
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    urls = f"{folder}/shards/{{00000..00001}}.tar"
    writer = tldr.fit(urls, Writer(), folder / "writer", clusters=3)
    return Corpus(folder, writer, tldr.fit(urls, Judge(), folder / "judge", clusters=3))


@dataclass
class Both:
    """What a loader gave in epoch 0, by id, and what the report says."""

    stats: tldr.Stats
    given: dict[str, tuple[str, bool, float | None]]
    model: dict[str, Any]
    page: Path

    @property
    def kept(self) -> list[dict[str, Any]]:
        return [one for one in self.model["samples"] if one["outcome"] == "kept"]


def both(
    corpus: Corpus, folder: Path, fuse: str, reading: dict[str, Any] | None = None, **captions: Any
) -> Both:
    # A loader refuses a table that it does not need.
    source = corpus.source(has_table="table" in fuse, **(reading or {}))
    judge = corpus.judge if "gated" in fuse or captions.get("rescue") else None
    loader = tldr.Loader(
        source,
        captioner=corpus.writer,
        selection=SELECTION,
        captions=tldr.Captions(fuse=fuse, judge=judge, **captions),
        images=tldr.Images(image_size=16),
        batch_size=4,
        seed=SEED,
        ledger=folder / "ledger",
    )
    given = {}
    for batch in loader:
        rows = zip(batch.ids, batch.captions, batch.rescued, batch.judged, strict=True)
        given.update({str(id): (text, rescued, score) for id, text, rescued, score in rows})
    made = tldr.report(
        corpus.source(**(reading or {})),
        ledger=folder / "ledger",
        captioner=corpus.folder / "writer",
        selection=SELECTION,
        seed=SEED,
        captions=tldr.Captions(fuse=fuse, **captions),
        out=folder / "report.html",
    )
    return Both(loader.stats(), given, json.loads(made.json.read_text()), made.out)


@pytest.mark.parametrize(
    "fuse",
    [
        "original",
        "generated",
        "table",
        "concat(4)",
        "concat(4, other=table)",
        "best(0.7)",
        "coin(0.5)",
        "coin({0: 0.3, 2: 0.9}, other=table)",
        "gated(0.3)",
        "mix({original: 0.3, generated: 0.4, table: 0.3})",
    ],
)
@pytest.mark.parametrize("choice", ["first", "random", "all"])
def test_the_caption_of_epoch_0_is_that_of_a_loader(
    corpus: Corpus, tmp_path: Path, fuse: str, choice: Any
) -> None:
    found = both(corpus, tmp_path, fuse, {"caption_key": "texts", "caption_choice": choice})
    facts = found.model["captions"]
    is_drawn = fuse.startswith(("coin", "mix", "gated")) or choice == "random"
    assert facts["changes"] == is_drawn
    told = [one for one in found.kept if one["id"] in found.given]
    assert len(told) > 20
    for one in told:
        assert one["trained_on"] == found.given[one["id"]][0], one["sentence"]
    texts = {one["trained_on"] for one in told}
    assert len(texts) > (2 if fuse == "generated" else 10)
    if fuse.startswith(("coin(0.5", "mix", "gated")):
        written = sum(text.startswith("mostly") for one in told for text in [one["trained_on"]])
        assert 0 < written < len(told)


def test_what_is_rescued_is_marked_and_counted(corpus: Corpus, tmp_path: Path) -> None:
    found = both(corpus, tmp_path, "gated(0.3)", rescue=True)
    funnel, counts = found.model["funnel"], found.stats["counts"]
    assert (funnel["kept"], funnel["gate"], funnel["quota"]) == (
        counts["kept"],
        counts["dropped_gate"],
        counts["dropped_quota"],
    )
    facts = found.model["captions"]
    assert found.stats["rescued"] > 3
    assert f"the gate had dropped {found.stats['rescued']} samples" in facts["rescue"]
    assert "A judge scored the generated captions of " in facts["judges"]
    back = [found.model["samples"][at] for at in facts["rescued"]]
    assert len(back) == found.stats["rescued"]
    for one in found.kept:
        text, rescued, score = found.given.get(one["id"], (one.get("trained_on"), False, None))
        if one["id"] not in found.given:
            continue
        assert one.get("rescued", False) == rescued
        assert one["trained_on"] == text
        if score is not None:
            assert one["judged"] == pytest.approx(score)
    assert all(one["rescued"] and one["trained_on"] == one["generated"] for one in back)


def test_a_ledger_without_a_judge_says_so(corpus: Corpus, tmp_path: Path) -> None:
    facts = both(corpus, tmp_path, "coin(0.5)").model["captions"]
    assert facts["judges"] == "The ledger has no judge's scores of generated captions."
    assert facts["rescue"] is None
    assert facts["rescued"] == []


def test_captions_are_shown_where_the_tokenizer_cuts_them(corpus: Corpus, tmp_path: Path) -> None:
    found = both(corpus, tmp_path, "concat(2)")
    assert not found.model["captions"]["is_cut"]
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    texts = [one["caption"] for one in found.kept] + [f"mostly {name};" for name in COLOURS]
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=specials))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = tmp_path / "run.toml"
    for fuse in ("original", "concat(1)"):
        config.write_text(
            f"""
            seed = {SEED}
            ledger = "{tmp_path}/ledger"
            captioner = "{corpus.folder}/writer"
            tokenizer = "{tmp_path}/tokenizer.json"
            [[sources]]
            urls = "{corpus.folder}/shards/{{00000..00001}}.tar"
            [selection]
            keep_ratio = 0.4
            gate = "top(0.6)"
            window = 64
            [captions]
            fuse = "{fuse}"
            context_length = 5
            """
        )
        command = ["report", "--config", config, "--out", tmp_path / "cut.html"]
        done = subprocess.run(
            [sys.executable, "-m", "tldr_loader._command", *map(str, command)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        model = json.loads((tmp_path / "cut.json").read_text())
        assert model["captions"]["is_cut"]
        kept = [one for one in model["samples"] if "trained_on" in one]
        assert len(kept) > 20
        # Five tokens are three words and the two that a tokenizer puts around them.
        for one in kept:
            if fuse == "original":
                assert one["trained_on"] + one["cut"] == one["caption"]
                assert one["cut"].startswith(" number")
            else:
                assert (one["trained_on"], one.get("cut")) == ("a; mostly", None)


def test_the_page_says_which_caption_it_is(corpus: Corpus, tmp_path: Path) -> None:
    with reporting.chromium() as browser:
        found = both(corpus, tmp_path, "gated(0.3)", rescue=True)
        seen = reporting.opened(browser, found.page)
        rows = seen.page.locator("#captions .caption-row")
        back = found.model["captions"]["rescued"]
        marked = seen.page.locator("#captions .caption-row .is-rescued")
        assert marked.count() >= len(back)
        text = rows.first.inner_text()
        assert "rescued" in text
        assert "trained on in epoch 0, before the tokenizer cuts it at 77 tokens: mostly" in text
        score = found.model["samples"][back[0]]["judged"]
        assert f"the judge says {float(f'{score:.3g}'):g}" in text
        # The words of a table that are not in the original are marked as those of the generated caption are.
        shown = found.model["captions"]["shown"]
        other = next(at for at in shown if found.model["samples"][at].get("others"))
        row = seen.page.locator(f'#captions .caption-row[data-sample="{other}"]').last
        assert "table: table" in row.inner_text().replace("\n", " ")
        assert "table" in row.locator("ins").all_text_contents()
        assert seen.said == []
