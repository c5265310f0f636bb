"""A dataloader for vision-language pre-training that reduces the stream while training reads it.

    import tldr_loader as tldr

    captioner = tldr.Captioner.train("shards/{00000..00331}.tar", "captioner/")
    captioner.fit("shards/{00000..00331}.tar")
    loader = tldr.Loader("shards/{00000..00331}.tar", captioner="captioner/", tokenizer="clip.json",
                         selection=tldr.Selection(keep_ratio=0.25), batch_size=256)
    for images, tokens in loader:  # float32 [256, 3, 224, 224] and int64 [256, 77] tensors
        ...

`Loader` reads image-text pairs from tar shards, keeps a share of each cluster that the captioner
sees, refines the captions and yields batches of torch tensors. `Captioner` trains and fits the
model that decides; it comes with `pip install "tldr-loader[captioner]"` and needs torch 2.11.
`Ledger` remembers what was found out, so that the next epoch is cheap, and needs no captioner.
All else works with any torch, and without one.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import warnings
from typing import TYPE_CHECKING, Any

from tldr_loader._errors import (
    CaptionerError,
    ConfigError,
    DataError,
    LedgerError,
    LockedError,
    NoSamplesError,
    OutOfMemoryError,
    StateError,
    TldrError,
)
from tldr_loader._frameworks import not_by_index
from tldr_loader._jobs import Audit, Export, Inspection, Plan, Recording, audit, export, inspect, plan, record
from tldr_loader._native import _OPTIMISED, Array, Batch, Batches, Ledger, Loader, __version__, _end, synth
from tldr_loader._notation import AtLeast, Best, Cap, Coin, Concat, Gated, Mix, Tempered, Top
from tldr_loader._options import LOADER, Captions, Images, Runtime, Selection, Source, Store, World
from tldr_loader._report import Explained, Report, explain, report
from tldr_loader._stats import Stats, scalars

if TYPE_CHECKING:
    from tldr_loader._scorers import FittedScorer, Scorer, ScorerFit, fit
    from tldr_loader_captioner import Captioner, Matcher

# What needs NumPy, which a loader does not.
_SCORERS = ("FittedScorer", "Scorer", "ScorerFit", "fit")

__all__ = [
    "Array",
    "AtLeast",
    "Audit",
    "Batch",
    "Batches",
    "Best",
    "Cap",
    "Captioner",
    "CaptionerError",
    "Captions",
    "Coin",
    "Concat",
    "ConfigError",
    "DataError",
    "Explained",
    "Export",
    "FittedScorer",
    "Gated",
    "Images",
    "Inspection",
    "Ledger",
    "LedgerError",
    "Loader",
    "LockedError",
    "Matcher",
    "Mix",
    "NoSamplesError",
    "OutOfMemoryError",
    "Plan",
    "Recording",
    "Report",
    "Runtime",
    "Scorer",
    "ScorerFit",
    "Selection",
    "Source",
    "StateError",
    "Stats",
    "Store",
    "Tempered",
    "TldrError",
    "Top",
    "World",
    "__version__",
    "audit",
    "explain",
    "export",
    "fit",
    "inspect",
    "plan",
    "record",
    "report",
    "scalars",
    "synth",
]

# The text on its options is made of what declares them, as the options' own classes are.
Loader.__doc__ = LOADER
_native_loader: Any = Loader
_native_loader.__getitem__ = not_by_index

# Threads of loaders that are still running must not call into a Python that ends.
atexit.register(_end, os.getpid())

if not _OPTIMISED:
    warnings.warn(
        "tldr_loader was compiled without optimisation and reads several times slower than it should: build "
        "it with `make`, or with `pip install ./bindings/python`",
        RuntimeWarning,
        stacklevel=2,
    )


def __getattr__(name: str) -> Any:
    """Models are those of the package of the captioner, which is imported when asked for; so is NumPy."""
    if name in _SCORERS:
        from tldr_loader import _scorers

        return getattr(_scorers, name)
    if name not in ("Captioner", "Matcher"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if importlib.util.find_spec("tldr_loader_captioner") is None:
        raise ImportError(
            f"tldr_loader.{name} comes with the captioner, which is not installed: pip install "
            '"tldr-loader[captioner]" (it needs torch 2.11). Under another torch, or without one, a loader '
            "takes a ledger that was recorded where the captioner is (docs/captioner.md), or gates by scores "
            "of a model of your own (Selection.gate, by a field)"
        )
    import tldr_loader_captioner

    return getattr(tldr_loader_captioner, name)


def __dir__() -> list[str]:
    return __all__


if importlib.util.find_spec("tldr_loader_captioner") is None:
    # So that `import *` and `help` do without.
    globals()["__all__"] = [name for name in __all__ if name not in ("Captioner", "Matcher")]
