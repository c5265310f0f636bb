"""Rules that are here to be compared with, and not to train with."""

from __future__ import annotations

from tldr_loader._notation import Top
from tldr_loader._options import Selection

__all__ = ["longest", "paper_code"]


def paper_code(keep_ratio: float = 0.25) -> Selection:
    """What the published code of TL;DR does: of the better half of every cluster every N-th is kept."""
    return Selection(keep_ratio=keep_ratio, gate=Top(0.5, within="cluster"), priority="every-nth")


def longest(keep_ratio: float = 0.25) -> Selection:
    """The longest captions of every cluster: a negative control."""
    return Selection(keep_ratio=keep_ratio, priority="longest")
