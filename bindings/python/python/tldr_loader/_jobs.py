"""The jobs of the command line, with the same options and with results of a type."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tldr_loader import _native
from tldr_loader._options import Images, Runtime, Selection, Source
from tldr_loader._progress import of_job, with_bar

if TYPE_CHECKING:
    from tldr_loader._scorers import FittedScorer
    from tldr_loader_captioner import Captioner

__all__ = [
    "Audit",
    "Check",
    "Checksums",
    "Export",
    "Inspection",
    "Plan",
    "Recording",
    "ShardInspection",
    "Spread",
    "audit",
    "export",
    "inspect",
    "plan",
    "record",
]

_Path: TypeAlias = str | os.PathLike[str]
_Sources: TypeAlias = _Path | Sequence[_Path] | Source | Sequence[Source]
Progress: TypeAlias = Callable[[str, int, int], object]
"""Called with a stage, what is done of it, and of how much."""


@dataclass(frozen=True)
class Spread:
    """Least, lower median, greatest and mean of a number."""

    min: int
    median: int
    max: int
    mean: float


@dataclass(frozen=True)
class Checksums:
    """What comparing images with the `sha256` of the corpus gave, in samples."""

    same: int
    different: int
    """Those that img2dataset encoded anew are among them: its checksum is of the file as downloaded."""
    absent: int
    """Samples without a checksum."""


@dataclass(frozen=True)
class ShardInspection:
    """What was found in one shard."""

    url: str
    format: str | None
    error: str | None
    """Why it could not be read, or not to its end: a loader would stop here."""
    groups: int
    samples: int
    skipped_bytes: int
    skipped_members: int
    listed: int | None
    """Groups that a file beside the shard promises."""
    listed_in: str | None
    """That file."""
    listed_by: Literal["sizes.json", "_stats.json", ".parquet", "__len__"] | None
    """What it is."""
    metadata: dict[str, Any] | None
    """The Parquet file beside it."""
    failed: dict[str, int]
    """Unusable samples by reason."""
    failures: list[dict[str, Any]]
    """The first of them."""
    checksums: Checksums | None
    different: list[str]
    """Keys of the first samples whose image has another checksum."""


@dataclass(frozen=True)
class Inspection:
    """What shards hold, and what is wrong with them."""

    groups: int
    samples: int
    distinct: int
    bytes: int
    image_bytes: Spread
    width: Spread
    height: Spread
    caption_chars: Spread
    image_formats: dict[str, int]
    shard_formats: dict[str, int]
    failed: dict[str, int]
    checksums: Checksums | None
    """`None` where nobody asked for them."""
    faults: list[str]
    """Everything that is wrong, a kind each; empty where nothing is."""
    shards: list[ShardInspection]


@dataclass(frozen=True)
class Recording:
    """What a ledger was given."""

    shards: int
    recorded: int
    """Shards that the ledger did not cover."""
    encoded: int
    """Samples that went through the captioner."""
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What went into a plan and came out, in samples."""

    shards: int
    recorded: int
    encoded: int
    seconds_recording: float
    seconds_deciding: float
    fingerprint: str
    samples: int
    readable: int
    """Those of which keep_ratio is a share."""
    excluded: int
    failed: int
    gated: int
    """Below the gate."""
    candidates: int
    copies: int
    """Candidates dropped as near-duplicates."""
    near_duplicates: int | None
    """Those that `dedup` drops, or a cosine of 0.95 would; `None` where too many to look for unasked."""
    unhashed: int
    slots: int
    """The quota: round(keep_ratio * readable), or what caps in samples allow."""
    kept: int
    refilled: int
    """Near-duplicates that fill the quota for want of others."""
    kept_by_window: int
    """Of those kept, those that their window alone would keep, too."""
    clusters: int
    warnings: list[str]


@dataclass(frozen=True)
class Check:
    """One promise, what was found, and whether it holds; `None` where it is for information."""

    promise: str
    found: str
    accepted: str
    holds: bool | None


@dataclass(frozen=True)
class Audit:
    """The checks of a ledger."""

    scope: list[str]
    """What is audited, and what is not."""
    checks: list[Check]

    @property
    def broken(self) -> list[Check]:
        """Promises that do not hold."""
        return [check for check in self.checks if check.holds is False]


