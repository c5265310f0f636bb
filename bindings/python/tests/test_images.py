"""Pixels come out as pillow and torch would make them."""

from __future__ import annotations

import ctypes
import io
import os
import struct
import tarfile
import warnings
import zlib
from collections.abc import Callable
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


XMP = '<x:xmpmeta><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def tiff(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes().removeprefix(b"Exif\0\0")


def png_with(*chunks: tuple[bytes, bytes], after_pixels: bool = False) -> bytes:
    """A PNG with more chunks, before or after its pixels."""
    data = saved(picture(), "PNG")
    at = len(data) - 12 if after_pixels else data.index(b"IDAT") - 4
    more = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return data[:at] + more + data[at:]


def riff(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def webp_pixels(image: Image.Image, **options: Any) -> bytes:
    """The chunks of a still WebP that hold its pixels."""
    data, at, found = saved(image, "WEBP", **options), 12, b""
    while at < len(data):
        kind, (size,) = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])
        if kind in (b"VP8 ", b"VP8L", b"ALPH"):
            found += webp_chunk(kind, data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    return found


def canvas(width: int, height: int, flags: int) -> bytes:
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides)


def webp_with(flags: int, *chunks: tuple[bytes, bytes]) -> bytes:
    more = b"".join(webp_chunk(kind, body) for kind, body in chunks)
    return riff(canvas(24, 16, flags) + webp_pixels(picture(), lossless=True) + more)


def jpeg_with(*segments: bytes) -> bytes:
    data = saved(picture(), "JPEG", quality=95, subsampling=0)
    more = b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in segments)
    return data[:2] + more + data[2:]


def places(value: int) -> list[bytes]:
    """Images that say an orientation in every place that PIL looks at, and in some that it does not."""
    exif, xmp = tiff(value), XMP.format(value).encode()
    element = f"<tiff:Orientation>{value}</tiff:Orientation>".encode()
    key, raw = b"XML:com.adobe.xmp\0", b"Raw profile type exif\0"
    text = f"\nexif\n{len(exif):8}\n{(b'Exif' + bytes(2) + exif).hex()}\n".encode()
    segment = b"http://ns.adobe.com/xap/1.0/\0"
    return [
        webp_with(0x08, (b"EXIF", exif)),
        webp_with(0x08, (b"EXIF", b"Exif\0\0" + exif)),
        webp_with(0x00, (b"EXIF", exif)),
        webp_with(0x04, (b"XMP ", xmp)),
        webp_with(0x0C, (b"EXIF", tiff(1)), (b"XMP ", xmp)),
        png_with((b"eXIf", exif)),
        png_with((b"eXIf", exif), after_pixels=True),
        png_with((b"tEXt", raw + text)),
        png_with((b"zTXt", raw + b"\0" + zlib.compress(text))),
        png_with((b"iTXt", key + b"\0\0\0\0" + xmp)),
        png_with((b"iTXt", key + b"\0\0\0\0" + element), after_pixels=True),
        png_with((b"iTXt", key + b"\1\0en\0x\0" + zlib.compress(xmp))),
        png_with((b"tEXt", key + xmp)),
        png_with((b"tEXt", key + xmp), (b"eXIf", tiff(1))),
        jpeg_with(segment + xmp),
        jpeg_with(segment + element),
        jpeg_with(b"Exif\0\0" + exif, segment + XMP.format(1).encode()),
        jpeg_with(b"Exif\0\0" + tiff(1), segment + xmp),
    ]


