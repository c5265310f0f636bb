"""open_clip's own main() on this loader, as test_open_clip.py starts it: alone or under torchrun.

    open_clip_run.py OPTIONS.json FLAGS...

`OPTIONS.json` has `save_every` and `keep_ratio` for tldr_loader.open_clip.get_data; `die_after`, the epoch
and batch whose checkpoint is the last thing that this run writes; and `keys`, a folder for keys of batches.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

import open_clip
import open_clip_train.main as theirs
import torch

import tldr_loader as tldr
import tldr_loader.open_clip

CONFIGS = Path(__file__).parent / "models"


def main() -> None:
    options = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    open_clip.add_model_config(CONFIGS)
    real = torch.nn.parallel.DistributedDataParallel
    # On a CPU open_clip's own call is refused by torch: it names the device.
    torch.nn.parallel.DistributedDataParallel = lambda model, device_ids: real(model)  # type: ignore[misc,assignment]
    observe(options)
    more = {"save_every": options.get("save_every")}
    if "keep_ratio" in options:
        more["selection"] = tldr.Selection(keep_ratio=options["keep_ratio"])
    theirs.get_data = functools.partial(tldr_loader.open_clip.get_data, **more)
    theirs.train_one_epoch = tldr_loader.open_clip.train_one_epoch
    theirs.main(sys.argv[2:])


def observe(options: dict[str, Any]) -> None:
    """Writes down what is trained on, and ends the run where the test wants it to."""
    stream = tldr_loader.open_clip.Stream
    format_, save = stream._as_asked, stream._save
    out = Path(options["keys"]) / os.environ.get("RANK", "0")

    def as_asked(self: Any, batch: tldr.Batch) -> Any:
        with out.open("a") as file:
            mode = "train" if self._training else "val"
            file.write(json.dumps([mode, batch.epoch, batch.step, batch.keys]) + "\n")
        return format_(self, batch)

    def saving(self: Any, done: int) -> None:
        save(self, done)
        if options.get("die_after") == [self.loader.epoch, done]:
            os._exit(1)

    stream._as_asked, stream._save = as_asked, saving  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
