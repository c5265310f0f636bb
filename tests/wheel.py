"""What an installed wheel of the core does of a small corpus, as hashes: the same on every processor.

    python tests/wheel.py FOLDER

Needs NumPy and the wheel, no torch. Two machines, or one and an emulated one, print the same last line.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import struct
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np

import tldr_loader as tldr


def png(red: int, green: int, blue: int) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + bytes([red, green, blue]) * 24 for _ in range(20))
    header = struct.pack(">IIBBBBB", 24, 20, 8, 2, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write(folder: Path) -> tldr.Source:
    """Two shards, and a table of scores."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = []
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for i in range(40):
                key = f"{shard}{i:04d}"
                scores.append(json.dumps({"key": key, "clip": (i * 7 % 40) / 40}))
                members = (("png", png(i * 6, 255 - i * 5, 90)), ("txt", f"picture {i}".encode()))
                for name, data in members:
                    member = tarfile.TarInfo(f"{key}.{name}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    (folder / "scores.jsonl").write_text("\n".join(scores))
    return tldr.Source(
        [str(folder / f"{shard:05d}.tar") for shard in range(2)],
        scores=str(folder / "scores.jsonl"),
        name="x",
    )


def main() -> None:
    folder = Path(sys.argv[1])
    source = write(folder)
    selection = tldr.Selection(keep_ratio=0.25, gate=tldr.Top(0.5, by="clip"))
    images, world = tldr.Images(image_size=16), tldr.World(lanes=1)
    loader = tldr.Loader(source, selection=selection, batch_size=4, images=images, world=world)
    keys, pixels = [], hashlib.sha256()
    for batch in loader:
        keys += batch.keys
        pixels.update(np.from_dlpack(batch.images).tobytes())
    ledger, plan = folder / "ledger", folder / "plan.parquet"
    kept = tldr.plan(source, ledger=ledger, out=plan, selection=selection).kept
    tldr.export(folder / "kept.txt", ledger=ledger, plan=plan, source=source)
    page = tldr.report(source, ledger=ledger, plan=plan, out=folder / "page.html")
    print(f"{platform.machine()}: {tldr.inspect(source, decode=True).samples} samples, {kept} planned")
    of_keys = hashlib.sha256(" ".join(keys).encode()).hexdigest()[:16]
    exported = hashlib.sha256((folder / "kept.txt").read_bytes()).hexdigest()[:16]
    print(f"keys {of_keys}, pixels {pixels.hexdigest()[:16]}, export {exported}, {page.pictures} pictures")


if __name__ == "__main__":
    main()
