"""Scorers of models that people trust: CLIP and SigLIP by open_clip or transformers, BLIP by transformers.

    scorer = tldr_loader.models.hf_clip("clip-vit-base-patch32")
    fitted = tldr.fit("shards/{00000..00331}.tar", scorer, "clip_fit")
    loader = tldr.Loader("shards/{00000..00331}.tar", captioner=fitted, batch_size=256)

Models are loaded from folders; nothing is downloaded. Fingerprints are hashes of the weights.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from tldr_loader._errors import ConfigError

__all__ = ["hf_blip", "hf_clip", "hf_siglip", "open_clip"]


class _Model:
    """A torch model with what a loader asks of a scorer."""

    interpolation = "bicubic"

    def __init__(
        self, model: Any, *, name: str, size: int, resize: str, mean: Any, std: Any, **options: Any
    ) -> None:
        self.device = str(options.pop("device", None) or "cpu")
        self.batch_size = options.pop("batch_size")
        self.autocast = options.pop("autocast", None)
        if options:
            raise ConfigError(
                f"unknown option {next(iter(options))!r} of {name}: expected device, batch_size, autocast"
            )
        self.model = model.to(self.device).eval()
        self.preview_size, self.resize = size, resize
        self.mean, self.std = tuple(mean), tuple(std)
        self.name = name
        self.fingerprint = f"{name} {_weights(model)}"

    def score(self, previews: Any, captions: Any) -> Mapping[str, Any]:
        """As a scorer's."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{self.name}(preview_size={self.preview_size}, device={self.device!r})"


