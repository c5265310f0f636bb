"""Pixels come out as pillow and torch would make them."""

from __future__ import annotations

import ctypes
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip import image_transform
from PIL import Image, ImageOps

import flat
import tldr_loader as tldr
from conftest import add_member
from tldr_loader import _native

ORIENTATION = 0x0112


def picture() -> Image.Image:
    """24 x 16, different in every corner."""
    rows, columns = np.mgrid[0:16, 0:24]
    red = np.where(rows < 8, 10 * columns, 0)
    return Image.fromarray(np.stack([red, 15 * rows, 255 - 5 * columns - 5 * rows], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str, orientation: int | None = None) -> bytes:
    by_kind: dict[str, dict[str, Any]] = {
        "PNG": {},
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 95, "subsampling": 0},
    }
    options = by_kind[kind]
    if orientation is not None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options = {**options, "exif": exif}
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(path: Path, images: list[bytes], **options: Any) -> torch.Tensor:
    with tarfile.open(path, "w") as tar:
        for i, data in enumerate(images):
            add_member(tar, f"{i}.jpg", data)
            add_member(tar, f"{i}.txt", b"a caption")
    options = {"image_size": 32, **options}
    options = {"mode": "eval", **options}
    loader = flat.loader(path, batch_size=len(images), **options)
    (batch,) = list(loader)
    return batch.images


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_exif_orientation_is_pillows(tmp_path: Path, kind: str) -> None:
    given = [encoded(picture(), kind, orientation) for orientation in range(1, 9)]
    upright = [ImageOps.exif_transpose(Image.open(io.BytesIO(data))) for data in given]
    turned = pixels(
        tmp_path / "a.tar", given, dtype="uint8", transform="preview", exif_orientation=True
    ).int()
    expected = pixels(
        tmp_path / "b.tar",
        [encoded(image.convert("RGB"), "PNG") for image in upright],
        dtype="uint8",
        transform="preview",
    ).int()
    assert torch.equal(turned, expected)
    # Left alone by default: all eight are the same picture.
    as_stored = pixels(tmp_path / "c.tar", given, dtype="uint8", transform="preview")
    assert torch.equal(as_stored, as_stored[:1].expand_as(as_stored))


def test_scaled_decoding_stays_close_and_leaves_small_pictures_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    large = [encoded(photograph(rng, 1600, 1200), "JPEG") for _ in range(4)]
    small = [encoded(photograph(rng, 640, 480), "JPEG") for _ in range(4)]

    def train(images: list[bytes], scaled: bool) -> torch.Tensor:
        options = {"image_size": 224, "dtype": "uint8", "mode": "full", "scaled_decoding": scaled}
        return pixels(tmp_path / "a.tar", images, lanes=1, **options).int()

    difference = (train(large, True) - train(large, False)).abs().float()
    # Half the size is another filter, and moves a crop by up to half a pixel of 800.
    assert 0 < difference.mean() < 4
    # A crop of 640x480 is not twice 224 at half its size.
    assert torch.equal(train(small, True), train(small, False))
    with pytest.raises(tldr.ConfigError, match="invalid scaled_decoding=true"):
        pixels(tmp_path / "b.tar", small, scaled_decoding=True)


def test_libjpeg_turbo_is_linked_for_ourselves_alone() -> None:
    """Pillow's and torchvision's libjpeg must not be met by ours, nor ours by theirs."""
    assert not hasattr(ctypes.CDLL(_native.__file__), "jpeg_CreateDecompress")


def test_bfloat16_is_float32_rounded(tmp_path: Path) -> None:
    images = [encoded(picture(), "PNG"), encoded(picture().rotate(90, expand=True), "PNG")]
    full = pixels(tmp_path / "a.tar", images)
    half = pixels(tmp_path / "b.tar", images, dtype="bfloat16")
    assert (full.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(full.bfloat16(), half)


def photograph(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Waves of several lengths, edges and some noise: what resizing can get wrong."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [
        60 * np.sin(columns / rng.uniform(3, 40)) + 40 * np.cos(rows / rng.uniform(3, 40)) for _ in range(3)
    ]
    pixels = 120 + np.stack(waves, axis=-1) + rng.uniform(-10, 10, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.uniform(0, 255, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def openstax() -> list[bytes]:
    """Real images, JPEG and PNG, where they are at hand; without those with transparency."""
    data = os.environ.get("TLDR_DATA", str(Path(__file__).parents[4] / "shared" / "data"))
    found = []
    for shard in sorted(Path(data, "openstax").glob("*.tar"))[:2]:
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and member.name.endswith((".jpg", ".png")):
                    encoded_image = file.read()
                    if Image.open(io.BytesIO(encoded_image)).mode in ("RGB", "L"):
                        found.append(encoded_image)
    return found


def test_the_eval_transform_is_open_clips(tmp_path: Path) -> None:
    """Mean difference below 1/255 and no pixel off by more than 6/255, before normalisation."""
    rng = np.random.default_rng(0)
    sizes = [(640, 480), (333, 500), (224, 224), (100, 301), (1000, 225), (61, 47)]
    drawn = [photograph(rng, *size) for size in sizes]
    images = [encoded(image, kind, None) for image in drawn for kind in ("PNG", "JPEG")]
    real = openstax()
    if not real:
        print("skipped for real images: none at hand (set TLDR_DATA to the folder of real shards)")
    images += real
    size = 224
    theirs = image_transform(size, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    expected = torch.stack([theirs(Image.open(io.BytesIO(data))) for data in images])
    given = pixels(tmp_path / "a.tar", images, image_size=size, mean=(0, 0, 0), std=(1, 1, 1))
    difference = (given - expected).abs() * 255
    assert difference.mean(dim=(1, 2, 3)).max() < 1
    assert difference.max() <= 6
