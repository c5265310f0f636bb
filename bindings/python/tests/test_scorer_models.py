"""Scorers of open_clip and transformers: real classes, small weights."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import small_models
import tldr_loader as tldr
from conftest import Corpus, add_member
from test_scorers import loader
from tldr_loader import models
from tldr_loader._scorer_adapter import Adapter


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    small_models.clip(folder)
    return folder


def previews_of(scorer: Any, images: list[Image.Image], folder: Path) -> np.ndarray[Any, Any]:
    """Previews as the loader makes them: what a scorer gets at a fit."""
    got: list[np.ndarray[Any, Any]] = []

    class Watching:
        preview_size, resize, batch_size = scorer.preview_size, scorer.resize, 1
        interpolation = scorer.interpolation
        fingerprint = "watching"

        def score(self, previews: Any, captions: list[str]) -> Mapping[str, Any]:
            got.append(np.array(previews)[0])
            return {"embedding": np.ones((1, 2)), "alignment": np.ones(1)}

    with tarfile.open(folder / "0.tar", "w") as tar:
        for i, image in enumerate(images):
            out = io.BytesIO()
            image.save(out, "PNG")
            add_member(tar, f"{i:03d}.png", out.getvalue())
            add_member(tar, f"{i:03d}.txt", b"a caption")
    tldr.fit(folder / "0.tar", Watching(), folder / "fit", clusters=1)
    return np.stack(got[: len(images)])


def noise(count: int) -> list[Image.Image]:
    draw = np.random.default_rng(5)
    shapes = [(48, 64), (64, 48), (33, 90), (40, 40)]
    smooth = [Image.fromarray(draw.integers(0, 255, (6, 8, 3), dtype=np.uint8)) for _ in range(count)]
    return [image.resize(shapes[i % 4][::-1], Image.Resampling.BICUBIC) for i, image in enumerate(smooth)]


def test_clip_of_transformers_scores_as_transformers_does(
    clip_folder: Path, corpus: Corpus, tmp_path: Path
) -> None:
    import transformers

    scorer = models.hf_clip(clip_folder, batch_size=8)
    images = noise(8)
    texts = [f"a caption number {i}" for i in range(8)]
    processor = transformers.CLIPProcessor.from_pretrained(clip_folder)
    inputs = processor(images=images, text=texts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        found = transformers.CLIPModel.from_pretrained(clip_folder)(**inputs)
    own = previews_of(scorer, images, tmp_path)
    theirs = processor.image_processor(images, do_normalize=False, do_rescale=False, return_tensors="np")[
        "pixel_values"
    ]
    # Where an odd number of pixels is cut, transformers rounds the margin down, and torchvision to even.
    even = [i for i in range(8) if i % 4 != 2]
    assert np.abs(own[even].astype(int) - theirs[even].astype(int)).max() <= 2, "its own preprocessing"
    embedding, alignment, _ = Adapter(scorer).score(theirs.astype(np.uint8), texts)
    directions = torch.nn.functional.normalize(torch.tensor(embedding), dim=1)
    torch.testing.assert_close(
        directions, torch.nn.functional.normalize(found.image_embeds, dim=1), atol=1e-4, rtol=1e-3
    )
    scores = (
        found.logits_per_image / found.logits_per_image.new_tensor(scorer.model.logit_scale.exp().item())
    ).diag()
    torch.testing.assert_close(torch.tensor(alignment), scores, atol=1e-4, rtol=1e-3)
    ids_are_made_by_the_loader(scorer, corpus.urls, tmp_path / "clip_fit")
    # Fine-tuned under the same name: the hash of the weights tells.
    with torch.no_grad():
        scorer.model.visual_projection.weight.mul_(1.5)
    assert models._weights(scorer.model) not in scorer.fingerprint


def test_siglip_of_transformers_scores_as_transformers_does(corpus: Corpus, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    parts = small_models.PARTS
    config = transformers.SiglipConfig(
        text_config={**parts, "vocab_size": 300, "max_position_embeddings": 16},
        vision_config={**parts, "image_size": 32, "patch_size": 8},
    )
    folder = tmp_path / "siglip"
    transformers.SiglipModel(config).eval().save_pretrained(folder)
    tokenizer = small_models.tokenizer_of(folder)
    images = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    images.save_pretrained(folder)
    transformers.SiglipProcessor(images, tokenizer).save_pretrained(folder)
    scorer = models.hf_siglip(folder, batch_size=6)
    assert scorer.resize == "squash"
    made, texts = noise(6), [f"caption {i}" for i in range(6)]
    inputs = tokenizer(texts, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    pixels = images(made, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        found = transformers.SiglipModel.from_pretrained(folder)(
            pixel_values=pixels, input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        )
    theirs = images(made, do_normalize=False, do_rescale=False, return_tensors="np")["pixel_values"]
    own = previews_of(scorer, made, tmp_path)
    assert np.abs(own.astype(int) - theirs.astype(int)).max() <= 2
    _, alignment, _ = Adapter(scorer).score(theirs.astype(np.uint8), texts)
    cosines = (found.image_embeds * found.text_embeds).sum(1)
    torch.testing.assert_close(torch.tensor(alignment), cosines, atol=1e-4, rtol=1e-3)
    ids_are_made_by_the_loader(scorer, corpus.urls, tmp_path / "siglip_fit")


def ids_are_made_by_the_loader(scorer: Any, urls: str, folder: Path) -> None:
    """The tokenizer is not called in a pass, and without the loader's ids the signals are the same."""
    calls: list[int] = []
    own = scorer.tokenizer

    def counted(texts: list[str]) -> Any:
        calls.append(len(texts))
        return own(texts)

    def signals(fitted: tldr.FittedScorer) -> list[list[Any]]:
        selection = tldr.Selection(keep_ratio=0.4, gate=tldr.Top(0.6), window=64)
        found = loader(urls, fitted, selection=selection)
        return [[*batch.alignment, *batch.clusters] for batch in found]

    tldr.fit(urls, scorer, folder, clusters=4)
    fitted = tldr.FittedScorer(folder, scorer)
    assert fitted._adapter.tokens is not None
    scorer.tokenizer = counted
    by_loader = signals(fitted)
    assert by_loader
    assert not calls
    fitted = tldr.FittedScorer(folder, scorer)
    fitted._adapter.tokens = None
    assert signals(fitted) == by_loader
    assert len(calls) > 5
    scorer.tokenizer = own


