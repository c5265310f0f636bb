"""Promise: each example loop trains on two processes, and goes on after a kill as if nothing had been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Corpus

RUN = Path(__file__).parent / "example_run.py"
EXAMPLES = Path(__file__).parents[4] / "examples" / "loops"
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "MASTER_")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--"]
# How each is started on two processes, what has to be said to it, and after which batch a run goes on that
# dies before its 17th: ten are an epoch. Steps between checkpoints are counted in the epoch, or in all.
LOOPS: dict[str, tuple[list[str], list[str], int]] = {
    "ddp.py": (TORCHRUN, [], 14),
    "lightning_clip.py": ([sys.executable], ["--processes", "2"], 16),
    "trainer_clip.py": (TORCHRUN, [], 16),
    "accelerate_clip.py": (TORCHRUN, [], 14),  # as `accelerate launch` does
}

Noted = list[list[list[Any]]]


@pytest.fixture(scope="module")
def pairs(make_corpus: Callable[[int, int], Corpus]) -> Corpus:
    """80 samples: of two ranks with batches of 4, 10 batches an epoch."""
    return make_corpus(4, 20)


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)} | more


def run(example: str, notes: Path, arguments: list[str], die_at: int = 0) -> Noted:
    """What each of two processes was given."""
    notes.mkdir()
    launcher, more, _ = LOOPS[example]
    command = [*launcher, str(RUN), *arguments, *more]
    env = environment(EXAMPLE=example, NOTES=str(notes), DIE_AT=str(die_at))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env)
    assert (done.returncode != 0) == bool(die_at), done.stdout[-3000:] + done.stderr[-5000:]
    return [[json.loads(line) for line in (notes / rank).read_text().splitlines()] for rank in "01"]


def weights(out: Path) -> dict[str, torch.Tensor]:
    saved = torch.load(out / "checkpoint.pt", weights_only=False)
    found: dict[str, torch.Tensor] = saved.get("model") or saved.get("state_dict") or saved
    return found


@pytest.mark.parametrize("example", LOOPS)
def test_a_killed_run_goes_on(tmp_path: Path, pairs: Corpus, example: str) -> None:
    def arguments(out: str) -> list[str]:
        sizes = ["--epochs", "2", "--batch-size", "4", "--save-every", "4"]
        return [pairs.urls, "--model", "tiny-clip", "--out", str(tmp_path / out), *sizes]

    whole = run(example, tmp_path / "whole notes", arguments("whole"))
    every = [pair.key for pair in pairs.pairs]
    for epoch in (0, 1):
        keys = [key for lines in whole for of, _, keys in lines if of == epoch for key in keys]
        assert sorted(keys) == every, "the ranks' samples are disjoint and complete"
    at = LOOPS[example][2]
    before = run(example, tmp_path / "before notes", arguments("halves"), die_at=16)
    after = run(example, tmp_path / "after notes", arguments("halves"))
    for rank in (0, 1):
        assert before[rank] == whole[rank][: len(before[rank])]
        assert after[rank] == whole[rank][at:], "it goes on with the batch after the checkpoint"
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert first.keys() == second.keys()
    for name, weight in first.items():
        if isinstance(weight, torch.Tensor):
            assert torch.equal(weight, second[name]), name


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_quick_to_try(path: Path) -> None:
    if path.name == "common.py":
        pytest.skip("what the examples share")
    launcher, more, _ = LOOPS.get(path.name, ([sys.executable], [], 0))
    command = [*launcher, str(path), "--smoke", *more]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment()
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
