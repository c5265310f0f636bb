"""Promise: token ids are open_clip's, on 10,000 captions of every nastiness of the web."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import open_clip
import torch

import tldr_loader as tldr
from conftest import Pair, write_shard

CAPTIONS = 10_000
CONTEXT = 77


def generator() -> ModuleType:
    """The generator of the golden captions."""
    path = Path(__file__).parents[3] / "tests" / "golden" / "captions.py"
    spec = importlib.util.spec_from_file_location("golden_captions", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def captions() -> list[str]:
    """Captions with garbled, escaped, upper-case and very long ones among them.

    Strings of random code points are left out: which of them are letters depends on the Unicode
    version of Python's tables.
    """
    made = generator()
    usual = {chr(c) for c in [*range(0x250), *range(0x2000, 0x2200)]} | set("".join(made.WORDS + made.PIECES))
    rng = random.Random(20)
    texts: list[str] = []
    while len(texts) < CAPTIONS:
        text = made.caption(rng)
        if text.strip("\ufeff").strip() and set(text) <= usual:
            texts.append(text)
    return texts


def test_ids_equal_open_clips_on_ten_thousand_captions(tmp_path: Path) -> None:
    texts = captions()
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    write_shard(tmp_path / "00000.tar", [Pair(f"{i:06}", pixels, text) for i, text in enumerate(texts)])
    merges = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    loader = tldr.Loader(
        tmp_path, mode="eval", tokenizer=merges, context_length=CONTEXT, image_size=2, batch_size=500
    )
    theirs = open_clip.SimpleTokenizer()
    differing = []
    for batch in loader:
        assert batch.tokens is not None
        expected = theirs(batch.original, context_length=CONTEXT)
        rows = (batch.tokens != expected).any(dim=1)
        differing += [batch.original[i] for i in torch.nonzero(rows).flatten().tolist()]
    assert loader.stats()["yielded"] == CAPTIONS
    assert differing == []