@dataclass(frozen=True)
class Export:
    """What was written."""

    samples: int
    captions: int
    """Samples with a generated caption."""
    outcomes: dict[str, int] | None = None
    """With `all`, samples by what became of them: kept, dropped, excluded, failed."""


def directory(captioner: Captioner | FittedScorer | _Path | None) -> _Path | None:
    """The directory of a captioner or scorer: jobs that run no model take what was fitted from it."""
    return captioner if captioner is None or isinstance(captioner, (str, os.PathLike)) else captioner.path


def inspect(
    source: _Sources,
    *,
    images: Images | None = None,
    decode: bool = False,
    checksums: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
) -> Inspection:
    """Reads shards, and says what they hold and what is wrong with them.

    Args:
        source: Shards or a `Source`, as for `Loader`.
        images: `max_image_pixels`, `exif_orientation` and `alpha`.
        decode: Whether to decode every image, which finds those that cannot be.
        checksums: Whether to compare images with the `sha256` in their json, or in the Parquet file beside
            their shard.
        strict: Whether any fault is an error.
        progress: Called with a stage, what is done of it, and of how much. Default: a bar, where tqdm is
            installed and stderr is a terminal or a notebook.

    Raises:
        DataError: Shards cannot be listed. One that cannot be read is named in the result. With `strict`,
            whatever is in `faults`.
    """
    found = with_bar("inspect", _native._inspect, of_job)(
        source, images=images, decode=decode, checksums=checksums, strict=strict, progress=progress
    )
    for name in ("image_bytes", "width", "height", "caption_chars"):
        found[name] = Spread(**found[name])
    for part in (found, *found["shards"]):
        part["checksums"] = part["checksums"] and Checksums(**part["checksums"])
    found["shards"] = [ShardInspection(**shard) for shard in found["shards"]]
    return Inspection(**found)


