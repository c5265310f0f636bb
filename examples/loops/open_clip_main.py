"""open_clip's training script on this loader, which keeps a share of the stream and saves within epochs.

torchrun --nproc-per-node 8 -- examples/loops/open_clip_main.py --model ViT-B-32 --batch-size 256 --name run
    --train-data 'cc3m/{00000..00331}.tar' --val-data 'coco/{00000..00004}.tar' --precision amp_bf16

Everything after the script's name goes to open_clip. Stopped at any moment, it goes on with `--resume
latest`.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from pathlib import Path

# On a CPU torch's threads shall sleep between two operations (README.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import open_clip_train.main
from common import small_model

import tldr_loader as tldr
import tldr_loader.open_clip


def main(words: list[str]) -> None:
    # What the loader does beyond open_clip's flags: a captioner, a selection, a ledger.
    get_data = functools.partial(
        tldr_loader.open_clip.get_data,
        selection=tldr.Selection(keep_ratio=0.5),
        save_every=1000,  # optimizer steps
    )
    open_clip_train.main.get_data = get_data
    open_clip_train.main.train_one_epoch = tldr_loader.open_clip.train_one_epoch
    open_clip_train.main.main(words)


def smoke() -> None:
    """Trains a small model for an epoch on drawn pairs."""
    with tempfile.TemporaryDirectory() as folder:
        tldr.synth(folder, samples=256, test_samples=32, shards=2)
        flags = {
            "model": small_model(Path(folder)),
            "train-data": f"{folder}/train",
            "val-data": f"{folder}/test",
            "batch-size": "32",
            "epochs": "1",
            "workers": "1",
            "precision": "fp32",
            "device": "cpu",
            "dataset-type": "webdataset",
            "logs": f"{folder}/logs",
            "name": "smoke",
        }
        main([word for name, value in flags.items() for word in (f"--{name}", value)])


if __name__ == "__main__":
    if sys.argv[1:] == ["--smoke"]:
        smoke()
    else:
        main(sys.argv[1:])
