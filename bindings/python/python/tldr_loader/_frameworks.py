"""Which releases of frameworks the loops were tried with."""

from __future__ import annotations

import importlib.metadata
import warnings

__all__ = ["TRIED", "check_version"]

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
