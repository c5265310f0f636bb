"""A CLIP small enough to train in minutes on two cores, shared by the Python examples.

Nothing here knows the loader: batches come in as tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE_SIZE = 32
CONTEXT_LENGTH = 32
WIDTH = 96


class SmallClip(nn.Module):
    """A convolutional stem and two transformer blocks for images, two blocks for text."""

    def __init__(self, vocab_size: int, width: int = WIDTH, dim: int = 96) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 4, 3, 2, 1),
            nn.BatchNorm2d(width // 4),
            nn.GELU(),
            nn.Conv2d(width // 4, width // 2, 3, 2, 1),
            nn.BatchNorm2d(width // 2),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, 2, 1),
        )
        patches = (IMAGE_SIZE // 8) ** 2
        self.place = nn.Parameter(torch.randn(patches, width) * 0.02)
        self.image_blocks = blocks(width)
        self.image_out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim, bias=False))
        self.words = nn.Embedding(vocab_size, width)
        self.order = nn.Parameter(torch.randn(CONTEXT_LENGTH, width) * 0.02)
        self.text_blocks = blocks(width)
        self.text_out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim, bias=False))
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, images: Tensor) -> Tensor:
        """`[batch, 3, 32, 32]` to unit vectors `[batch, dim]`."""
        x = self.stem(images).flatten(2).transpose(1, 2) + self.place
        return F.normalize(self.image_out(self.image_blocks(x).mean(1)), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """`[batch, context]`, 0 is padding, to unit vectors `[batch, dim]`."""
        length = max(int((tokens != 0).sum(1).max()), 1)  # columns of padding cost time only
        tokens = tokens[:, :length]
        padding = tokens == 0
        x = self.words(tokens) + self.order[:length]
        for block in self.text_blocks:
            x = block(x, src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(-1).float()
        return F.normalize(self.text_out((x * kept).sum(1) / kept.sum(1)), dim=-1)

    def loss(self, images: Tensor, tokens: Tensor) -> Tensor:
        """The symmetric contrastive loss of CLIP."""
        scale = self.scale.clamp(max=math.log(100)).exp()
        logits = scale * self.encode_image(images) @ self.encode_text(tokens).T
        target = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def blocks(width: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            nn.TransformerEncoderLayer(
                width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(2)
        )
    )


def optimizer_for(
    model: nn.Module, steps: int, rate: float = 1e-3
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with a tenth of warm-up and a cosine to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.1)
    warmup = max(steps // 10, 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(steps - warmup, 1), 1.0)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@torch.no_grad()
def retrieval(model: SmallClip, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """R@1 and R@5 in percent, image to text and text to image, over all pairs of `batches`."""
    model.eval()
    pairs = [(model.encode_image(images), model.encode_text(tokens)) for images, tokens in batches]
    model.train()
    images, texts = (torch.cat(side) for side in zip(*pairs, strict=True))
    scores = images @ texts.T
    result = {}
    for name, matrix in (("i2t", scores), ("t2i", scores.T)):
        rank = (matrix > matrix.diagonal().unsqueeze(1)).sum(1)
        for k in (1, 5):
            result[f"{name}_r{k}"] = 100 * (rank < k).float().mean().item()
    return result
