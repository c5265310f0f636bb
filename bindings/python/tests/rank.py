"""One rank of test_ranks.py: iterates over a loader and writes what it got, as json lines.

    torchrun ... rank.py OPTIONS.json OUT

The options are those of `Loader`, and: `ranks` (options of single ranks), `state` (to load), `stop` (batches
after which to stop, saving the state), `gloo` (whether to make a process group), `wait` (seconds to
wait for other ranks).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

import flat
import tldr_loader as tldr
import tldr_loader._ranks


def main() -> None:
    options = json.loads(Path(sys.argv[1]).read_text())
    out = Path(sys.argv[2])
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    options.update(options.pop("ranks", {}).get(str(rank), {}))
    state, stop = options.pop("state", None), options.pop("stop", None)
    tldr_loader._ranks.TIMEOUT = options.pop("wait", 120.0)
    if options.pop("gloo", True):
        dist.init_process_group("gloo")
    idle = options.pop("idle", False)
    global_batch = options.pop("global_batch")
    loader = flat.loader(batch_size=global_batch // world_size, **options)
    if state is not None:
        loader.load_state_dict(state)
    try:
        with (out / f"{rank}.jsonl").open("w") as lines:
            for batch in [] if idle else loader:
                rows = [
                    [id_, caption, hashlib.sha256(image.numpy().tobytes()).hexdigest()]
                    for id_, caption, image in zip(batch.ids, batch.captions, batch.images, strict=True)
                ]
                lines.write(json.dumps({"epoch": batch.epoch, "step": batch.step, "rows": rows}) + "\n")
                if stop is not None and batch.step + 1 == stop:
                    break
        (out / f"{rank}.state").write_text(json.dumps(loader.state_dict()))
    except tldr.ConfigError as error:
        (out / f"{rank}.error").write_text(str(error))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
