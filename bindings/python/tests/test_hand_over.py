"""Promise: arrays reach Python without a copy, in torch's memory where it is there, and are freed once."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flat
import tldr_loader as tldr
from conftest import Corpus
from tldr_loader import _frames, _native

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "uint8": torch.uint8,
    "int64": torch.int64,
    "bool": torch.bool,
}


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def taken(name: str, shape: list[int]) -> tuple[int, torch.Tensor]:
    """The address that Rust sees, and the tensor that torch makes of the array."""
    address, array = _native._hand_over(name, shape)
    assert array.dtype == name
    assert array.shape == tuple(shape)
    return address, torch.utils.dlpack.from_dlpack(array)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [[2, 3, 4], [5], [], [0, 7], [1, 1]])
def test_memory_shape_and_type_arrive(name: str, shape: list[int]) -> None:
    address, tensor = taken(name, shape)
    assert tensor.dtype == DTYPES[name]
    assert list(tensor.shape) == shape
    assert tensor.is_contiguous()
    assert tensor.device.type == "cpu"
    if tensor.numel():
        assert tensor.data_ptr() == address
        assert torch.equal(tensor, torch.ones(shape, dtype=DTYPES[name]))


def test_numpy_takes_it_too() -> None:
    address, array = _native._hand_over("int64", [3, 4])
    found = np.from_dlpack(array)
    assert found.ctypes.data == address
    assert found.tolist() == [[1] * 4] * 3
    with pytest.raises(BufferError, match="without a copy"):
        array.__dlpack__(copy=True)


def test_a_view_keeps_the_memory() -> None:
    _, tensor = taken("float32", [1000, 1000])
    view = tensor[17, 10:20]
    del tensor
    gc.collect()
    churn = [torch.zeros(1000, 1000) for _ in range(5)]
    assert view.tolist() == [1.0] * 10
    assert len(churn) == 5


def test_memory_is_freed() -> None:
    for _ in range(100):
        taken("uint8", [2**20])
    before = resident_mib()
    for _ in range(1000):
        taken("uint8", [2**20])
    # 1,000 MiB passed through; what the allocator holds back is a few of them.
    assert resident_mib() - before < 50


def test_memory_is_freed_on_another_thread() -> None:
    before = resident_mib()
    for _ in range(100):
        held = [taken("uint8", [2**20])[1]]
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
        assert not held
    assert resident_mib() - before < 50


def test_a_capsule_that_nobody_takes_is_freed() -> None:
    for _ in range(100):
        _native._hand_over("uint8", [2**20])[1].__dlpack__()
    before = resident_mib()
    for _ in range(1000):
        _native._hand_over("uint8", [2**20])[1].__dlpack__()
    assert resident_mib() - before < 50


@pytest.mark.parametrize("pixels", ["float32", "bfloat16", "uint8"])
def test_batches_are_made_in_the_tensors_that_torch_allocated(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, pixels: str
) -> None:
    made: dict[int, torch.Tensor] = {}
    empty = _frames.Frame.empty

    def recorded(self: _frames.Frame, dtype: str, shape: list[int]) -> tuple[torch.Tensor, int] | None:
        found = empty(self, dtype, shape)
        assert found is not None
        made[found[1]] = found[0]
        return found

    monkeypatch.setattr(_frames.Frame, "empty", recorded)
    merges = Path(corpus.urls).parent / "tokenizer.json"
    options: dict[str, Any] = {"mode": "full", "batch_size": 8, "image_size": 16, "dtype": pixels}
    if merges.exists():
        options["tokenizer"] = merges
    batches = list(flat.loader(corpus.urls, **options))
    assert len(batches) > 10
    for batch in batches:
        # The very objects: nothing was copied on the way, and nothing wrapped.
        assert made[batch.images.data_ptr()] is batch.images
        assert batch.images.dtype == DTYPES[pixels]
        assert batch.images.shape == (8, 3, 16, 16)
    # One tensor for each batch that was taken, and what can be under way beside: prefetch and three.
    assert len(made) <= len(batches) + 2 + 3


def test_a_short_last_batch_is_part_of_its_tensor(corpus: Corpus) -> None:
    batches = list(flat.loader(corpus.urls, mode="eval", batch_size=7, image_size=8))
    rows = [len(batch) for batch in batches]
    assert sum(rows) == len(corpus.pairs)
    assert rows[-1] < 7
    assert [batch.images.shape[0] for batch in batches] == rows
    assert all(batch.valid.dtype == torch.bool and batch.valid.all() for batch in batches)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
import tldr_loader as tldr
images, selection = tldr.Images(image_size=8, dtype="uint8"), tldr.Selection(weights=True)
loader = tldr.Loader(sys.argv[1], mode="eval", batch_size=7, images=images, selection=selection)
pixels = [np.from_dlpack(batch.images) for batch in loader]
assert isinstance(batch_type := type(next(iter(loader)).images), type) and batch_type is tldr.Array
np.save(sys.argv[2], np.concatenate(pixels))
for device in ("cuda", "cuda:1"):
    try:
        tldr.Loader(sys.argv[1], mode="eval", device=device)
    except tldr.ConfigError as error:
        expected = "expected cpu, without torch, which copies batches to other devices"
        assert str(error) == f"invalid device={device}: {expected}"
    else:
        raise SystemExit("no error")
assert "torch.cuda" not in sys.modules
"""


