"""Rows that compare a GPU with the CPU, a copy stream with its consumer, and one GPU with another."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import bench
import machine
import torch
from captioners import Captioners

import tldr_loader as tldr

EVERYTHING = tldr.Selection(keep_ratio=1.0, gate=tldr.Top(1.0))
GATE = 0.5
LATER = 4
"""Batches are compared so many batches after they were taken."""
Signals = dict[str, tuple[int | None, float | None]]


def signals(source: Path, captioners: Captioners, device: str) -> tuple[Signals, float]:
    """Cluster and alignment of every sample by key, and the seconds of encoding them."""
    loader = tldr.Loader(
        source,
        captioner=captioners.path,
        selection=EVERYTHING,
        images=tldr.Images(image_size=16),
        batch_size=16,
        device=device,
        world=tldr.World(lanes=1),
    )
    found: Signals = {}
    for batch in loader:
        found |= {
            key: (cluster, alignment)
            for key, cluster, alignment in zip(batch.keys, batch.clusters, batch.alignment, strict=True)
        }
    return found, float(loader.stats()["seconds"]["encode"])


def compared(run: bench.Bench, source: Path, captioners: Captioners) -> bench.Fields:
    """Signals by the CPU in float32 and by the device: what a ledger of one is worth on the other."""
    ours, cpu_s = signals(source, captioners, "cpu")
    theirs, device_s = signals(source, captioners, run.device)
    keys = sorted(ours.keys() & theirs.keys())
    same = sum(ours[key][0] == theirs[key][0] for key in keys)
    pairs = [(a, b) for key in keys if (a := ours[key][1]) is not None and (b := theirs[key][1]) is not None]
    both = torch.tensor(pairs, dtype=torch.float64).T
    correlation = float(torch.corrcoef(both)[0, 1])
    return {
        "samples": len(keys),
        "device": run.device,
        "same_cluster": bench.ratio(same, len(keys)),
        "correlation": None if correlation != correlation else round(correlation, 6),
        "largest_difference": bench.digits(float((both[0] - both[1]).abs().max())),
        "flipped_at_the_gate": float(((both[0] >= GATE) != (both[1] >= GATE)).double().mean()),
        "cpu_encode_s": round(cpu_s, 3),
        "device_encode_s": round(device_s, 3),
    }


def copies(run: bench.Bench, source: Path, tokenizer: Path) -> bench.Fields:
    """Compares what the consumer's stream sees of batches on the GPU, bit by bit, with those of the host.

    Every second batch is read behind work that was queued before, when its tensors are long let go: memory
    that the copy stream used again too early would be seen. The others are read at once: a copy that was not
    waited for would be seen.
    """
    wanted = run.size(500, 20)

    def loader(device: str) -> tldr.Loader:
        return tldr.Loader(
            source,
            mode="full",
            images=tldr.Images(image_size=run.size(224, 32)),
            tokenizer=tokenizer,
            batch_size=run.size(32, 8),
            device=device,
        )

    host, there = loader("cpu"), loader(run.device)
    work = torch.randn(run.size(4096, 64), run.size(4096, 64), device=run.device)
    seen: deque[tuple[list[torch.Tensor], list[torch.Tensor]]] = deque()
    same = done = begun = 0
    cut = False
    while begun < wanted and not cut:
        for ours, theirs in zip(host, there, strict=True):
            if begun % 2:
                work = torch.nn.functional.normalize(work @ work)
            seen.append(([tensor.clone() for tensor in theirs], list(ours)))
            begun += 1
            cut = run.left() < 2
            if begun == wanted or cut:
                break
            if len(seen) > LATER:
                same, done = same + agree(*seen.popleft()), done + 1
    while seen:
        same, done = same + agree(*seen.popleft()), done + 1
    if same != done:
        raise AssertionError(f"{done - same} of {done} batches differ on {run.device}")
    return {"batches": done, "same": same, "cut": cut}


def agree(there: list[torch.Tensor], host: list[torch.Tensor]) -> bool:
    return all(torch.equal(theirs.cpu(), ours) for theirs, ours in zip(there, host, strict=True))


RANK = """
import sys
source, device, sys.path[:0] = sys.argv[1], sys.argv[2], sys.argv[3:]
import tldr_loader as tldr
images = tldr.Images(image_size=64)
loader = tldr.Loader(source, mode="full", batch_size=16, images=images, device=device)
held = [batch.images.sum().item() and batch for batch in loader]
print("there", flush=True)
sys.stdin.readline()
"""
"""A rank that trains on one GPU of several: it holds its batches until it is told to end."""


def other_gpus(run: bench.Bench, source: Path) -> bench.Fields:
    """Whether a rank on the last GPU takes memory on another: by nvidia-smi, before it and beside it."""
    count = torch.cuda.device_count()
    if count < 2:
        raise bench.Skip("one GPU, and no other")
    device = f"cuda:{count - 1}"
    more = grown(source, device)
    own = more.pop(f"GPU-{torch.cuda.get_device_properties(device).uuid}", None)
    return {"gpus": count, "rank_on": device, "its_own_mib": own, "others_mib": max(more.values())}


def grown(source: Path, device: str) -> dict[str, float]:
    """MiB that every GPU has more in use while a rank holds an epoch of batches on one of them."""
    before = settled(machine.used_by_gpu)
    command = [sys.executable, "-c", RANK, str(source), device, *sys.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as rank:
        try:
            assert rank.stdout is not None
            if rank.stdout.readline().strip() != "there":
                raise RuntimeError(f"the rank on {device} ended early")
            beside = machine.used_by_gpu()
        finally:
            rank.kill()
    return {uuid: beside[uuid] - used for uuid, used in before.items()}


def settled(query: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What is said twice in a row: memory of a row that has just ended is given back late."""
    last = query()
    for _ in range(10):
        time.sleep(0.5)
        now = query()
        if now == last:
            break
        last = now
    return last
