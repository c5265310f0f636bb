"""Compares the loaders of all ranks, once, where a process group is there.

Ranks whose loaders differ in shards, seed or batch size would train on for days with samples seen twice
or never. The loader itself needs no word from other ranks, and calls no collective: this asks the
process group's key-value store, so that nothing is put between the collectives of the training loop,
and an absent rank costs an error, not a hang.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from typing import Any

import torch.distributed as dist

from tldr_loader._errors import ConfigError

__all__ = ["compare"]

TIMEOUT = 600.0
"""Seconds that a rank waits for the others: some take long to count their shards."""

NOTICE = 15.0
"""Seconds after which the wait is said."""

logger = logging.getLogger("tldr_loader")

# Ranks start their loaders in one order, as they take their steps: the n-th is the n-th everywhere.
_numbers = itertools.count()


def compare(own: dict[str, Any], rank: int, world_size: int) -> None:
    """Checks that the loader of every rank has the settings `own`.

    Does nothing where there is no process group of `world_size` processes: the loader may be for one
    rank only.

    Raises:
        ConfigError: Some ranks have others, or did not come within `TIMEOUT` seconds; names them.
    """
    if world_size < 2 or not (dist.is_available() and dist.is_initialized()):
        return
    if dist.get_world_size() != world_size or dist.get_rank() != rank:
        return
    store = dist.distributed_c10d._get_default_store()
    number = next(_numbers)
    keys = [f"tldr_loader/{number}/{other}" for other in range(world_size)]
    store.set(keys[rank], json.dumps(own, sort_keys=True))
    end = time.monotonic() + TIMEOUT
    pause = 0.01
    said = time.monotonic() + NOTICE
    while not store.check(keys):
        if time.monotonic() > end:
            absent = [other for other, key in enumerate(keys) if not store.check([key])]
            raise ConfigError(
                f"rank {rank} began to iterate over its loader, and rank {_listed(absent)} did not within "
                f"{TIMEOUT:.0f} s: every rank must make and start the same loaders in the same order"
            )
        if said and time.monotonic() > said:
            absent = [other for other, key in enumerate(keys) if not store.check([key])]
            logger.warning(
                "rank %d waits for rank %s to start their loaders; a loader that one rank has for itself, to "
                "evaluate with, takes rank=0 and world_size=1",
                rank,
                _listed(absent),
            )
            said = 0.0
        time.sleep(pause)  # Ctrl-C ends it
        pause = min(2 * pause, 1.0)
    found = [json.loads(store.get(key)) for key in keys]
    differences = [
        f"{name}: {_values([one.get(name, 'none') for one in found])}"
        for name in sorted(set().union(*found))
        if any(one.get(name, "none") != found[0].get(name, "none") for one in found)
    ]
    if differences:
        raise ConfigError(f"the ranks' loaders differ: {'; '.join(differences)}")


def _values(of_ranks: list[Any]) -> str:
    """Each value with its ranks; most ranks' value last, and without them."""
    ranks: dict[Any, list[int]] = {}
    for rank, value in enumerate(of_ranks):
        ranks.setdefault(value, []).append(rank)
    common = max(ranks, key=lambda value: len(ranks[value]))
    odd = [f"{value} on rank {_listed(own)}" for value, own in ranks.items() if value != common]
    most = len(ranks[common]) > len(of_ranks) / 2
    return ", ".join(odd) + f", {common} on " + ("the others" if most else f"rank {_listed(ranks[common])}")


def _listed(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:16]))
    return shown + (f" and {len(ranks) - 16} more" if len(ranks) > 16 else "")
