"""Compares the loaders of all ranks, once, where a process group is there.

Ranks whose loaders differ in shards, seed or batch size would train on for days with samples seen twice
or never. The loader itself needs no word from other ranks, and calls no collective: this asks the
process group's key-value store, so that nothing is put between the collectives of the training loop,
and an absent rank costs an error, not a hang.

A loader's ranks are those of its own `world_size`, of which the group may have several processes each, as
tensor-parallel groups do: data ranks. In the store, `tldr_loader/WORLD_SIZE/N/RANK` has the first process
that came with the N-th loader of that world as data rank RANK, and a digest of its settings;
`.../settings` beside it the settings; and `tldr_loader/at/PROCESS` what a process waits for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from tldr_loader._errors import ConfigError
from tldr_loader._frameworks import refuse_dispatching

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

__all__ = ["compare", "group", "number"]

TIMEOUT = 600.0
"""Seconds that a rank waits for the others: some take long to count their shards."""

NOTICE = 15.0
"""Seconds after which the wait is said."""

LOOK = 1.0
"""Seconds between two looks at what the other processes wait for."""

logger = logging.getLogger("tldr_loader")

# Ranks start the loaders of a world in one order, as they take their steps: the n-th is the n-th everywhere.
_numbers: Counter[int] = Counter()
# A process waits for one comparison at a time, which is what it says of itself.
_lock = threading.Lock()


def group() -> tuple[int, int] | None:
    """Rank and number of processes of the process group, where one is initialised."""
    # Whoever has made a group has imported torch.
    dist = sys.modules.get("torch.distributed")
    if dist is None or not (dist.is_available() and dist.is_initialized()):
        return None
    return dist.get_rank(), dist.get_world_size()


def number(world_size: int) -> int:
    """The number of the next loader of a world."""
    with _lock:
        _numbers[world_size] += 1
        return _numbers[world_size] - 1


class World(NamedTuple):
    """The loaders that are compared: the `number`-th of `world_size` data ranks."""

    world_size: int
    number: int

    def keys(self) -> list[str]:
        return [f"tldr_loader/{self.world_size}/{self.number}/{rank}" for rank in range(self.world_size)]

    def absent(self, store: Store) -> list[int]:
        """Data ranks that have not come."""
        return [rank for rank, key in enumerate(self.keys()) if not store.check([key])]


def compare(own: dict[str, Any], rank: int, world_size: int, number: int) -> None:
    """Checks that the loaders of all data ranks have the settings `own`.

    Does nothing where the loader is for one rank only, or there is no process group of several.

    Raises:
        ConfigError: Some ranks have others, did not come within `TIMEOUT` seconds, or cannot come, since
            every process is another; names them.
    """
    place = group()
    if world_size == 1 or place is None or place[1] == 1:
        return
    refuse_dispatching()
    process, processes = place
    if world_size > processes:
        raise ConfigError(
            f"the loader is rank {rank} of {world_size} by its options, but the process group has "
            f"{processes} processes: some data ranks would be missing. Give it the number of data-parallel "
            "ranks as world_size"
        )
    store = sys.modules["torch.distributed"].distributed_c10d._get_default_store()
    world = World(world_size, number)
    with _lock:
        key = world.keys()[rank]
        digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
        store.set(f"{key}/settings/{process}", json.dumps(own))
        mine = f"{process} {digest}"
        holder = store.compare_set(key, "", mine).decode()
        if holder != mine and holder.split()[0] == str(process):  # it came before, and was interrupted
            store.set(key, mine)
        at = f"tldr_loader/at/{process}"
        store.set(at, json.dumps([world_size, number, rank]))
        _wait(store, world, process, processes, rank)
        store.set(at, "on")
        held = [value.decode().split() for value in _values(store, world.keys())]
        if all(theirs == digest for _, theirs in held):
            return
        found = {}
        for other, (holder, _) in enumerate(held):
            name = f"rank {other}" if world_size == processes else f"rank {other} (process {holder})"
            found[name] = json.loads(store.get(f"{world.keys()[other]}/settings/{holder}"))
        if held[rank][0] != str(process):
            found[f"rank {rank} (process {process})"] = own
        raise ConfigError(f"the ranks' loaders differ: {_differences(found)}")


def _wait(store: Store, world: World, process: int, processes: int, rank: int) -> None:
    """Waits until a loader of every data rank has come."""
    keys = world.keys()
    start = time.monotonic()
    pause, look, said = 0.01, start + LOOK, False
    while not store.check(keys):
        now = time.monotonic()
        if now > start + TIMEOUT:
            raise ConfigError(
                f"rank {rank} began to iterate over its loader, and rank {_listed(world.absent(store))} did "
                f"not within {TIMEOUT:.0f} s: every rank must make and start the same loaders in the same "
                "order"
            )
        if now > look:
            _check_that_somebody_moves(store, world, processes)
            look = now + LOOK
        if not said and now > start + NOTICE:
            said = True
            logger.warning(
                "rank %d waits for rank %s to start their loaders; a loader that one rank has for itself, to "
                "evaluate with, takes rank=0 and world_size=1",
                rank,
                _listed(world.absent(store)),
            )
        time.sleep(pause)  # Ctrl-C ends it
        pause = min(2 * pause, 1.0)


def _check_that_somebody_moves(store: Store, world: World, processes: int) -> None:
    """Fails where every process of the group waits for a data rank that nobody is."""
    keys = [f"tldr_loader/at/{process}" for process in range(processes)]
    if not store.check(keys):
        return  # somebody has not come yet
    places = [value.decode() for value in _values(store, keys)]
    if "on" in places:
        return
    waiting = [(World(*entry[:2]), entry[2]) for entry in map(json.loads, places)]
    if any(store.check(other.keys()) for other in {other for other, _ in waiting}):
        return  # it will notice
    who = Counter(f"rank {rank} of {other.world_size}" for other, rank in waiting)
    held = ", ".join(f"{name} on {count} processes" if count > 1 else name for name, count in who.items())
    raise ConfigError(
        f"no process has a loader of rank {_listed(world.absent(store))} of {world.world_size}, and all "
        f"{processes} processes of the group wait: they have {held}. Give each data rank to a process, or "
        "leave out rank and world_size"
    )


def _values(store: Store, keys: list[str]) -> list[bytes]:
    if store.has_extended_api():  # type: ignore[attr-defined]
        return list(store.multi_get(keys))
    return [store.get(key) for key in keys]


def _differences(found: dict[str, dict[str, Any]]) -> str:
    """What differs between the settings of ranks, by their names."""
    names = sorted(set().union(*found.values()))
    values = {name: [settings.get(name, "none") for settings in found.values()] for name in names}
    ranks = list(found)
    return "; ".join(f"{name}: {_of_ranks(ranks, of)}" for name, of in values.items() if len(set(of)) > 1)


def _of_ranks(ranks: list[str], values: list[Any]) -> str:
    """Each value with its ranks; most ranks' value last, and without them."""
    by_value: dict[Any, list[str]] = {}
    for rank, value in zip(ranks, values, strict=True):
        by_value.setdefault(value, []).append(rank)
    common = max(by_value, key=lambda value: len(by_value[value]))
    odd = [f"{value} on {_listed(own)}" for value, own in by_value.items() if value != common]
    most = len(by_value[common]) > len(values) / 2
    return ", ".join(odd) + f", {common} on " + ("the others" if most else _listed(by_value[common]))


def _listed(ranks: list[Any]) -> str:
    shown = ", ".join(map(str, ranks[:16]))
    return shown + (f" and {len(ranks) - 16} more" if len(ranks) > 16 else "")
