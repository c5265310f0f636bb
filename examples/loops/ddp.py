"""Trains a model of open_clip with plain DistributedDataParallel, and goes on where it was stopped.

torchrun --nproc-per-node 8 examples/loops/ddp.py 'cc3m/{00000..00331}.tar' --model ViT-B-32 --out run
"""

from __future__ import annotations

import os
from pathlib import Path

# On a CPU torch's threads shall sleep between two operations (README.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import open_clip
import torch
import torch.distributed as dist
from common import fitting, options
from torch.nn.parallel import DistributedDataParallel

import tldr_loader as tldr


def main() -> None:
    args = options(__doc__)
    if not dist.is_torchelastic_launched():
        raise SystemExit(f"start it with torchrun:\n{__doc__}")
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    torch.manual_seed(0)
    model = open_clip.create_model(args.model, device=device, output_dict=True)
    loss_of = open_clip.ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world_size)
    # Rank and world size come from the process group; batches arrive on the device.
    loader = tldr.Loader(args.train, mode="full", batch_size=args.batch_size, device=device, **fitting(model))
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)

    checkpoint = Path(args.out) / "checkpoint.pt"
    if checkpoint.is_file():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])

    while loader.epoch < args.epochs:
        for batch in loader:
            images, tokens = batch
            out = parallel(images, tokens)
            loss = loss_of(**out)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if (batch.step + 1) % args.save_every == 0 and rank == 0:
                # A state is the same on every rank.
                save(checkpoint, model, optimizer, loader)
        if rank == 0:
            print(f"epoch {batch.epoch}: loss {loss.item():.3f}, {tldr.scalars(loader.stats())}")
            save(checkpoint, model, optimizer, loader)
    dist.barrier()
    dist.destroy_process_group()


def save(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, loader: tldr.Loader) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "loader": loader.state_dict(),
    }
    torch.save(state, part)
    part.replace(path)


if __name__ == "__main__":
    main()
