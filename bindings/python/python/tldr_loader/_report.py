"""What became of samples, and why: in sentences, and on a page with pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldr_loader import _native
from tldr_loader._jobs import Progress, _Path, _Sources, directory
from tldr_loader._options import Captions, Images, Selection, Source
from tldr_loader._progress import of_job, with_bar

if TYPE_CHECKING:
    from tldr_loader._scorers import FittedScorer
    from tldr_loader_captioner import Captioner

__all__ = ["Explained", "Report", "explain", "report"]


@dataclass(frozen=True)
class Explained:
    """What became of one sample, and why."""

    sentence: str
    """All of it in a sentence."""
    source: str
    shard: str
    key: str | None
    id: int
    outcome: str
    """`kept`, `dropped`, `excluded` or `failed`; `usable` where nothing decides; `unknown` where the ledger
    does not have it: then `key` is what was asked for, and nothing else is known.
    """
    reason: str | None
    """Of what is dropped `gate`, `near-duplicate`, `quota` or `thin`; of what failed the reason's name."""
    detail: str | None
    """What exactly was found of a sample that failed; of one that is excluded the clause of `where` that it
    does not pass, where its shard is at hand, else the conditions.
    """
    caption_chars: int | None
    caption: str | None
    """The generated caption, where the ledger has one."""
    cluster: int | None
    alignment: float | None
    score: float | None
    gate: dict[str, Any] | None
    """Where the gate cuts: `by` what, and the `least` that passes."""
    near: dict[str, Any] | None
    """The near-duplicate that it fell to: `shard`, `key`, `id`, `kept`, `bits` and `cosine`."""
    quota: dict[str, Any] | None
    """Its place in the draw: `draw` and `rate`, under a plan `place`, `left` and `slots`."""
    pi: float | None
    judged: float | None
    """What a judge says of its generated caption, where the ledger has that."""
    rescued: bool
    """Whether the gate drops it and its generated caption brought it back."""
    epochs: dict[str, Any] | None
    """The epochs in which a rotating selection keeps it: `kept`, `of` so many."""

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Report:
    """What was written."""

    out: Path
    """The page."""
    json: Path
    """The data of the page."""
    pairs: Path
    """The pairs of near-duplicates that were sampled, a Parquet file."""
    samples: int
    kept: int
    shown: int
    """Samples that are shown."""
    pictures: int
    """Of these, those with a picture."""
    bytes: int
    """Size of the page."""


def _shown(value: object) -> str:
    """A value as code; a path as its text."""
    return repr(os.fspath(value) if isinstance(value, os.PathLike) else value)


def explain(
    keys: str | int | Sequence[str | int],
    *,
    ledger: _Path,
    plan: _Path | None = None,
    captioner: Captioner | FittedScorer | _Path | None = None,
    selection: Selection | None = None,
    seed: int = 0,
    epochs: int = 16,
    source: Source | None = None,
    images: Images | None = None,
    score: str | None = None,
    generation: str | None = None,
    rescue: bool = False,
    progress: Progress | None = None,
) -> list[Explained]:
    """Says why samples are kept or dropped.

    Args:
        keys: A key, `SHARD/KEY` or an id, or several; a key that several shards have gives an answer for
            each.
        ledger: Folder of the ledger.
        plan: The plan that decides.
        captioner: The captioner directory, or what has one, whose clusters a selection goes by; of a plan
            that drops near-duplicates the one it was made with.
        selection: What decides where there is no plan, window by window, in epoch 0; with `captioner`.
        seed: Seed of the selection.
        epochs: Epochs that are looked at where the selection rotates.
        source: How what was recorded was read. With its shards, samples that are excluded are read again, to
            say which part of `where` they do not pass.
        images: How its images were decoded, likewise: `max_image_pixels`, `exif_orientation` and `alpha`.
        score: A score of the corpus; a plan, or a gate by one, says so itself.
        generation: Fingerprint of the captions that are meant, where the ledger has several.
        rescue: Whether to count in what `rescue` brought back, by the judge's scores that the ledger has.
        progress: Called with a stage, what is done of it, and of how much. Default: a bar, where tqdm is
            installed and stderr is a terminal or a notebook.
    """
    several = [keys] if isinstance(keys, (str, int)) else list(keys)
    found = with_bar("explain", _native._explain, of_job)(
        [str(key) for key in several],
        ledger=ledger,
        plan=plan,
        captioner=directory(captioner),
        selection=selection,
        seed=seed,
        epochs=epochs,
        source=source,
        images=images,
        score=score,
        generation=generation,
        rescue=rescue,
        progress=progress,
    )
    return [Explained(**one) for one in found]


def report(
    source: _Sources,
    *,
    ledger: _Path,
    out: _Path,
    plan: _Path | None = None,
    captioner: Captioner | FittedScorer | _Path | None = None,
    selection: Selection | None = None,
    seed: int = 0,
    captions: Captions | None = None,
    tokenizer: _Path | None = None,
    images: Images | None = None,
    scorer: Captioner | FittedScorer | None = None,
    score: str | None = None,
    generation: str | None = None,
    max_mb: float = 15.0,
    draw_seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Writes one self-contained page that shows what is kept, what is dropped and why, with pictures.

    Decides: `plan`; else `selection`, with `captioner`; else nothing, and all that is usable counts as kept.
    The page opens from a file and asks for nothing. The same inputs and seeds give the same bytes.

    Args:
        source: Shards or `Source`s, as for `Loader`: pictures and captions are read from them.
        ledger: Folder of the ledger, which has the signals: `record` and `plan` make one.
        out: The page to write, a file that ends in `.html`; its data (`.json`) and the sampled pairs of
            near-duplicates (`.pairs.parquet`) are written beside it.
        plan: The plan that decides.
        captioner: The captioner directory, or what has one, whose clusters a selection goes by, and whose fit
            says what the gate is worth; of a plan that drops near-duplicates the one it was made with.
        selection: What decides where there is no plan, window by window, in epoch 0; with `captioner`.
        seed: Seed of the selection.
        captions: `fuse`, `replace_repetitive`, `rescue` and `context_length`, by which the page says which
            caption a sample is trained on.
        tokenizer: The `tokenizer.json` of the model that is trained, which cuts captions.
        images: `max_image_pixels`, `exif_orientation` and `alpha`.
        scorer: A model that scores sampled pictures anew, with their own captions and with others'.
        score: A score of the corpus; a plan, or a gate by one, says so itself.
        generation: Fingerprint of the captions that are meant, where the ledger has several.
        max_mb: Most megabytes of the page; the samples that are shown are in proportion.
        draw_seed: Seed of the samples that are shown.
        progress: Called with a stage, what is done of it, and of how much. Default: a bar, where tqdm is
            installed and stderr is a terminal or a notebook.
    """
    given = {"ledger": ledger, "plan": plan, "captioner": directory(captioner), "selection": selection}
    shown = [
        _shown(source),
        *(f"{name}={_shown(value)}" for name, value in given.items() if value is not None),
    ]
    found = with_bar("report", _native._report, of_job)(
        source,
        **given,
        out=out,
        seed=seed,
        captions=captions,
        tokenizer=tokenizer,
        images=images,
        scorer=scorer,
        score=score,
        generation=generation,
        max_mb=max_mb,
        draw_seed=draw_seed,
        command=f"tldr.report({', '.join(shown)})",
        progress=progress,
    )
    return Report(out=Path(out), json=Path(found.pop("json")), pairs=Path(found.pop("pairs")), **found)
