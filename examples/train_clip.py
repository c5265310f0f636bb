"""Trains a small CLIP on a stream that a codebook captioner compresses: a plain PyTorch loop.

Needs the captioner (pip install "tldr-loader[captioner]").

tldr-loader synth --out corpus --samples 4000 --shards 8
tldr-loader train 'corpus/train/*.tar' --out captioner
tldr-loader fit 'corpus/train/*.tar' --captioner captioner
python examples/train_clip.py 'corpus/train/*.tar' 'corpus/test/*.tar' --captioner captioner
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

# On a CPU torch's threads shall sleep between two operations, not spin on cores that the loader's threads
# could use. OpenMP reads this once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from small_clip import CONTEXT_LENGTH, IMAGE_SIZE, SmallClip, optimizer_for, retrieval

import tldr_loader as tldr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("train", nargs="?", help="shards to train on")
    parser.add_argument("test", nargs="?", help="shards to test on")
    parser.add_argument("--captioner", help="captioner directory, trained and fitted")
    parser.add_argument("--keep-ratio", type=float, default=0.25)
    parser.add_argument("--fuse", default="original", help="original, generated, concat or best")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="draw a tiny corpus and take a few steps")
    options = parser.parse_args()
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            prepare_smoke(Path(folder), options)
            train(options)
    elif None in (options.train, options.test, options.captioner):
        parser.error("train, test and --captioner are required")
    else:
        train(options)


def prepare_smoke(folder: Path, options: argparse.Namespace) -> None:
    """Draws a tiny corpus, and trains and fits a tiny captioner on it."""
    tldr.synth(folder, samples=640, test_samples=100, shards=4)
    captioner = tldr.Captioner.train(folder / "train", folder / "captioner", preset="tiny", epochs=1)
    captioner.fit(folder / "train")
    options.train, options.test, options.captioner = folder / "train", folder / "test", folder / "captioner"
    options.epochs, options.batch_size = 2, 16


def train(options: argparse.Namespace) -> None:
    tokenizer = f"{options.captioner}/tokenizer.json"
    loader = tldr.Loader(
        options.train,
        captioner=options.captioner,
        selection=tldr.Selection(keep_ratio=options.keep_ratio),
        captions=tldr.Captions(fuse=options.fuse, context_length=CONTEXT_LENGTH),
        images=tldr.Images(image_size=IMAGE_SIZE),
        tokenizer=tokenizer,
        batch_size=options.batch_size,
        device=options.device,
    )
    torch.manual_seed(0)
    model = SmallClip(loader.vocab_size or 0).to(options.device)
    optimizer, schedule = optimizer_for(model, options.epochs * loader.num_batches)
    for epoch in range(options.epochs):
        loader.set_epoch(epoch)
        start, total = time.perf_counter(), 0.0
        for images, tokens in loader:
            loss = model.loss(images, tokens)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        stats = loader.stats()
        print(
            f"epoch {epoch}: loss {total / loader.num_batches:.3f}, "
            f"{stats['counts']['read']} read, {stats['yielded']} yielded, {stats['encoded']} encoded, "
            f"{time.perf_counter() - start:.1f} s"
        )

    test = tldr.Loader(
        options.test,
        mode="eval",
        batch_size=256,
        images=tldr.Images(image_size=IMAGE_SIZE),
        tokenizer=tokenizer,
        captions=tldr.Captions(context_length=CONTEXT_LENGTH),
        device=options.device,
    )
    scores = retrieval(model, ((images, tokens) for images, tokens in test))
    print(", ".join(f"{name} {value:.1f}%" for name, value in scores.items()))


if __name__ == "__main__":
    main()
