"""What a loader makes of texts: compared with a framework's own tokenizer before a run begins."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tldr_loader._native import Loader
from tldr_loader._options import Captions, Images, Runtime, World

if TYPE_CHECKING:
    import torch

__all__ = ["TEXTS", "token_ids"]

TEXTS = (
    "a photo of a dog",
    "Two CATS, on the sofa; don't touch!",
    "snake_case & 12,345.67 - 50% off?",
    "naïve café, Überraschung",
    "日本語の写真 🦊 x²",
    "x",
    "word " * 120,
)
"""Captions that tell tokenizers apart: case, punctuation, digits, accents, scripts, and a length to cut."""


def token_ids(
    file: str | os.PathLike[str], context_length: int, texts: Sequence[str] = TEXTS
) -> torch.Tensor:
    """The token ids that a loader with this tokenizer makes of captions, int64 `[texts, context_length]`.

    Raises:
        DataError: The file is not what it should be.
    """
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "texts.tar"
        with tarfile.open(shard, "w") as tar:
            for i, text in enumerate(texts):
                for name, data in ((f"{i:03}.png", _png()), (f"{i:03}.txt", text.encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        loader = Loader(
            shard,
            mode="eval",
            tokenizer=file,
            captions=Captions(context_length=context_length),
            images=Images(image_size=2),
            batch_size=len(texts),
            runtime=Runtime(threads=1),
            world=World(rank=0, world_size=1),
        )
        (batch,) = loader
        tokens = batch.tokens
        assert tokens is not None  # the loader has a tokenizer
        return tokens


def _png() -> bytes:
    """A black image of 2 x 2 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    size = (2).to_bytes(4, "big")
    header = size + size + bytes([8, 2, 0, 0, 0])  # 8 bits a colour, red green blue
    rows = zlib.compress(bytes(2 * (1 + 6)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
