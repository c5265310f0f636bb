"""Measures what it costs that a model is called through Python: milliseconds a batch, without its own work.

    .venv/bin/python benches/model_seam.py

The loader calls a model that only does what every call has to: it takes a copy of the previews, as the
captioner's module does, and gives arrays of the right shapes back. What the loader counts for `encode` is
then the crossing alone. Beside it stands the captioner itself, in the sizes of its presets; nothing is
trained well, since weights do not change the time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import tldr_loader as tldr


class Echo:
    """A model without work, of any size; everything else is that of a captioner directory."""

    def __init__(self, model: Any, preview_size: int, batch_size: int) -> None:
        self.preview_filter, self.compute, self.caption_fingerprint = "bilinear", "", None
        self.dim, self.clusters, self.fingerprint = model.dim, model.clusters, model.fingerprint
        self.preview_size, self.batch_size, self.caption_batch_size = preview_size, batch_size, 0
        self.calls = 0

    def signals(self, previews: Any, captions: list[str]) -> tuple[Any, Any, Any, Any]:
        self.calls += 1
        np.from_dlpack(previews).copy()
        rows = len(captions)
        return (
            np.zeros(rows, np.uint32), np.linspace(0, 1, rows, dtype=np.float32),
            np.ones((rows, self.dim), np.float32), np.zeros((rows, 4), np.uint64),
        )  # fmt: skip


class Source:
    """What a loader takes as its captioner: a directory, and the model."""

    def __init__(self, path: Path, model: Echo) -> None:
        self.path, self.model = str(path), model

    def _scorer(self) -> Echo:
        return self.model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tldr.synth(folder, samples=options.samples, test_samples=100, shards=4)
        for preset in ("tiny", "small"):
            measure(folder, preset, options.rounds)


def measure(folder: Path, preset: Any, rounds: int) -> None:
    path = folder / preset
    captioner: Any = tldr.Captioner.train(folder / "test", path, preset=preset, epochs=1, validate=0)
    captioner.fit(folder / "test", clusters=8)
    model = captioner._scorer()
    size, rows = model.preview_size, model.batch_size
    previews = np.random.default_rng(0).integers(0, 255, (rows, 3, size, size), np.uint8)
    own = least(rounds, lambda: model.signals(previews, ["a red square on a blue circle"] * rows))
    print(f"captioner {preset}: {rows} previews of {size} px: {1000 * own:.2f} ms a batch")
    for side in (size, 224):
        crossing = min(cross(folder, path, model, side, rows) for _ in range(rounds))
        share = f", {crossing / own:.2%} of the model's time" if side == size else ""
        print(f"  crossing alone at {side} px: {1000 * crossing:.3f} ms a batch{share}")


def least(rounds: int, work: Any) -> float:
    """Seconds of the fastest call."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def cross(folder: Path, path: Path, model: Any, side: int, rows: int) -> float:
    """Seconds a batch that a loader counts for a model without work."""
    echo: Any = Source(path, Echo(model, side, rows))
    selection, images = tldr.Selection(keep_ratio=0.25), tldr.Images(image_size=16)
    loader = tldr.Loader(folder / "train", captioner=echo, selection=selection, batch_size=16, images=images)
    for _ in loader:
        pass
    return float(loader.stats()["seconds"]["encode"]) / echo.model.calls


if __name__ == "__main__":
    main()
