"""Tensors reach Python without a copy and are freed once."""

import gc
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from tldr_loader import _native

DTYPES = {"float32": torch.float32, "uint8": torch.uint8, "int64": torch.int64}


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [[2, 3, 4], [5], [], [0, 7], [1, 1]])
def test_memory_shape_and_type_arrive(name: str, shape: list[int]) -> None:
    address, tensor = _native._hand_over(name, shape)
    assert tensor.dtype == DTYPES[name]
    assert list(tensor.shape) == shape
    assert tensor.is_contiguous()
    assert tensor.device.type == "cpu"
    if tensor.numel():
        assert tensor.data_ptr() == address
        assert torch.equal(tensor, torch.ones(shape, dtype=DTYPES[name]))


def test_other_number_types_are_refused() -> None:
    with pytest.raises(TypeError, match="cannot hand over a tensor of Double"):
        _native._hand_over("float64", [2])


def test_a_view_keeps_the_memory() -> None:
    _, tensor = _native._hand_over("float32", [1000, 1000])
    view = tensor[17, 10:20]
    del tensor
    gc.collect()
    churn = [torch.zeros(1000, 1000) for _ in range(5)]
    assert view.tolist() == [1.0] * 10
    assert len(churn) == 5


def test_memory_is_freed() -> None:
    for _ in range(100):
        _native._hand_over("uint8", [2**20])
    before = resident_mib()
    for _ in range(1000):
        _native._hand_over("uint8", [2**20])
    # 1,000 MiB passed through; what the allocator holds back is a few of them.
    assert resident_mib() - before < 50


def test_memory_is_freed_on_another_thread() -> None:
    before = resident_mib()
    for _ in range(100):
        held = [_native._hand_over("uint8", [2**20])[1]]
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
        assert not held
    assert resident_mib() - before < 50


def test_a_capsule_that_nobody_takes_is_freed() -> None:
    # In a process of its own: the module looks the taker up once.
    code = """
import resource
import torch.utils.dlpack
def refuse(capsule):
    raise BufferError("not today")
torch.utils.dlpack.from_dlpack = refuse
from tldr_loader import _native
for _ in range(1000):
    try:
        _native._hand_over("uint8", [2**20])
    except BufferError:
        continue
    raise SystemExit("the taker was not asked")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    reference = code.replace("range(1000)", "range(10)")
    peak, few = (
        int(subprocess.run([sys.executable, "-c", c], check=True, capture_output=True, text=True).stdout)
        for c in (code, reference)
    )
    assert peak - few < 100  # MiB, of 1,000
