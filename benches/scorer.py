"""Measures what a scorer of one's own costs the training step that runs beside it.

    make bench-scorer

A small CLIP of open_clip trains on a synthetic corpus; another one, as large, scores. Rows: everything read
and nothing scored; the first epoch, in which every sample is scored; a later epoch, whose signals are in the
ledger. `step` is the median time of forward, backward and optimiser, without waiting for data; `wait` the
median time that a step waits for its batch, `in all` the mean time of an epoch. Windows are of 64 samples, so
that scoring goes on while the model trains. Rounds are interleaved, so that other work on the machine meets
all rows alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import open_clip
import torch

import tldr_loader as tldr
from tldr_loader import models

SIZE = 64


def clip(seed: int) -> Any:
    torch.manual_seed(seed)
    return open_clip.CLIP(
        embed_dim=128,
        vision_cfg={"image_size": SIZE, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32},
        text_cfg={"context_length": 24, "vocab_size": 49408, "width": 128, "layers": 2, "heads": 4},
    )


def steps(loader: tldr.Loader, model: Any, tokenizer: Any) -> tuple[list[float], list[float]]:
    """Seconds of each step, and of waiting for its batch."""
    loss = open_clip.ClipLoss()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    working, waiting, since = [], [], time.perf_counter()
    for batch in loader:
        taken = time.perf_counter()
        images, texts, scale = model(batch.images, tokenizer(batch.captions))
        optimiser.zero_grad()
        loss(images, texts, scale).backward()
        optimiser.step()
        now = time.perf_counter()
        working.append(now - taken)
        waiting.append(taken - since)
        since = time.perf_counter()
    return working, waiting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    tldr.synth(folder / "corpus", samples=options.samples, shards=4, test_samples=0, size=SIZE)
    source, tokenizer = str(folder / "corpus/train"), open_clip.SimpleTokenizer(context_length=24)
    preprocess = open_clip.image_transform(SIZE, is_train=False)
    fitted = tldr.fit(source, models.open_clip(clip(1).eval(), preprocess, tokenizer), folder / "fit")

    def loader(**given: Any) -> tldr.Loader:
        images = tldr.Images(image_size=SIZE)
        return tldr.Loader(source, batch_size=options.batch_size, images=images, **given)

    reduced = {
        "captioner": fitted,
        "selection": tldr.Selection(keep_ratio=0.25, gate=tldr.Top(0.5), window=64),
    }
    found: dict[str, tuple[list[float], list[float]]] = {
        name: ([], []) for name in ("full, no scorer", "reduced, scoring", "reduced, recorded")
    }
    for number in range(options.rounds):
        model, ledger = clip(0), str(folder / f"ledger-{number}")
        for name, given in (
            ("full, no scorer", {"mode": "full"}),
            ("reduced, scoring", {**reduced, "ledger": ledger}),
            ("reduced, recorded", {**reduced, "ledger": ledger}),
        ):
            working, waiting = steps(loader(**given), model, tokenizer)
            found[name][0].extend(working)
            found[name][1].extend(waiting)
    print(f"{options.samples} samples, {os.cpu_count()} cores, {platform.machine()}, {options.rounds} rounds")
    print(f"{'':20} {'steps':>6} {'step ms':>8} {'ratio':>6} {'wait ms':>8} {'in all s':>9}")
    first = statistics.median(found["full, no scorer"][0])
    for name, (working, waiting) in found.items():
        step, wait = statistics.median(working), statistics.median(waiting)
        whole = (sum(working) + sum(waiting)) / options.rounds
        row = f"{len(working):6} {1e3 * step:8.1f} {step / first:6.2f} {1e3 * wait:8.1f} {whole:9.1f}"
        print(f"{name:20} {row}")


if __name__ == "__main__":
    main()
