"""The examples' own CLIP as a scorer: all that a loader asks of one (docs/scorers.md)."""

from __future__ import annotations

from pathlib import Path

import torch
from small_clip import CONTEXT_LENGTH, IMAGE_SIZE, SmallClip

import tldr_loader as tldr


class ClipScorer:
    """Scores by a small CLIP; captions become tokens by a tokenizer file."""

    preview_size, resize = IMAGE_SIZE, "squash"
    batch_size = 64
    mean, std = tldr.Images().mean, tldr.Images().std

    def __init__(self, model: SmallClip, tokenizer: Path, fingerprint: str) -> None:
        from tokenizers import Tokenizer

        self.model, self.fingerprint = model, fingerprint
        self.words = Tokenizer.from_file(str(tokenizer))
        self.words.enable_truncation(CONTEXT_LENGTH)
        self.words.enable_padding(length=CONTEXT_LENGTH, pad_id=0)

    def tokenizer(self, captions: list[str]) -> torch.Tensor:
        return torch.tensor([encoding.ids for encoding in self.words.encode_batch(captions)])

    def score(self, previews: torch.Tensor, captions: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "embedding": self.model.encode_image(previews),
            "text_embedding": self.model.encode_text(captions),
        }
