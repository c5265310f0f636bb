"""What a loader makes of texts: compared with a framework's own tokenizer before a run begins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tldr_loader import _native

if TYPE_CHECKING:
    import torch

__all__ = ["TEXTS", "token_ids"]

TEXTS: tuple[str, ...] = (
    "a photo of a dog",
    "Two CATS, on the sofa; don't touch!",
    "snake_case & 12,345.67 - 50% off?",
    "naïve café, Überraschung",
    "日本語の写真 🦊 x²",
    "x",
    "word " * 120,
)
"""Captions that tell tokenizers apart: case, punctuation, digits, accents, scripts, and a length to cut."""


def token_ids(
    file: str | os.PathLike[str], context_length: int, texts: Sequence[str] = TEXTS, *, cleans: bool = True
) -> torch.Tensor:
    """The token ids that a loader with this tokenizer makes of captions, int64 `[texts, context_length]`.

    Captions are cleaned before, as a loader does, if `cleans`.

    Raises:
        ConfigError: Rows of so many ids cannot be filled.
        DataError: The file is not what it should be.
    """
    import torch

    ids = _native._token_ids(os.fspath(file), list(texts), context_length, cleans)
    return torch.from_numpy(np.from_dlpack(ids).copy())