@pytest.mark.parametrize("value", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_an_orientation_is_found_where_pillow_finds_it(tmp_path: Path, value: int) -> None:
    given = places(value)
    upright = [ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB") for data in given]
    if 2 <= value <= 8:
        turned = [
            image.tobytes() != Image.open(io.BytesIO(data)).convert("RGB").tobytes()
            for image, data in zip(upright, given, strict=True)
        ]
        assert turned.count(False) == 4, "one is not announced, three say otherwise by EXIF"
    options = {"dtype": "uint8", "transform": "preview"}
    found = pixels(tmp_path / "a.tar", given, exif_orientation=True, **options).int()
    expected = pixels(tmp_path / "b.tar", [saved(image, "PNG") for image in upright], **options).int()
    assert torch.equal(found, expected)


def see_through(seed: int = 0) -> Image.Image:
    """Noise whose upper third is transparent and lower third opaque."""
    noise = np.random.default_rng(seed).integers(0, 256, (15, 12, 4), dtype=np.uint8)
    noise[:5, :, 3], noise[10:, :, 3] = 0, 255
    return Image.fromarray(noise)


def with_alpha() -> list[bytes]:
    image = see_through()
    palette = image.convert("RGB").quantize(16)
    corner = image.convert("RGB").getpixel((0, 0))
    grey = image.convert("L")
    return [
        saved(image, "PNG"),
        saved(image.convert("LA"), "PNG"),
        saved(palette, "PNG", transparency=3),
        saved(palette, "PNG", transparency=bytes(range(0, 240, 15))),
        saved(image.convert("RGB"), "PNG", transparency=corner),
        saved(grey, "PNG", transparency=grey.getpixel((0, 0))),
        saved(image.convert("1"), "PNG", transparency=0),
        saved(image, "WEBP", lossless=True, exact=True),
    ]


def on(background: int) -> Callable[[Image.Image], Image.Image]:
    def composited(image: Image.Image) -> Image.Image:
        rgba = np.asarray(image.convert("RGBA")).astype(np.uint32)
        colour, alpha = rgba[..., :3], rgba[..., 3:]
        return Image.fromarray(((colour * alpha + background * (255 - alpha) + 127) // 255).astype(np.uint8))

    return composited


def dropped(image: Image.Image) -> Image.Image:
    with warnings.catch_warnings():
        # "Palette images with Transparency expressed in bytes should be converted to RGBA images"
        warnings.simplefilter("ignore")
        return Image.fromarray(np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("alpha", "truth"), [("white", on(255)), ("black", on(0)), ("drop", dropped)])
def test_alpha_is_what_is_asked_for(
    tmp_path: Path, alpha: str, truth: Callable[[Image.Image], Image.Image]
) -> None:
    given = with_alpha()
    options = {"dtype": "uint8", "transform": "preview"}
    found = pixels(tmp_path / "a.tar", given, alpha=alpha, **options).int()
    shown = [saved(truth(Image.open(io.BytesIO(data))), "PNG") for data in given]
    expected = pixels(tmp_path / "b.tar", shown, **options).int()
    assert torch.equal(found, expected)
    if alpha == "white":
        assert torch.equal(pixels(tmp_path / "c.tar", given, **options).int(), expected)


def animated() -> list[bytes]:
    """Files of several pictures, and of a first picture smaller than its canvas."""
    clear, solid = [see_through(i) for i in range(3)], [see_through(i).convert("RGB") for i in range(3)]
    files = [
        saved(clear[0], "PNG", save_all=True, append_images=clear[1:]),
        saved(solid[0], "PNG", save_all=True, append_images=solid[1:]),
        saved(clear[0], "PNG", save_all=True, append_images=clear[1:], default_image=True),
        saved(clear[0], "WEBP", save_all=True, append_images=clear[1:], lossless=True, exact=True),
        saved(solid[0], "WEBP", save_all=True, append_images=solid[1:], lossless=True),
        saved(solid[0], "MPO", save_all=True, append_images=solid[1:], quality=95, subsampling=0),
    ]
    for image in (clear[0], solid[0]):
        for flags in (0x02, 0x12):
            for blending in (0, 2):
                place = struct.pack("<I", 2)[:3] + struct.pack("<I", 1)[:3]
                sides = struct.pack("<I", 11)[:3] + struct.pack("<I", 14)[:3]
                frame = place + sides + struct.pack("<I", 50)[:3] + bytes([blending])
                frame += webp_pixels(image, lossless=True, exact=True)
                background = webp_chunk(b"ANIM", b"\x10\x20\x30\xff\0\0")
                files.append(riff(canvas(20, 24, flags) + background + webp_chunk(b"ANMF", frame)))
    return files


def test_of_several_pictures_the_first_is_taken(tmp_path: Path) -> None:
    given = animated()
    options = {"dtype": "uint8", "transform": "preview"}
    found = pixels(tmp_path / "a.tar", given, alpha="drop", **options).int()
    first = [saved(dropped(Image.open(io.BytesIO(data))), "PNG") for data in given]
    assert torch.equal(found, pixels(tmp_path / "b.tar", first, **options).int())


def test_a_png_may_lack_what_follows_its_pixels(tmp_path: Path) -> None:
    whole = saved(photograph(np.random.default_rng(0), 64, 48), "PNG")
    options = {"dtype": "uint8", "transform": "preview", "max_errors": 1.0}
    # Its end chunk, the checksum of the pixels' chunk, that of the pixels.
    for cut in (1, 12, 16, 20):
        Image.open(io.BytesIO(whole[:-cut])).load()
        found = pixels(tmp_path / "a.tar", [whole, whole[:-cut]], **options)
        assert torch.equal(found[0], found[1])
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(whole[:-40])).load()
    found = pixels(tmp_path / "b.tar", [whole, whole[:-40]], **options)
    assert len(found) == 1


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


@pytest.mark.parametrize(("transform", "resize_mode"), [("eval", "shortest"), ("squash", "squash")])
def test_the_transforms_of_evaluation_are_open_clips(
    tmp_path: Path, transform: str, resize_mode: str
) -> None:
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
    theirs = image_transform(size, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=resize_mode)
    expected = torch.stack([theirs(Image.open(io.BytesIO(data))) for data in images])
    options = {"transform": transform, "image_size": size, "mean": (0, 0, 0), "std": (1, 1, 1)}
    given = pixels(tmp_path / "a.tar", images, **options)
    difference = (given - expected).abs() * 255
    assert difference.mean(dim=(1, 2, 3)).max() < 1
    assert difference.max() <= 6
