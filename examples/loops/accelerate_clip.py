"""Trains a model of open_clip with accelerate, and goes on where it was stopped.

accelerate launch examples/loops/accelerate_clip.py 'cc3m/{00000..00331}.tar' --model ViT-B-32 --out run
"""

from __future__ import annotations

import os
from pathlib import Path

# On a CPU torch's threads shall sleep between two operations (README.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import open_clip
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from common import fitting, options

import tldr_loader as tldr


def main() -> None:
    args = options(__doc__)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    set_seed(0)
    model = open_clip.create_model(args.model, output_dict=True)
    loss_of = open_clip.ClipLoss(
        local_loss=True,
        gather_with_grad=True,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    loader = tldr.Loader(
        args.train, mode="full", batch_size=args.batch_size, device=accelerator.device, **fitting(model)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    # The loader is not prepared: each process reads its own share, and batches arrive on the device.
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(loader)

    out = Path(args.out)
    latest = out / "latest"
    if latest.is_file():
        accelerator.load_state(out / latest.read_text())

    while loader.epoch < args.epochs:
        for batch in loader:
            images, tokens = batch
            loss = loss_of(**model(images, tokens))
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            if (batch.step + 1) % args.save_every == 0:
                accelerator.save_state(out / f"{batch.epoch}-{batch.step + 1}")
                if accelerator.is_main_process:
                    latest.write_text(f"{batch.epoch}-{batch.step + 1}")
        accelerator.print(f"epoch {batch.epoch}: loss {loss.item():.3f}")
    accelerator.save(accelerator.get_state_dict(model), out / "checkpoint.pt")
    accelerator.end_training()


if __name__ == "__main__":
    main()
