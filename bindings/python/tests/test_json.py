"""Promise: what Python's json module reads is read, to the same values; what it refuses fails by name."""

from __future__ import annotations

import json
import logging
import math
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flat
from conftest import add_member, png

DOCUMENTS = 2000


def value(rng: random.Random, depth: int = 0) -> Any:
    """Anything that `json.dumps` writes."""
    kind = rng.randrange(11 if depth < 3 else 8)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([math.nan, math.inf, -math.inf])
    if kind == 2:
        return rng.choice(
            [0, -1, 7, 2**53, 2**64, -(2**70), 10**400, 1e-320, 1.5, -0.0, 1.7976931348623157e308]
        )
    if kind == 3:
        return rng.uniform(-1, 1) * 10 ** rng.randint(-12, 12)
    if kind < 8:
        return text(rng)
    if kind < 10:
        return [value(rng, depth + 1) for _ in range(rng.randrange(3))]
    return {text(rng): value(rng, depth + 1) for _ in range(rng.randrange(3))}


def text(rng: random.Random) -> str:
    points = [
        ord("a"),
        ord(" "),
        ord('"'),
        ord("\\"),
        0x1F,
        0xE9,
        0x2028,
        0xD83D,
        0xDE00,
        0x1F98A,
        ord("N"),
        ord("{"),
    ]
    return "".join(chr(rng.choice(points)) for _ in range(rng.randrange(6)))


def document(rng: random.Random, number: int) -> bytes:
    """A document with a caption, a score, and more; now and then a damaged one."""
    fields = {text(rng): value(rng) for _ in range(rng.randrange(4))}
    fields |= {
        "caption": f"caption {number} " + text(rng) + ".",
        "score": rng.choice([math.nan, math.inf, -math.inf, rng.uniform(0, 2), rng.randint(0, 2)]),
    }
    items = list(fields.items())
    rng.shuffle(items)
    written = json.dumps(dict(items), ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 2]))
    if rng.random() < 0.3:
        at = rng.randrange(len(written))
        edit = rng.choice(["", "NaN", "-", "1e999", "\\ud800", '"', "Infinity", ",", "0", "nan"])
        written = written[:at] + edit + written[at + rng.randrange(2) :]
    encoded = written.encode("utf-8", "surrogatepass")
    return b"\xef\xbb\xbf" + encoded if rng.random() < 0.2 else encoded


def python(encoded: bytes) -> dict[str, Any] | None:
    """What Python reads."""
    try:
        found = json.loads(encoded)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def plain(caption: str) -> str:
    """A text as ftfy makes it of halves of surrogate pairs."""
    return caption.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@pytest.fixture(scope="module")
def documents() -> list[bytes]:
    rng = random.Random(5)
    return [document(rng, number) for number in range(DOCUMENTS)]


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory, documents: list[bytes]) -> Path:
    path = tmp_path_factory.mktemp("json") / "00000.tar"
    image = png(np.zeros((2, 2, 3), dtype=np.uint8))
    with tarfile.open(path, "w") as tar:
        for number, encoded in enumerate(documents):
            add_member(tar, f"{number:05}.png", image)
            add_member(tar, f"{number:05}.json", encoded)
    return path


def test_captions_are_those_that_python_reads(shard: Path, documents: list[bytes]) -> None:
    expected = {}
    for number, encoded in enumerate(documents):
        fields = python(encoded)
        if fields is not None and isinstance(fields.get("caption"), str) and fields["caption"].strip():
            expected[f"{number:05}"] = plain(fields["caption"])
    loader = flat.loader(
        shard, mode="eval", caption_key="caption", image_size=2, batch_size=100, max_errors=DOCUMENTS
    )
    found = {
        key: caption for batch in loader for key, caption in zip(batch.keys, batch.original, strict=True)
    }
    assert found.keys() == expected.keys()
    for key, caption in expected.items():
        assert found[key].strip() == caption.strip().lstrip("\ufeff"), documents[int(key)]
    assert DOCUMENTS * 0.7 < len(expected) < DOCUMENTS * 0.95, "neither all nor few are whole"
    failed = loader.stats()["counts"]["failed"]
    assert sum(failed.values()) == DOCUMENTS - len(expected)


