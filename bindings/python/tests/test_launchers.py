"""Promise: under any launcher the ranks' samples are disjoint and complete, or every process says why not.

The processes are real ones, of real launchers.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flat
import slurm
import tldr_loader as tldr
from conftest import SIZE, Corpus

TESTS = Path(__file__).parent
PYTHON = sys.executable
TORCHRUN = [PYTHON, "-m", "torch.distributed.run", "--standalone"]
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "OMPI_", "PMI", "SLURM_")
DEADLINE = 300
"""Seconds: half of what a rank waits for another, so that whoever waits that long fails the test."""

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def pairs(make_corpus: Callable[[int, int], Corpus]) -> Corpus:
    """64 samples, which 1, 2 and 4 ranks have in whole batches."""
    return make_corpus(4, 16)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Found]]:
    """Runs steps of launched.py under a launcher: what each process wrote, by the name of the step."""

    def run(
        launcher: list[str], steps: list[dict[str, Any]], *arguments: str, **more: Any
    ) -> dict[str, Found]:
        out = tmp_path / "out"
        out.mkdir()
        (tmp_path / "steps.json").write_text(json.dumps(steps))
        command = [*launcher, str(tmp_path / "steps.json"), str(out), *arguments]
        execute(command, **more)
        found: dict[str, Found] = {step["name"]: [] for step in steps if "name" in step}
        for path in out.iterdir():
            if path.name != "store":
                found[path.name.rpartition(".")[0]].append(json.loads(path.read_text()))
        return found

    return run


def execute(command: list[str], env: dict[str, str] | None = None, fails: bool = False) -> str:
    environment = {
        k: v for k, v in (env or os.environ).items() if not k.startswith(LAUNCHERS) or k == "SLURM_CONF"
    }
    environment["PYTHONPATH"] = f"{TESTS}:{environment.get('PYTHONPATH', '')}"
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE, check=False, env=environment
    )
    assert (done.returncode != 0) == fails, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stderr


def step(name: str, corpus: Corpus, ranks: int = 2, **more: Any) -> dict[str, Any]:
    """A loader of whole batches over everything."""
    options = {
        "source": corpus.urls,
        "mode": "full",
        "batch_size": 16 // ranks,
        "lanes": 4,
        "image_size": SIZE,
    }
    return {"name": name, "options": options, **more}


def complete(found: Found, corpus: Corpus, ranks: int, rank_from: str) -> None:
    """Checks that the processes have disjoint parts of the whole and say where they have their ranks from."""
    assert [one.get("error") for one in found] == [None] * ranks
    assert sorted(one["rank"] for one in found) == list(range(ranks))
    assert sorted(key for one in found for key in one["keys"]) == [pair.key for pair in corpus.pairs]
    for one in found:
        assert (one["world_size"], one["rank_from"]) == (ranks, rank_from)
        assert f"rank {one['rank']} of {ranks}, from {rank_from}" in one["log"]


def refused(found: Found, processes: int, *parts: str) -> None:
    """Checks that each process fails for this reason."""
    assert [one.get("type") for one in found] == ["ConfigError"] * processes, found
    for one in found:
        for part in parts:
            assert part in one["error"]


def test_torchrun(run: Callable[..., dict[str, Found]], pairs: Corpus) -> None:
    validation = {"mode": "eval", "rank": 0, "world_size": 1, "lanes": None}
    steps = [
        step("by variables", pairs),
        step("before the group", pairs, **{"late group": True}),
        step("in the group", pairs),
        step("on rank 0 only", pairs, by_rank={"0": validation, "1": None}),
        step("on rank 1 only", pairs, by_rank={"0": None, "1": {"world_size": 1}}),
        step("twice rank 0", pairs, by_rank={r: {"rank": 0, "world_size": 2} for r in "01"}),
        step(
            "too many", pairs, by_rank={r: {"rank": int(r), "world_size": 4, "batch_size": 4} for r in "01"}
        ),
        step("after all that", pairs),
    ]
    found = run([*TORCHRUN, "--nproc-per-node=2", str(TESTS / "launched.py")], steps)
    complete(found["by variables"], pairs, 2, "RANK and WORLD_SIZE")
    complete(found["before the group"], pairs, 2, "RANK and WORLD_SIZE")
    complete(found["in the group"], pairs, 2, "the process group")
    complete(found["on rank 0 only"], pairs, 1, "its options")
    complete(found["on rank 1 only"], pairs, 1, "its options")
    refused(found["twice rank 0"], 2, "no process has a loader of rank 1 of 2", "rank 0 of 2 on 2 processes")
    refused(found["too many"], 2, "of 4 by its options, but the process group has 2 processes")
    complete(found["after all that"], pairs, 2, "the process group")


def test_tensor_parallel_groups_share_a_data_rank(
    run: Callable[..., dict[str, Found]], pairs: Corpus
) -> None:
    twins: dict[str, Any] = {str(r): {"rank": r // 2, "world_size": 2} for r in range(4)}
    differ = {**twins, "3": {**twins["3"], "seed": 1}}
    worlds = {**twins, "2": {"rank": 2, "world_size": 4}, "3": {"rank": 3, "world_size": 4}}
    steps = [
        {"group": True},
        step("twins", pairs, by_rank=twins),
        step("differ", pairs, by_rank=differ),
        step("two worlds", pairs, by_rank=worlds),
    ]
    found = run([*TORCHRUN, "--nproc-per-node=4", str(TESTS / "launched.py")], steps)
    parts = {(one["rank"], tuple(one["keys"])) for one in found["twins"]}
    assert (len(found["twins"]), len(parts)) == (4, 2), "equal ranks see the same, in one order"
    assert sorted(key for _, keys in parts for key in keys) == [pair.key for pair in pairs.pairs]
    errors = [one["error"] for one in found["differ"] if "error" in one]
    assert errors, "whoever comes after one that differs fails, and the launcher ends the others"
    for error in errors:
        assert all(part in error for part in ("the ranks' loaders differ", "seed: ", "(process 3)"))
    refused(
        found["two worlds"], 4, "all 4 processes of the group wait", "rank 0 of 2 on 2 processes, rank 2 of 4"
    )


def test_spawned_processes_have_their_ranks_from_the_group(
    run: Callable[..., dict[str, Found]], pairs: Corpus
) -> None:
    steps = [
        step("too early", pairs, **{"late group": True, "begin": True}),
        step("in the group", pairs),
    ]
    found = run([PYTHON, str(TESTS / "spawning.py")], steps)
    refused(
        found["too early"], 2, "its loader was made as rank 0 of 1, from no launcher", "init_process_group"
    )
    complete(found["in the group"], pairs, 2, "the process group")


def test_open_mpi(run: Callable[..., dict[str, Found]], pairs: Corpus, tmp_path: Path) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed (Debian's openmpi-bin)")
    launcher = [
        "mpirun",
        "--allow-run-as-root",
        "--oversubscribe",
        "-np",
        "2",
        PYTHON,
        str(TESTS / "launched.py"),
    ]
    steps = [step("by variables", pairs), {"group": True}, step("in the group", pairs)]
    names = ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"]
    found = run(launcher, steps, *names, f"file://{tmp_path}/store")
    complete(found["by variables"], pairs, 2, " and ".join(names))
    complete(found["in the group"], pairs, 2, "the process group")


def test_mpich(run: Callable[..., dict[str, Found]], pairs: Corpus, tmp_path: Path) -> None:
    if shutil.which("mpiexec.hydra") is None:
        pytest.skip("mpiexec.hydra is not installed (Debian's mpich)")
    launcher = ["mpiexec.hydra", "-n", "2", PYTHON, str(TESTS / "launched.py")]
    steps = [step("by variables", pairs), {"group": True}, step("in the group", pairs)]
    names = ["PMI_RANK", "PMI_SIZE"]
    found = run(launcher, steps, *names, f"file://{tmp_path}/store")
    complete(found["by variables"], pairs, 2, " and ".join(names))
    complete(found["in the group"], pairs, 2, "the process group")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a Slurm cluster."""
    if missing := slurm.missing():
        pytest.skip(
            f"{', '.join(missing)} not installed (Debian's slurmctld, slurmd, slurm-client and munge)"
        )
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


