"""One process of test_launchers.py, whoever starts it.

    LAUNCHER launched.py STEPS.json OUT

`STEPS.json` is a list of steps, taken in order. `{"group": true}` makes a gloo group: by the environment, or,
where the command line goes on with `RANK_VARIABLE SIZE_VARIABLE URL`, by these. `{"name": NAME, "options":
{...}, "by_rank": {"1": {...}, "2": null}}` makes a loader by options of `Loader`, which single processes of
the group have otherwise or not at all, iterates over it and writes what came of it to `OUT/NAME.PID`; with
`"late group": true` the group is made between the two, and with `"begin": true` a batch taken before.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import flat
import tldr_loader as tldr


class Lines(logging.Handler):
    """What the package logs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def use(name: str, options: dict[str, Any], out: Path, late_group: str | None, begin: bool) -> None:
    """Makes a loader, takes its batches and writes down what happened."""
    log = Lines()
    logger = logging.getLogger("tldr_loader")
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    start = time.monotonic()
    found: dict[str, Any] = {}
    try:
        loader = flat.loader(**options)
        if begin:
            next(iter(loader))
        found |= {"len": len(loader), "rank before": loader.rank, "world_size": loader.world_size}
        if late_group is not None:
            init(late_group)
        found["keys"] = [key for batch in loader for key in batch.keys]
        stats = loader.stats()
        found |= {name: stats[name] for name in ("rank", "rank_from")}
        assert (stats["rank"], stats["world_size"]) == (loader.rank, loader.world_size)
    except (tldr.TldrError, RuntimeError) as error:
        found |= {"error": str(error), "type": type(error).__name__}
    logger.removeHandler(log)
    found |= {"seconds": time.monotonic() - start, "log": log.lines}
    (out / f"{name}.{os.getpid()}").write_text(json.dumps(found))


def init(group: str) -> None:
    """Makes a process group: by the environment, or `RANK SIZE URL`."""
    if group == "env":
        dist.init_process_group("gloo")
    else:
        rank, world_size, url = group.split()
        dist.init_process_group("gloo", init_method=url, rank=int(rank), world_size=int(world_size))


def take(steps: list[dict[str, Any]], out: Path, group: str) -> None:
    """Takes the steps; `group` is how this process gets into its process group."""
    torch.set_num_threads(1)
    for step in steps:
        if step.get("group"):
            init(group)
            continue
        options = dict(step["options"])
        own = str(dist.get_rank()) if dist.is_initialized() else ""
        changes = step.get("by_rank", {}).get(own, {})
        if changes is not None:
            late = group if step.get("late group") else None
            use(step["name"], options | changes, out, late, bool(step.get("begin")))
        if dist.is_initialized():
            dist.barrier()  # who has failed must not come to the next step while others wait in this one
    if dist.is_initialized():
        dist.destroy_process_group()


def main() -> None:
    steps, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    group = "env"
    if variables := sys.argv[3:]:
        group = f"{os.environ[variables[0]]} {os.environ[variables[1]]} {variables[2]}"
    take(steps, out, group)


if __name__ == "__main__":
    main()
