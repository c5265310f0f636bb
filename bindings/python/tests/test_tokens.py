"""Promise: token ids are open_clip's of the text as it lies in the shard.

On 10,000 captions of every nastiness of the web, and on 10,000 that white space stands around.
"""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import open_clip
import torch

import flat
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

    Strings of random code points are not tried: which of them are letters depends on the Unicode
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


# What `str.strip`, Rust's `trim` and ASCII call white space, and the space that ftfy makes of half a letter.
BLANKS = [
    " ",
    "\u00a0",
    "\u0085",
    "\n",
    "\r\n",
    "\t",
    "\u3000",
    "\u2003",
    "\x1f",
    "\x0b",
    " \n",
    "\u00a0\n",
    "\u0085 ",
    "\ufeff",
]
# UTF-8 read as Latin-1 or cp1252: the last byte of the last letter is a blank.
GARBLED = [
    "voilÃ\u00a0",
    "voilÃ ",
    "Ã\u00a0 la carte Ã\u00a0",
    "cafÃ\u0085",
    "â\u0080\u0085",
    "Â\u00a0",
    "â\u201a¬ 5 Â\u00a0",
    "Å\u00a0",
    "Ð\u00a0",
]


def blank(count: int) -> list[str]:
    """Captions with blanks around them, garbled ones among them."""
    rng = random.Random(7)
    texts: list[str] = []
    for text in captions()[:count]:
        core = text.strip() + " " + rng.choice(GARBLED) if rng.random() < 0.5 else text
        around = ["".join(rng.choices(BLANKS, k=rng.randint(0, 3))) for _ in range(2)]
        texts.append(around[0] + core + around[1])
    return texts


def rows_that_differ(texts: list[str], loader: tldr.Loader) -> list[str]:
    """Texts, by the number that their key is, whose ids are not open_clip's."""
    theirs = open_clip.SimpleTokenizer()
    differing = []
    for batch in loader:
        assert batch.tokens is not None
        raw = [texts[int(key)] for key in batch.keys]
        rows = (batch.tokens != theirs(raw, context_length=CONTEXT)).any(dim=1)
        differing += [raw[i] for i in torch.nonzero(rows).flatten().tolist()]
    assert loader.stats()["yielded"] == len(texts)
    return differing


def of_texts(folder: Path, texts: list[str], **options: Any) -> tldr.Loader:
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    folder.mkdir(exist_ok=True)
    write_shard(folder / "00000.tar", [Pair(f"{i:06}", pixels, text) for i, text in enumerate(texts)])
    merges = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    return flat.loader(
        folder, mode="eval", tokenizer=merges, context_length=CONTEXT, image_size=2, batch_size=500, **options
    )


def test_ids_equal_open_clips_on_ten_thousand_captions(tmp_path: Path) -> None:
    texts = captions()
    assert rows_that_differ(texts, of_texts(tmp_path, texts)) == []


def test_ids_equal_open_clips_whatever_stands_around_a_caption(tmp_path: Path) -> None:
    texts = blank(CAPTIONS)
    assert sum(text[-1] in "\u00a0\u0085" for text in texts) > 1000
    assert rows_that_differ(texts, of_texts(tmp_path / "own", texts)) == []
    # The same from a table.
    rows = [json.dumps({"key": f"{i:06}", "caption": text}) for i, text in enumerate(texts)]
    (tmp_path / "table.jsonl").write_text("\n".join(rows))
    loader = of_texts(
        tmp_path / "table",
        ["other"] * len(texts),
        captions={"side": tmp_path / "table.jsonl"},
        caption_key="side",
    )
    assert rows_that_differ(texts, loader) == []


def test_white_space_that_is_none_of_a_caption_is_cut_off(tmp_path: Path) -> None:
    texts = ["a dog\n", " \ta dog \r\n", "\ufeffa dog", "voilÃ\u00a0\n", "é\n"]
    (batch,) = of_texts(tmp_path, texts)
    assert batch.original == ["a dog", "a dog", "a dog", "voilÃ\u00a0", "é"]
