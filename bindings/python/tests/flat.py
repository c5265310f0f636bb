"""A loader of options that stand in one row, for tests that vary them: each goes to the group that has it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import tldr_loader as tldr

GROUPS = {
    "selection": tldr.Selection,
    "captions": tldr.Captions,
    "images": tldr.Images,
    "runtime": tldr.Runtime,
    "world": tldr.World,
}
OF_SOURCE = {field.name for field in fields(tldr.Source)}
OF_STORE = {field.name for field in fields(tldr.Store)}


def grouped(source: Any, **flat: Any) -> tuple[Any, dict[str, Any]]:
    """The source and the keywords of `Loader`."""
    groups: dict[str, dict[str, Any]] = {name: {} for name in GROUPS}
    of_source: dict[str, Any] = {}
    of_store: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, value in flat.items():
        found = [group for group, kind in GROUPS.items() if name in {field.name for field in fields(kind)}]
        if name in OF_STORE:
            of_store[name] = value
        elif name in OF_SOURCE:
            of_source[name] = value
        elif found:
            groups[found[0]][name] = value
        else:
            options[name] = value
    for name, kind in GROUPS.items():
        if groups[name]:
            options[name] = kind(**groups[name])
    if of_store:
        of_source["store"] = tldr.Store(**of_store)
    return (tldr.Source(source, **of_source) if of_source else source), options


def loader(source: Any, **flat: Any) -> tldr.Loader:
    """A loader of them."""
    source, options = grouped(source, **flat)
    return tldr.Loader(source, **options)


def options() -> list[str]:
    """Every option of every group."""
    of_groups = [field.name for kind in GROUPS.values() for field in fields(kind)]
    return [*of_groups, *OF_STORE, *(OF_SOURCE - {"urls", "store"})]
