"""Trains a model of open_clip with Lightning, and goes on where it was stopped.

python examples/loops/lightning_clip.py 'cc3m/{00000..00331}.tar' --model ViT-B-32 --processes 8 --out run
"""

from __future__ import annotations

import os
from argparse import Namespace
from typing import Any

# On a CPU torch's threads shall sleep between two operations (README.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import lightning
import open_clip
import torch
from common import fitting, options
from lightning.pytorch.callbacks import ModelCheckpoint

import tldr_loader as tldr


class Clip(lightning.LightningModule):
    def __init__(self, args: Namespace) -> None:
        super().__init__()
        self.args = args
        self.model = open_clip.create_model(args.model, output_dict=True)

    def train_dataloader(self) -> Any:
        # Here Lightning has started its processes: the loader finds its rank.
        self.loss_of = open_clip.ClipLoss(
            local_loss=True,
            gather_with_grad=True,
            rank=self.global_rank,
            world_size=self.trainer.world_size,
        )
        return tldr.Loader(
            self.args.train,
            mode="full",
            batch_size=self.args.batch_size,
            device=self.trainer.strategy.root_device,
            **fitting(self.model),
        )

    def training_step(self, batch: tldr.Batch, index: int) -> torch.Tensor:
        images, tokens = batch
        loss: torch.Tensor = self.loss_of(**self.model(images, tokens))
        self.log("loss", loss, batch_size=len(batch))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=5e-4)


def main() -> None:
    args = options(__doc__)
    lightning.seed_everything(0)
    trainer = lightning.Trainer(
        accelerator="auto" if torch.cuda.is_available() else "cpu",
        devices=args.processes,
        strategy="ddp" if args.processes > 1 else "auto",
        max_epochs=args.epochs,
        default_root_dir=args.out,
        logger=False,
        # The loader's state is in every checkpoint.
        callbacks=[ModelCheckpoint(args.out, every_n_train_steps=args.save_every, save_last=True)],
    )
    trainer.fit(Clip(args), ckpt_path="last")
    trainer.save_checkpoint(f"{args.out}/checkpoint.pt")


if __name__ == "__main__":
    main()
