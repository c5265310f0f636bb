"""Models of other packages: what a loader asks of one, and how captioner directories are opened.

The native module calls these methods on threads of its own. A model that computes for long gives Python's
lock up while it does. A row's results must not depend on the other rows: batches always have `batch_size`
rows, of which some may be blank.
"""

from __future__ import annotations

import importlib.util
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Model", "scorer"]


class Model(Protocol):
    """Gives signals of samples, and writes captions where `caption_fingerprint` is a number.

    Arrays are objects with `__dlpack__`, on the CPU.

    Attributes:
        dim: Length of an embedding.
        preview_size: Side of the square previews it takes, in pixels.
        preview_filter: How they are resized: `bilinear` or `bicubic`.
        batch_size: Rows of every batch.
        clusters: Number of clusters.
        fingerprint: Identifies weights, clusters and previews: signals of different ones never mix.
        compute: How it computes, in words; empty where that changes nothing.
        caption_batch_size: Rows of every batch of captions.
        caption_fingerprint: Identifies weights and settings of captions; `None` where it writes none.
    """

    dim: int
    preview_size: int
    preview_filter: str
    batch_size: int
    clusters: int
    fingerprint: int
    compute: str
    caption_batch_size: int
    caption_fingerprint: int | None

    def signals(self, previews: Any, captions: list[str]) -> tuple[Any, Any, Any, Any]:
        """Signals of uint8 previews `[batch, 3, preview_size, preview_size]` with their captions.

        Returns:
            Clusters, uint32 `[batch]`; alignments, float32 `[batch]`; embeddings, float32 `[batch, dim]`;
            semantic hashes, uint64 `[batch, 4]`.
        """

    def caption(self, previews: Any, ids: list[int]) -> list[str]:
        """Captions of uint8 previews `[caption_batch_size, 3, preview_size, preview_size]`.

        `ids` are the samples of the first rows.
        """


def scorer(option: str, path: str | PathLike[str], device: str) -> Model | str:
    """The captioner or matcher in a directory; why not, where their package cannot be used.

    Raises:
        ConfigError: The device cannot be used.
        DataError: A file of the directory is not what it should be.
    """
    if (Path(path) / "probe.npz").is_file():
        return f"it was fitted with a scorer of your own (give tldr.FittedScorer({str(path)!r}, scorer))"
    if importlib.util.find_spec("tldr_loader_captioner") is None:
        return 'the captioner is not installed (pip install "tldr-loader[captioner]", with torch 2.11)'
    try:
        import tldr_loader_captioner
    except ImportError as error:
        return str(error)
    found: Model = tldr_loader_captioner._scorer(option, path, device)
    return found