def test_without_torch_batches_are_arrays_of_the_same_pixels(corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "pixels.npy"
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, corpus.urls, str(out)], check=True, timeout=120)
    loader = flat.loader(corpus.urls, mode="eval", batch_size=7, image_size=8, dtype="uint8")
    expected = torch.cat([batch.images for batch in loader]).numpy()
    assert np.array_equal(np.load(out), expected)


def test_copies_go_through_a_stream_one_batch_ahead(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens with a GPU, in order, with a device that only pretends to be one."""
    said: list[str] = []

    class Pretended(_frames.Frame):
        def __init__(self) -> None:
            super().__init__("cpu")
            self.device = torch.device("meta")  # anything but the CPU
            self.sent = self.received = 0

        def send(self, tensors: list[torch.Tensor]) -> tuple[list[torch.Tensor], Any]:
            self.sent += 1
            said.append(f"send {self.sent}")
            return tensors, self.sent

        def receive(self, sent: tuple[list[torch.Tensor], Any]) -> list[torch.Tensor]:
            self.received += 1
            assert sent[1] == self.received, "in order"
            said.append(f"receive {self.received}")
            return sent[0]

    plain = flat.loader(corpus.urls, mode="full", batch_size=8, image_size=8)
    expected = [batch.images for batch in plain]
    monkeypatch.setattr(_frames, "frame", lambda _device: Pretended())
    loader = flat.loader(corpus.urls, mode="full", batch_size=8, image_size=8)
    steps: list[int] = []
    under_way: list[int] = []
    for batch, images in zip(loader, expected, strict=True):
        assert torch.equal(batch.images, images)
        steps.append(loader.state_dict()["step"])
        under_way.append(sum(1 if word.startswith("send") else -1 for word in said))
    # What is ahead does not count as handed over.
    assert steps == [*range(1, len(expected)), 0] or steps == list(range(1, len(expected) + 1))
    assert said.count("send 1") == 1
    assert len([word for word in said if word.startswith("send")]) == len(expected)
    assert max(under_way) == 1, "no copy began before its batch was asked for"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_what_arrives_on_a_gpu_is_what_was_decoded(corpus: Corpus) -> None:
    options: dict[str, Any] = {"mode": "full", "batch_size": 4, "image_size": 32}
    host, there = flat.loader(corpus.urls, **options), flat.loader(corpus.urls, device="cuda", **options)
    compared = 0
    while compared < 500:
        for ours, theirs in zip(host, there, strict=True):
            busy = torch.randn(512, 512, device="cuda") @ torch.randn(512, 512, device="cuda")
            assert theirs.images.device.type == "cuda"
            assert torch.equal(theirs.images.cpu(), ours.images), f"batch {compared}: {busy.shape}"
            compared += 1


def test_an_epoch_leaves_no_more_memory_waiting_than_is_under_way(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    empty = _frames.Frame.empty

    def counted(self: _frames.Frame, dtype: str, shape: list[int]) -> tuple[torch.Tensor, int] | None:
        made.append(1)
        return empty(self, dtype, shape)

    monkeypatch.setattr(_frames.Frame, "empty", counted)
    loader = flat.loader(corpus.urls, mode="full", batch_size=8, image_size=8)
    batches = sum(1 for _ in range(5) for _ in loader)
    # Each batch that was taken is made up for once; what waits is never more than prefetch and three.
    assert len(made) <= batches + 2 + 3


class Pretended(_frames.Frame):
    """A device that only pretends to be one."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.device = torch.device("meta")  # anything but the CPU


def test_a_batch_whose_copy_fails_is_held_for_the_next_call(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    class Failing(Pretended):
        def send(self, tensors: list[torch.Tensor]) -> tuple[list[torch.Tensor], Any]:
            nonlocal calls
            calls += 1
            if calls % 3 == 1:
                raise torch.OutOfMemoryError("pretended")
            return tensors, None

    options: dict[str, Any] = {"mode": "full", "batch_size": 8, "image_size": 8}
    expected = [(batch.keys, batch.images) for batch in flat.loader(corpus.urls, **options)]
    monkeypatch.setattr(_frames, "frame", lambda _device: Failing())
    found, failed = [], 0
    batches = iter(flat.loader(corpus.urls, **options))
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            break
        except torch.OutOfMemoryError:
            failed += 1
            continue
        found.append((batch.keys, batch.images))
    assert failed > 0
    assert [keys for keys, _ in found] == [keys for keys, _ in expected]
    assert all(torch.equal(ours, theirs) for (_, ours), (_, theirs) in zip(found, expected, strict=True))


def test_threads_that_share_an_iterator_get_each_batch_once(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Pretended):
        def send(self, tensors: list[torch.Tensor]) -> tuple[list[torch.Tensor], Any]:
            time.sleep(0.002)
            return tensors, None

    options: dict[str, Any] = {"mode": "full", "batch_size": 4, "image_size": 8}
    expected = {tuple(batch.keys): batch.images for batch in flat.loader(corpus.urls, **options)}
    monkeypatch.setattr(_frames, "frame", lambda _device: Slow())
    batches = iter(flat.loader(corpus.urls, **options))
    found: list[tldr.Batch] = []
    threads = [threading.Thread(target=lambda: found.extend(batches), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "the threads wait for each other"
    assert len(found) == len(expected)
    assert all(torch.equal(batch.images, expected[tuple(batch.keys)]) for batch in found)
