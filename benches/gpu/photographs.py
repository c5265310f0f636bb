"""Shards of photographs, made of a few that are at hand: crops of them, compressed anew by libjpeg.

Few megabytes are carried to a machine, and a whole epoch is measured on it.
"""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bench
import machine
import numpy as np
from PIL import Image

Members = list[tuple[str, bytes]]


def carried(folders: Sequence[Path]) -> list[tuple[Image.Image, str]]:
    """Photographs of shards, decoded, with their captions."""
    found = []
    for shard in sorted(path for folder in folders for path in folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            members = {member.name: member for member in tar if member.isfile()}
            for name, member in members.items():
                caption = members.get(name.rsplit(".", 1)[0] + ".txt")
                if not name.endswith((".jpg", ".png")) or caption is None:
                    continue
                image, text = tar.extractfile(member), tar.extractfile(caption)
                assert image is not None
                assert text is not None
                decoded = Image.open(io.BytesIO(image.read())).convert("RGB")
                found.append((decoded, text.read().decode()))
    return found


def drawn(count: int, width: int, height: int) -> list[tuple[Image.Image, str]]:
    """As many bytes a pixel as photographs have: waves and noise, each with its own caption."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height, 0:width]
    words = ["calm", "steep", "broken", "long", "narrow", "pale", "dark", "bright"]
    found = []
    for number in range(count):
        wave = 60 * np.sin(columns / rng.uniform(20, 60)) + 40 * np.cos(rows / rng.uniform(5, 20))
        colour = rng.uniform(60, 160, 3)
        pixels = colour + wave[..., None] + rng.uniform(-18, 18, (height, width, 3))
        picked = " ".join(words[int(i)] for i in rng.integers(len(words), size=3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        found.append((image, f"{picked} waves, drawing {number}"))
    return found


def sample(number: int, originals: Sequence[tuple[Image.Image, str]], side: int | None) -> Members:
    """The members of one sample: the same for the same number and originals.

    Args:
        number: Which sample.
        originals: Photographs and captions, taken in turn.
        side: Longest side of the picture; `None` leaves it as it was cropped.
    """
    draw = random.Random(f"photograph {number}")
    image, caption = originals[number % len(originals)]
    width, height = (max(1, round(length * draw.uniform(0.7, 1.0))) for length in image.size)
    left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
    picture = image.crop((left, top, left + width, top + height))
    if side is not None:
        picture.thumbnail((side, side))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=draw.randint(85, 95))
    # A caption of its own: equal ones would be duplicates.
    return [(f"{number:08}.jpg", out.getvalue()), (f"{number:08}.txt", f"{caption} no. {number}".encode())]


def write_shards(folder: Path, samples: Iterable[Members], per_shard: int) -> tuple[int, int]:
    """Puts samples into shards; how many shards, and how many bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = total = 0
    tar: tarfile.TarFile | None = None
    for number, members in enumerate(samples):
        if number % per_shard == 0:
            if tar is not None:
                tar.close()
            tar = tarfile.open(folder / f"{shards:05}.tar", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            shards += 1
        assert tar is not None
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            total += len(data)
    if tar is not None:
        tar.close()
    return shards, total


def make(
    folder: Path,
    originals: Sequence[tuple[Image.Image, str]],
    samples: int,
    per_shard: int,
    side: int | None = None,
) -> bench.Fields:
    """Writes a corpus of so many photographs; what it is, in numbers."""
    # Pillow gives up Python's lock while it compresses.
    with ThreadPoolExecutor(machine.threads()) as pool:
        made = pool.map(lambda number: sample(number, originals, side), range(samples))
        shards, total = write_shards(folder, made, per_shard)
    return {
        "samples": samples,
        "originals": len(originals),
        "shards": shards,
        "kb_per_sample": bench.digits(total / samples / 1000),
    }