def test_open_clip_scores_as_open_clip_does(corpus: Corpus, tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(2)
    tower = {"width": 32, "layers": 2, "heads": 2}
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
        text_cfg={"context_length": 24, "vocab_size": 49408, **tower},
    ).eval()
    preprocess = open_clip.image_transform(32, is_train=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    scorer = models.open_clip(model, preprocess, tokenizer, batch_size=6)
    images, texts = noise(6), [f"a photo number {i}" for i in range(6)]
    theirs = torch.stack([preprocess(image) for image in images])
    with torch.inference_mode():
        a, b = model.encode_image(theirs), model.encode_text(tokenizer(texts))
    wanted = torch.nn.functional.cosine_similarity(a, b)
    own = previews_of(scorer, images, tmp_path)
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (scorer.mean, scorer.std))
    pixels = np.round((theirs.numpy() * std + mean) * 255)
    assert np.abs(own.astype(int) - pixels).max() <= 1, "previews are its own preprocessing"
    embedding, alignment, _ = Adapter(scorer).score(pixels.astype(np.uint8), texts)
    torch.testing.assert_close(torch.tensor(alignment), wanted, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(torch.tensor(embedding), a, atol=1e-3, rtol=1e-3)
    with pytest.raises(tldr.ConfigError, match="transform for evaluation"):
        models.open_clip(model, open_clip.image_transform(32, is_train=True), tokenizer)
    ids_are_made_by_the_loader(scorer, corpus.urls, tmp_path / "open_fit")


def test_blip_aligns_by_its_matching_head(corpus: Corpus, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    parts = small_models.PARTS
    config = transformers.BlipConfig(
        text_config={**parts, "vocab_size": 300, "max_position_embeddings": 40, "encoder_hidden_size": 32},
        vision_config={**parts, "image_size": 32, "patch_size": 8},
        projection_dim=16,
        image_text_hidden_size=16,
    )
    folder = tmp_path / "blip"
    transformers.BlipForImageTextRetrieval(config).eval().save_pretrained(folder)
    tokenizer = small_models.tokenizer_of(folder)
    images = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.BlipProcessor(images, tokenizer).save_pretrained(folder)
    scorer = models.hf_blip(folder, batch_size=4)
    texts = [f"caption {i}" for i in range(4)]
    pixels = images(noise(4), return_tensors="pt")["pixel_values"]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        odds = transformers.BlipForImageTextRetrieval.from_pretrained(folder)(
            pixel_values=pixels, input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        ).itm_score
    raw = images(noise(4), do_normalize=False, do_rescale=False, return_tensors="np")["pixel_values"]
    _, alignment, _ = Adapter(scorer).score(raw.astype(np.uint8), texts)
    torch.testing.assert_close(torch.tensor(alignment), odds[:, 1] - odds[:, 0], atol=1e-4, rtol=1e-3)
    ids_are_made_by_the_loader(scorer, corpus.urls, tmp_path / "blip_fit")


def test_fingerprints_are_of_the_weights(clip_folder: Path) -> None:
    assert models.hf_clip(clip_folder).fingerprint == models.hf_clip(clip_folder).fingerprint
