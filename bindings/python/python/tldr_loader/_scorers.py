"""Scorers of the user's own: any model that embeds images and says how well captions fit them.

`fit` measures a corpus with one and writes a folder; a `FittedScorer` is both together, and what the option
`captioner` of a loader takes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from tldr_loader import _native
from tldr_loader._errors import ConfigError
from tldr_loader._options import Images, Source
from tldr_loader._progress import of_job, with_bar
from tldr_loader._scorer_adapter import PROBE, Adapter

__all__ = ["FittedScorer", "Scorer", "ScorerFit", "fit"]

_Path: TypeAlias = str | os.PathLike[str]
_Sources: TypeAlias = _Path | Sequence[_Path] | Source

logger = logging.getLogger("tldr_loader")


class Scorer(Protocol):
    """What an object needs to decide for a loader. Only `score` and these four attributes are required.

    Attributes:
        preview_size: Side of the square previews it takes, in pixels.
        resize: How pictures become previews: `squash`, or `crop` (shorter side, then the centre).
        batch_size: Rows of every batch; unused rows are blank.
        fingerprint: A text or number that names the weights and whatever else scores depend on.
        interpolation: `bilinear` (only for `squash`) or `bicubic`. Default: `bicubic`.
        mean: With `std`: previews arrive as float32, normalised, instead of uint8.
        std: See `mean`.
        device: Where previews arrive, as torch names it. Default: the CPU.
        autocast: Number type of torch's autocast, such as `torch.bfloat16`. Default: none.
        tokenizer: Called with a list of captions; `score` gets what it returns, on the device. The ids of one
            of open_clip are made by the loader's threads, if they make the same.
        fast_tokenizer: With `tokenizer`: the one of transformers that it calls, and its `max_length`, so that
            the loader's threads make ids and mask in its place, if they make the same.
        caption_fingerprint: With a method `caption`: names weights and settings of the captions it writes.
    """

    @property
    def preview_size(self) -> int: ...

    @property
    def resize(self) -> str: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def fingerprint(self) -> str | int: ...

    def score(self, previews: Any, captions: Any) -> Mapping[str, Any]:
        """Scores a batch. A row's result must not depend on the other rows.

        Args:
            previews: `[batch_size, 3, preview_size, preview_size]`: a tensor where torch is installed, else a
                NumPy array.
            captions: A list of `batch_size` texts, or what `tokenizer` makes of it.

        Returns:
            `embedding` `[batch_size, dim]`, and `alignment` `[batch_size]`, higher is better, or in its place
            `text_embedding` `[batch_size, dim]`, whose cosine with the embedding it is. `cluster`
            `[batch_size]` where the model has clusters of its own. Tensors on any device, NumPy arrays, or
            whatever has `__dlpack__`.
        """


@dataclass(frozen=True)
class ScorerFit:
    """How a fit of a scorer ended."""

    points: int
    """Samples that it was measured on."""
    dim: int
    """Length of an embedding."""
    clusters: int
    runs: int
    failed: int
    """Samples that could not be used, of those that were drawn."""
    fingerprint: str
    mean_similarity: float
    """Mean cosine of a sample and its centroid."""
    pass_rate: float
    """Share that a gate of 0.5 lets through."""
    pass_by_length: list[tuple[int, int, int, float]]
    """The same by caption length: least and most words, samples, share."""
    pass_by_run: list[float]
    warnings: list[str]
    auc: float | None
    """Chance that a true caption aligns better than a swapped one; `None` where there were no pairs."""
    auc_error: float | None
    pairs: int


def fit(
    source: _Sources,
    scorer: Scorer,
    out: _Path,
    *,
    images: Images | None = None,
    clusters: int | None = None,
    samples: int | None = None,
    alignment_norm: str | None = None,
    seed: int | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> FittedScorer:
    """Measures a corpus with a scorer: clusters, their shares, and how alignments are distributed.

    Args:
        source: The corpus.
        scorer: The model.
        out: Folder that the result is written into.
        images: `max_image_pixels`, `exif_orientation` and `alpha`, as in the loaders to come.
        clusters: Number of clusters. Default: a hundredth of the samples, between 8 and 3,000.
        samples: Samples to measure on. Default: all, up to 300,000 and 256 MiB of embeddings.
        alignment_norm: How alignments are made comparable: `matched` (among captions of similar length in
            similar clusters), `mean` or `sum`. Default: `matched`.
        seed: Seed of sampling and of the first centroids. Default: 0.
        progress: Called with `"fit"`, samples done, and samples in all. Default: a bar, where tqdm is
            installed and stderr is a terminal or a notebook.

    Returns:
        The scorer with what was found, for the option `captioner` of a loader.

    Raises:
        ConfigError: An option, or an attribute of the scorer, that cannot work.
        CaptionerError: The scorer raised, or returned what does not fit together.
        DataError: A corpus that cannot be read, or has no usable sample.
    """
    adapter = Adapter(scorer)
    given = {
        "images": images,
        "clusters": clusters,
        "samples": samples,
        "alignment_norm": alignment_norm,
        "seed": seed,
    }
    options = {name: value for name, value in given.items() if value is not None}
    job = with_bar("fit", _native._fit, of_job)
    found = job(source, adapter, os.fspath(out), progress=progress, **options)
    adapter.probe().save(Path(out) / PROBE)
    found["pass_by_length"] = [tuple(row) for row in found["pass_by_length"]]
    report = ScorerFit(**found)
    for warning in report.warnings:
        logger.warning("%s", warning)
    return FittedScorer(out, scorer, report=report)


class FittedScorer:
    """A scorer and the folder of its fit: for the options `captioner` and `judge`.

    Args:
        path: Folder that `fit` wrote.
        scorer: The model that was fitted. Another one is refused.

    Raises:
        ConfigError: A folder that `fit` did not write, or another scorer than the fitted one.
    """

    def __init__(self, path: _Path, scorer: Scorer, *, report: ScorerFit | None = None) -> None:
        self.path = os.fspath(path)
        self.scorer = scorer
        self.report = report
        self._adapter = Adapter(scorer)
        if not (Path(self.path) / PROBE).is_file():
            raise ConfigError(f"invalid path={self.path!r}: expected a folder that tldr.fit wrote")
        centroids, fitted = _native._fitted(self.path)
        if fitted != self._adapter.fingerprint:
            raise ConfigError(
                f"invalid scorer={scorer!r}: expected the one that {self.path} was fitted with, of "
                f"fingerprint {fitted:016x}, found {self._adapter.fingerprint:016x}: give that one, or fit "
                "anew"
            )
        self._adapter.place(np.from_dlpack(centroids))
        self._adapter.check(Path(self.path) / PROBE)

    def __repr__(self) -> str:
        return f"FittedScorer({self.path!r}, {self.scorer!r})"

    def _scorer(self) -> Adapter:
        return self._adapter
