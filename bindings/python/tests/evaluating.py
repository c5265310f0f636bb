"""One rank of test_epochs.py: evaluates a corpus with a collective a batch, and writes what it got.

torchrun ... evaluating.py OPTIONS.json OUT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

import flat


def main() -> None:
    options = json.loads(Path(sys.argv[1]).read_text())
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    loader = flat.loader(mode="eval", **options)
    batches = []
    total = torch.zeros(2, dtype=torch.float64)
    for batch in loader:
        # As an evaluation gathers features: every rank has to come, with as many rows as the others.
        means = batch.images.mean(dim=(1, 2, 3)).double()
        gathered = [torch.empty_like(means) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, means)
        total += torch.stack([means[batch.valid].sum(), batch.valid.sum().double()])
        batches.append({"keys": batch.keys, "valid": batch.valid.tolist(), "shape": list(batch.images.shape)})
    dist.all_reduce(total)
    found = {"len": len(loader), "samples": loader.num_samples, "batches": batches, "total": total.tolist()}
    (Path(sys.argv[2]) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
