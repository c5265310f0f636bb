"""Runs an example of examples/loops as a user would, under any launcher, and notes what its loader yields.

    example_run.py ARGUMENTS...

`EXAMPLE` in the environment names it. Each process writes epoch, step and keys of its batches to the folder
`NOTES`, and with `DIE_AT` dies as if it were killed when it is to be given its batch of that number.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch

import tldr_loader as tldr

EXAMPLES = Path(__file__).parents[4] / "examples" / "loops"


def note(loader: tldr.Loader, batches: Iterator[tldr.Batch], file: Path) -> Iterator[tldr.Batch]:
    die_at = int(os.environ.get("DIE_AT", "0"))
    for batch in batches:
        done = len(file.read_text().splitlines()) if file.is_file() else 0
        if die_at and done == die_at:
            os._exit(1)
        with file.open("a") as lines:
            lines.write(json.dumps([batch.epoch, batch.step, batch.keys]) + "\n")
        yield batch


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    open_clip.add_model_config(Path(__file__).parent / "models")
    iterate: Any = tldr.Loader.__iter__

    def noting(self: tldr.Loader) -> Iterator[tldr.Batch]:
        batches: Iterator[tldr.Batch] = iterate(self)  # of now, as a loader's own
        if len(self) == 1:  # that of a tokenizer's trial
            return batches
        return note(self, batches, Path(os.environ["NOTES"]) / str(self.rank or 0))

    tldr.Loader.__iter__ = noting  # type: ignore[assignment,method-assign]
    sys.path.insert(0, str(EXAMPLES))
    path = EXAMPLES / os.environ["EXAMPLE"]
    # Lightning starts the script of sys.argv again, which has to be this one.
    exec(compile(path.read_text(), str(path), "exec"), {"__name__": "__main__", "__doc__": ""})


if __name__ == "__main__":
    main()