def _weights(model: Any) -> str:
    """Hash of all weights, by name."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        if not isinstance(value, torch.Tensor):
            continue
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _OpenClip(_Model):
    def score(self, previews: Any, captions: Any) -> Mapping[str, Any]:
        return {
            "embedding": self.model.encode_image(previews),
            "text_embedding": self.model.encode_text(captions),
        }


def open_clip(
    model: Any,
    preprocess: Any,
    tokenizer: Any,
    *,
    device: str | None = None,
    batch_size: int = 64,
    autocast: Any = None,
) -> _Model:
    """A model of open_clip, whose `create_model_and_transforms` and `get_tokenizer` give the parts.

    Args:
        model: The CLIP.
        preprocess: Its transform for evaluation, from which size, resize mode, mean and std are read.
        tokenizer: Its tokenizer.
        device: Where it runs. Default: the CPU.
        batch_size: Images of a batch.
        autocast: Number type of torch's autocast. Default: none.

    Raises:
        ConfigError: A transform that is not open_clip's for evaluation.
    """
    steps = {type(step).__name__: step for step in getattr(preprocess, "transforms", [])}
    resize, normalize = steps.get("Resize"), steps.get("Normalize")
    if resize is None or normalize is None or "RandomResizedCrop" in steps:
        raise ConfigError(f"invalid preprocess={preprocess!r}: expected open_clip's transform for evaluation")
    if "bicubic" not in str(resize.interpolation).lower():
        raise ConfigError(f"invalid preprocess: expected bicubic interpolation, found {resize.interpolation}")
    crops = "CenterCrop" in steps
    size = resize.size[0] if isinstance(resize.size, (tuple, list)) else resize.size
    if isinstance(resize.size, (tuple, list)) and len(set(resize.size)) != 1:
        raise ConfigError(f"invalid preprocess: expected square images, found a size of {resize.size}")
    made = _OpenClip(
        model, name="open_clip", size=size, resize="crop" if crops else "squash",
        mean=normalize.mean, std=normalize.std, device=device, batch_size=batch_size, autocast=autocast,
    )  # fmt: skip
    made.tokenizer = tokenizer  # type: ignore[attr-defined]
    return made


class _Transformers(_Model):
    def __init__(self, model: Any, processor: Any, *, name: str, context: int, **options: Any) -> None:
        images = processor.image_processor
        size = images.size
        crop = getattr(images, "do_center_crop", False)
        side = images.crop_size["height"] if crop else size.get("height", size.get("shortest_edge"))
        if crop and side != size.get("shortest_edge", side):
            raise ConfigError(
                f"invalid preprocessor: expected a crop of the resized side, found {size} cut to {side}"
            )
        super().__init__(
            model, name=name, size=side, resize="crop" if crop else "squash",
            mean=images.image_mean, std=images.image_std, **options,
        )  # fmt: skip
        self.processor, self.context = processor, context
        self.fast_tokenizer = (processor.tokenizer, context)

    def tokenizer(self, captions: list[str]) -> Any:
        return self.processor.tokenizer(
            captions, padding="max_length", truncation=True, max_length=self.context, return_tensors="pt"
        )


class _Dual(_Transformers):
    def score(self, previews: Any, captions: Any) -> Mapping[str, Any]:
        texts = {name: captions[name] for name in ("input_ids", "attention_mask") if name in captions}
        return {
            "embedding": _features(self.model.get_image_features(pixel_values=previews)),
            "text_embedding": _features(self.model.get_text_features(**texts)),
        }


def _context(model: Any) -> int:
    """Tokens of a caption at most."""
    return int(model.config.text_config.max_position_embeddings)


def _features(found: Any) -> Any:
    """The pooled features: of transformers 5 an output, before a tensor."""
    return getattr(found, "pooler_output", found)


def hf_clip(
    folder: str | os.PathLike[str], *, device: str | None = None, batch_size: int = 64, autocast: Any = None
) -> _Model:
    """A CLIP of transformers, from a folder with its weights, tokenizer and preprocessor.

    Args:
        folder: As `save_pretrained` writes it.
        device: Where it runs. Default: the CPU.
        batch_size: Images of a batch.
        autocast: Number type of torch's autocast. Default: none.
    """
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(folder, local_files_only=True)
    processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    context = _context(model)
    return _Dual(
        model,
        processor,
        name="hf_clip",
        context=context,
        device=device,
        batch_size=batch_size,
        autocast=autocast,
    )


def hf_siglip(
    folder: str | os.PathLike[str], *, device: str | None = None, batch_size: int = 64, autocast: Any = None
) -> _Model:
    """A SigLIP of transformers, from a folder with its weights, tokenizer and preprocessor.

    Args:
        folder: As `save_pretrained` writes it.
        device: Where it runs. Default: the CPU.
        batch_size: Images of a batch.
        autocast: Number type of torch's autocast. Default: none.
    """
    from transformers import AutoModel, AutoProcessor

    model: Any = AutoModel.from_pretrained(folder, local_files_only=True)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)  # type: ignore[no-untyped-call]
    context = _context(model)
    return _Dual(
        model,
        processor,
        name="hf_siglip",
        context=context,
        device=device,
        batch_size=batch_size,
        autocast=autocast,
    )


class _Blip(_Transformers):
    """BLIP for image-text retrieval: its matching head says how well a caption fits."""

    def score(self, previews: Any, captions: Any) -> Mapping[str, Any]:
        texts = {"input_ids": captions["input_ids"], "attention_mask": captions["attention_mask"]}
        found = self.model(pixel_values=previews, use_itm_head=True, **texts)
        odds = found.itm_score.float()
        pooled = self.model.vision_model(pixel_values=previews).pooler_output
        return {"embedding": self.model.vision_proj(pooled), "alignment": odds[:, 1] - odds[:, 0]}


def hf_blip(
    folder: str | os.PathLike[str], *, device: str | None = None, batch_size: int = 64, autocast: Any = None
) -> _Model:
    """A BLIP for image-text retrieval of transformers: alignment by its matching head.

    Args:
        folder: As `save_pretrained` writes it.
        device: Where it runs. Default: the CPU.
        batch_size: Images of a batch.
        autocast: Number type of torch's autocast. Default: none.
    """
    from transformers import BlipForImageTextRetrieval, BlipProcessor

    model = BlipForImageTextRetrieval.from_pretrained(folder, local_files_only=True)
    processor = BlipProcessor.from_pretrained(folder, local_files_only=True)
    context = min(_context(model), 64)
    return _Blip(
        model,
        processor,
        name="hf_blip",
        context=context,
        device=device,
        batch_size=batch_size,
        autocast=autocast,
    )
