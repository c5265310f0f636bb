"""Batches in torch's memory, where torch is installed.

The native module makes a batch in tensors that are given to it here, one batch for each that is taken, so
that its threads never wait for Python. With a GPU they are pinned, and copied on a stream of their own.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from typing import TYPE_CHECKING, Any

from tldr_loader._errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["frame"]

logger = logging.getLogger("tldr_loader")


def frame(device: str) -> Frame | None:
    """What makes tensors on `device`; `None` without torch, where batches hold plain arrays.

    Raises:
        ConfigError: There is no such device.
    """
    if importlib.util.find_spec("torch") is None:
        if device == "cpu":
            return None
        raise ConfigError(
            f"invalid device={device}: expected cpu, without torch, which copies batches to other devices"
        )
    return Frame(device)


class Frame:
    """Makes the tensors of one loader."""

    def __init__(self, device: str) -> None:
        import torch
        import torch.utils.dlpack

        self._torch: Any = torch
        self.device = _device(device)
        self._stream: Any = None
        self._pinned = self.device.type == "cuda"

    def empty(self, dtype: str, shape: list[int]) -> tuple[torch.Tensor, int] | None:
        """Memory for an array of a later batch, and its address; `None` where torch has none."""
        torch = self._torch
        kind = getattr(torch, dtype)
        try:
            if not self._pinned:
                tensor = torch.empty(shape, dtype=kind)
                return tensor, tensor.data_ptr()
            # Pinning makes a context on the current device, which is to be no other than the batches' own.
            with torch.cuda.device(self.device):
                tensor = torch.empty(shape, dtype=kind, pin_memory=True)
            return tensor, tensor.data_ptr()
        except (RuntimeError, MemoryError) as error:
            # The loader finds memory of its own, or says what it was for.
            if self._pinned:
                self._pinned = False
                first = str(error).partition("\n")[0]
                logger.warning("batches are not in pinned memory, and their copies slower: %s", first)
            return None

    def wrap(self, array: Any) -> torch.Tensor:
        """An array that was made in other memory, as a tensor that shares it."""
        tensor: torch.Tensor = self._torch.utils.dlpack.from_dlpack(array)
        return tensor

    def send(self, tensors: list[torch.Tensor]) -> tuple[list[torch.Tensor], Any]:
        """Begins to copy tensors to the device; what `receive` takes."""
        if self.device.type == "cpu":
            return tensors, None
        cuda = self._torch.cuda
        if self._stream is None:
            self._stream = cuda.Stream(self.device)
        with cuda.stream(self._stream):
            copies = [tensor.to(self.device, non_blocking=True) for tensor in tensors]
            return copies, self._stream.record_event()

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """A small tensor, on the device."""
        return tensor.to(self.device)

    def receive(self, sent: tuple[list[torch.Tensor], Any]) -> list[torch.Tensor]:
        """The copies, for the caller's stream, which waits for them; the host does not."""
        copies, done = sent
        if done is not None:
            stream = self._torch.cuda.current_stream(self.device)
            stream.wait_event(done)
            for tensor in copies:
                # Their memory is not used again before this stream is done with it.
                tensor.record_stream(stream)
        return copies


def _device(name: str) -> torch.device:
    """The device of that name, where it is there; `cuda` is torch's current one."""
    import torch

    # By its name: torch.device keeps but a byte of a number.
    found = re.fullmatch(r"(cpu|cuda)(?::(\d+))?", name)
    # accelerate calls the CPU of its processes cpu:0.
    if found is None or (found[1] == "cpu" and found[2] not in (None, "0")):
        raise ConfigError(f"invalid device={name}: expected cpu, cuda or cuda:N")
    if found[1] == "cpu":
        return torch.device("cpu")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(found[2]) if found[2] else None
    if index is None and torch.cuda.is_available():
        index = torch.cuda.current_device()
    if index is not None and index < there:
        return torch.device("cuda", index)
    remedy = (
        f"one of cuda:0 to cuda:{there - 1}"
        if there
        else "cpu: torch sees no CUDA device (check nvidia-smi, and that this PyTorch was built with CUDA)"
    )
    raise ConfigError(f"invalid device={name if index is None else f'cuda:{index}'}: expected {remedy}")
