"""Pixels come out as pillow and torch would make them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import tldr_loader as tldr
from conftest import add_member

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
    loader = tldr.Loader(path, mode="eval", batch_size=len(images), image_size=32, **options)
    (batch,) = list(loader)
    return batch.images


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_exif_orientation_is_pillows(tmp_path: Path, kind: str) -> None:
    given = [encoded(picture(), kind, orientation) for orientation in range(1, 9)]
    upright = [ImageOps.exif_transpose(Image.open(io.BytesIO(data))) for data in given]
    turned = pixels(
        tmp_path / "a.tar", given, pixels="uint8", transform="preview", exif_orientation=True
    ).int()
    expected = pixels(
        tmp_path / "b.tar",
        [encoded(image.convert("RGB"), "PNG") for image in upright],
        pixels="uint8",
        transform="preview",
    ).int()
    assert (turned - expected).abs().max() <= (6 if kind == "JPEG" else 0)
    # Left alone by default: all eight are the same picture.
    as_stored = pixels(tmp_path / "c.tar", given, pixels="uint8", transform="preview")
    assert torch.equal(as_stored, as_stored[:1].expand_as(as_stored))


def test_bfloat16_is_float32_rounded(tmp_path: Path) -> None:
    images = [encoded(picture(), "PNG"), encoded(picture().rotate(90, expand=True), "PNG")]
    full = pixels(tmp_path / "a.tar", images)
    half = pixels(tmp_path / "b.tar", images, pixels="bfloat16")
    assert (full.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(full.bfloat16(), half)
