"""A dataloader for vision-language pre-training that compresses the stream while training reads it.

    import tldr_loader as tldr

    captioner = tldr.Captioner.train("shards/{00000..00331}.tar", "captioner/")
    captioner.fit("shards/{00000..00331}.tar")
    loader = tldr.Loader("shards/{00000..00331}.tar", captioner="captioner/", keep_ratio=0.25,
                         batch_size=256, image_size=224, tokenizer="clip.json")
    for images, tokens in loader:  # float32 [256, 3, 224, 224] and int64 [256, 77] tensors
        ...

`Loader` reads image-text pairs from tar shards, keeps a share of each cluster that the captioner
sees, refines the captions and yields batches of torch tensors. `Captioner` trains and fits the
model that decides. `Ledger` remembers what was found out, so that the next epoch is cheap.
"""

from __future__ import annotations

import torch

# libtorch has no stable interface: the native module works with the release it was built against.
_TORCH = "2.11."
if not torch.__version__.startswith(_TORCH):
    raise ImportError(
        f"tldr_loader was built for PyTorch {_TORCH}x and found {torch.__version__}: install torch=={_TORCH}*"
    )

# After torch, whose libraries the native module shares.
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
from tldr_loader._native import Batch, Batches, Captioner, Ledger, Loader, Matcher, __version__, synth

__all__ = [
    "Batch",
    "Batches",
    "Captioner",
    "CaptionerError",
    "ConfigError",
    "DataError",
    "Ledger",
    "LedgerError",
    "Loader",
    "LockedError",
    "Matcher",
    "NoSamplesError",
    "OutOfMemoryError",
    "StateError",
    "TldrError",
    "__version__",
    "synth",
]
