"""What the examples of this folder share: their options, and a small model and corpus for `--smoke`."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import open_clip

import tldr_loader as tldr

MERGES = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
"""CLIP's tokenizer, in open_clip's package."""


def options(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", nargs="?", help="shards to train on")
    parser.add_argument("--model", default="ViT-B-32", help="a model of open_clip")
    parser.add_argument("--out", default="out", help="folder of checkpoints; a run that is there goes on")
    parser.add_argument("--epochs", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=256, help="samples of a batch, on each process")
    parser.add_argument("--save-every", type=int, default=1000, help="steps between two checkpoints")
    parser.add_argument("--processes", type=int, default=1, help="processes that Lightning starts")
    parser.add_argument("--smoke", action="store_true", help="draw a small corpus and train a small model")
    args = parser.parse_args()
    if args.smoke:
        folder = Path(tempfile.mkdtemp())
        tldr.synth(folder, samples=256, test_samples=1, shards=2)
        args.model, args.train, args.out = small_model(folder), folder / "train", folder / "out"
        args.epochs, args.batch_size, args.save_every = 1, 32, 4
    elif args.train is None:
        parser.error("train is required")
    return args


def small_model(folder: Path) -> str:
    """The name of a small model, which open_clip knows from now on."""
    tower: dict[str, Any] = {"layers": 1, "width": 32}
    config = {
        "embed_dim": 32,
        "vision_cfg": {**tower, "image_size": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {**tower, "heads": 2, "context_length": 32, "vocab_size": 49408},
    }
    (folder / "small-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return "small-clip"


def fitting(model: Any) -> dict[str, Any]:
    """The options of a loader that a model of open_clip asks for."""
    size = model.visual.image_size
    return {
        "images": tldr.Images(image_size=size[0] if isinstance(size, tuple) else size),
        "captions": tldr.Captions(context_length=model.context_length),
        "tokenizer": MERGES,
    }
