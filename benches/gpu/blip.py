"""Rows of transformers' BLIP with random weights, of the same sizes as our captioner."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import bench
import machine
import torch
from captioners import Captioners


class Blip:
    """What our captioner is raced with, on the same device and in the same number type."""

    def __init__(self, run: bench.Bench, ours: Captioners) -> None:
        self.run, self.ours = run, ours
        self.kind = torch.bfloat16 if run.on_gpu else torch.float32

    @cached_property
    def model(self) -> Any:
        try:
            from transformers import BlipConfig as Config
            from transformers import BlipForConditionalGeneration, BlipTextConfig, BlipVisionConfig
        except ImportError as error:
            raise bench.Skip(f"transformers cannot be imported: {error}") from None
        sizes = self.ours.sizes
        vision, decoder = sizes["vision"], sizes["decoder"]
        torch.manual_seed(0)
        images = BlipVisionConfig(
            **widths(vision), image_size=sizes["preview_size"], patch_size=sizes["patch_size"]
        )
        texts = BlipTextConfig(
            **widths(decoder),
            encoder_hidden_size=vision["dim"],
            vocab_size=decoder["vocab"],
            max_position_embeddings=decoder["positions"],
            bos_token_id=1,
            sep_token_id=2,
            eos_token_id=2,
            pad_token_id=0,
            is_decoder=True,
        )
        config = Config(vision_config=images.to_dict(), text_config=texts.to_dict())
        model: Any = BlipForConditionalGeneration(config)
        return model.eval().to(self.run.device, self.kind)

    def pixels(self, batch: int) -> torch.Tensor:
        side = self.ours.sizes["preview_size"]
        return torch.randn(batch, 3, side, side, device=self.run.device, dtype=self.kind)

    def encode(self, batch: int) -> bench.Fields:
        """The work of our encode but the codes: images, and captions with them and without."""
        model, pixels = self.model, self.pixels(batch)
        length = int(self.ours.sizes["decoder"]["max_tokens"])
        texts = torch.full((batch, length), 3, device=self.run.device)

        def once() -> None:
            seen = model.vision_model(pixels).last_hidden_state
            for features in (seen, torch.zeros_like(seen)):
                model.text_decoder(input_ids=texts, encoder_hidden_states=features)

        with torch.inference_mode():
            images = batch * machine.per_second(once, self.ours.seconds, self.run.device)
        ours = self.run.found.get(f"encode, batch {batch}", {}).get("images_per_s")
        return {
            "batch": batch,
            "images_per_s": bench.digits(images),
            **self.ours.share(images, theirs=True),
            "ours_times": bench.ratio(ours, images),
        }

    def captions(self, batch: int) -> bench.Fields:
        model, pixels, tokens = self.model, self.pixels(batch), self.ours.tokens

        def once() -> None:
            # Every caption runs to the end, as ours do.
            model.generate(
                pixel_values=pixels,
                num_beams=3,
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
            )

        with torch.inference_mode():
            written = batch * machine.per_second(once, self.ours.seconds, self.run.device)
        ours = self.run.found.get(f"captions, batch {batch}", {}).get("captions_per_s")
        return {
            "batch": batch,
            "beams": 3,
            "tokens": tokens,
            "captions_per_s": bench.digits(written),
            "ours_times": bench.ratio(ours, written),
        }


def widths(part: bench.Fields) -> dict[str, Any]:
    """Sizes of a transformer, by the names that transformers has for them."""
    return {
        "hidden_size": part["dim"],
        "intermediate_size": part["mlp"],
        "num_hidden_layers": part["layers"],
        "num_attention_heads": part["heads"],
    }
