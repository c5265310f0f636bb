"""Draws the images of tests/golden/images and what Pillow and open_clip make of them.

    .venv/bin/python tests/golden/images.py

NAME.EXT is an image, NAME.decoded.png its pixels as RGB (Pillow; alpha composited on white,
16-bit samples cut to their high byte), NAME.eval.png open_clip's eval transform to 48 px before
normalisation. Made with Pillow 13.0, open_clip 3.3, torchvision 0.26.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import open_clip
from PIL import Image, ImageDraw
from torchvision.transforms import Compose, Normalize, ToTensor

OUT = Path(__file__).parent / "images"
SIZE = 48


def scene(width: int, height: int, seed: int) -> Image.Image:
    """A gradient with hard edges, thin lines and a noisy patch: what resizing gets wrong."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=-1)
    image = Image.fromarray(base.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x0, y0 = int(rng.integers(width)), int(rng.integers(height))
        color = tuple(int(c) for c in rng.integers(0, 256, 3))
        draw.ellipse([x0, y0, x0 + width // 4, y0 + height // 3], fill=color)
        draw.line([x0, 0, width - x0, height], fill=color, width=1)
    patch = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    image.paste(Image.fromarray(patch), (width // 2, height // 2))
    return image


def png(width: int, height: int, bits: int, color_type: int, raw: bytes, extra: bytes = b"") -> bytes:
    """A PNG whose sample depth Pillow cannot write; `raw` holds the rows without filter bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    stride = len(raw) // height
    rows = b"".join(b"\0" + raw[i * stride : (i + 1) * stride] for i in range(height))
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def on_white(image: Image.Image) -> Image.Image:
    rgba = np.asarray(image.convert("RGBA")).astype(np.uint32)
    alpha = rgba[..., 3:]
    return Image.fromarray(((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8))


def main() -> None:
    OUT.mkdir(exist_ok=True)
    transform = open_clip.image_transform(SIZE, is_train=False)
    to_pixels = Compose([t for t in transform.transforms if not isinstance(t, (ToTensor, Normalize))])

    def expect(name: str, decoded: Image.Image, with_eval: bool) -> None:
        decoded.save(OUT / f"{name}.decoded.png", optimize=True)
        if with_eval:
            to_pixels(decoded).save(OUT / f"{name}.eval.png", optimize=True)

    # Photographs, as it were: encoded lossily, of odd sizes, shrunk, enlarged, of every shape.
    wide, tall, small = scene(157, 101, 1), scene(83, 211, 2), scene(37, 29, 3)
    for name, image, options in [
        ("420-wide.jpg", wide, {"quality": 85}),
        ("444-tall.jpg", tall, {"quality": 90, "subsampling": 0}),
        (
            "422-progressive.jpg",
            wide,
            {"quality": 75, "subsampling": 1, "progressive": True},
        ),
        ("420-small.jpg", small, {"quality": 95, "optimize": True}),
        ("grey.jpg", tall.convert("L"), {"quality": 80}),
        ("cmyk.jpg", wide.convert("CMYK"), {"quality": 92}),
        ("lossy.webp", wide, {"quality": 80, "method": 4}),
        ("lossless.webp", small, {"lossless": True}),
        ("rgb.png", tall, {}),
    ]:
        image.save(OUT / name, **options)
        expect(
            name.replace(".", "-"),
            Image.open(OUT / name).convert("RGB"),
            with_eval=True,
        )

    # Every other colour type, small.
    w, h = 22, 18
    rgb = scene(w, h, 4)
    ramp = np.linspace(0, 255, w * h).reshape(h, w).astype(np.uint8)
    rgba = np.dstack([np.asarray(rgb), ramp])
    grey16 = np.linspace(0, 65535, w * h).reshape(h, w).astype(">u2")
    rgb16 = np.stack([grey16, grey16[::-1], grey16[:, ::-1]], axis=-1).astype(">u2")
    palette = rgb.quantize(16)
    files = {
        "grey.png": (rgb.convert("L"), None),
        "bilevel.png": (rgb.convert("1"), None),
        "palette.png": (palette, None),
        "rgba.png": (Image.fromarray(rgba), on_white(Image.fromarray(rgba))),
        "grey-alpha.png": (
            Image.fromarray(rgba).convert("LA"),
            on_white(Image.fromarray(rgba).convert("LA")),
        ),
        "alpha.webp": (Image.fromarray(rgba), None),
    }
    for name, (image, expected) in files.items():
        options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
        image.save(OUT / name, **options)
        read = Image.open(OUT / name)
        expected = expected or (on_white(read) if read.mode == "RGBA" else read.convert("RGB"))
        expect(name.replace(".", "-"), expected, with_eval=False)
    palette.save(OUT / "palette-transparent.png", transparency=3)
    expect(
        "palette-transparent-png",
        on_white(Image.open(OUT / "palette-transparent.png")),
        with_eval=False,
    )
    (OUT / "grey16.png").write_bytes(png(w, h, 16, 0, grey16.tobytes()))
    expect(
        "grey16-png",
        Image.fromarray((grey16 >> 8).astype(np.uint8)).convert("RGB"),
        with_eval=False,
    )
    (OUT / "rgb16.png").write_bytes(png(w, h, 16, 2, rgb16.tobytes()))
    expect("rgb16-png", Image.fromarray((rgb16 >> 8).astype(np.uint8)), with_eval=False)
    rgba16 = np.concatenate([rgb16, grey16[..., None]], axis=-1).astype(">u2")
    (OUT / "rgba16.png").write_bytes(png(w, h, 16, 6, rgba16.tobytes()))
    expect(
        "rgba16-png",
        on_white(Image.fromarray((rgba16 >> 8).astype(np.uint8))),
        with_eval=False,
    )


if __name__ == "__main__":
    main()
