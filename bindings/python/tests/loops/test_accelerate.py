"""Promise: accelerate takes a loader as it is; in a DataLoader it says what to write instead."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

import tldr_loader as tldr
from conftest import Corpus

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.fixture(scope="module")
def pairs(make_corpus: Callable[[int, int], Corpus]) -> Corpus:
    return make_corpus(2, 16)


def test_a_data_loader_around_a_loader_says_what_to_write(pairs: Corpus) -> None:
    loader: Any = tldr.Loader(pairs.urls, mode="full", batch_size=4, images=tldr.Images(image_size=16))
    for size in (None, 4):
        with pytest.raises(
            tldr.ConfigError, match=r"give the loop the loader itself: `for images, tokens in"
        ):
            next(iter(DataLoader(loader, batch_size=size)))
    assert len(list(loader)) == 8, "it is none the worse for it"


def test_a_loader_that_accelerate_would_read_on_one_process_fails_at_once(
    tmp_path: Path, pairs: Corpus
) -> None:
    start = time.monotonic()
    command = [*TORCHRUN, str(Path(__file__).parent / "wrapped.py"), pairs.urls, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    said = (tmp_path / "0.txt").read_text()
    assert "accelerate's DataLoader iterates over this loader" in said, done.stderr[-4000:]
    assert "nothing for accelerate to prepare" in said
    # The other ranks wait for a batch, which ends with the process that reads.
    assert time.monotonic() - start < 120
