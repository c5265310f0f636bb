"""Hugging Face's Trainer on this loader: batches that are mappings, and a callback that resumes.

import transformers
import tldr_loader.transformers

batches = tldr_loader.transformers.Batches("cc3m/{00000..00331}.tar", tokenizer, batch_size=256, mode="full")

class Trainer(transformers.Trainer):
    def get_train_dataloader(self):
        return batches

args = transformers.TrainingArguments("out", ignore_data_skip=True)
trainer = Trainer(model, args, callbacks=[tldr_loader.transformers.Resume(batches)])
trainer.train()
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.trainer_callback import ExportableState, TrainerCallback

from tldr_loader import _tokenizer_files
from tldr_loader._errors import ConfigError, DataError
from tldr_loader._frameworks import check_version
from tldr_loader._native import Loader
from tldr_loader._options import Captions
from tldr_loader._probe import TEXTS, token_ids

if TYPE_CHECKING:
    import torch

__all__ = ["Batches", "Resume"]

LONGEST = 100_000
"""Tokenizers without a limit say a larger `model_max_length`."""


class Batches:
    """The batches of a loader as a model of transformers takes them: by the names of its arguments.

    A batch has `pixel_values` and `input_ids`, and `attention_mask` where the tokenizer makes one. Ids and
    mask are those of the tokenizer with `padding="max_length"` and `truncation=True`.

    Attributes:
        loader: The loader.
    """

    def __init__(
        self,
        source: Any,
        tokenizer: Any,
        *,
        context_length: int | None = None,
        extra: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Makes the loader.

        Args:
            source: As for `Loader`.
            tokenizer: A fast tokenizer of transformers.
            context_length: Token ids of a caption. Default: the tokenizer's `model_max_length`.
            extra: What every batch has, too: `{"return_loss": True}` asks a `CLIPModel` for its loss.
            options: As for `Loader`.

        Raises:
            ConfigError: An option cannot work, or the loader cannot make the tokenizer's ids.
        """
        check_version("transformers")
        length = context_length or tokenizer.model_max_length
        if length > LONGEST:
            raise ConfigError("context_length: expected one, since the tokenizer has no model_max_length")
        captions = replace(options.pop("captions", None) or Captions(), context_length=length)
        self._extra = dict(extra or {})
        with tempfile.TemporaryDirectory() as folder:
            file = _tokenizer_files.saved(tokenizer, Path(folder))
            self._rows = _Rows(tokenizer, file, length)
            self.loader = Loader(source, tokenizer=file, captions=captions, **options)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.loader:
            assert batch.tokens is not None  # the loader has a tokenizer
            yield {"pixel_values": batch.images, **self._rows.of(batch.tokens), **self._extra}

    def set_epoch(self, epoch: int) -> None:
        """Moves to the start of an epoch, or keeps the place of a state of it."""
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is."""
        return self.loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Moves to a saved state."""
        self.loader.load_state_dict(state_dict)


class Resume(TrainerCallback, ExportableState):
    """Keeps the loader's state in each checkpoint of a Trainer, and restores it when training goes on.

    Raises:
        ConfigError: The Trainer would read again what was trained on (`ignore_data_skip` is not set), or the
            batches of an epoch are no multiple of `gradient_accumulation_steps`.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def state(self) -> dict[str, Any]:
        """What goes into `trainer_state.json`."""
        return {"args": {}, "attributes": {"loader": self.batches.state_dict()}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Checks the Trainer's settings, and moves to the state of the checkpoint that it resumes from."""
        if not args.ignore_data_skip:
            raise ConfigError(
                "ignore_data_skip=False: a Trainer that resumes would read again, and skip, what was trained "
                "on; expected TrainingArguments(ignore_data_skip=True), and the loader goes on where it was"
            )
        steps = args.gradient_accumulation_steps
        if len(self.batches) % steps:
            raise ConfigError(
                f"gradient_accumulation_steps={steps}: expected a divisor of the {len(self.batches)} batches "
                "of an epoch, so that a run that resumes takes the same steps; set samples_per_epoch"
            )
        # That of a run that begins holds this callback's own state, which is where it is.
        saved = (state.stateful_callbacks or {}).get(type(self).__name__)
        if state.global_step:
            if saved is None:
                raise ConfigError(
                    "the checkpoint has no state of the loader: expected one that was written with this "
                    "callback; without it, begin at an epoch, by batches.set_epoch(n), with no "
                    "resume_from_checkpoint"
                )
            self.batches.load_state_dict(saved["attributes"]["loader"])


class _Rows:
    """Makes a tokenizer's own ids and mask of the loader's rows, which may be padded with another id."""

    def __init__(self, tokenizer: Any, file: Path, length: int) -> None:
        texts = [" ".join(text.split()) for text in TEXTS]
        theirs = tokenizer(
            texts, max_length=length, padding="max_length", truncation=True, return_tensors="pt"
        )
        try:
            ours = token_ids(file, length, texts)
        except DataError as error:
            raise ConfigError(f"tokenizer: the loader cannot follow this one: {error}") from error
        self._left = tokenizer.padding_side == "left"
        self._pad = int(tokenizer.pad_token_id)
        self._has_mask = "attention_mask" in theirs
        short = ours[texts.index("x")]
        self._own_pad = int(short[0 if self._left else -1])
        # An end token that is the padding, as CLIP's is, counts as real.
        self._ends = 0
        real = int(tokenizer("x", return_tensors="pt").input_ids.shape[1])
        self._ends = real - int(self._real(ours)[texts.index("x")].sum())
        found = self.of(ours)
        for name, rows in found.items():
            for text, own, other in zip(texts, rows.tolist(), theirs[name].tolist(), strict=True):
                if own != other:
                    raise ConfigError(
                        f"tokenizer: this {type(tokenizer).__name__} makes {name} {other[:12]} ... of "
                        f"{text[:40]!r}, the loader {own[:12]} ...; expected one whose ids follow from its "
                        "files (docs/tokenizers.md)"
                    )

    def of(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        """`input_ids`, and `attention_mask` where the tokenizer makes one."""
        real = self._real(tokens)
        found = {"input_ids": tokens.masked_fill(~real, self._pad)}
        if self._has_mask:
            found["attention_mask"] = real.long()
        return found

    def _real(self, tokens: torch.Tensor) -> torch.Tensor:
        """Which ids are no padding: those before the last run of its id, and as many of it as end a text."""
        import torch

        rows = tokens.flip(1) if self._left else tokens
        run = rows.flip(1).eq(self._own_pad).long().cumprod(1).sum(1, keepdim=True)
        real = torch.arange(rows.shape[1], device=rows.device) < rows.shape[1] - run + self._ends
        return real.flip(1) if self._left else real
