"""Promise: any number of processes sees one global sequence of batches, and resumes what others began.

The processes are real ones, started by torchrun.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset

import flat
import tldr_loader as tldr
from conftest import SIZE, Child, Corpus

LANES = 4
GLOBAL = 16
Rows = list[list[Any]]


class Run:
    """What the ranks of one torchrun wrote."""

    def __init__(self, folder: Path, ranks: int, options: dict[str, Any]) -> None:
        folder.mkdir()
        (folder / "options.json").write_text(json.dumps(options))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        command += [str(Path(__file__).parent / "rank.py"), str(folder / "options.json"), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        self.folder = folder
        self.ranks = ranks

    def batches(self) -> list[Rows]:
        """The global batches, in the order of lanes: rank r owns lanes r, r + ranks, ..."""
        own: list[list[Rows]] = []
        for rank in range(self.ranks):
            lines = (self.folder / f"{rank}.jsonl").read_text().splitlines()
            own.append([json.loads(line)["rows"] for line in lines])
        assert len({len(batches) for batches in own}) == 1, "every rank has as many steps"
        per_lane = GLOBAL // LANES

        def of_lane(rows: Rows, lane: int) -> Rows:
            start = lane // self.ranks * per_lane
            return rows[start : start + per_lane]

        return [
            [row for lane in range(LANES) for row in of_lane(parts[lane % self.ranks], lane)]
            for parts in zip(*own, strict=True)
        ]

    def state(self) -> Any:
        states = [json.loads((self.folder / f"{rank}.state").read_text()) for rank in range(self.ranks)]
        assert all(state == states[0] for state in states), "the state is the same on every rank"
        return states[0]

    def errors(self) -> list[str]:
        return [path.read_text() for path in sorted(self.folder.glob("*.error"))]


@pytest.fixture(scope="module")
def options(make_corpus: Callable[[int, int], Corpus]) -> dict[str, Any]:
    return {
        "source": make_corpus(5, 61).urls,
        "quota": "random",
        "keep_ratio": 0.6,
        "rotate": True,
        "seed": 3,
        "window": 32,
        "image_size": SIZE,
        "lanes": LANES,
        "global_batch": GLOBAL,
    }


def test_any_number_of_processes_sees_one_sequence_and_resumes_another(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    whole = Run(tmp_path / "1", 1, options).batches()
    # 305 samples, of which 0.6 are kept: 11 batches of 16.
    assert len(whole) == 11
    assert len({row[0] for batch in whole for row in batch}) > 150
    assert Run(tmp_path / "2", 2, options).batches() == whole
    stopped = Run(tmp_path / "4", 4, {**options, "stop": 4})
    assert stopped.batches() == whole[:4]
    resumed = Run(tmp_path / "4 to 2", 2, {**options, "state": stopped.state()})
    assert resumed.batches() == whole[4:]


def test_ranks_that_differ_are_named(tmp_path: Path, options: dict[str, Any]) -> None:
    different = {**options, "ranks": {"2": {"seed": 4}}}
    errors = Run(tmp_path / "differ", 3, {**different, "lanes": 3, "global_batch": 15}).errors()
    assert len(errors) == 3, "on every rank"
    assert all("differ: seed: 4 on rank 2, 3 on the others" in error for error in errors)


def test_a_rank_that_does_not_come_is_named(tmp_path: Path, options: dict[str, Any]) -> None:
    alone = {**options, "ranks": {"1": {"idle": True}}, "wait": 3.0}
    (error,) = Run(tmp_path / "absent", 2, alone).errors()
    assert "rank 1 did not within 3 s" in error


class Wrapped(IterableDataset[Any]):
    """What somebody used to webdataset would write."""

    def __init__(self, loader: tldr.Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Any:
        return ((batch.images, batch.keys) for batch in self.loader)


def test_a_fork_is_refused_with_advice(corpus: Corpus) -> None:
    loader = flat.loader(corpus.urls, mode="full", batch_size=8, image_size=SIZE)
    data = Wrapped(loader)
    with pytest.raises(tldr.StateError, match="needs num_workers=0"):
        next(iter(DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context="fork")))
    # The loader itself is none the worse for it.
    assert len(list(DataLoader(data, batch_size=None, num_workers=0))) == loader.num_batches


def test_a_forked_child_that_drops_a_loader_at_work_says_nothing(corpus: Corpus) -> None:
    code = f"""
import gc, os, sys
import tldr_loader as tldr
images, runtime = tldr.Images(image_size={SIZE}), tldr.Runtime(prefetch=1)
loader = tldr.Loader({corpus.urls!r}, mode="full", batch_size=8, images=images, runtime=runtime)
batches = iter(loader)
next(batches)
child = os.fork()
if child == 0:
    del batches, loader
    gc.collect()
    sys.exit(0)  # as a program ends, not as os._exit does
assert os.waitpid(child, 0)[1] == 0
print(1 + len(list(batches)), loader.num_batches)
"""
    # Python's own warning of forks beside threads is another matter.
    with Child(code, options=["-W", "ignore::DeprecationWarning"]) as process:
        status, out, error = process.end()
    assert (status, error) == (0, "")
    took, all_batches = out.split()
    assert took == all_batches, "the parent goes on"
