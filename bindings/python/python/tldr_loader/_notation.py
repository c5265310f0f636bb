"""Values of options that take arguments: `Top(0.5)` is the text `top(0.5)` of files and the command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["AtLeast", "Best", "Cap", "Coin", "Concat", "Gated", "Mix", "Tempered", "Top"]


def _number(value: float) -> str:
    """A number as Rust writes it: 1.0 is 1."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _other(name: str | None) -> str:
    """The table of the other caption, where that is not generated."""
    return "" if name is None else f", other={name}"


def _quoted(text: str) -> str:
    return f'"{text}"' if any(c in text for c in ",(){}='\"") else text


class Notation:
    """Something that is written with arguments."""

    def _notation(self) -> str:
        """The text that it stands for."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self._notation()


@dataclass(frozen=True)
class Top(Notation):
    """A gate that lets the best share pass.

    Args:
        share: In (0, 1]; 1 lets everything pass.
        by: A score that the corpus has: a column of a table of `scores`, a field of the json member, or a
            column of the Parquet file beside the shard. Default: the alignment of image and original caption.
        within: Of what the share is: the `corpus`, or each `cluster`.
    """

    share: float
    by: str | None = None
    within: Literal["corpus", "cluster"] = "corpus"

    def _notation(self) -> str:
        by = "" if self.by is None else f", by={_quoted(self.by)}"
        within = "" if self.within == "corpus" else f", within={self.within}"
        return f"top({_number(self.share)}{by}{within})"


@dataclass(frozen=True)
class AtLeast(Notation):
    """A gate that lets samples of this score or a higher one pass.

    Args:
        score: The least score that passes.
        by: The score, as for `Top`.
    """

    score: float
    by: str | None = None

    def _notation(self) -> str:
        by = "" if self.by is None else f", by={_quoted(self.by)}"
        return f"at_least({_number(self.score)}{by})"


@dataclass(frozen=True)
class Cap(Notation):
    """A quota that cuts large clusters down to one size.

    Args:
        samples: That size; keep_ratio follows from it. Default: what makes keep_ratio.
    """

    samples: int | None = None

    def _notation(self) -> str:
        return "cap" if self.samples is None else f"cap({self.samples})"


@dataclass(frozen=True)
class Tempered(Notation):
    """A quota between `proportional` and `Cap()`: a sample of a cluster of size n is kept as n^(alpha - 1).

    Args:
        alpha: In [0, 1]: 1 is proportional, 0 is a cap.
    """

    alpha: float

    def _notation(self) -> str:
        return f"tempered({_number(self.alpha)})"


@dataclass(frozen=True)
class Concat(Notation):
    """Both captions, the original first.

    Args:
        generated_tokens: Tokens that the other part may claim from a long original.
        other: Name of a table of captions that the other part is of. Default: it is generated.
    """

    generated_tokens: int = 20
    other: str | None = None

    def _notation(self) -> str:
        return f"concat({self.generated_tokens}{_other(self.other)})"


@dataclass(frozen=True)
class Best(Notation):
    """The original where it is aligned, another caption where it is not.

    Args:
        threshold: Least alignment, a quantile in [0, 1], at which the original stays.
        other: Name of a table of captions that the other one is of. Default: it is generated.
    """

    threshold: float = 0.5
    other: str | None = None

    def _notation(self) -> str:
        return f"best({_number(self.threshold)}{_other(self.other)})"


@dataclass(frozen=True)
class Coin(Notation):
    """Another caption with a probability, drawn for each sample and epoch, else the original.

    Args:
        probability: One number, or one from each of several epochs on: `{0: 0.2, 10: 0.5}`.
        other: Name of a table of captions that the other one is of. Default: it is generated.
    """

    probability: float | Mapping[int, float] = 0.5
    other: str | None = None

    def _notation(self) -> str:
        probability = self.probability
        if isinstance(probability, Mapping):
            steps = ", ".join(f"{epoch}: {_number(p)}" for epoch, p in probability.items())
            return f"coin({{{steps}}}{_other(self.other)})"
        return f"coin({_number(probability)}{_other(self.other)})"


@dataclass(frozen=True)
class Mix(Notation):
    """One of several captions, drawn for each sample and epoch.

    Among those that a sample has: a table that lacks it has no part.

    Args:
        shares: Shares by name, which sum to 1: `original`, `generated`, or the name of a table of captions.
    """

    shares: Mapping[str, float]

    def _notation(self) -> str:
        shares = ", ".join(f"{name}: {_number(share)}" for name, share in self.shares.items())
        return f"mix({{{shares}}})"


@dataclass(frozen=True)
class Gated(Notation):
    """Captions that pass: a fair coin where both do, the original where none does. It needs a judge.

    Args:
        threshold: Least alignment, in [0, 1], at which a caption passes.
    """

    threshold: float = 0.5

    def _notation(self) -> str:
        return f"gated({_number(self.threshold)})"