SRUN = ["srun", "--ntasks=2", "--overcommit"]


def test_a_slurm_step(
    run: Callable[..., dict[str, Found]], pairs: Corpus, cluster: dict[str, str], tmp_path: Path
) -> None:
    steps = [step("by variables", pairs), {"group": True}, step("in the group", pairs)]
    names = ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS"]
    launcher = [*SRUN, PYTHON, str(TESTS / "launched.py")]
    found = run(launcher, steps, *names, f"file://{tmp_path}/store", env=cluster)
    complete(found["by variables"], pairs, 2, " and ".join(names))
    complete(found["in the group"], pairs, 2, "the process group")


def test_pmi(run: Callable[..., dict[str, Found]], pairs: Corpus, cluster: dict[str, str]) -> None:
    without = ["env", "-u", "SLURM_PROCID", "-u", "SLURM_STEP_NUM_TASKS", "-u", "SLURM_NTASKS"]
    launcher = [*SRUN, "--mpi=pmi2", *without, PYTHON, str(TESTS / "launched.py")]
    found = run(launcher, [step("by variables", pairs)], env=cluster)
    complete(found["by variables"], pairs, 2, "PMI_RANK and PMI_SIZE")


def test_torchrun_counts_where_slurm_starts_one_task_a_node(
    run: Callable[..., dict[str, Found]], pairs: Corpus, cluster: dict[str, str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = f"--rdzv-backend=c10d --rdzv-id=1 --rdzv-endpoint=127.0.0.1:{free.getsockname()[1]}"
    node = f"--nnodes=2 --nproc-per-node=2 {meet}"
    launcher = [*SRUN, PYTHON, "-m", "torch.distributed.run", *node.split(), str(TESTS / "launched.py")]
    steps = [step("by variables", pairs, 4), {"group": True}, step("in the group", pairs, 4)]
    found = run(launcher, steps, env=cluster)
    complete(found["by variables"], pairs, 4, "RANK and WORLD_SIZE")
    complete(found["in the group"], pairs, 4, "the process group")


def test_a_slurm_allocation_is_one_process_with_a_warning(
    run: Callable[..., dict[str, Found]], pairs: Corpus, cluster: dict[str, str]
) -> None:
    launcher = ["salloc", "--ntasks=2", "--overcommit", PYTHON, str(TESTS / "launched.py")]
    found = run(launcher, [step("alone", pairs)], env=cluster)
    complete(found["alone"], pairs, 1, "no launcher: a single process")
    assert any(line.startswith("SLURM_NTASKS=2, but srun did not start") for line in found["alone"][0]["log"])


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_lightning(tmp_path: Path, pairs: Corpus, strategy: str) -> None:
    execute([PYTHON, str(TESTS / "lightning_run.py"), strategy, "hook", pairs.urls, str(tmp_path)])
    found = [json.loads(path.read_text()) for path in tmp_path.iterdir()]
    assert sorted(one["rank"] for one in found) == [0, 1]
    assert {one["rank_from"] for one in found} == {"the process group"}
    assert sorted(key for one in found for key in one["keys"]) == [pair.key for pair in pairs.pairs]


def test_lightning_with_a_loader_from_before_its_processes_fails(tmp_path: Path, pairs: Corpus) -> None:
    command = [PYTHON, str(TESTS / "lightning_run.py"), "ddp", "script", pairs.urls, str(tmp_path)]
    said = execute(command, fails=True)
    assert all(part in said for part in ("its loader was made as rank 0 of 1", "in train_dataloader"))


def test_open_clip_validates_on_rank_0(tmp_path: Path, pairs: Corpus) -> None:
    execute([*TORCHRUN, "--nproc-per-node=2", str(TESTS / "validating.py"), pairs.urls, str(tmp_path)])
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert found == [{"samples": 64, "yielded": 64}, {"samples": None, "yielded": 0}]


def test_a_world_size_without_a_rank_waits_for_a_group(
    monkeypatch: pytest.MonkeyPatch, pairs: Corpus
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    loader = flat.loader(**step("", pairs)["options"])
    assert (len(loader), loader.rank, loader.world_size) == (4, None, 2)
    assert loader.stats()["rank"] is None
    batches = iter(loader)
    for _ in range(2):  # it stays an error
        with pytest.raises(tldr.ConfigError, match="WORLD_SIZE=2 but no RANK, and no process group"):
            next(batches)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "the environment has RANK=1 but no WORLD_SIZE"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "invalid RANK=2: expected less than WORLD_SIZE=2"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "invalid RANK=one: expected a whole number"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, "has OMPI_COMM_WORLD_RANK=0 but no OMPI_COMM_WORLD_SIZE"),
    ],
)
def test_half_an_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, pairs: Corpus, environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(tldr.ConfigError, match=message):
        flat.loader(**step("", pairs)["options"])


@pytest.mark.parametrize("given", [{"rank": 1}, {"world_size": 2}])
def test_half_of_the_options_is_refused(pairs: Corpus, given: dict[str, Any]) -> None:
    with pytest.raises(tldr.ConfigError, match="to be given too, or neither"):
        flat.loader(**step("", pairs)["options"], **given)
