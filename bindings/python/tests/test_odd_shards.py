"""Corners of real corpora: several captions, names as WebDataset reads them, equal names, checksums."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tldr_loader as tldr
from conftest import SIZE, add_member, png
from tldr_loader._jobs import Checksums

IMAGES = tldr.Images(image_size=SIZE)


def picture(number: int) -> bytes:
    return png(np.full((SIZE, SIZE, 3), number % 256, np.uint8))


def shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            add_member(tar, name, data)
    return path


def texts(loader: tldr.Loader, epoch: int = 0) -> dict[str, str]:
    """The caption of each key in an epoch."""
    loader.set_epoch(epoch)
    return {key: caption for batch in loader for key, caption in zip(batch.keys, batch.captions, strict=True)}


def samples(keys: list[str], **fields: Any) -> list[tuple[str, bytes]]:
    members = []
    for number, key in enumerate(keys):
        own = {name: field(key) if callable(field) else field for name, field in fields.items()}
        members += [
            (f"{key}.png", picture(number)),
            (f"{key}.txt", f"text of {key}".encode()),
            (f"{key}.json", json.dumps(own).encode()),
        ]
    return members


KEYS = [f"{i:03}" for i in range(48)]


def captions(key: str) -> list[str]:
    return [f"{key} {i}" for i in range(3)]


@pytest.mark.parametrize("where", ["json", "parquet", "table", "rows"])
def test_lists_of_captions_that_pyarrow_and_json_wrote(tmp_path: Path, where: str) -> None:
    path = shard(tmp_path / "c" / "0.tar", samples(KEYS, **({"all": captions} if where == "json" else {})))
    table = pa.table(
        {
            "key": KEYS,
            "status": ["success"] * len(KEYS),
            "all": [captions(key) for key in KEYS],
            "caption": [[None, *captions(key)] for key in KEYS],
        }
    )
    options: dict[str, Any] = {"caption_key": "all"}
    names = {key: key for key in KEYS}
    if where == "parquet":
        pq.write_table(table, tmp_path / "c" / "0.parquet", row_group_size=7)
    elif where == "table":
        pq.write_table(table.drop_columns(["all"]), tmp_path / "captions.parquet", row_group_size=5)
        options = {"captions": {"side": tmp_path / "captions.parquet"}, "caption_key": "side"}
    elif where == "rows":
        # Images in the file itself, as Hugging Face datasets have them.
        path = tmp_path / "rows.parquet"
        rows = {"image": [picture(i) for i in range(48)], "caption": [captions(key) for key in KEYS]}
        pq.write_table(pa.table(rows), path, row_group_size=9)
        options, names = {}, {f"{i:09}": key for i, key in enumerate(KEYS)}

    def read(choice: Any) -> tldr.Loader:
        source = tldr.Source(path, caption_choice=choice, **options)
        return tldr.Loader(source, mode="full", batch_size=8, images=IMAGES)

    assert texts(read("first")) == {name: captions(key)[0] for name, key in names.items()}
    assert texts(read("all")) == {name: "; ".join(captions(key)) for name, key in names.items()}
    loader = read("random")
    drawn = [texts(loader, epoch) for epoch in range(20)]
    for name, key in names.items():
        # Missed in 20 epochs with probability 3 (2/3)^20 = 0.1%; 48 keys, and the seed is fixed.
        assert {of[name] for of in drawn} == set(captions(key))
    assert texts(read("random"), 7) == drawn[7]
    with pytest.raises(tldr.ConfigError, match="caption_choice=best: expected one of first, random, all"):
        read("best")


def names_of(path: Path) -> dict[str, set[str]]:
    """Keys and extensions, as WebDataset groups them."""
    webdataset = pytest.importorskip("webdataset")
    iterate = webdataset.tariterators
    with path.open("rb") as file:
        members = ({**member, "__url__": str(path)} for member in iterate.tar_file_iterator(file))
        groups = iterate.group_by_keys(members)
        return {group["__key__"]: {name for name in group if not name.startswith("__")} for group in groups}


def test_names_are_read_as_webdataset_reads_them(tmp_path: Path) -> None:
    pair = [("png", picture(0)), ("txt", b"x")]
    stems = ["__meta__/a", "d/__meta__/b", "__x__", "./__meta__/c", "__meta/d", "__/e", "d.1/f", "g.2"]
    path = shard(tmp_path / "0.tar", [(f"{stem}.{end}", data) for stem in stems for end, data in pair])
    expected = names_of(path)
    found = tldr.inspect(path)
    whole = {key for key, ends in expected.items() if {"png", "txt"} <= ends}
    assert whole == {"d/__meta__/b", "__x__", "./__meta__/c", "__meta/d", "__/e", "d.1/f"}
    assert (found.groups, found.samples) == (len(expected), len(whole))
    (fault,) = found.shards[0].failures
    assert (fault["key"], fault["reason"]) == ("g", "missing-image")
    assert expected["g"] == {"2.png", "2.txt"}
    assert "g.2.png is no image, since keys end at the first dot of the file name" in fault["detail"]


def test_sources_of_one_folder_name_are_told_apart_by_their_names(tmp_path: Path) -> None:
    one = shard(tmp_path / "a" / "data" / "0.tar", samples(KEYS, alt=lambda key: f"one {key}", w=int))
    two = shard(tmp_path / "b" / "data" / "0.tar", samples(KEYS, title=lambda key: f"two {key}", h=int))
    kept = tmp_path / "subset.txt"
    kept.write_text("\n".join(KEYS[:20]))

    def sources(*names: str | None) -> list[tldr.Source]:
        return [
            tldr.Source(one, name=names[0], caption_key="alt", where="w >= 16"),
            tldr.Source(two, name=names[1], caption_key="title", subset=kept),
        ]

    def load(*names: str | None) -> tldr.Loader:
        return tldr.Loader(sources(*names), mode="eval", batch_size=8, images=IMAGES)

    for names in [(None, None), ("x", "x"), ("data", None)]:
        with pytest.raises(
            tldr.ConfigError, match=r"has the identity (data|x)/0\.tar of .*a name= of its own"
        ):
            load(*names)
    for names in [("a", "b"), ("a", None)]:
        loader = load(*names)
        rows = [
            (int(id), caption)
            for batch in loader
            for id, caption in zip(batch.ids, batch.captions, strict=True)
        ]
        expected = [f"one {key}" for key in KEYS[16:]] + [f"two {key}" for key in KEYS[:20]]
        assert sorted(caption for _, caption in rows) == sorted(expected)
        assert len({id for id, _ in rows}) == len(expected)
        counts = loader.stats()["counts"]
        assert (counts["excluded"], counts["failed"]) == (16 + 28, {})


def test_checksums_are_compared(tmp_path: Path) -> None:
    own = {key: hashlib.sha256(picture(number)).hexdigest() for number, key in enumerate(KEYS)}
    own["003"] = hashlib.sha256(b"as downloaded").hexdigest()
    path = shard(tmp_path / "json" / "0.tar", samples(KEYS, sha256=own.get))
    found = tldr.inspect(path, checksums=True)
    assert found.checksums == Checksums(same=47, different=1, absent=0)
    assert found.shards[0].checksums == found.checksums
    assert found.shards[0].different == ["003"]
    assert found.faults == ["1 image with another checksum"]
    with pytest.raises(tldr.DataError, match="expected no fault at all, found 1 image with another checksum"):
        tldr.inspect(path, checksums=True, strict=True)
    plain = tldr.inspect(path, strict=True)
    assert (plain.checksums, plain.faults, plain.shards[0].different) == (None, [], [])
    assert (plain.shards[0].listed, plain.shards[0].listed_in, plain.shards[0].listed_by) == (
        None,
        None,
        None,
    )
    # Beside the shard, as img2dataset writes it too; the file gives the lengths as well.
    path = shard(tmp_path / "parquet" / "0.tar", samples(KEYS))
    table = pa.table({"key": KEYS, "status": ["success"] * 48, "sha256": [own[key] for key in KEYS]})
    beside = tmp_path / "parquet" / "0.parquet"
    pq.write_table(table, beside)
    found = tldr.inspect(path, checksums=True)
    assert found.checksums == Checksums(same=47, different=1, absent=0)
    of = found.shards[0]
    assert (of.listed, of.listed_in, of.listed_by) == (48, str(beside), ".parquet")


def test_members_apart_are_named(tmp_path: Path) -> None:
    keys = KEYS[:5]
    images = [(f"{key}.png", picture(0)) for key in keys]
    path = shard(tmp_path / "0.tar", images + [(f"{key}.txt", b"x") for key in keys])
    found = tldr.inspect(path)
    assert found.failed == {"missing-caption": 5, "members-apart": 5}
    first, last = found.shards[0].failures[0], found.shards[0].failures[-1]
    assert "later in the shard: they are not adjacent" in first["detail"]
    assert "sort the tar by name" in last["detail"]
    # As it says.
    with tarfile.open(path) as tar:
        read = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    assert tldr.inspect(shard(tmp_path / "sorted.tar", sorted(read.items()))).samples == 5
