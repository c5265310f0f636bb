"""Image-text pairs drawn on the device: two coloured shapes and a caption, of which a share is another's.

Unlike `tldr_loader.synth` it needs no minutes of a CPU for tens of thousands of pairs, and captions are wrong
in one way only: they are swapped.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import machine
import photographs
import torch
from PIL import Image
from torch import Tensor

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (40, 80, 220),
    "yellow": (230, 210, 50),
    "purple": (150, 60, 190),
    "orange": (240, 140, 40),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
SHAPES = ("circle", "square", "diamond", "ring", "cross", "bar")
SIZES = {"small": 0.11, "large": 0.19}
GROUNDS = {"grey": (128, 128, 128), "brown": (120, 80, 50), "pink": (240, 180, 190), "teal": (30, 120, 120)}
PLACES = ("left of", "above")
OBJECTS = len(SIZES) * len(COLOURS) * len(SHAPES)
SCENES = OBJECTS**2 * len(PLACES) * len(GROUNDS)
Number = TypeVar("Number", int, Tensor)
PIECE = 1024
"""Pictures that are drawn at a time."""


@dataclass(frozen=True)
class Corpus:
    """How many pairs, and what is wrong with them."""

    samples: int
    test_samples: int
    copies: int = 4
    """Pictures of each training scene, which differ in places and noise."""
    swapped: float = 0.5
    size: int = 64
    shards: int = 32
    seed: int = 0


def write(folder: Path, corpus: Corpus, device: str) -> dict[str, int]:
    """Writes `folder/train` and a clean `folder/test`, whose captions are distinct and unseen."""
    generator = torch.Generator(device).manual_seed(corpus.seed)
    distinct = -(-corpus.samples // corpus.copies)
    scenes = torch.randperm(SCENES, generator=generator, device=device)[: distinct + corpus.test_samples]
    test, known = scenes[: corpus.test_samples], scenes[corpus.test_samples :]
    # Copies of a scene lie anywhere.
    order = torch.randperm(distinct * corpus.copies, generator=generator, device=device)[: corpus.samples]
    train = known.repeat(corpus.copies)[order]
    wrong = torch.rand(corpus.samples, generator=generator, device=device) < corpus.swapped
    others = known[torch.randint(distinct, (corpus.samples,), generator=generator, device=device)]
    said = torch.where(wrong, others, train)
    for name, shown, told, shards in (
        ("train", train, said, corpus.shards),
        ("test", test, test, 1),
    ):
        samples = pairs(shown, told, corpus.size, generator)
        photographs.write_shards(folder / name, samples, -(-len(shown) // shards))
    # Another draw of the same scene is no mistake.
    swapped = int((said != train).sum())
    return {"samples": corpus.samples, "scenes": distinct, "swapped": swapped, "test_samples": len(test)}


def pairs(
    shown: Tensor, told: Tensor, size: int, generator: torch.Generator
) -> Iterator[photographs.Members]:
    """Members of samples that show one scene and tell of another, or of the same."""

    def jpeg(pixels: Tensor) -> bytes:
        out = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(out, "JPEG", quality=92)
        return out.getvalue()

    number = 0
    with ThreadPoolExecutor(machine.threads()) as pool:
        for piece, texts in zip(torch.split(shown, PIECE), torch.split(told, PIECE), strict=True):
            pictures = pool.map(jpeg, draw(piece, size, generator).cpu())
            for scene, text, picture in zip(piece.tolist(), texts.tolist(), pictures, strict=True):
                truth = {"scene": scene, "noise": "none" if scene == text else "swapped"}
                yield [
                    (f"{number:08}.jpg", picture),
                    (f"{number:08}.txt", caption(text).encode()),
                    (f"{number:08}.json", json.dumps(truth).encode()),
                ]
                number += 1


def parts(scenes: Number) -> tuple[Number, Number, Number, Number]:
    """Both objects, their places and the ground, of the numbers of scenes."""
    rest, ground = scenes // len(GROUNDS), scenes % len(GROUNDS)
    rest, place = rest // len(PLACES), rest % len(PLACES)
    return rest // OBJECTS, rest % OBJECTS, place, ground


def caption(scene: int) -> str:
    """What a scene is called; no two are called the same."""
    first, second, place, ground = parts(scene)

    def name(number: int) -> str:
        rest, shape = divmod(number, len(SHAPES))
        size, colour = divmod(rest, len(COLOURS))
        return f"a {list(SIZES)[size]} {list(COLOURS)[colour]} {SHAPES[shape]}"

    return f"{name(first)} {PLACES[place]} {name(second)} on {list(GROUNDS)[ground]}"


def draw(scenes: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Pictures of scenes, uint8 `[batch, size, size, 3]`; places and noise differ each time."""
    device, count = scenes.device, len(scenes)
    first, second, place, ground = parts(scenes)
    pixels = torch.tensor(list(GROUNDS.values()), device=device, dtype=torch.float32)[ground]
    pixels = pixels[:, None, None, :].expand(count, size, size, 3)
    axis = (torch.arange(size, device=device) + 0.5) / size
    across, down = axis[None, None, :], axis[None, :, None]
    for number, side in ((first, -0.23), (second, 0.23)):
        # 0 is left of and above.
        shift = torch.stack([(place == 0) * side, (place == 1) * side], 1)
        jitter = 0.1 * (torch.rand(count, 2, generator=generator, device=device) - 0.5)
        centre = 0.5 + shift + jitter
        radius = torch.tensor(list(SIZES.values()), device=device)[number // len(SHAPES) // len(COLOURS)]
        x, y = (
            (place_on - centre[:, axis_, None, None]) / radius[:, None, None]
            for axis_, place_on in enumerate((across, down))
        )
        inside = torch.stack(shapes(x, y), 1)[torch.arange(count, device=device), number % len(SHAPES)]
        colours = torch.tensor(list(COLOURS.values()), device=device, dtype=torch.float32)
        colour = colours[number // len(SHAPES) % len(COLOURS)][:, None, None, :]
        pixels = torch.where(inside[..., None], colour, pixels)
    noise = 20 * torch.randn(pixels.shape, generator=generator, device=device)
    return (pixels + noise).clamp(0, 255).to(torch.uint8)


def shapes(x: Tensor, y: Tensor) -> list[Tensor]:
    """Which points lie inside each of `SHAPES`, in its order, from the centre and in radii."""
    x, y = x.abs().expand(-1, y.shape[1], -1), y.abs().expand(-1, -1, x.shape[2])
    away, largest = (x * x + y * y).sqrt(), torch.maximum(x, y)
    return [
        away < 1,
        largest < 0.9,
        x + y < 1.1,
        (away < 1) & (away > 0.55),
        (torch.minimum(x, y) < 0.3) & (largest < 1),
        (x < 1) & (y < 0.35),
    ]
