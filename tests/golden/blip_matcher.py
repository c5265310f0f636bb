"""Makes tests/golden/blip_matcher: what BLIP for image-text retrieval and its image processor compute.

    pip install torch==2.11.0 torchvision==0.26.0 transformers==5.23.0 pillow
    python tests/golden/blip_matcher.py

`model` is a random model as Hugging Face's `save_pretrained` writes it. Beside it expected.safetensors
(previews, also at another image size, logits of the matching head, image embeddings), texts.json, and by
name of tests/golden/images what the processor resizes each picture to.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from blip import vocabulary
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import normalize
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    BlipTextConfig,
    BlipVisionConfig,
)

OUT = Path(__file__).parent / "blip_matcher"
IMAGES = Path(__file__).parent / "images"
SIZE, OTHER_SIZE, PREVIEW = 32, 48, 40
TEXTS = [
    "a picture of a dog",
    "red",
    "the green square above the blue circle",
    "",
    "a ball, and the dog's ball!",
    "unknowing dogs " * 20,
]
PICTURES = ["420-wide.jpg", "444-tall.jpg", "420-small.jpg", "rgb.png", "lossless.webp", "grey.jpg"]


def model(tokens: int) -> BlipForImageTextRetrieval:
    torch.manual_seed(5)
    vision = BlipVisionConfig(
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=8,
    )
    text = BlipTextConfig(
        vocab_size=tokens + 2,
        hidden_size=32,
        encoder_hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=tokens,
        sep_token_id=3,
        eos_token_id=3,
        pad_token_id=0,
    )
    config = BlipConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), image_text_hidden_size=16)
    blip = BlipForImageTextRetrieval(config).eval()
    with torch.no_grad():
        for name, weight in blip.named_parameters():
            if name.endswith("weight") and "norm" in name.lower():
                weight.normal_(1.0, 0.1)
            else:
                weight.normal_(0.0, 0.1 if name.endswith("bias") else 0.25)
        for layer in blip.text_encoder.encoder.layer:
            layer.crossattention.output.dense.weight.mul_(3.0)
    return blip


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    folder = OUT / "model"
    folder.mkdir(parents=True)
    vocab = vocabulary()
    listed = "".join(f"{token}\n" for token in vocab)
    (folder / "vocab.txt").write_text(listed)
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    (folder / "vocab.txt").unlink(missing_ok=True)
    processor = BlipImageProcessor(size={"height": SIZE, "width": SIZE})
    processor.save_pretrained(folder)
    blip = model(len(vocab))
    blip.save_pretrained(folder)

    mean = torch.tensor(processor.image_mean).view(3, 1, 1)
    std = torch.tensor(processor.image_std).view(3, 1, 1)
    rows = len(TEXTS)
    previews = torch.randint(0, 256, (rows, 3, SIZE, SIZE), dtype=torch.uint8)
    larger = torch.randint(0, 256, (rows, 3, OTHER_SIZE, OTHER_SIZE), dtype=torch.uint8)
    pixels, larger_pixels = (((x / 255.0) - mean) / std for x in (previews, larger))
    text = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    arguments = {"input_ids": text.input_ids, "attention_mask": text.attention_mask}
    with torch.no_grad():
        found = blip(pixel_values=pixels, **arguments)
        other = blip(pixel_values=larger_pixels, interpolate_pos_encoding=True, **arguments)
        embedding = normalize(blip.vision_proj(found.last_hidden_state[:, 0]), dim=-1)
    save_file(
        {
            "previews": previews,
            "logits": found.itm_score,
            "embedding": embedding,
            "larger_previews": larger,
            "larger_logits": other.itm_score,
        },
        OUT / "expected.safetensors",
    )
    (OUT / "texts.json").write_text(json.dumps(TEXTS) + "\n")
    print(found.itm_score, other.itm_score)

    resize = BlipImageProcessor(
        size={"height": PREVIEW, "width": PREVIEW}, do_rescale=False, do_normalize=False
    )
    for name in PICTURES:
        # PIL's own decoding is compared elsewhere: what goes in here are the pixels of the golden PNG.
        stem = name.replace(".", "-")
        image = Image.open(IMAGES / f"{stem}.decoded.png").convert("RGB")
        (array,) = resize(images=image, return_tensors="pt").pixel_values
        pixels = array.permute(1, 2, 0).to(torch.uint8).numpy()
        Image.fromarray(pixels).save(OUT / f"{stem}.preview.png")


if __name__ == "__main__":
    main()
