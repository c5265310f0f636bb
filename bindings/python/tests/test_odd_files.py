"""Promise: what is odd about a file, `tldr-loader inspect` says, so that its output alone tells what to do.

Each file is made here, and is one that people have: from bug reports of webdataset, img2dataset and
open_clip, from copies that broke off, and from the test files of other readers. `None`: the file is in order,
and read whole.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from conftest import add_member, png

RNG = np.random.default_rng(7)
PIXELS = RNG.integers(0, 255, (24, 32, 3), dtype=np.uint8)
PNG = png(PIXELS)

Members = list[tuple[str, bytes]]
Made = dict[str, bytes]


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


JPEG = encoded(Image.fromarray(PIXELS), "JPEG", quality=95)


def tar(members: Members, form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in members:
            add_member(archive, name, data)
    return out.getvalue()


def pair(key: str, image: bytes = PNG, extension: str = "png", caption: bytes = b"a caption") -> Members:
    return [(f"{key}.{extension}", image), (f"{key}.txt", caption)]


def one(image: bytes, extension: str) -> Made:
    """A whole sample, then one with the image."""
    return {"0.tar": tar(pair("000") + pair("001", image, extension))}


def captioned(caption: bytes) -> Made:
    return {"0.tar": tar(pair("000") + pair("001", caption=caption))}


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG, with their kinds."""
    found, at = [], 8
    while at < len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        found.append((data[at + 4 : at + 8], data[at : at + 12 + size]))
        at += 12 + size
    return found


def without_end(data: bytes) -> bytes:
    return data[:8] + b"".join(chunk for kind, chunk in chunks(data) if kind != b"IEND")


