"""Each cause has an exception of its own; "damaged" is said of damage only."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import flat
import tldr_loader as tldr
from conftest import SIZE, Corpus, add_member, png


def test_kinds_of_data_errors_are_data_errors() -> None:
    for kind in (tldr.NoSamplesError, tldr.LedgerError):
        assert issubclass(kind, tldr.DataError)
    assert issubclass(tldr.OutOfMemoryError, MemoryError)
    for name in tldr._errors.__all__:
        assert issubclass(getattr(tldr, name), tldr.TldrError)
        assert getattr(tldr, name).__module__ == "tldr_loader"


def test_a_lane_without_samples_says_what_became_of_them(tmp_path: Path) -> None:
    picture = png(np.zeros((SIZE, SIZE, 3), dtype=np.uint8))
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for i in range(20):
                # Of the first shard nothing can be used.
                add_member(tar, f"{shard}{i:02d}.png", picture)
                if shard == 1:
                    add_member(tar, f"{shard}{i:02d}.txt", b"a caption")
    loader = flat.loader(str(tmp_path), mode="full", lanes=2, batch_size=4, image_size=SIZE, max_errors=1e9)
    with pytest.raises(tldr.NoSamplesError) as caught:
        list(loader)
    message = str(caught.value)
    assert (
        "of 2 has none to give in epoch 0: of 20 that were read for it 20 failed (20 missing-caption)"
        in message
    )
    assert "damaged" not in message
    assert "stats()" not in message


@contextmanager
def unchanged_in_time_and_size(path: Path) -> Iterator[None]:
    before = path.stat()
    yield
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_shard_that_is_not_what_the_ledger_knows(tmp_path: Path, corpus: Corpus) -> None:
    with tarfile.open(Path(corpus.urls).parent / "00000.tar") as old:
        members = [(member.name, old.extractfile(member)) for member in old.getmembers()]
        content = [(name, data.read()) for name, data in members if data is not None]
    # Compressed, so that it is read in order, and in name only: its size does not tell what it holds.
    path = tmp_path / "00000.tar.gz"

    def write(first: str) -> None:
        with tarfile.open(path, "w:gz", compresslevel=0) as tar:
            for name, data in content:
                add_member(tar, first + name[1:], data)

    write("0")
    loader = flat.loader(str(path), keep_ratio=0.5, lanes=1, batch_size=5, image_size=SIZE)
    assert len(list(loader)) == len(loader)
    with unchanged_in_time_and_size(path):
        write("9")
    with pytest.raises(
        tldr.LedgerError, match=r"another sample here than the ledger knows; has the shard changed\?"
    ):
        list(loader)


def test_memory_that_runs_out(corpus: Corpus) -> None:
    script = """
import resource, sys
import tldr_loader as tldr
resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
world, images = tldr.World(lanes=1), tldr.Images(image_size=8192)
loader = tldr.Loader(sys.argv[1], mode="full", world=world, batch_size=100, images=images)
try:
    next(iter(loader))
except MemoryError as error:
    assert isinstance(error, tldr.OutOfMemoryError), error
    assert "shape [100, 3, 8192, 8192]" in str(error) and "smaller batch_size" in str(error), error
    sys.exit(7)
"""
    command = [sys.executable, "-c", script, corpus.urls]
    child = subprocess.run(command, timeout=120, check=False, capture_output=True, text=True)
    assert child.returncode == 7, child.stderr


def test_a_folder_that_another_run_has(tmp_path: Path, corpus: Corpus) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(tldr.LockedError, match="another run trains or fits the captioner in"):
            tldr.Captioner.train(corpus.urls, tmp_path, preset="tiny", epochs=1, vocab_size=300)
    finally:
        os.close(folder)


def test_shards_that_hold_nothing_are_listed_and_warned_of(tmp_path: Path, corpus: Corpus) -> None:
    shard = Path(corpus.urls).parent / "00000.tar"
    (tmp_path / "0.tar").write_bytes(shard.read_bytes())
    (tmp_path / "1.tar").write_bytes(bytes(10 << 20))
    with tarfile.open(tmp_path / "2.tar", "w"):
        pass
    loader = flat.loader(str(tmp_path), mode="full", lanes=1, batch_size=10, image_size=SIZE)
    with pytest.warns(RuntimeWarning, match=r"1\.tar and 1 more: no samples in it"):
        assert len(list(loader)) == 5
    assert [Path(name).name for name in loader.stats()["empty_shards"]] == ["1.tar", "2.tar"]
    with pytest.raises(tldr.NoSamplesError, match="the shard holds none") as caught:
        flat.loader(str(tmp_path), mode="full", batch_size=10, image_size=SIZE, on_error="raise")
    assert caught.value.shard is not None
    assert caught.value.shard.endswith("1.tar")
