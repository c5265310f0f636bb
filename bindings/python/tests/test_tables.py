"""Promise: tables that other tools write, by pyarrow and numpy, are joined as they come."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import flat
import tldr_loader as tldr
from conftest import SIZE, add_member, png

COUNT = 120
UIDS = [f"{(i * 0x9E3779B97F4A7C15) % 2**64:016x}{i:016x}" for i in range(COUNT)]
KEYS = [f"{i:05d}" for i in range(COUNT)]
# Neither is exact in binary: conditions compare with the number that was written.
SCORES = [((7 * i) % COUNT) / 100 for i in range(COUNT)]
CLASSES = [i % 7 for i in range(COUNT)]


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for i in range(shard * COUNT // 2, (shard + 1) * COUNT // 2):
                fields = {"uid": UIDS[i], "width": 100 + i, "ratio": 0.5 if i % 2 else None, "tags": ["a"]}
                add_member(tar, f"{KEYS[i]}.png", png(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)))
                add_member(tar, f"{KEYS[i]}.txt", f"number {i}".encode())
                add_member(tar, f"{KEYS[i]}.json", json.dumps(fields).encode())
    return f"{folder}/{{00000..00001}}.tar"


def loader(urls: str, **options: Any) -> tldr.Loader:
    lanes = {} if options.get("mode") == "eval" else {"lanes": 1}
    return flat.loader(urls, **{"batch_size": 1, "image_size": SIZE, **lanes, **options})


def keys(loader: tldr.Loader) -> set[str]:
    return {key for batch in loader for key in batch.keys}


def halves(uids: list[str]) -> list[tuple[int, int]]:
    return [(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The scores in each form, as pyarrow, pandas' users and numpy write them."""
    folder = tmp_path_factory.mktemp("tables")
    single = np.array(SCORES, np.float32)
    of_uids = {"uid": UIDS, "text": ["a"] * COUNT, "clip_l14": SCORES, "aesthetic": single}
    pq.write_table(pa.table(of_uids), folder / "uid.parquet")
    pq.write_table(
        pa.table({"key": KEYS, "clip_l14": pa.array(SCORES), "ok": [True] * COUNT}), folder / "key.parquet"
    )
    pairs = list(zip(halves(UIDS), SCORES, strict=True))
    np.save(folder / "uid.npy", np.array(pairs, np.dtype([("uid", "u8,u8"), ("clip_l14", "f8")])))
    rows = list(zip(UIDS, SCORES, strict=True))
    np.save(folder / "text.npy", np.array(rows, np.dtype([("uid", "U32"), ("clip_l14", "f8")])))
    lines = (json.dumps({"uid": uid, "clip_l14": score}) + "\n" for uid, score in reversed(rows))
    (folder / "uid.jsonl").write_text("".join(lines))
    return {path.name: path for path in folder.iterdir()}


