"""Promise: batches for the Trainer are what the tokenizer makes, and what would go wrong is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

import tldr_loader as tldr
import tldr_loader.transformers
from conftest import Corpus
from test_tokenizers import BERT, SIGLIP, SIGLIP_2, XLM_R, bert, gemma, roberta, saved, t5, xlm_roberta

IMAGES = tldr.Images(image_size=16)


@pytest.fixture(scope="module")
def pairs(make_corpus: Callable[[int, int], Corpus]) -> Corpus:
    return make_corpus(2, 12)


KINDS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "padded on the left": (gemma, {**SIGLIP_2, "padding_side": "left"}),
    "padded with its end token": (t5, SIGLIP),
    "xlm-r": (xlm_roberta, XLM_R),
    "bert": (bert, BERT),
    "roberta": (roberta, {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}),
}


def tokenizer(folder: Path, kind: str) -> Any:
    make, config = KINDS[kind]
    saved(folder, make(), tokenizer_config=config)
    return transformers.AutoTokenizer.from_pretrained(folder)


def batches(pairs: Corpus, made: Any, **more: Any) -> tldr_loader.transformers.Batches:
    options: dict[str, Any] = {
        "mode": "full",
        "batch_size": 4,
        "images": IMAGES,
        "context_length": 12,
        **more,
    }
    return tldr_loader.transformers.Batches(pairs.urls, made, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_masks_are_the_tokenizers(tmp_path: Path, pairs: Corpus, kind: str) -> None:
    made = tokenizer(tmp_path, kind)
    texts = {pair.key: pair.caption for pair in pairs.pairs}
    for length in (6, 12, 40):
        found = batches(pairs, made, context_length=length, extra={"return_loss": True})
        keys = [batch.keys for batch in found.loader]
        found.set_epoch(0)
        for batch, names in zip(found, keys, strict=True):
            captions = [texts[name] for name in names]
            theirs = made(
                captions, max_length=length, padding="max_length", truncation=True, return_tensors="pt"
            )
            assert set(batch) == {"pixel_values", "return_loss", *theirs} - {"token_type_ids"}
            for name in ("input_ids", "attention_mask"):
                assert torch.equal(batch[name], theirs[name]), (name, length)
            assert batch["pixel_values"].shape == (4, 3, 16, 16)


def test_a_tokenizer_that_cannot_be_obeyed(tmp_path: Path, pairs: Corpus) -> None:
    made = tokenizer(tmp_path, "bert")

    class Shouting:
        """Says its texts otherwise than its file would."""

        def __call__(self, texts: Any, **options: Any) -> Any:
            both = [texts] if isinstance(texts, str) else texts
            return made([f"{text} !" for text in both], **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(made, name)

    with pytest.raises(tldr.ConfigError, match=r"tokenizer: this Shouting makes .* of 'a photo of a dog'"):
        batches(pairs, Shouting())

    class Slow(Shouting):
        def save_pretrained(self, folder: Any) -> None:
            (Path(folder) / "vocab.txt").write_text("a\n")

    with pytest.raises(tldr.ConfigError, match=r"a Slow has no tokenizer\.json"):
        batches(pairs, Slow())
    made.model_max_length = int(1e30)
    with pytest.raises(tldr.ConfigError, match="context_length: expected one"):
        batches(pairs, made, context_length=None)


def test_settings_that_would_read_again_or_step_otherwise(tmp_path: Path, pairs: Corpus) -> None:
    found = batches(pairs, tokenizer(tmp_path, "bert"))
    resume = tldr_loader.transformers.Resume(found)

    def begin(ignore: bool = True, steps: int = 1, done: int = 0, held: Any = None) -> None:
        args: Any = SimpleNamespace(ignore_data_skip=ignore, gradient_accumulation_steps=steps)
        state: Any = SimpleNamespace(global_step=done, stateful_callbacks=held)
        resume.on_train_begin(args, state, None)

    begin(steps=3)
    with pytest.raises(tldr.ConfigError, match=r"expected TrainingArguments\(ignore_data_skip=True\)"):
        begin(ignore=False)
    with pytest.raises(tldr.ConfigError, match="expected a divisor of the 6 batches"):
        begin(steps=4)
    with pytest.raises(tldr.ConfigError, match="has no state of the loader"):
        begin(done=3, held={})
    next(iter(found))
    state = resume.state()
    found.set_epoch(3)
    begin(done=1, held={"Resume": state})
    assert found.state_dict() == state["attributes"]["loader"]


def test_an_unknown_release_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pairs: Corpus) -> None:
    import importlib.metadata

    made = tokenizer(tmp_path, "bert")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "6.0.0")
    with pytest.warns(RuntimeWarning, match=r"tried with transformers 5.23 and found 6.0.0"):
        batches(pairs, made)
