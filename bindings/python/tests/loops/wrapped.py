"""One process of test_accelerate.py: a loader that is wrapped as it should not be.

torchrun ... wrapped.py URLS OUT
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, IterableDataset

import tldr_loader as tldr


class Rows(IterableDataset[Any]):
    """What people write to put a loader into a DataLoader."""

    def __init__(self, loader: tldr.Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            yield {"images": batch.images}


def main() -> None:
    urls, out = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    images = tldr.Images(image_size=16)
    loader = tldr.Loader(urls, mode="full", batch_size=4, images=images, device=accelerator.device)
    assert accelerator.prepare(loader) is loader
    wrapped = accelerator.prepare(DataLoader(Rows(loader), batch_size=None))
    try:
        for _ in wrapped:
            pass
    except tldr.ConfigError as error:
        (out / f"{accelerator.process_index}.txt").write_text(str(error))
        raise


if __name__ == "__main__":
    main()
