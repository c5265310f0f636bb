"""Bars for calls that take long: where tqdm is installed, and somebody looks at a terminal or a notebook."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["of_job", "with_bar"]

Callback = Callable[..., object]
Read = Callable[..., tuple[str, int, int, dict[str, Any]]]
"""Makes stage, what is done, of how much, and numbers to show, of the arguments of a callback."""


@contextmanager
def _bar(title: str, progress: Callback | None, read: Read) -> Iterator[Any]:
    """The caller's own callback; where there is none, one that draws a bar, or `None`.

    Args:
        title: What is being done.
        progress: The caller's callback.
        read: What the arguments of a callback say.
    """
    if progress is not None or not _is_watched():
        yield progress
        return
    drawn = _Bar(title, read)
    try:
        yield drawn
    finally:
        drawn.close()


def of_job(stage: str, done: int, total: int) -> tuple[str, int, int, dict[str, Any]]:
    """What the callback of a job is called with."""
    return stage, done, total, {}


def with_bar(title: str, native: Any, read: Read) -> Any:
    """A native function whose `progress` draws a bar unless the caller gives another."""

    @functools.wraps(native)
    def call(*args: Any, **options: Any) -> Any:
        with _bar(title, options.get("progress"), read) as progress:
            if progress is not None:
                options["progress"] = progress
            return native(*args, **options)

    call.__signature__ = inspect.signature(native)  # type: ignore[attr-defined]
    return call


def _is_watched() -> bool:
    # A notebook's stderr is no terminal.
    looks = "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())
    return looks and importlib.util.find_spec("tqdm") is not None


class _Bar:
    """A bar that begins anew with every stage."""

    def __init__(self, title: str, read: Read) -> None:
        self._title = title
        self._read = read
        self._drawn: Any = None
        self._stage: tuple[str, int] | None = None

    def __call__(self, *args: Any) -> None:
        from tqdm.auto import tqdm

        stage, done, total, numbers = self._read(*args)
        if self._stage != (stage, total):
            self.close()
            name = self._title if stage in ("", self._title) else f"{self._title}: {stage}"
            self._drawn = tqdm(total=total, desc=name)
            self._stage = (stage, total)
        if numbers:
            self._drawn.set_postfix(numbers, refresh=False)
        self._drawn.update(done - self._drawn.n)

    def close(self) -> None:
        if self._drawn is not None:
            self._drawn.close()
            self._drawn = None
