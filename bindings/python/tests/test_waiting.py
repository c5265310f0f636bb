"""While the loader waits, Python's other threads run and Ctrl-C works.

A named pipe stands for a slow disk: nothing comes until the test writes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tldr_loader as tldr
from conftest import SIZE, Pair, write_shard

PAIRS = [Pair(f"{i:03d}", np.zeros((SIZE, SIZE, 3), np.uint8), f"caption {i}") for i in range(8)]


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "00000.tar"
    os.mkfifo(path)
    return path


def test_other_threads_run_while_the_loader_waits(tmp_path: Path, pipe: Path) -> None:
    full = tldr.Loader(pipe, lengths=[len(PAIRS)], mode="full", batch_size=4, image_size=SIZE, lanes=1)
    shard = tmp_path / "whole.tar"
    write_shard(shard, PAIRS)

    def feed() -> None:
        # Were the lock held by the waiting loader, this would never run.
        pipe.write_bytes(shard.read_bytes())

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert sum(len(batch) for batch in full) == len(PAIRS)
    feeder.join()


def test_a_stage_that_hangs_is_named(pipe: Path) -> None:
    options: dict[str, Any] = {"lengths": [8], "mode": "full", "batch_size": 4, "lanes": 1}
    loader = tldr.Loader(pipe, stall_timeout=0.05, **options)
    with pytest.raises(tldr.TldrError, match=r"reads a window of shard .*stall_timeout = 0\.05") as caught:
        next(iter(loader))
    assert caught.value.shard == str(pipe)
    (reading,) = [stage for stage in loader.stats()["activity"] if stage["stage"] == "reading lane 0"]
    assert reading["doing"] == f"reads a window of shard {pipe}"
    assert reading["seconds"] > 0
    pipe.write_bytes(b"")  # lets it go
    with pytest.raises(tldr.ConfigError, match=r"^stall_timeout = -1"):
        tldr.Loader(pipe, stall_timeout=-1, **options)
    with pytest.raises(tldr.ConfigError, match=r"^stall_timeout = 0: more than 0 seconds, or none"):
        tldr.Loader(pipe, stall_timeout=0, **options)


def test_ctrl_c_ends_the_wait(pipe: Path) -> None:
    code = f"""
import tldr_loader as tldr
loader = tldr.Loader({str(pipe)!r}, lengths=[8], mode="full", batch_size=4, image_size=16, lanes=1)
print("waiting", flush=True)
try:
    next(iter(loader))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "waiting\n"
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
            # The promise is a second; a busy machine gets more.
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()
