"""The types of `Loader.stats()`: plain dicts, as json has them."""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = [
    "Activity",
    "Counts",
    "Failure",
    "GateStats",
    "Joined",
    "LengthMismatch",
    "Seconds",
    "SourceStats",
    "Stats",
    "scalars",
]


class Counts(TypedDict):
    """The outcome of every sample read; they add up to `read`."""

    read: int
    kept: int
    dropped_gate: int
    dropped_dedup: int
    dropped_quota: int
    dropped_thin: int
    excluded: int
    """By `where` or `subset`."""
    failed: dict[str, int]
    """Unusable samples by reason."""


class Failure(TypedDict):
    """A failed sample."""

    shard: str
    key: str
    offset: int
    """Of its first header in the decompressed shard, in bytes."""
    reason: str
    detail: str


class Joined(TypedDict):
    """How a table that samples are joined with fits the corpus."""

    by: Literal["key", "uid", "id"]
    entries: int
    matched: int
    """Samples of this rank that were found in it so far."""
    samples: int
    """Those that were looked for: of a subset all that were read, of captions those that were kept."""


class LengthMismatch(TypedDict):
    """A shard that has another number of samples than the table of lengths says."""

    shard: str
    expected: int
    found: int


class SourceStats(TypedDict):
    """What became of one source of a mix; `all` where no weights are given."""

    name: str
    share: float
    """Of the samples that an epoch yields, over all ranks."""
    passes: float
    """Passes over its shards that an epoch makes, over all ranks."""
    read: int
    kept: int
    yielded: int


class GateStats(TypedDict):
    """What a gate by the captioner's alignment is worth."""

    auc: float
    """Chance that a true caption aligns better than a swapped one."""
    auc_error: float
    perplexity: float | None
    """Of the captioner's decoder; `None` of a scorer that writes no captions."""
    pairs: int
    measured_on: Literal["held-out", "sample", "trained"]
    close_to_chance: bool


class Activity(TypedDict):
    """What a stage is doing."""

    stage: str
    doing: str
    seconds: float
    """Wall-clock, since its last sign of life."""


class Seconds(TypedDict):
    """The work of each stage, summed over its threads.

    `read` and `select` have a thread for each lane and source, `preview` and `example` all threads of the
    pool: these may exceed the wall-clock. `encode`, `caption`, `judge` and `batch` have one thread, and are
    wall-clock. So are the last two: who waited for whom.
    """

    read: float
    preview: float
    encode: float
    select: float
    caption: float
    judge: float
    example: float
    batch: float
    wait_consumer: float
    """A finished batch waited for the training loop to take it."""
    wait_loader: float
    """The training loop waited for a batch."""


class Stats(TypedDict):
    """Statistics of an epoch on one rank.

    When the epoch is over, `yielded + replayed == counts["kept"] + repeats - surplus` in modes `reduced` and
    `full`: a kept sample is handed over, or was before a resume, or is left over; and what a lane lacks
    at its end it repeats.

    `seconds` holds the work of each stage. `encode`, `caption`, `judge`, `batch` and the two waits are
    wall-clock; `read` and `select` are summed over lanes, `preview` and `example` over the threads of the
    pool, and may exceed the wall-clock. `captions_empty` and `captions_repetitive` count generated captions
    of kept samples: without a word, or with a phrase three times in a row. `wait_loader` is what the training
    loop waited for a batch, `wait_consumer` what a finished batch waited for the loop.
    """

    epoch: int
    rank: int | None
    """`None` where it is not known before the first batch."""
    world_size: int
    rank_from: str
    """Who says so."""
    counts: Counts
    yielded: int
    """Samples handed to the training loop."""
    replayed: int
    """Kept samples skipped on resuming, since their batches were handed over before."""
    repeats: int
    """Rows filled with one of the lane's first kept samples, for want of another."""
    surplus: int
    """Kept samples left over after the last batch."""
    padded: int
    """Rows that are not `valid`, in mode `eval` on several ranks; no part of `yielded`."""
    encoded: int
    """Samples that went through the captioner; the ledger had the others."""
    spilled_bytes: int
    """Of encoded images and json for which `buffer_bytes` had no room."""
    captioned: int
    """Captions generated."""
    judged: int
    """Generated captions that the judge scored."""
    rescued: int
    """Kept samples that the gate dropped and their generated caption brought back."""
    n_eff: float | None
    """(sum of w)^2 / sum of w^2 over what was yielded, w being 1 / pi; `None` where a pi is not known."""
    duplicate_captions: int
    """Samples whose caption stands earlier in their batch, of this rank: false negatives."""
    duplicate_images: int
    """The same of images, by their semantic hashes; of those with signals."""
    deferred: int
    """Kept samples that `defer_duplicates` put off, each counted once."""
    captions_empty: int
    """Kept samples whose generated caption is empty: they keep their original."""
    captions_repetitive: int
    """Kept samples whose generated caption repeats a phrase three times in a row."""
    gate: GateStats | None
    sources: list[SourceStats]
    activity: list[Activity]
    seconds: Seconds
    shards: dict[str, Counts]
    failures: list[Failure]
    """The first of each reason."""
    length_mismatches: list[LengthMismatch]
    empty_shards: list[str]
    skipped_bytes: dict[str, int]
    """After damaged tar headers, by shard."""
    unscored: int
    """Usable samples without the score that the gate goes by."""
    not_numbers: dict[str, int]
    """By field that was asked for, samples where it is NaN: no value."""
    unread_json: int
    """Samples whose json cannot be read, and that count without it."""
    subset: Joined | None
    """How such a table fits the corpus, where there is one."""
    captions: dict[str, Joined]


OF_SHARDS_AND_SAMPLES = {"shards", "skipped_bytes", "subset", "captions"}
"""What would be a curve for each shard, or for a table."""


def scalars(stats: Stats, prefix: str = "") -> dict[str, float]:
    """The numbers of `Loader.stats()` by one name each, as wandb and TensorBoard take them.

    Names of parts are joined by `/`, and a source's has its name: `counts/kept`, `seconds/wait_loader`,
    `sources/cc3m/yielded`. What is no number is absent, and so are single shards and samples.

    Args:
        stats: What `Loader.stats()` returned.
        prefix: What names begin with, `loader/` say.
    """
    found: dict[str, float] = {}

    def add(name: str, value: object) -> None:
        if isinstance(value, dict):
            for part, inner in value.items():
                add(f"{name}/{part}", inner)
        elif isinstance(value, int | float):
            found[prefix + name] = float(value) if isinstance(value, bool) else value

    for name, value in stats.items():
        if name not in OF_SHARDS_AND_SAMPLES:
            add(name, value)
    for source in stats["sources"]:
        add(f"sources/{source['name']}", source)
    add("skipped_bytes", sum(stats["skipped_bytes"].values()))
    return found