def record(
    source: _Sources,
    *,
    captioner: Captioner | FittedScorer | _Path,
    ledger: _native.Ledger | _Path,
    selection: Selection | None = None,
    images: Images | None = None,
    part: tuple[int, int] = (0, 1),
    runtime: Runtime | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Recording:
    """Records the signals of what a ledger does not cover.

    Args:
        source: Shards or `Source`s, as for `Loader`.
        captioner: A captioner directory, a `Captioner` or a `FittedScorer`.
        ledger: Its folder, or a `Ledger` that has one.
        selection: `window`, and the gate, by which less is recorded of what it drops.
        images: `max_image_pixels`, `exif_orientation` and `alpha`.
        part: (i, n): only every n-th shard from the i-th on, for job arrays.
        runtime: `threads`.
        device: Where a captioner that is given as a directory runs.
        progress: Called with a stage, what is done of it, and of how much. Default: a bar, where tqdm is
            installed and stderr is a terminal or a notebook.
    """
    found = with_bar("record", _native._plan, of_job)(
        source,
        captioner=captioner,
        ledger=ledger,
        selection=selection,
        images=images,
        part=part[0],
        parts=part[1],
        runtime=runtime,
        device=device,
        progress=progress,
    )
    seconds = found.pop("seconds_recording") + found.pop("seconds_deciding")
    return Recording(**found, seconds=seconds)


def plan(
    source: _Sources,
    *,
    captioner: Captioner | FittedScorer | _Path | None = None,
    ledger: _native.Ledger | _Path,
    out: _Path,
    selection: Selection | None = None,
    images: Images | None = None,
    seed: int = 0,
    embeddings: bool = False,
    fill_with_copies: bool = False,
    runtime: Runtime | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Plan:
    """Decides for a whole corpus at once, and writes the plan.

    Args:
        source: Shards or `Source`s, as for `Loader`.
        captioner: A captioner directory, a `Captioner` or a `FittedScorer`. Without one a gate by a score of
            the corpus, or chance, decides, and no image is read.
        ledger: Its folder, or a `Ledger` that has one. What it lacks is recorded first.
        out: The Parquet file to write.
        selection: What is kept. Its `dedup` is the cosine of near-duplicates in the whole corpus.
        images: `max_image_pixels`, `exif_orientation` and `alpha`.
        seed: Seed of every random choice.
        embeddings: Whether embeddings say in the end what is a near-duplicate.
        fill_with_copies: Whether near-duplicates fill the quota for which nothing else is left.
        runtime: `threads`.
        device: Where a captioner that is given as a directory runs.
        progress: Called with a stage, what is done of it, and of how much. Default: a bar, where tqdm is
            installed and stderr is a terminal or a notebook.
    """
    found = with_bar("plan", _native._plan, of_job)(
        source,
        captioner=captioner,
        ledger=ledger,
        out=out,
        selection=selection,
        images=images,
        seed=seed,
        embeddings=embeddings,
        fill_with_copies=fill_with_copies,
        runtime=runtime,
        device=device,
        progress=progress,
    )
    return Plan(**found)


def audit(
    ledger: _Path,
    *,
    captioner: Captioner | FittedScorer | _Path | None = None,
    selection: Selection | None = None,
    seed: int = 0,
    source: Source | None = None,
    images: Images | None = None,
    seeds: int = 400,
    windows: int = 64,
    progress: Progress | None = None,
) -> Audit:
    """Checks what selection promises on the signals of a real run: the sampling, not what the gate is worth.

    Args:
        ledger: Its folder.
        captioner: The captioner directory, or what has one, whose clusters the selection looks at. Without it
            the selection may look at scores only.
        selection: What is audited.
        seed: The first of the seeds that are tried.
        source: How what was recorded was read, where the ledger has several kinds; its shards do not matter.
        images: How its images were decoded, likewise: `max_image_pixels`, `exif_orientation` and `alpha`.
        seeds: Seeds that are tried.
        windows: Windows that are looked at, drawn by hash.
        progress: Called with a stage, what is done of it, and of how much. Default: a bar, where tqdm is
            installed and stderr is a terminal or a notebook.
    """
    found = with_bar("audit", _native._audit, of_job)(
        ledger,
        captioner=directory(captioner),
        selection=selection,
        seed=seed,
        source=source,
        images=images,
        seeds=seeds,
        windows=windows,
        progress=progress,
    )
    return Audit(scope=found["scope"], checks=[Check(**check) for check in found["checks"]])


def export(
    out: _Path,
    *,
    ledger: _Path,
    plan: _Path | None = None,
    captioner: Captioner | FittedScorer | _Path | None = None,
    selection: Selection | None = None,
    seed: int = 0,
    source: Source | None = None,
    images: Images | None = None,
    score: str | None = None,
    generation: str | None = None,
    rescue: bool = False,
    exclude: _Path | None = None,
    all: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Writes the samples that are kept as a table: of a plan, of a selection in epoch 0, or all usable ones.

    With `all` every sample, with what became of it in the columns `outcome` and `reason`, and of
    near-duplicates the sample that they fell to in `near_id`, `near_bits` and `near_cosine`.

    Args:
        out: File to write: `.parquet` for all columns, `.txt` for one key a line.
        ledger: Folder of the ledger, which has keys, signals and captions.
        plan: What says which samples are kept.
        captioner: The captioner directory, or what has one, whose clusters the selection looks at; with
            `all`, of a plan that drops near-duplicates the one it was made with. Without it the selection
            may look at scores only.
        selection: What says which samples are kept, window by window.
        seed: Seed of the selection.
        source: How what was recorded was read, where the ledger has several kinds; its shards do not matter.
        images: How its images were decoded, likewise: `max_image_pixels`, `exif_orientation` and `alpha`.
        score: A score of the corpus whose recorded values are written too; a plan, or a gate by one, says so
            itself.
        generation: Fingerprint of the captions that are meant, where the ledger has several.
        rescue: Whether to count in what `rescue` brought back, by the judge's scores that the ledger has.
        exclude: A list of samples that are not written: a file of keys or ids, as `subset` takes them.
        all: Whether to write every sample.
        progress: Called with a stage, what is done of it, and of how much. Default: a bar, where tqdm is
            installed and stderr is a terminal or a notebook.
    """
    found = with_bar("export", _native._export, of_job)(
        out,
        ledger=ledger,
        plan=plan,
        captioner=directory(captioner),
        selection=selection,
        seed=seed,
        source=source,
        images=images,
        score=score,
        generation=generation,
        rescue=rescue,
        exclude=exclude,
        all=all,
        progress=progress,
    )
    return Export(**found)
