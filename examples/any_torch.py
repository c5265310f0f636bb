"""Records where the captioner runs, and trains anywhere: under any torch, or with NumPy alone.

With pip install "tldr-loader[captioner]", which brings torch 2.11:

    tldr-loader train 'shards/*.tar' --out captioner
    tldr-loader fit 'shards/*.tar' --captioner captioner
    python examples/any_torch.py record 'shards/*.tar' --captioner captioner --ledger ledger

With pip install tldr-loader, and the torch of your choice:

    python examples/any_torch.py train 'shards/*.tar' --captioner captioner --ledger ledger

Both halves make the loader by the same options. `train` loads no model of the captioner's: what it would
say is in the ledger. The captioner directory is still needed, for its clusters and its identity.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any, Protocol

import tldr_loader as tldr

IMAGE_SIZE = 32
CONTEXT_LENGTH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("half", nargs="?", choices=["record", "train"], help="what to do; both with --smoke")
    parser.add_argument("shards", nargs="?", help="shards to train on")
    parser.add_argument("--captioner", type=Path, help="captioner directory, trained and fitted")
    parser.add_argument("--ledger", type=Path, help="folder of what the captioner said")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--smoke", action="store_true", help="draw a tiny corpus and take a few steps")
    parser.add_argument("--folder", type=Path, help="with --smoke: where that is, to run the halves apart")
    options = parser.parse_args()
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            smoke(options.folder or Path(folder), options)
    elif None in (options.half, options.shards, options.captioner, options.ledger):
        parser.error("record or train, shards, --captioner and --ledger are required")
    else:
        HALVES[options.half](options)


def smoke(folder: Path, options: argparse.Namespace) -> None:
    options.shards, options.captioner = folder / "train", folder / "captioner"
    options.ledger, options.batch_size = folder / "ledger", 16
    if options.half != "train":
        tldr.synth(folder, samples=640, test_samples=100, shards=4)
        captioner = tldr.Captioner.train(options.shards, options.captioner, preset="tiny", epochs=1)
        captioner.fit(options.shards)
        record(options)
    if options.half != "record":
        # As where it is not installed.
        sys.modules["tldr_loader_captioner"] = None  # type: ignore[assignment]
        train(options)


def loader_for(options: argparse.Namespace) -> tldr.Loader:
    """The loader of both halves. Everything that decides about samples and captions is here."""
    return tldr.Loader(
        options.shards,
        captioner=options.captioner,
        ledger=options.ledger,
        selection=tldr.Selection(keep_ratio=0.25),
        captions=tldr.Captions(fuse=tldr.Concat(), context_length=CONTEXT_LENGTH),
        images=tldr.Images(image_size=IMAGE_SIZE),
        tokenizer=options.captioner / "tokenizer.json",
        batch_size=options.batch_size,
    )


def record(options: argparse.Namespace) -> None:
    """Reads the epochs that are to be trained on, so that the ledger has their signals and captions."""
    loader = loader_for(options)
    for epoch in range(options.epochs):
        loader.set_epoch(epoch)
        for _ in loader:
            pass
        stats = loader.stats()
        print(f"epoch {epoch}: {stats['encoded']} samples encoded, {stats['captioned']} captions written")


def train(options: argparse.Namespace) -> None:
    """Trains on them. Nothing here runs the captioner; what is not recorded is an error that says so."""
    loader = loader_for(options)
    has_torch = importlib.util.find_spec("torch") is not None
    model: Trainer = WithTorch(loader, options.epochs) if has_torch else WithNumpy(loader)
    print(f"training with {model.name}")
    for epoch in range(options.epochs):
        loader.set_epoch(epoch)
        losses = [model.step(images, tokens) for images, tokens in loader]
        stats = loader.stats()
        asked = stats["encoded"] + stats["captioned"]
        loss = sum(losses) / len(losses)
        print(f"epoch {epoch}: {len(losses)} steps, loss {loss:.3f}; {asked} samples were asked of a model")


class Trainer(Protocol):
    """A model and its optimizer; a step returns the loss."""

    name: str

    def step(self, images: Any, tokens: Any) -> float: ...


class WithTorch:
    """A small CLIP. Batches are tensors of the torch that is installed."""

    def __init__(self, loader: tldr.Loader, epochs: int) -> None:
        import torch
        from small_clip import SmallClip, optimizer_for

        torch.manual_seed(0)
        self.name = f"torch {torch.__version__}"
        self.model = SmallClip(loader.vocab_size or 0)
        self.optimizer, self.schedule = optimizer_for(self.model, epochs * loader.num_batches)

    def step(self, images: Any, tokens: Any) -> float:
        loss = self.model.loss(images, tokens)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        return loss.item()


class WithNumpy:
    """A contrastive model of two matrices, its gradient by hand. Batches are arrays with `__dlpack__`."""

    def __init__(self, loader: tldr.Loader) -> None:
        import numpy

        self.np: Any = numpy
        self.name = f"NumPy {numpy.__version__}"
        random = numpy.random.default_rng(0)
        self.words = loader.vocab_size or 0
        self.image = random.normal(0, 0.02, (3 * (IMAGE_SIZE // 4) ** 2, 32))
        self.text = random.normal(0, 0.02, (self.words, 32))

    def step(self, images: Any, tokens: Any) -> float:
        np = self.np
        images, tokens = np.from_dlpack(images), np.from_dlpack(tokens)
        rows = len(images)
        # Means of 4x4 pixels, and which words a caption has.
        pixels = (
            images.reshape(rows, 3, IMAGE_SIZE // 4, 4, IMAGE_SIZE // 4, 4).mean((3, 5)).reshape(rows, -1)
        )
        words = np.zeros((rows, self.words))
        words[np.arange(rows)[:, None], tokens] = 1
        left, right = pixels @ self.image, words @ self.text
        logits = left @ right.T
        of_rows, of_columns = self.softmax(logits), self.softmax(logits.T).T
        slope = (of_rows + of_columns - 2 * np.eye(rows)) / (2 * rows)
        image, text = pixels.T @ (slope @ right), words.T @ (slope.T @ left)
        self.image -= 0.05 * image
        self.text -= 0.05 * text
        return float(-np.log(of_rows.diagonal() * of_columns.diagonal()).mean() / 2)

    def softmax(self, logits: Any) -> Any:
        exponents = self.np.exp(logits - logits.max(1, keepdims=True))
        return exponents / exponents.sum(1, keepdims=True)


HALVES = {"record": record, "train": train}

if __name__ == "__main__":
    main()
