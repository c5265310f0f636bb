"""While the loader waits, Python's other threads run and Ctrl-C works.

A named pipe stands for a slow disk: nothing comes until the test writes.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flat
import tldr_loader as tldr
from conftest import SIZE, Child, Corpus, Pair, write_shard

PAIRS = [Pair(f"{i:03d}", np.zeros((SIZE, SIZE, 3), np.uint8), f"caption {i}") for i in range(8)]


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "00000.tar"
    os.mkfifo(path)
    return path


def test_other_threads_run_while_the_loader_waits(tmp_path: Path, pipe: Path) -> None:
    full = flat.loader(pipe, lengths=[len(PAIRS)], mode="full", batch_size=4, image_size=SIZE, lanes=1)
    shard = tmp_path / "whole.tar"
    write_shard(shard, PAIRS)

    def feed() -> None:
        # Were the lock held by the waiting loader, this would never run.
        pipe.write_bytes(shard.read_bytes())

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    assert sum(len(batch) for batch in full) == len(PAIRS)
    feeder.join(timeout=60)
    assert not feeder.is_alive()


def test_a_stage_that_hangs_is_named(pipe: Path) -> None:
    options: dict[str, Any] = {"lengths": [8], "mode": "full", "batch_size": 4, "lanes": 1}
    loader = flat.loader(pipe, stall_timeout=0.05, **options)
    with pytest.raises(tldr.TldrError, match=r"reads a window of shard .*stall_timeout=0\.05") as caught:
        next(iter(loader))
    assert caught.value.shard == str(pipe)
    (reading,) = [stage for stage in loader.stats()["activity"] if stage["stage"] == "reading lane 0"]
    assert reading["doing"] == f"reads a window of shard {pipe}"
    assert reading["seconds"] > 0
    pipe.write_bytes(b"")  # lets it go
    with pytest.raises(tldr.ConfigError, match=r"^invalid stall_timeout=-1"):
        flat.loader(pipe, stall_timeout=-1, **options)
    with pytest.raises(
        tldr.ConfigError, match=r"^invalid stall_timeout=0: expected more than 0 seconds, or none"
    ):
        flat.loader(pipe, stall_timeout=0, **options)


def test_ctrl_c_ends_the_wait(pipe: Path) -> None:
    code = f"""
import tldr_loader as tldr
source, images = tldr.Source({str(pipe)!r}, lengths=[8]), tldr.Images(image_size=16)
loader = tldr.Loader(source, mode="full", batch_size=4, images=images, world=tldr.World(lanes=1))
print("waiting", flush=True)
try:
    next(iter(loader))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with Child(code) as child:
        assert child.line() == "waiting"
        time.sleep(0.2)
        child.interrupt()
        assert child.line() == "interrupted"
        assert child.end()[0] == 0


def test_ctrl_c_ends_the_training(corpus: Corpus, tmp_path: Path) -> None:
    code = f"""
import tldr_loader as tldr
try:
    tldr.Captioner.train(
        {corpus.urls!r}, {str(tmp_path)!r}, preset="tiny", epochs=100_000, batch_size=20, vocab_size=300,
        progress=lambda said: print("step", flush=True) if said["step"] == 1 else None,
    )
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with Child(code) as child:
        assert child.line() == "step"
        child.interrupt()
        assert child.line() == "interrupted"
        assert child.end()[0] == 0


def test_the_tests_end_where_the_shell_ignores_ctrl_c() -> None:
    """As under `pytest &` in a script."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
signal.signal(signal.SIGINT, signal.SIG_IGN)
from conftest import Child
with Child("print('up', flush=True); import time; time.sleep(60)", deadline=30) as child:
    assert child.line() == "up"
    child.interrupt()
    status, _, error = child.end()
    print(status != 0 and "KeyboardInterrupt" in error, flush=True)
with Child("import time; time.sleep(60)", deadline=0.1) as child:
    try:
        child.line()
    except AssertionError as error:
        print(error, flush=True)
"""
    with Child(code) as outer:
        assert outer.end()[:2] == (0, "True\nthe deadline is over\n")
