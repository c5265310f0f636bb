"""One process of open_clip's validation: what its main.py does with a validation set, on two processes.

    torchrun ... validating.py URLS OUT

Every rank makes the loader that rank 0 evaluates on, as `get_data` of open_clip does.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.distributed as dist
from open_clip_train.data import DataInfo
from open_clip_train.train import evaluate

import flat


class Model(torch.nn.Module):
    """The least that has an image and a text tower."""

    def __init__(self) -> None:
        super().__init__()
        self.image = torch.nn.LazyLinear(4)
        self.text = torch.nn.Embedding(49408, 4)

    def forward(self, images: torch.Tensor, texts: torch.Tensor) -> dict[str, torch.Tensor]:
        norm = torch.nn.functional.normalize
        image, text = self.image(images.flatten(1)), self.text(texts).mean(1)
        scale = torch.tensor(10.0)
        return {"image_features": norm(image), "text_features": norm(text), "logit_scale": scale}


def main() -> None:
    urls, out = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    merges = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    loader = flat.loader(
        urls, mode="eval", batch_size=7, image_size=16, tokenizer=merges, rank=0, world_size=1
    )
    model: Any = Model()
    model(torch.zeros(1, 3, 16, 16), torch.zeros(1, 77, dtype=torch.long))
    model = torch.nn.parallel.DistributedDataParallel(model)
    args = Namespace(
        rank=dist.get_rank(),
        local_rank=dist.get_rank(),
        log_local=False,
        device="cpu",
        precision="fp32",
        val_frequency=1,
        zeroshot_frequency=0,
        epochs=1,
        distributed=True,
        horovod=False,
        save_logs=False,
        wandb=False,
    )
    metrics = evaluate(model, {"val": DataInfo(loader)}, 1, args)
    found = {"samples": metrics.get("num_samples"), "yielded": loader.stats()["yielded"]}
    (out / f"{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