def signed_checksum() -> bytes:
    """A header with a name outside ASCII whose checksum an old tar made of signed bytes."""
    whole = bytearray(tar(pair("caf\u00e9"), tarfile.USTAR_FORMAT))
    for at in (0, 512 + -(-len(PNG) // 512) * 512):
        header = bytearray(whole[at : at + 512])
        header[148:156] = b" " * 8
        total = sum(byte - 256 if byte > 127 else byte for byte in header)
        whole[at + 148 : at + 156] = f"{total:06o}\0 ".encode()
    return bytes(whole)


def body(members: Members) -> bytes:
    """An archive without its end marker."""
    return tar(members)[: sum(512 + -(-len(data) // 512) * 512 for _, data in members)]


def bad_pax() -> bytes:
    """An extended header whose size is no number, before the second sample."""
    record = b"17 size=no number\n"
    header = tarfile.TarInfo("PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    return (
        body(pair("000"))
        + header.tobuf(tarfile.USTAR_FORMAT)
        + record.ljust(512, b"\0")
        + tar(pair("001") + pair("002"))
    )


def sparse() -> bytes:
    member = tarfile.TarInfo("000.png")
    member.type = tarfile.GNUTYPE_SPARSE
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def parquet(**columns: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


ROWS = parquet(image=pa.array([PNG] * 3, pa.binary()), text=["one", "two", "three"])
HTML = (
    b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head><body>" + b"x" * 2000 + b"</body></html>"
)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"
LZ4 = bytes.fromhex("04224d18") + bytes(2000)
FRAMES = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
TURNED = Image.Exif()
TURNED[0x0112] = 6


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("000.png", PNG)
    return out.getvalue()


# Name, the files, what the output has to say (`None`: nothing is wrong).
ODD: list[tuple[str, Callable[[], Made], str | None]] = [
    # Pixels.
    ("a png without its end", lambda: one(without_end(PNG), "png"), None),
    ("a png cut in its pixels", lambda: one(PNG[: len(PNG) // 2], "png"), "001.*undecodable-image"),
    (
        "a jpeg cut with an end behind",
        lambda: one(JPEG[: len(JPEG) // 2] + b"\xff\xd9", "jpg"),
        "001.*undecodable",
    ),
    ("a webp that is turned", lambda: one(encoded(FRAMES[0], "WEBP", exif=TURNED.tobytes()), "webp"), None),
    (
        "an animated png",
        lambda: one(encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "png"),
        None,
    ),
    (
        "an animated webp",
        lambda: one(encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), "webp"),
        None,
    ),
    ("transparent pixels", lambda: one(encoded(FRAMES[0].convert("RGBA"), "PNG"), "png"), None),
    ("cmyk", lambda: one(encoded(FRAMES[0].convert("CMYK"), "JPEG"), "jpg"), None),
    ("a picture of no bytes", lambda: one(b"", "jpg"), "001.*undecodable-image"),
    (
        "a web page for a picture",
        lambda: one(HTML, "jpg"),
        "001.*undecodable-image.*(?i:html|no image|format)",
    ),
    (
        "a gif by another name",
        lambda: one(encoded(FRAMES[0], "GIF"), "jpg"),
        "001.*undecodable-image.*(?i:gif)",
    ),
    (
        "a png that says it is huge",
        lambda: one(
            PNG[:16]
            + struct.pack(">II", 100_000, 100_000)
            + PNG[24:29]
            + struct.pack(">I", zlib.crc32(PNG[12:16] + struct.pack(">II", 100_000, 100_000) + PNG[24:29]))
            + PNG[33:],
            "png",
        ),
        "001.*image-too-large",
    ),
    # Archives.
    ("a checksum of signed bytes", lambda: {"0.tar": signed_checksum()}, None),
    ("zeros behind gzip", lambda: {"0.tar.gz": gzip.compress(tar(pair("000"))) + bytes(5000)}, None),
    ("two archives in one", lambda: {"0.tar": tar(pair("000")) + tar(pair("001"))}, None),
    (
        "two gzips in one",
        lambda: {"0.tar.gz": gzip.compress(tar(pair("000"))) + gzip.compress(tar(pair("001")))},
        None,
    ),
    ("a line of text", lambda: {"0.tar": b"not found\n"}, r"0\.tar.*(?i:tar)"),
    ("a pointer of git lfs", lambda: {"0.tar": LFS}, r"0\.tar.*(?i:lfs)"),
    ("a web page for a shard", lambda: {"0.tar": HTML}, r"0\.tar.*(?i:html|web page)"),
    ("a zip", lambda: {"0.tar": zipped()}, r"0\.tar.*(?i:zip)"),
    ("bzip2", lambda: {"0.tar": bz2.compress(tar(pair("000")))}, r"0\.tar.*(?i:bz2|bzip2)"),
    ("xz", lambda: {"0.tar": lzma.compress(tar(pair("000")))}, r"0\.tar.*(?i:xz)"),
    ("lz4", lambda: {"0.tar": LZ4}, r"0\.tar.*(?i:lz4)"),
    ("a size that is no number", lambda: {"0.tar": bad_pax()}, "(?i:pax|damaged|skipped|size)"),
    ("zeros", lambda: {"0.tar": bytes(1 << 20)}, "no usable sample"),
    ("a tar cut in a member", lambda: {"0.tar": tar(pair("000") + pair("001"))[:-11000]}, "truncated-sample"),
    ("a sparse member", lambda: {"0.tar": sparse()}, "(?i:sparse)"),
    # Keys.
    (
        "dots in names",
        lambda: {"0.tar": tar([*pair("000"), ("v1.0.a.png", PNG), ("v1.0.a.txt", b"a caption")])},
        "(?i:dot)",
    ),
    (
        "members of a sample apart",
        lambda: {"0.tar": tar([("000.png", PNG), ("001.png", PNG), ("000.txt", b"a"), ("001.txt", b"b")])},
        "(?i:adjacent|apart|together|next to)",
    ),
    ("a folder of meta files", lambda: {"0.tar": tar([("__meta__/info.json", b"{}"), *pair("000")])}, None),
    ("a key twice", lambda: {"0.tar": tar(pair("000") + pair("001") + pair("000"))}, "000.*repeated-key"),
    # Captions.
    ("a caption in latin-1", lambda: captioned("voil\u00e0".encode("latin-1")), "001.*caption-not-utf8"),
    ("an empty caption", lambda: captioned(b" \n"), "001.*empty-caption"),
    (
        "a sample without a caption",
        lambda: {"0.tar": tar([*pair("000"), ("001.png", PNG)])},
        "001.*missing-caption",
    ),
    # Files beside.
    (
        "another number of samples",
        lambda: {"0.tar": tar(pair("000")), "sizes.json": b'{"0.tar": 2}'},
        r"1 samples?.*sizes\.json.*2",
    ),
    # Parquet.
    ("images in parquet", lambda: {"0.parquet": ROWS}, None),
    ("a parquet file cut short", lambda: {"0.parquet": ROWS[:-50]}, r"0\.parquet.*cut off"),
    (
        "a parquet file of urls",
        lambda: {"0.parquet": parquet(url=["a"], caption=["b"])},
        "no.*images|images.*none",
    ),
    ("a tar that says it is parquet", lambda: {"0.parquet": tar(pair("000"))}, r"0\.parquet.*Parquet"),
    ("a parquet file that says it is a tar", lambda: {"0.tar": ROWS}, r"0\.tar.*(?i:parquet)"),
]


def inspected(shard: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tldr_loader._command", "inspect", "--decode", *options, str(shard)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize(("files", "said"), [odd[1:] for odd in ODD], ids=[odd[0] for odd in ODD])
def test_inspect_explains(files: Callable[[], Made], said: str | None, tmp_path: Path) -> None:
    made = files()
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    status, output = inspected(tmp_path / next(iter(made)), "--strict")
    if said is None:
        assert status == 0, output
        assert re.search("faults +none", output), output
    else:
        assert status == 1, output
        assert re.search(said, output, re.DOTALL), output


def test_inspect_compares_checksums(tmp_path: Path) -> None:
    def sample(key: str, sha: str) -> Members:
        return [*pair(key), (f"{key}.json", json.dumps({"sha256": sha}).encode())]

    good = hashlib.sha256(PNG).hexdigest()
    (tmp_path / "0.tar").write_bytes(tar(sample("000", good) + sample("001", "0" * 64)))
    status, output = inspected(tmp_path / "0.tar", "--checksums")
    assert status == 0, output
    assert re.search("sha256 +1 equal, 1 different", output), output
    assert re.search(r"another sha256.*001", output), output
    assert inspected(tmp_path / "0.tar", "--checksums", "--strict")[0] == 1
