"""The jobs of the command line in Python: the same results, of a type."""

from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import Path
from typing import get_args, get_origin, get_type_hints, is_typeddict

import pyarrow.parquet as pq
import pytest
from PIL import Image

import tldr_loader as tldr
from conftest import SIZE, Corpus, add_member


@pytest.fixture(scope="module")
def captioner(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captioner") / "captioner"
    made = tldr.Captioner.train(corpus.urls, path, preset="tiny", epochs=1, batch_size=20, vocab_size=300)
    made.fit(corpus.urls, clusters=4)
    return path


def test_shards_are_inspected(corpus: Corpus) -> None:
    said: list[tuple[str, int, int]] = []
    found = tldr.inspect(corpus.urls, decode=True, progress=lambda *at: said.append(at))
    assert (found.samples, found.groups, len(found.shards)) == (len(corpus.pairs), len(corpus.pairs), 4)
    assert (found.width.min, found.width.max, found.height.mean) == (SIZE, SIZE, SIZE)
    assert found.shards[0].samples == 50
    assert found.shards[0].error is None
    assert said[-1] == ("inspect", 4, 4)
    some = tldr.inspect(tldr.Source(corpus.urls, where="nothing = 1"))
    assert (some.samples, some.failed) == (0, {"excluded": len(corpus.pairs)})
    with pytest.raises(tldr.ConfigError, match="nowhere"):
        tldr.inspect("nowhere/x.tar")


def test_a_corpus_is_recorded_planned_exported_and_audited(
    corpus: Corpus, captioner: Path, tmp_path: Path
) -> None:
    ledger, out = tmp_path / "ledger", tmp_path / "plan.parquet"
    said: list[tuple[str, int, int]] = []
    half = tldr.record(corpus.urls, captioner=captioner, ledger=ledger, part=(0, 2))
    assert (half.shards, half.recorded, half.encoded) == (2, 2, 100)
    selection = tldr.Selection(keep_ratio=0.25, gate=tldr.Top(0.5))
    plan = tldr.plan(
        corpus.urls,
        captioner=tldr.Captioner.load(captioner),
        ledger=tldr.Ledger(ledger),
        out=out,
        selection=selection,
        seed=3,
        progress=lambda *at: said.append(at),
    )
    assert (plan.shards, plan.recorded, plan.encoded, plan.samples) == (4, 2, 100, len(corpus.pairs))
    assert 0 < plan.kept <= plan.slots == round(0.25 * plan.readable)
    assert {stage for stage, _, _ in said} >= {"look", "record"}
    loader = tldr.Loader(corpus.urls, plan=out, batch_size=4, images=tldr.Images(image_size=SIZE))
    keys = {key for batch in loader for key in batch.keys}
    # The table has what the plan keeps, of which a loader leaves out less than a batch.
    exported = tldr.export(tmp_path / "kept.parquet", ledger=ledger, plan=out)
    table = pq.read_table(tmp_path / "kept.parquet")
    assert exported.samples == table.num_rows == plan.kept
    assert keys <= set(table["key"].to_pylist())
    every = tldr.export(tmp_path / "keys.txt", ledger=ledger)
    assert every.samples == len((tmp_path / "keys.txt").read_text().split()) == plan.readable
    by_policy = tldr.export(tmp_path / "policy.txt", ledger=ledger, captioner=captioner, selection=selection)
    assert 0 < by_policy.samples < plan.readable
    audited = tldr.audit(ledger, captioner=captioner, selection=selection, seeds=200)
    assert "audited: the sampling" in audited.scope[0]
    assert not audited.broken
    assert any(check.holds for check in audited.checks)


def test_every_job_decodes_images_as_it_is_told(captioner: Path, tmp_path: Path) -> None:
    def picture(row: int) -> bytes:
        out = BytesIO()
        colour = (row * 5, 255 - row * 5, (row * 37) % 256, 0)
        Image.new("RGBA", (SIZE, SIZE), colour).save(out, "PNG")
        return out.getvalue()

    shard = tmp_path / "0.tar"
    with tarfile.open(shard, "w") as tar:
        for row in range(40):
            add_member(tar, f"{row:03d}.png", picture(row))
            add_member(tar, f"{row:03d}.txt", f"picture {row}".encode())
    drop = tldr.Images(alpha="drop")
    ledger = tmp_path / "ledger"
    for decoded in (None, drop):
        made = tldr.record(str(shard), captioner=captioner, ledger=ledger, images=decoded)
        assert made.encoded == 40

    def alignments(images: tldr.Images | None) -> list[float]:
        keys = [f"{row:03d}" for row in range(40)]
        full = tldr.Selection.full()
        found = tldr.explain(keys, ledger=ledger, captioner=captioner, selection=full, images=images)
        return [one.alignment for one in found if one.alignment is not None]

    # All pictures are the same on white, and others as their colours are stored.
    plain, dropped = alignments(None), alignments(drop)
    assert len(plain) == len(dropped) == 40
    assert plain != dropped
    images = tldr.Images(alpha="drop", image_size=SIZE)
    loader = tldr.Loader(str(shard), captioner=captioner, ledger=ledger, batch_size=1, images=images)
    for batch in loader:
        assert batch.alignment == [dropped[int(key)] for key in batch.keys]
    assert loader.stats()["encoded"] == 0
    # Pictures that are too large for what is asked can be used by none.
    tiny = tldr.Images(max_image_pixels=SIZE)
    with pytest.raises(tldr.TldrError, match=r"40 of 40 read"):
        tldr.Captioner.load(captioner).fit(str(shard), images=tiny)
    with pytest.raises(tldr.TldrError, match=r"can be decoded"):
        tldr.Captioner.train(str(shard), tmp_path / "new", preset="tiny", epochs=1, batch_size=4, images=tiny)


def test_what_cannot_work_is_named(corpus: Corpus, captioner: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with pytest.raises(
        tldr.ConfigError, match=r"^invalid ledger=a ledger in memory: expected the folder of one"
    ):
        tldr.record(corpus.urls, captioner=captioner, ledger=tldr.Ledger())
    with pytest.raises(tldr.ConfigError, match=r"^invalid part=2/2: expected i/n"):
        tldr.record(corpus.urls, captioner=captioner, ledger=ledger, part=(2, 2))
    with pytest.raises(tldr.ConfigError, match=r"^invalid rotate=true: expected false: a plan"):
        tldr.plan(
            corpus.urls,
            captioner=captioner,
            ledger=ledger,
            out=tmp_path / "p",
            selection=tldr.Selection(rotate=True),
        )
    with pytest.raises(tldr.ConfigError, match=r"^invalid plan=.*: it has no effect with captioner"):
        tldr.export(tmp_path / "x.txt", ledger=ledger, plan=tmp_path / "p", captioner=captioner)
    chosen = tldr.Selection(keep_ratio=0.5)
    with pytest.raises(tldr.ConfigError, match=r"^invalid selection=given: it has no effect with a plan"):
        tldr.export(tmp_path / "x.txt", ledger=ledger, plan=tmp_path / "p", selection=chosen)

    class Stopped(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        tldr.record(corpus.urls, captioner=captioner, ledger=ledger, progress=stop)


def types(kind: type, found: object, path: str = "stats") -> None:
    """Compares plain data with the TypedDict that it is said to be."""
    hints = get_type_hints(kind)
    assert isinstance(found, dict)
    assert hints.keys() == found.keys(), path
    for name, hint in hints.items():
        inner = [one for one in (hint, *get_args(hint)) if is_typeddict(one)]
        value = found[name]
        several = value if isinstance(value, list) else [value]
        if isinstance(value, dict) and get_origin(hint) is dict:
            several = list(value.values())
        for one in several:
            if inner and one is not None:
                types(inner[0], one, f"{path}.{name}")


def test_statistics_are_of_their_type(corpus: Corpus, captioner: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("".join(f"{pair.key}\n" for pair in corpus.pairs[:150]))
    loader = tldr.Loader(
        tldr.Source(corpus.urls, subset=tmp_path / "keys.txt"),
        captioner=captioner,
        selection=tldr.Selection(keep_ratio=0.25),
        batch_size=4,
        images=tldr.Images(image_size=SIZE),
    )
    for _ in loader:
        pass
    stats = loader.stats()
    types(tldr.Stats, stats)
    assert stats["subset"] is not None
    assert stats["gate"] is not None
    counts = stats["counts"]
    dropped = sum(
        count for name, count in counts.items() if name.startswith("dropped") and isinstance(count, int)
    )
    failed = sum(counts["failed"].values())
    assert counts["read"] == counts["kept"] + dropped + counts["excluded"] + failed == len(corpus.pairs)
    assert stats["yielded"] + stats["replayed"] == counts["kept"] + stats["repeats"] - stats["surplus"]
