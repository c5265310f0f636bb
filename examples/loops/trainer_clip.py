"""Trains a CLIP of transformers with its Trainer, and goes on where it was stopped.

torchrun --nproc-per-node 8 examples/loops/trainer_clip.py 'cc3m/{00000..00331}.tar' --out run
    --model openai/clip-vit-base-patch32

`--model` is a folder or a name of the hub, from which configuration and tokenizer are read; the weights are
new.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# On a CPU torch's threads shall sleep between two operations (README.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import transformers
from common import options
from transformers.trainer_utils import get_last_checkpoint

import tldr_loader as tldr
import tldr_loader.transformers


def main() -> None:
    args = options(__doc__)
    torch.manual_seed(0)
    model: Any
    if args.model in ("small-clip", "tiny-clip"):
        model, tokenizer = small()
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
        model = transformers.CLIPModel(transformers.CLIPConfig.from_pretrained(args.model))
    batches = tldr_loader.transformers.Batches(
        args.train,
        tokenizer,
        context_length=model.config.text_config.max_position_embeddings,
        extra={"return_loss": True},  # a CLIPModel returns its loss where it is asked to
        mode="full",
        batch_size=args.batch_size,
        images=tldr.Images(image_size=model.config.vision_config.image_size),
        device="cuda" if torch.cuda.is_available() else "cpu",
    )

    class Trainer(transformers.Trainer):
        def get_train_dataloader(self) -> Any:
            return batches

    training = transformers.TrainingArguments(
        args.out,
        num_train_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        save_steps=args.save_every,
        ignore_data_skip=True,  # the callback restores the loader's place
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        remove_unused_columns=False,
    )
    trainer = Trainer(model, training, callbacks=[tldr_loader.transformers.Resume(batches)])
    there = Path(args.out).is_dir() and get_last_checkpoint(args.out)  # type: ignore[no-untyped-call]
    trainer.train(resume_from_checkpoint=there or None)
    trainer.accelerator.save(trainer.accelerator.get_state_dict(trainer.model), f"{args.out}/checkpoint.pt")


def small() -> tuple[Any, Any]:
    """A small model, and a tokenizer of 300 words: for --smoke."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {f"{i:03}": i for i in range(300)}
    words |= {"a": 300, "[UNK]": 301, "[PAD]": 302, "[END]": 303}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="$A [END]", special_tokens=[("[END]", 303)])
    tokenizer = transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token="[PAD]", eos_token="[END]", unk_token="[UNK]"
    )
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **tower,
        "vocab_size": 304,
        "max_position_embeddings": 16,
        "eos_token_id": 303,
        "pad_token_id": 302,
    }
    vision = {**tower, "image_size": 16, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return transformers.CLIPModel(config), tokenizer


if __name__ == "__main__":
    main()
