"""What a row says of the machine: its name, speeds, the GPU's busy share, peak memory of host and GPU."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import subprocess
import threading
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType

import bench
import torch

import tldr_loader as tldr

QUERY = ["--format=csv,noheader,nounits"]


def describe(run: bench.Bench) -> bench.Fields:
    """Where a table comes from."""
    found: bench.Fields = {
        "device": "CPU",
        "cores": threads(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tldr_loader": tldr.__version__,
        "tiny": run.tiny,
    }
    try:
        found["transformers"] = version("transformers")
    except PackageNotFoundError:
        found["transformers"] = None
    if run.on_gpu:
        properties = torch.cuda.get_device_properties(run.device)
        memory = round(properties.total_memory / 2**30, 1)
        found |= {"device": properties.name, "gpus": torch.cuda.device_count(), "gpu_memory_gib": memory}
    return found


def threads() -> int:
    """Cores that this process may use: as many threads decode."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def per_second(work: Callable[[], object], seconds: float, device: str) -> float:
    """Calls a second, the first two aside, which allocate and choose kernels."""
    for _ in range(2):
        work()
    wait(device)
    started, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - started < seconds:
        work()
        # A call is over when the device is done with it.
        wait(device)
        calls += 1
    return calls / (time.perf_counter() - started)


class Watch:
    """Seconds, peak memory and the GPU's busy share while it is entered.

    The busy share is nvidia-smi's: the share of a sample's time in which any kernel ran.
    """

    def __init__(self, device: str) -> None:
        self.device, self.on_gpu = device, device.startswith("cuda")
        self.seconds = 0.0
        self.started = time.perf_counter()
        self.sampler: Sampler | None = None

    def __enter__(self) -> Watch:
        forget_peak()
        if self.on_gpu:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats(self.device)
            self.sampler = Sampler(str(torch.cuda.get_device_properties(self.device).uuid))
        self.started = time.perf_counter()
        return self

    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait(self.device)
        self.seconds = self.elapsed()
        if self.sampler is not None:
            self.sampler.stop()

    def fields(self) -> bench.Fields:
        found: bench.Fields = {
            "seconds": round(self.seconds, 3),
            "peak_host_mib": round(peak_mib()),
            "peak_gpu_mib": None,
            "gpu_busy": None,
        }
        if self.on_gpu:
            # The captioner allocates by the same libtorch, so this counts it too.
            found["peak_gpu_mib"] = round(torch.cuda.max_memory_reserved(self.device) / 2**20)
        if self.sampler is not None:
            found["gpu_busy"] = self.sampler.busy()
            found["peak_gpu_used_mib"] = self.sampler.most_used()
        return found


class Sampler:
    """Asks nvidia-smi five times a second, from a thread."""

    def __init__(self, uuid: str, command: str = "nvidia-smi") -> None:
        self.samples: list[tuple[float, float]] = []
        words = [command, f"--id=GPU-{uuid.removeprefix('GPU-')}", "--query-gpu=utilization.gpu,memory.used"]
        self.process: subprocess.Popen[str] | None = None
        try:
            self.process = subprocess.Popen(
                [*words, *QUERY, "-lms", "200"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        except OSError:
            return  # no such command: the row says null
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                busy, used = (float(word) for word in line.split(","))
            except ValueError:
                continue  # "[N/A]", where the card does not count
            self.samples.append((busy / 100, used))

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.thread.join(10)

    def busy(self) -> float | None:
        busy = [share for share, _ in self.samples]
        return bench.digits(sum(busy) / len(busy), 3) if busy else None

    def most_used(self) -> float | None:
        return max((used for _, used in self.samples), default=None)


def used_by_gpu() -> dict[str, float]:
    """MiB in use on every GPU of the machine, by its name for nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=uuid,memory.used", *QUERY]
    try:
        out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise bench.Skip(f"nvidia-smi: {type(error).__name__}") from None
    rows = (line.split(",") for line in out.splitlines() if "," in line)
    return {uuid.strip(): float(used) for uuid, used in rows}


def forget_peak() -> None:
    """Lets the kernel count this process's peak memory anew, where it may."""
    # Where it may not, peaks are those of the whole run so far.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """The most memory that this process has had since `forget_peak`."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        (kib,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        return int(kib) / 1024
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