FORMS = ["uid.parquet", "key.parquet", "uid.npy", "text.npy", "uid.jsonl"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_known_to_conditions_gates_and_batches(
    urls: str, tables: dict[str, Path], form: str
) -> None:
    table = tables[form]
    passing = {key for key, score in zip(KEYS, SCORES, strict=True) if score >= 0.7}
    found = loader(urls, mode="eval", scores=table, where="clip_l14 >= 0.7")
    assert keys(found) == passing
    assert len(found) == len(passing)
    gated = loader(urls, scores=table, gate=tldr.AtLeast(0.7, by="clip_l14"), keep_ratio=len(passing) / COUNT)
    assert keys(gated) == passing
    best = loader(urls, scores=[table], gate=tldr.Top(0.25, by="clip_l14"), keep_ratio=0.25)
    ranked = sorted(range(COUNT), key=lambda i: SCORES[i], reverse=True)
    assert keys(best) == {KEYS[i] for i in ranked[: COUNT // 4]}
    for batch in loader(urls, mode="eval", scores=table, batch_size=8):
        scores = batch.scores["clip_l14"]
        expected = [SCORES[int(key)] for key in batch.keys]
        np.testing.assert_array_equal(scores.numpy(), np.array(expected, np.float32))


def test_a_table_of_single_precision_is_compared_as_it_is(urls: str, tables: dict[str, Path]) -> None:
    table = tables["uid.parquet"]
    # As pandas and DuckDB do: the f32 next to 0.7 is below 0.7.
    wide = np.array(SCORES, np.float32).astype(np.float64)
    expected = {key for key, score in zip(KEYS, wide, strict=True) if score >= 0.7}
    assert keys(loader(urls, mode="eval", scores=table, where="aesthetic >= 0.7")) == expected
    # A gate compares as f32, which scores are.
    passing = {key for key, score in zip(KEYS, SCORES, strict=True) if score >= 0.7}
    gate = tldr.AtLeast(0.7, by="aesthetic")
    assert keys(loader(urls, scores=table, gate=gate, keep_ratio=len(passing) / COUNT)) == passing


def test_fields_are_tensors_where_they_are_numbers_else_lists(urls: str, tables: dict[str, Path]) -> None:
    found = loader(
        urls,
        mode="eval",
        scores=tables["uid.npy"],
        fields=["width", "ratio", "tags", "nothing", "clip_l14", "uid"],
        batch_size=10,
    )
    rows = 0
    for batch in found:
        numbers = [int(key) for key in batch.keys]
        columns = {name: torch.as_tensor(batch.fields[name]) for name in ("width", "ratio", "clip_l14")}
        assert isinstance(batch.fields["width"], torch.Tensor)
        assert columns["width"].dtype == torch.int64
        assert columns["width"].tolist() == [100 + i for i in numbers]
        ratio = columns["ratio"].tolist()
        assert all(r == 0.5 if i % 2 else math.isnan(r) for i, r in zip(numbers, ratio, strict=True))
        assert batch.fields["tags"] == [["a"]] * len(numbers)
        assert batch.fields["nothing"] == [None] * len(numbers)
        assert batch.fields["uid"] == [UIDS[i] for i in numbers]
        assert columns["clip_l14"].tolist() == [SCORES[i] for i in numbers]
        rows += len(numbers)
    assert rows == COUNT


def test_a_plan_an_audit_and_an_export_need_no_captioner(
    urls: str, tables: dict[str, Path], tmp_path: Path
) -> None:
    source = tldr.Source(urls, scores=tables["uid.parquet"])
    selection = tldr.Selection(keep_ratio=0.25, gate=tldr.Top(0.5, by="clip_l14"))
    plan, ledger = tmp_path / "plan.parquet", tmp_path / "ledger"
    made = tldr.plan(source, ledger=ledger, out=plan, selection=selection)
    assert (made.kept, made.encoded, made.near_duplicates) == (COUNT // 4, 0, None)
    found = tldr.export(tmp_path / "kept.parquet", ledger=ledger, plan=plan)
    assert found.samples == COUNT // 4
    kept = pq.read_table(tmp_path / "kept.parquet").to_pylist()
    median = sorted(SCORES)[COUNT // 2]
    for row in kept:
        score = SCORES[int(row["key"])]
        assert score >= median
        assert row["score"] == pytest.approx(score)
    # The exported rows are a table of scores themselves, joined by id.
    again = loader(urls, mode="eval", scores=tmp_path / "kept.parquet", where="score is not null")
    assert keys(again) == {row["key"] for row in kept}
    by_policy = tldr.export(tmp_path / "policy.parquet", ledger=ledger, selection=selection)
    assert abs(by_policy.samples - COUNT // 4) <= 4
    audit = tldr.audit(ledger, selection=selection, seeds=200)
    assert all(check.holds is not False for check in audit.checks), audit
    trained = flat.loader(urls, plan=plan, lanes=1, batch_size=1, image_size=SIZE)
    assert keys(trained) == {row["key"] for row in kept}
    with pytest.raises(tldr.ConfigError, match=r"invalid gate=top.*captioner directory"):
        tldr.plan(
            source, ledger=ledger, out=plan, selection=tldr.Selection(keep_ratio=0.25, gate=tldr.Top(0.5))
        )


def test_sources_that_are_read_alike_are_planned_as_one(
    urls: str, tables: dict[str, Path], tmp_path: Path
) -> None:
    shards = [urls.replace("{00000..00001}", f"{shard:05d}") for shard in range(2)]
    sources = [tldr.Source(shard, scores=tables["key.parquet"]) for shard in shards]
    selection = tldr.Selection(keep_ratio=0.25, gate=tldr.Top(0.5, by="clip_l14"))
    made = tldr.plan(sources, ledger=tmp_path / "ledger", out=tmp_path / "plan", selection=selection)
    assert made.kept == COUNT // 4


def test_the_command_does_the_same(urls: str, tables: dict[str, Path], tmp_path: Path) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "tldr_loader._command", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    scores = f"--scores={tables['uid.npy']}"
    said = run(
        *(
            "plan",
            urls,
            scores,
            "--gate",
            "top(0.5, by=clip_l14)",
            "--ledger",
            "ledger",
            "--out",
            "plan.parquet",
        )
    )
    assert "30 of 120 readable samples kept" in said
    assert "without a captioner nothing tells them" in said
    run("export", "plan.parquet", "--ledger", "ledger", "--out", "kept.txt")
    assert len((tmp_path / "kept.txt").read_text().split()) == 30
    said = run("audit", "ledger", "--gate", "top(0.5, by=clip_l14)", "--seeds", "200")
    assert "BROKEN" not in said
    assert "inclusion is pi" in said


def test_captions_of_tables_by_name(urls: str, tmp_path: Path) -> None:
    blip2, llava = tmp_path / "blip2.parquet", tmp_path / "llava.jsonl"
    pq.write_table(pa.table({"uid": UIDS, "caption": [f"blip2 {i}" for i in range(COUNT)]}), blip2)
    llava.write_text("".join(json.dumps({"key": key, "caption": f"llava {key}"}) + "\n" for key in KEYS[:60]))
    captions = {"blip2": blip2, "llava": llava}
    own = {key: f"number {i}" for i, key in enumerate(KEYS)}

    def found(fuse: Any, **more: Any) -> dict[str, str]:
        made = loader(urls, keep_ratio=1.0, fuse=fuse, captions=captions, **more)
        return {key: text for batch in made for key, text in zip(batch.keys, batch.captions, strict=True)}

    mixed = found(tldr.Mix({"original": 0.4, "blip2": 0.3, "llava": 0.3}))
    for i, key in enumerate(KEYS):
        assert mixed[key] in {own[key], f"blip2 {i}", *([f"llava {key}"] if i < 60 else [])}
    kinds = {text.split()[0] for text in mixed.values()}
    assert kinds == {"number", "blip2", "llava"}
    for fuse in [
        "mix({blip2: 0.3, llava: 0.3, original: 0.4})",
        "Mix(shares={llava: 0.3, blip2: 0.3, original: 0.4})",
    ]:
        assert found(fuse) == mixed
    both = loader(urls, keep_ratio=1.0, fuse=tldr.Concat(9, other="blip2"), captions={"blip2": blip2})
    for batch in both:
        assert batch.captions == [f"number {int(key)}; blip2 {int(key)}" for key in batch.keys]
        assert batch.original == [own[key] for key in batch.keys]
    joined = both.stats()["captions"]["blip2"]
    assert joined == {"by": "uid", "entries": COUNT, "matched": COUNT, "samples": COUNT}
    coin = tldr.Coin({0: 0.0, 1: 1.0}, other="blip2")
    turns = loader(urls, keep_ratio=1.0, fuse=coin, captions={"blip2": blip2})
    first, second = ({text.split()[0] for batch in turns for text in batch.captions} for _ in range(2))
    assert (first, second) == ({"number"}, {"blip2"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"captions": "side.parquet"}, r"invalid captions=\"side.parquet\": expected files by name.*blip2"),
        ({"captions": {"best": "x.tsv"}}, r"invalid captions=\"best\": .*no other meaning"),
        ({"captions": {"a b": "x.tsv"}}, r"invalid captions=\"a b\""),
        (
            {"captions": {"a": "absent.tsv"}, "fuse": "a"},
            r"captions=.*absent.tsv.*a local file that is there",
        ),
        ({"fuse": "blip"}, r"invalid fuse=blip: .*\"blip\" is none; captions has no table"),
        ({"fuse": tldr.Mix({"original": 0.5})}, r"invalid fuse=mix.*sum to 1, not to 0.5"),
        ({"scores": "absent.npy"}, r"invalid scores=.*absent.npy.*a local file that is there"),
    ],
)
def test_what_cannot_be_meant_is_refused(urls: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(tldr.TldrError, match=says):
        loader(urls, keep_ratio=0.5, **options)


def test_bad_tables_name_what_is_wrong(urls: str, tmp_path: Path) -> None:
    for name, table, says in [
        ("unnamed.parquet", {"url": ["a"], "clip": [0.5]}, "none of these among its columns: url, clip"),
        ("words.parquet", {"uid": ["a"], "clip": ["high"]}, "no column of numbers beside uid"),
        ("twice.parquet", {"uid": ["a", "b", "a"], "clip": [0.5, 1.0, 0.6]}, "two rows for one uid, 1 and 3"),
    ]:
        pq.write_table(pa.table(table), tmp_path / name)
        with pytest.raises(tldr.DataError, match=f"scores=.*{name}.*{says}"):
            loader(urls, mode="eval", scores=tmp_path / name)
    strangers = {"uid": [f"{i:032x}" for i in range(1 << 40, (1 << 40) + 60)], "clip": [0.5] * 60}
    pq.write_table(pa.table(strangers), tmp_path / "strangers.parquet")
    with pytest.raises(
        tldr.ConfigError, match=r"invalid scores=60 entries, by uid.*what the corpus calls uid"
    ):
        loader(urls, mode="eval", scores=tmp_path / "strangers.parquet")