def test_numbers_are_those_that_python_reads(shard: Path, documents: list[bytes]) -> None:
    def keys(where: str) -> set[str]:
        loader = flat.loader(
            shard,
            mode="eval",
            caption_key="caption",
            where=where,
            image_size=2,
            batch_size=100,
            max_errors=DOCUMENTS,
        )
        found = {key for batch in loader for key in batch.keys}
        nans = loader.stats()["not_numbers"].get("score", 0)
        assert nans == sum(is_nan(python(encoded)) for encoded in documents)
        return found

    def is_nan(fields: dict[str, Any] | None) -> bool:
        score = (fields or {}).get("score")
        return isinstance(score, float) and math.isnan(score)

    def expected(passes: Any) -> set[str]:
        found = set()
        for number, encoded in enumerate(documents):
            fields = python(encoded) or {}
            score = fields.get("score")
            is_number = isinstance(score, (int, float)) and not isinstance(score, bool)
            if isinstance(fields.get("caption"), str) and is_number and passes(score):
                found.add(f"{number:05}")
        return found

    assert keys("score >= 1") == expected(lambda score: score >= 1)
    assert keys("score < 1") == expected(lambda score: score < 1)
    assert keys("score > 1000000000") == expected(lambda score: score > 1e9)


def test_a_table_of_lines_is_read_likewise(tmp_path: Path, shard: Path, documents: list[bytes]) -> None:
    lines, expected = [], {}
    for number, encoded in enumerate(documents):
        fields = python(encoded)
        if fields is None or not isinstance(fields.get("caption"), str):
            continue
        row = {"key": f"{number:05}", "caption": fields["caption"], "loss": math.nan, "more": fields}
        lines.append(json.dumps(row))
        expected[f"{number:05}"] = plain(fields["caption"]).strip()
    (tmp_path / "table.jsonl").write_text("\ufeff" + "\n".join(lines))
    loader = flat.loader(
        shard,
        mode="eval",
        captions={"side": tmp_path / "table.jsonl"},
        caption_key="side",
        image_size=2,
        batch_size=100,
        max_errors=DOCUMENTS,
    )
    found = {
        key: caption.strip()
        for batch in loader
        for key, caption in zip(batch.keys, batch.original, strict=True)
    }
    assert found == expected


def table(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def test_tables_that_join_little_and_rows_without_a_name_are_warned_of(
    tmp_path: Path, shard: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few: list[dict[str, Any]] = [{"key": f"{number:05}"} for number in range(50)] + [
        {"key": f"x{number}"} for number in range(1950)
    ]
    few.insert(1, {"key": math.nan})
    path = table(tmp_path, "few.jsonl", few)
    with caplog.at_level(logging.WARNING):
        flat.loader(shard, mode="eval", caption_key="caption", subset=path, image_size=2, batch_size=50)
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "1 of 2001 rows have no key and are skipped; the first is row 2" in said, said
    assert "subset=2000 entries, by key: 50 of 2000 samples that were looked at are in it" in said, said
    assert 'first entry has the key "00000"' in said, said
    assert 'the first sample that was looked at "00000"' in said, said


def test_the_first_nan_is_warned_of(shard: Path, caplog: pytest.LogCaptureFixture) -> None:
    loader = flat.loader(
        shard,
        mode="eval",
        caption_key="caption",
        where="score > 0",
        image_size=2,
        batch_size=8,
        max_errors=DOCUMENTS,
    )
    with caplog.at_level(logging.WARNING):
        iterator = iter(loader)
        next(iterator)
        del iterator
    said = [record.getMessage() for record in caplog.records]
    assert any('"score" is NaN: it counts as no value' in message for message in said), said


def test_nan_in_a_parquet_file_is_no_value_either(tmp_path: Path) -> None:
    scores = [math.nan, math.inf, -math.inf, 0.25, 0.75, None, *np.linspace(0, 1, 58).tolist()]
    image = png(np.zeros((2, 2, 3), dtype=np.uint8))
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for number in range(len(scores)):
            # As `tar -cf 00000.tar .` names members; the table has plain keys.
            add_member(tar, f"./{number:03}.png", image)
            add_member(tar, f"./{number:03}.txt", b"a caption")
    columns = {
        "key": [f"{number:03}" for number in range(len(scores))],
        "score": pa.array(scores, pa.float64()),
    }
    pq.write_table(pa.table({**columns, "status": ["success"] * len(scores)}), tmp_path / "00000.parquet")
    conditions: list[tuple[str, Callable[[float | None], bool]]] = [
        ("score >= 0.5", lambda score: score is not None and score >= 0.5),
        ("score < 0.5", lambda score: score is not None and score < 0.5),
        ("score is null", lambda score: score is None or math.isnan(score)),
    ]
    for where, passes in conditions:
        loader = flat.loader(tmp_path, mode="eval", where=where, image_size=2, batch_size=8)
        found = {key for batch in loader for key in batch.keys}
        assert found == {f"./{number:03}" for number, score in enumerate(scores) if passes(score)}, where
        assert loader.stats()["not_numbers"] == {"score": 1}
