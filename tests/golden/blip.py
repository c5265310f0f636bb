"""Makes tests/golden/blip: what Hugging Face's BLIP computes, to compare the captioner with.

    pip install torch==2.11.0 transformers==5.23.0
    python tests/golden/blip.py

Two random models, `base` (vision and text equally wide) and `large` (vision wider, as in BLIP large), each
a directory as `save_pretrained` writes it: config.json, model.safetensors, vocab.txt, tokenizer.json,
preprocessor_config.json. Beside them expected.safetensors (previews, vision features also at another image
size, logits) and expected.json (ids of captions by every way of decoding, ids of texts).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipTextConfig,
    BlipVisionConfig,
)

OUT = Path(__file__).parent / "blip"
IMAGES = 6
SIZE, OTHER_SIZE = 32, 48
PROMPT = "a picture of"
TEXTS = [
    "a picture of a dog",
    "A Dog, and the dog's ball!",
    "Ünïcode café naïve",
    "unknowable zebra 1234",
    "狗 and ball 日本",
    "red-blue (green) & white... #1",
    "",
    "  spaced\tout  ",
    "[SEP] a dog [PAD]",
    "x" * 120,
]
# Every way of decoding that is compared. Lengths are those of what is written after start and prompt.
DECODING = {
    "greedy": {"max_new_tokens": 10},
    "greedy-long": {"max_new_tokens": 14, "min_new_tokens": 6},
    "greedy-penalty": {"max_new_tokens": 12, "repetition_penalty": 1.5},
    "greedy-prompt": {"max_new_tokens": 10, "prompt": True},
    "beam": {"max_new_tokens": 10, "num_beams": 3},
    "beam-long": {"max_new_tokens": 14, "min_new_tokens": 6, "num_beams": 3},
    "beam-penalty": {"max_new_tokens": 12, "num_beams": 3, "repetition_penalty": 1.5},
    "beam-length": {"max_new_tokens": 12, "num_beams": 3, "length_penalty": 2.0},
    "beam-prompt": {
        "max_new_tokens": 10,
        "min_new_tokens": 4,
        "num_beams": 3,
        "repetition_penalty": 1.2,
        "prompt": True,
    },
    "beam-5": {"max_new_tokens": 10, "num_beams": 5},
}


def vocabulary() -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["picture", "of", "the", "and", "dog", "ball", "red", "blue", "green", "white", "square"]
    words += ["circle", "left", "right", "above", "cafe", "un"]
    pieces = ["##able", "##known", "##ing"]
    marks = list("!\"#&'(),-.;:?[]")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*specials, *letters, *(f"##{letter}" for letter in letters), *words, *pieces, *marks, "狗"]


def model(tokens: int, vision_dim: int, seed: int, end: float) -> BlipForConditionalGeneration:
    torch.manual_seed(seed)
    # Like BLIP's own: a token that starts captions and one more, both without a place in the tokenizer.
    start = tokens
    config = BlipConfig(
        vision_config=BlipVisionConfig(
            hidden_size=vision_dim,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=SIZE,
            patch_size=8,
        ).to_dict(),
        text_config=BlipTextConfig(
            vocab_size=tokens + 2,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=24,
            bos_token_id=start,
            sep_token_id=3,
            eos_token_id=3,
            pad_token_id=0,
        ).to_dict(),
    )
    blip = BlipForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in blip.named_parameters():
            if name.endswith("weight") and "norm" in name.lower():
                weight.normal_(1.0, 0.1)
            elif name.endswith("bias"):
                weight.normal_(0.0, 0.1)
            else:
                weight.normal_(0.0, 0.25)
        # Logits that are neither flat nor decided by one word, positions and images that matter.
        embeddings = blip.text_decoder.bert.embeddings
        embeddings.word_embeddings.weight.normal_(0.0, 0.35)
        embeddings.position_embeddings.weight.normal_(0.0, 0.7)
        for layer in blip.text_decoder.bert.encoder.layer:
            layer.crossattention.output.dense.weight.mul_(3.0)
        # A trained model never writes these; a random one has to be told.
        bias = blip.text_decoder.cls.predictions.bias
        bias[[0, start, start + 1]] = -50.0
        bias[3] += end
    return blip


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    vocab = vocabulary()
    for name, vision_dim, seed, end in [("base", 32, 3, 3.0), ("large", 48, 8, 5.0)]:
        folder = OUT / name
        folder.mkdir(parents=True)
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocab))
        tokenizer = BertTokenizer(str(folder / "vocab.txt"))
        tokenizer.save_pretrained(folder)
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocab))
        processor = BlipImageProcessor(size={"height": SIZE, "width": SIZE})
        processor.save_pretrained(folder)
        blip = model(len(vocab), vision_dim, seed, end)
        blip.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)

        mean = torch.tensor(processor.image_mean).view(3, 1, 1)
        std = torch.tensor(processor.image_std).view(3, 1, 1)
        previews = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8)
        larger = torch.randint(0, 256, (2, 3, OTHER_SIZE, OTHER_SIZE), dtype=torch.uint8)
        pixels, larger_pixels = (((x / 255.0) - mean) / std for x in (previews, larger))
        ids = torch.randint(5, len(vocab), (IMAGES, 9))
        ids[:, 0] = len(vocab)
        with torch.no_grad():
            features = blip.vision_model(pixels).last_hidden_state
            larger_features = blip.vision_model(larger_pixels, interpolate_pos_encoding=True)[0]
            logits = blip(pixels, ids).logits
        save_file(
            {
                "previews": previews,
                "features": features,
                "larger_previews": larger,
                "larger_features": larger_features,
                "ids": ids,
                "logits": logits,
            },
            folder / "expected.safetensors",
        )
        prompt = tokenizer(PROMPT, return_tensors="pt").input_ids.repeat(IMAGES, 1)
        captions = {}
        for way, options in DECODING.items():
            options = dict(options)
            given = prompt.clone() if options.pop("prompt", False) else None
            skip = 1 if given is None else given.shape[1] - 1
            written = blip.generate(pixels, given, do_sample=False, **options)[:, skip:].tolist()
            # Up to the end token, as what a caption is made of.
            captions[way] = [
                row[: row.index(3)] if 3 in row else [t for t in row if t != 0] for row in written
            ]
        expected = {
            "texts": [[text, tokenizer(text, add_special_tokens=False).input_ids] for text in TEXTS],
            "decoded": [[row, tokenizer.decode(row, skip_special_tokens=True)] for row in captions["greedy"]],
            "prompt": PROMPT,
            "captions": captions,
        }
        lines = ",\n".join(
            f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in expected.items()
        )
        (folder / "expected.json").write_text("{" + lines + "}\n")
        for way, rows in captions.items():
            print(name, way, [len(row) for row in rows])


if __name__ == "__main__":
    main()
