"""A Lightning training on two CPU processes, which Lightning starts itself.

    lightning_run.py STRATEGY WHERE URLS OUT

`STRATEGY` is `ddp` (Lightning runs the script again) or `ddp_spawn`; `WHERE` says where the loader is made:
in the `hook` train_dataloader, or in the `script`. Each process writes the keys of its batches, or its error,
to `OUT`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import torch

import flat
import tldr_loader as tldr


class Module(lightning.LightningModule):
    """A parameter to train, and a record of what it was trained on."""

    def __init__(self, urls: str, out: Path) -> None:
        super().__init__()
        self.urls = urls
        self.out = out
        self.start = time.time()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.keys: list[str] = []

    def make(self) -> tldr.Loader:
        return flat.loader(self.urls, mode="full", batch_size=8, lanes=4, image_size=16)

    def train_dataloader(self) -> Any:
        try:
            self.loader = self.make()
        except tldr.TldrError as error:
            self.write(error=str(error))
            raise
        return self.loader

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        self.keys += batch.keys
        return torch.square(self.weight - batch.images.mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, index: int) -> Any:
        return batch

    def on_train_end(self) -> None:
        stats = self.loader.stats()
        self.write(keys=self.keys, rank=stats["rank"], rank_from=stats["rank_from"])

    def write(self, **found: Any) -> None:
        found["seconds"] = time.time() - self.start
        (self.out / f"{os.getpid()}.json").write_text(json.dumps(found))


def main() -> None:
    strategy, where, urls, out = sys.argv[1:]
    torch.set_num_threads(1)
    module = Module(urls, Path(out))
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    if where == "hook":
        trainer.fit(module)
        return
    loader = module.loader = module.make()
    try:
        trainer.fit(module, loader)
    except tldr.TldrError as error:
        module.write(error=str(error))
        raise


if __name__ == "__main__":
    main()
