"""Odd archives give the samples that Python's own tarfile and gzip find in them."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import flat

BLOCK = 512


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(out, "JPEG")
    return out.getvalue()


def archive(keys: list[str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for key in keys:
            for name, data in ((f"{key}.jpg", jpeg()), (f"{key}.txt", b"a caption")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def signed(data: bytes) -> bytes:
    """With checksums of signed bytes, as some old tars write them."""
    changed = bytearray(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        headers = [member.offset for member in tar]
    for at in headers:
        block = bytearray(changed[at : at + BLOCK])
        block[148:156] = b" " * 8
        total = sum(byte - 256 if byte > 127 else byte for byte in block)
        changed[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(changed)


def theirs(path: Path) -> list[str]:
    with tarfile.open(path, ignore_zeros=True) as tar:
        return [name.removesuffix(".txt") for name in tar.getnames() if name.endswith(".txt")]


def ours(path: Path) -> list[str]:
    loader = flat.loader(path, mode="eval", batch_size=64, image_size=8)
    found = [key for batch in loader for key in batch.keys]
    stats = loader.stats()
    assert sum(stats["counts"]["failed"].values()) == 0, stats["failures"]
    assert stats["skipped_bytes"] == {}
    return found


@pytest.mark.parametrize(
    "data",
    [
        signed(archive(["café", "naïve", "plain"])),
        archive(["a", "b"]) + archive(["c"]),
        archive(["a", "b"])[: 8 * BLOCK + 2 * BLOCK] + archive(["c"]),
        gzip.compress(archive(["a", "b"])) + bytes(3000),
        gzip.compress(archive(["a", "b"])) + bytes(700) + gzip.compress(archive(["c"])) + bytes(1),
    ],
    ids=["signed", "seam", "short seam", "zeros behind", "zeros between"],
)
def test_odd_archives_are_tarfiles(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "00000.tar"
    path.write_bytes(data)
    assert ours(path) == theirs(path)
    assert len(ours(path)) >= 2
