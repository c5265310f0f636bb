"""Rows of a benchmark that has a limited time: each is written when it is finished, and each is named.

A row that does not fit the time left or the machine is skipped, with the reason. One that runs when the time
is over is cut, and the process ends: a machine that is lent for minutes is not to be held for longer.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TextIO

# Before torch is imported, which takes seconds of the budget.
STARTED = time.monotonic()
# torch's threads sleep between two operations: spinning, they take cores from the threads that decode. OpenMP
# reads this once, with torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "examples"))
if importlib.util.find_spec("tldr_loader") is None:
    # On a machine that only has a copy of the tree, with what was built into it.
    sys.path += [str(ROOT / "bindings/python/python"), str(ROOT / "bindings/captioner/python")]

Fields = dict[str, Any]


class Skip(Exception):
    """Raised by a row that this machine cannot have; says why."""


@dataclass(frozen=True)
class Row:
    """One measurement."""

    name: str
    work: Callable[[], Fields]
    needs: float | Callable[[], float] = 10.0
    """Seconds that it is expected to take at full size."""
    after: tuple[str, ...] = ()
    """Rows that it needs the results of."""
    gpu: bool = False
    """Whether it means nothing without a GPU."""


@dataclass
class Bench:
    """A run: its sizes, its clock, its rows."""

    tiny: bool
    device: str
    seconds: float
    out: TextIO | None = None
    scratch: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="tldr-bench-gpu-")))
    found: dict[str, Fields] = field(default_factory=dict)
    """Rows that were measured, by name."""
    failed: bool = False
    waiting: list[Row] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    def size(self, full: int, tiny: int) -> int:
        return tiny if self.tiny else full

    def left(self) -> float:
        """Seconds until the budget is spent."""
        return self.seconds - (time.monotonic() - STARTED)

    def run(self, rows: Sequence[Row]) -> int:
        """Measures all rows, in order; the exit status."""
        names = [row.name for row in rows]
        assert len(set(names)) == len(names), names
        self.waiting = list(rows)
        # The row that says what was measured on costs nothing and is always there.
        self._measure(rows[0])
        guard = threading.Timer(max(self.left(), 0.0), self._cut)
        guard.daemon = True
        guard.start()
        try:
            for row in rows[1:]:
                reason = self._obstacle(row)
                if reason:
                    self._write(row, {"skipped": reason})
                else:
                    self._measure(row)
        finally:
            guard.cancel()
            shutil.rmtree(self.scratch, ignore_errors=True)
        return int(self.failed)

    def _obstacle(self, row: Row) -> str | None:
        """Why a row is skipped."""
        if row.gpu and not self.on_gpu:
            return "no GPU"
        lacking = [name for name in row.after if name not in self.found]
        if lacking:
            return f"needs the row {lacking[0]}"
        # Tiny rows take about as long everywhere; a second is more than most of them take.
        needs = 1.0 if self.tiny else row.needs() if callable(row.needs) else row.needs
        if self.left() <= needs:
            return f"{max(self.left(), 0.0):.0f} s left, about {needs:.0f} s needed"
        return None

    def _measure(self, row: Row) -> None:
        started = time.monotonic()
        try:
            fields = row.work()
        except Skip as reason:
            self._write(row, {"skipped": str(reason)})
        except Exception as error:
            # The other rows are worth as much without this one.
            traceback.print_exc()
            self.failed = True
            first = str(error).partition("\n")[0]
            self._write(row, {"failed": f"{type(error).__name__}: {first}"})
        else:
            self.found[row.name] = fields
            self._write(row, {**fields, "took_s": round(time.monotonic() - started, 2)})

    def _write(self, row: Row, fields: Fields) -> None:
        with self.lock:
            self.waiting.remove(row)
            self._say({"row": row.name, **fields})

    def _say(self, line: Fields) -> None:
        text = json.dumps(line)
        print(text, flush=True)
        if self.out is not None:
            print(text, file=self.out, flush=True)

    def _cut(self) -> NoReturn:
        """Names what is not there yet, and ends the process, native threads and all."""
        with self.lock:
            for number, row in enumerate(self.waiting):
                reason = f"cut: its {self.seconds:.0f} s were over" if number == 0 else "0 s left"
                self._say({"row": row.name, "skipped": reason})
            shutil.rmtree(self.scratch, ignore_errors=True)
            os._exit(int(self.failed))


def arguments(description: str | None, seconds: float) -> argparse.ArgumentParser:
    """The options that both commands have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda")
    parser.add_argument("--seconds", type=float, default=seconds, help="the whole run, at most")
    parser.add_argument("--out", type=Path, help="file of one JSON line a row, beside stdout")
    parser.add_argument("--tiny", action="store_true", help="every row at the least size: does it run?")
    return parser


def begin(options: argparse.Namespace) -> Bench:
    """A run with these options; ends the process where it needs a GPU and there is none."""
    import torch

    there = torch.cuda.is_available()
    device = options.device or ("cuda" if there or not options.tiny else "cpu")
    if device == "cuda" and not there:
        sys.exit(
            "no GPU here (torch sees no CUDA device): nothing was measured. Tests run this with --tiny "
            "--device cpu"
        )
    if options.tiny:
        # Of a corpus this small everything is odd.
        warnings.simplefilter("ignore", RuntimeWarning)
        logging.getLogger("tldr_loader").setLevel(logging.ERROR)
    out = None
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        out = options.out.open("w")
    return Bench(options.tiny, device, options.seconds, out)


def digits(value: float, count: int = 4) -> float:
    """So many digits of it: shares of a thousandth are to be read as well as those near 1."""
    return float(f"{value:.{count}g}")


def ratio(part: float | None, whole: float | None) -> float | None:
    """`None` where one of them was not measured."""
    return digits(part / whole) if part is not None and whole else None
