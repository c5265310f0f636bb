"""Frameworks whose loops were tried: which releases, and what to say where a loader is wrapped."""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from typing import NoReturn

from tldr_loader._errors import ConfigError

__all__ = ["TRIED", "check_version", "not_by_index", "refuse_dispatching"]

BARE = (
    "give the loop the loader itself: `for images, tokens in loader`, with no DataLoader around it and "
    "nothing for accelerate to prepare"
)

TRIED = {
    "open_clip_torch": ("3.3",),
    "transformers": ("5.23",),
    "accelerate": ("1.15",),
}
"""By the name of the distribution, the releases that `make test-loops` runs."""


def check_version(distribution: str) -> None:
    """Warns of a release that was not tried; names those that were."""
    try:
        found = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    tried = TRIED[distribution]
    if not any(f"{found}.".startswith(f"{release}.") for release in tried):
        warnings.warn(
            f"tldr_loader was tried with {distribution} {', '.join(tried)} and found {found}: what this "
            "version changed may not be obeyed. Compare a few batches before a long run, or install one that "
            "was tried",
            RuntimeWarning,
            stacklevel=3,
        )


def not_by_index(loader: object, index: int) -> NoReturn:
    """A loader's `__getitem__`, which torch's `DataLoader` calls.

    Raises:
        ConfigError: Always: says what to write instead.
    """
    raise ConfigError(
        f"loader[{index!r}]: a loader has batches in an order of its own, and no rows by number, which "
        f"torch's DataLoader asks for; {BARE} (docs/loops/accelerate.md)"
    )


def refuse_dispatching() -> None:
    """Fails where accelerate iterates over a loader of several ranks.

    It reads on one process what it sends to all, so that the other ranks' loaders never start.

    Raises:
        ConfigError: It does.
    """
    if "accelerate.data_loader" not in sys.modules:
        return
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__") == "accelerate.data_loader":
            raise ConfigError(
                "accelerate's DataLoader iterates over this loader: it would read on one process and cut its "
                f"batches up for the others, whose shares nobody reads; {BARE} (docs/loops/accelerate.md)"
            )
