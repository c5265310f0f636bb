"""A small corpus, made with tarfile and pillow: independent of the code under test."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pytest
from PIL import Image

SIZE = 16


@dataclass
class Pair:
    """One image-text pair as it was put into a shard."""

    key: str
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    caption: str


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def write_shard(path: Path, pairs: Sequence[Pair]) -> None:
    with tarfile.open(path, "w") as tar:
        for pair in pairs:
            add_member(tar, f"{pair.key}.png", png(pair.pixels))
            add_member(tar, f"{pair.key}.txt", pair.caption.encode())
            add_member(tar, f"{pair.key}.json", json.dumps({"key": pair.key}).encode())


@dataclass
class Corpus:
    """Shards and what is in them, in order."""

    urls: str
    pairs: list[Pair]


# A background shell starts its children with SIGINT ignored, and Python leaves it so.
DEFAULT_HANDLERS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
"""


class Child:
    """Python in a process of its own, with default signal handlers, that is killed at the deadline."""

    def __init__(self, code: str, *, deadline: float = 120.0, options: Sequence[str] = ()) -> None:
        command = [sys.executable, *options, "-c", DEFAULT_HANDLERS + code]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.late = False
        self.timer = threading.Timer(deadline, self.kill)
        self.timer.daemon = True
        self.timer.start()

    def kill(self) -> None:
        self.late = True
        self.process.kill()

    def line(self) -> str:
        """The next line that it writes."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().rstrip("\n")
        assert not self.late, "the deadline is over"
        return line

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        """Its exit status, and the rest of what it wrote to stdout and stderr."""
        out, err = self.process.communicate()
        assert not self.late, f"the deadline is over: {out}{err}"
        return self.process.returncode, out, err

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.timer.cancel()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def make_corpus(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Corpus]:
    def make(shards: int, per_shard: int) -> Corpus:
        folder = tmp_path_factory.mktemp("corpus")
        rng = np.random.default_rng(0)
        colours = ["red", "green", "blue", "grey"]
        shapes = ["circle", "square", "star"]
        pairs = []
        for shard in range(shards):
            own = []
            for i in range(per_shard):
                colour = int(rng.integers(len(colours)))
                pixels = rng.integers(0, 80, (SIZE, SIZE, 3), dtype=np.uint8)
                if colour < 3:
                    pixels[4:12, 4:12, colour] = 255
                caption = f"a {colours[colour]} {shapes[int(rng.integers(3))]} number {shard * per_shard + i}"
                own.append(Pair(f"{shard:03d}{i:05d}", pixels, caption))
            write_shard(folder / f"{shard:05d}.tar", own)
            pairs += own
        return Corpus(f"{folder}/{{00000..{shards - 1:05d}}}.tar", pairs)

    return make


@pytest.fixture(scope="session")
def corpus(make_corpus: Callable[[int, int], Corpus]) -> Corpus:
    return make_corpus(4, 50)
