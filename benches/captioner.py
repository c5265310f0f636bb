"""Races the captioner against transformers: the same random BLIP, the same images, one thread each.

    make bench-captioner

Image encoder alone, then decoding alone from encoded images, greedy and with three beams; batches of 32,
captions of 20 tokens. Rounds are interleaved, and the table gives medians and the median of the ratios
within a round. Loading and the first batch of every measurement are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BATCH, TOKENS = 32, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=12, help="of the encoder, and of the decoder")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement, at least")
    parser.add_argument("--only", choices=["encode", "greedy", "beam-3"])
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    import transformers

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        model = random_blip(Path(scratch), options)
        run = timed(model, options)
        print(
            f"BLIP of {options.layers} layers x {options.dim}, {options.image_size} pixels, batch {BATCH}, "
            f"one thread; {options.rounds} rounds; {os.cpu_count()} cores ({platform.machine()}), "
            f"torch {torch.__version__}, transformers {transformers.__version__}"
        )
        print(f"{'images/s':10}{'tldr-loader':>14}{'transformers':>14}{'times':>8}")
        for what in [options.only] if options.only else ["encode", "greedy", "beam-3"]:
            rounds = [(rust(Path(scratch), what, options.seconds), run(what)) for _ in range(options.rounds)]
            ours, theirs = (statistics.median(speeds) for speeds in zip(*rounds, strict=True))
            times = statistics.median(a / b for a, b in rounds)
            print(f"{what:10}{ours:14.2f}{theirs:14.2f}{times:7.2f}x", flush=True)


def random_blip(folder: Path, options: argparse.Namespace) -> Any:
    """A random model with BLIP's vocabulary, saved where the captioner finds it."""
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipTextConfig, BlipVisionConfig

    torch.manual_seed(0)
    sizes = {
        "hidden_size": options.dim,
        "intermediate_size": 4 * options.dim,
        "num_hidden_layers": options.layers,
        "num_attention_heads": options.dim // 64,
    }
    vision = BlipVisionConfig(**sizes, image_size=options.image_size, patch_size=16)
    config = BlipConfig(vision_config=vision.to_dict(), text_config=BlipTextConfig(**sizes).to_dict())
    model = BlipForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    words = ["[PAD]", *(f"w{i}" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]"]
    words += [f"w{i}" for i in range(103, 30522)]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    return model


def timed(model: Any, options: argparse.Namespace) -> Callable[[str], float]:
    """Images a second of transformers."""
    import torch

    pixels = torch.rand(BATCH, 3, options.image_size, options.image_size)
    with torch.no_grad():
        features = model.vision_model(pixels).last_hidden_state
    text = model.config.text_config
    start = torch.full((BATCH, 1), text.bos_token_id)

    def once(what: str) -> None:
        if what == "encode":
            model.vision_model(pixels)
            return
        # The decoder's part of BlipForConditionalGeneration.generate.
        model.text_decoder.generate(
            start,
            eos_token_id=text.sep_token_id,
            pad_token_id=text.pad_token_id,
            encoder_hidden_states=features,
            encoder_attention_mask=torch.ones(features.shape[:2], dtype=torch.long),
            do_sample=False,
            num_beams=3 if what == "beam-3" else 1,
            min_new_tokens=TOKENS,
            max_new_tokens=TOKENS,
        )

    def speed(what: str) -> float:
        with torch.no_grad():
            once(what)
            started, batches = time.perf_counter(), 0
            while batches == 0 or time.perf_counter() - started < options.seconds:
                once(what)
                batches += 1
        return BATCH * batches / (time.perf_counter() - started)

    return speed


def rust(model: Path, what: str, seconds: float) -> float:
    """One measurement of the Rust bench. The profile matters little: the work is libtorch's."""
    command = ["cargo", "bench", "--quiet", "-p", "tldr-captioner", "--profile", "dev"]
    command += ["--bench", "captioner"]
    command += ["--", "--model", str(model), "--only", what, "--seconds", str(seconds)]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    (line,) = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return float(line["images_per_s"])


if __name__ == "__main__":
    main()
