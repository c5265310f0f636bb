"""Starts two processes with torch.multiprocessing, which sets no variables: the parent of test_launchers.py.

spawning.py STEPS.json OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from torch.multiprocessing.spawn import spawn

import launched


def process(rank: int, steps: list[dict[str, Any]], out: Path) -> None:
    launched.take(steps, out, f"{rank} 2 file://{out}/store")


if __name__ == "__main__":
    out = Path(sys.argv[2])
    spawn(  # type: ignore[no-untyped-call]
        process, (json.loads(Path(sys.argv[1]).read_text()), out), nprocs=2
    )
