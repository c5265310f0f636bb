"""Files that make a loader tokenize as an object of open_clip or transformers does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tldr_loader._errors import ConfigError, DataError
from tldr_loader._probe import TEXTS, token_ids

__all__ = ["of_open_clip", "saved"]


def of_open_clip(tokenizer: Any, folder: Path) -> Path:
    """The file for a tokenizer of open_clip: its merges file, or its rules, written to `folder`.

    Raises:
        ConfigError: It has a setting that the loader does not follow, or gives other ids than the loader.
    """
    import open_clip

    name = type(tokenizer).__name__
    if getattr(tokenizer, "reduction_fn", None) is not None:
        raise ConfigError(
            "tokenizer reduction_mask: the loader cuts a long caption at its end; expected none "
            "(`tokenizer_kwargs` in the model's text_cfg)"
        )
    if getattr(tokenizer, "tokenizer_mode", None):
        raise ConfigError(
            f"tokenizer_mode={tokenizer.tokenizer_mode}: the loader places the tokens that tokenizer.json "
            "places; expected none (`tokenizer_mode` in the model's text_cfg)"
        )
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        file = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    elif hasattr(tokenizer, "tokenizer"):
        kwargs: dict[str, Any] = {"clean": _cleaning(tokenizer)}
        if getattr(tokenizer, "strip_sep_token", False):
            kwargs["strip_sep_token"] = True
        text = {
            "context_length": tokenizer.context_length,
            "hf_tokenizer_name": name,
            "tokenizer_kwargs": kwargs,
        }
        file = saved(tokenizer.tokenizer, folder)
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"text_cfg": text}}))
    else:
        raise ConfigError(
            "tokenizer: expected a SimpleTokenizer, HFTokenizer or SigLipTokenizer of open_clip, found a "
            f"{name}"
        )
    _compare(tokenizer, file, name)
    return file


def saved(tokenizer: Any, folder: Path) -> Path:
    """`tokenizer.json` of a tokenizer of transformers, with its files beside it.

    Raises:
        ConfigError: It has none, being written in Python.
    """
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(
            f"tokenizer: a {type(tokenizer).__name__} has no tokenizer.json, whose rules the loader follows; "
            "expected a fast tokenizer of transformers (`is_fast`)"
        )
    return file


def _cleaning(tokenizer: Any) -> str:
    """What open_clip calls the way in which captions are cleaned."""
    from open_clip import tokenizer as theirs

    clean = getattr(tokenizer, "clean_fn", None)
    if clean is None:  # SigLipTokenizer, which has one way
        return "canonicalize"
    for name in ("whitespace", "lower", "canonicalize"):
        if clean is theirs.get_clean_fn(name):
            return name
    raise ConfigError(
        f"tokenizer clean={getattr(clean, '__name__', clean)}: expected whitespace, lower or canonicalize"
    )


def _compare(tokenizer: Any, file: Path, name: str) -> None:
    """Fails where the loader gives other ids than the tokenizer itself."""
    try:
        ours = token_ids(file, tokenizer.context_length)
    except DataError as error:
        raise ConfigError(f"tokenizer: the loader cannot follow this {name}: {error}") from error
    theirs = tokenizer(list(TEXTS))
    for text, own, other in zip(TEXTS, ours.tolist(), theirs.tolist(), strict=True):
        if own != other:
            raise ConfigError(
                f"tokenizer: this {name} makes {other[:12]} ... of {text[:40]!r}, the loader {own[:12]} ...; "
                "expected one whose ids follow from its files (docs/tokenizers.md)"
            )
