"""Promise: a `tokenizer.json` is obeyed: ids are those of `tokenizers`, of transformers, and of open_clip.

Tokenizers of every kind that vision-language models use are made here, small but whole: Gemma's (SigLIP 2),
T5's (SigLIP), XLM-R's, BERT's, RoBERTa's and CLIP's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer

import flat
import tldr_loader as tldr
from conftest import Pair, write_shard
from test_tokens import captions

CONTEXT = 16
TEXTS = [
    "a photo of a dog",
    "Two CATS, on the sofa; don't touch!",
    "snake_case & &lt;b&gt; “quoted” — naïve café",
    "voilÃ\xa0 une photo",
    "日本語の写真 狐 🦊 x²",
    "a </s> b <eos> c <bos> d [SEP] e <pad> f",
    "word " * 60,
    "!!!",
    "x",
    *captions()[:300],
]


def trained(tokenizer: Tokenizer, trainer: Any) -> Tokenizer:
    tokenizer.train_from_iterator([text.lower() for text in captions()[:2000]] + captions()[:2000], trainer)
    return tokenizer


def gemma(*, bos: bool = False, eos: bool = True) -> Tokenizer:
    """Byte-pair encoding with byte fallback, spaces as `▁`; `$A <eos>` where SigLIP 2 is trained."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=[*specials, *(f"<0x{b:02X}>" for b in range(256))], show_progress=False
    )
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trained(tokenizer, trainer)
    single = ["<bos>"] * bos + ["$A"] + ["<eos>"] * eos
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=[*single, "$B:1"], special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    return tokenizer


def t5() -> Tokenizer:
    trainer = trainers.UnigramTrainer(
        vocab_size=600, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trained(tokenizer, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def xlm_roberta() -> Tokenizer:
    trainer = trainers.UnigramTrainer(
        vocab_size=600,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(r"  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trained(tokenizer, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def bert() -> Tokenizer:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trained(
        tokenizer, trainers.WordPieceTrainer(vocab_size=600, special_tokens=specials, show_progress=False)
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def roberta() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained(tokenizer, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


KINDS = {"gemma": gemma, "t5": t5, "xlm-r": xlm_roberta, "bert": bert, "roberta": roberta}
PADS = {"gemma": 0, "t5": 0, "xlm-r": 1, "bert": 0, "roberta": 1}


def saved(folder: Path, tokenizer: Tokenizer, **beside: Any) -> Path:
    """`tokenizer.json`, and files that lie beside it: their content by name, without `.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = json.loads(tokenizer.to_str())
    if written["model"]["type"] == "Unigram":
        # Exact in any reader of json: the last digit of a score would decide between splits that are as good.
        vocab = written["model"]["vocab"]
        written["model"]["vocab"] = [[token, round(score * 64) / 64] for token, score in vocab]
    (folder / "tokenizer.json").write_text(json.dumps(written))
    for name, content in beside.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / "tokenizer.json"


def of_open_clip(**kwargs: Any) -> dict[str, Any]:
    """An `open_clip_config.json`."""
    text = {"context_length": CONTEXT, "hf_tokenizer_name": "here", "tokenizer_kwargs": kwargs}
    return {"model_cfg": {"embed_dim": 8, "text_cfg": text}}


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "00000.tar"
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    write_shard(path, [Pair(f"{i:06}", pixels, text) for i, text in enumerate(TEXTS)])
    return path


def ids(shard: Path, tokenizer: Path, context: int = CONTEXT) -> torch.Tensor:
    loader = flat.loader(
        shard, mode="eval", tokenizer=tokenizer, context_length=context, image_size=2, batch_size=100
    )
    tokens = [batch.tokens for batch in loader]
    return torch.cat([row for row in tokens if row is not None])


def cleaned(text: str) -> str:
    return str(open_clip.tokenizer._clean_whitespace(text))


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_tokenizers_library(tmp_path: Path, shard: Path, kind: str) -> None:
    path = saved(tmp_path, KINDS[kind]())
    tokenizer = Tokenizer.from_file(str(path))
    for context in (CONTEXT, 5, 80):
        tokenizer.enable_truncation(context)
        tokenizer.enable_padding(length=context, pad_id=PADS[kind])
        expected = [tokenizer.encode(cleaned(text)).ids for text in TEXTS]
        assert ids(shard, path, context).tolist() == expected, context


@pytest.mark.parametrize("sides", [("left", "right"), ("right", "left"), ("left", "left")])
def test_a_file_says_where_rows_are_cut_and_filled_up(
    tmp_path: Path, shard: Path, sides: tuple[str, str]
) -> None:
    tokenizer = xlm_roberta()
    tokenizer.enable_truncation(9, direction=sides[1])
    tokenizer.enable_padding(length=9, pad_id=7, pad_token="?", direction=sides[0])
    path = saved(tmp_path, tokenizer)
    # As read: a score in json may differ in its last digit, and with it the best of equal splits.
    tokenizer = Tokenizer.from_file(str(path))
    expected = [tokenizer.encode(cleaned(text)).ids for text in TEXTS]
    assert ids(shard, path, 9).tolist() == expected
    # transformers' own file, where there is one, comes first.
    config = {"pad_token": "<pad>", "padding_side": "right", "truncation_side": "right"}
    path = saved(tmp_path, tokenizer, tokenizer_config=config)
    tokenizer.enable_truncation(9)
    tokenizer.enable_padding(length=9, pad_id=1)
    assert ids(shard, path, 9).tolist() == [tokenizer.encode(cleaned(text)).ids for text in TEXTS]


SIGLIP_2 = {
    "tokenizer_class": "GemmaTokenizer",
    "padding_side": "right",
    "add_bos_token": False,
    "add_eos_token": True,
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}
# timm's files of SigLIP pad with the end token.
SIGLIP = {
    "tokenizer_class": "T5Tokenizer",
    "extra_ids": 0,
    "additional_special_tokens": [],
    "eos_token": "</s>",
    "pad_token": "</s>",
    "unk_token": "<unk>",
}
XLM_R = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
PAD = {"__type": "AddedToken", "content": "[PAD]", "special": True}
BERT = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": PAD, "sep_token": "[SEP]"}


@pytest.mark.parametrize(
    ("kind", "config", "kwargs"),
    [
        ("gemma", SIGLIP_2, {"clean": "canonicalize"}),
        ("gemma", {**SIGLIP_2, "padding_side": "left"}, {"clean": "canonicalize"}),
        ("t5", SIGLIP, {"clean": "canonicalize"}),
        ("t5", SIGLIP, {}),
        ("xlm-r", XLM_R, {"clean": "lower"}),
        ("bert", BERT, {"strip_sep_token": True}),
    ],
)
def test_ids_are_open_clips(
    tmp_path: Path, shard: Path, kind: str, config: dict[str, Any], kwargs: dict[str, Any]
) -> None:
    path = saved(tmp_path, KINDS[kind](), tokenizer_config=config, open_clip_config=of_open_clip(**kwargs))
    theirs = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    for context in (CONTEXT, 64):
        expected = theirs(TEXTS, context_length=context)
        ours = ids(shard, path, context)
        differing = [TEXTS[i] for i in (ours != expected).any(dim=1).nonzero().flatten()]
        assert differing == [], kind


def test_padding_is_that_of_transformers_where_its_file_says_it(tmp_path: Path, shard: Path) -> None:
    path = saved(tmp_path, bert(), tokenizer_config={**BERT, "pad_token": "[MASK]"})
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs(
        [cleaned(text) for text in TEXTS], max_length=CONTEXT, padding="max_length", truncation=True
    ).input_ids
    assert ids(shard, path).tolist() == expected
    assert 4 in ids(shard, path)[0]


def refusal(shard: Path, path: Path) -> str:
    with pytest.raises(tldr.TldrError) as error:
        ids(shard, path)
    return str(error.value)


def test_what_cannot_be_obeyed_is_refused(tmp_path: Path, shard: Path) -> None:
    # The captions of SigLIP's Python tokenizer are changed before the file's rules.
    found = refusal(
        shard, saved(tmp_path / "a", t5(), tokenizer_config={"tokenizer_class": "SiglipTokenizer"})
    )
    assert "open_clip_config.json" in found, found
    assert "SiglipTokenizer, which takes away punctuation" in found, found
    config = {**SIGLIP_2, "tokenizer_class": "Siglip2Tokenizer"}
    found = refusal(shard, saved(tmp_path / "b", gemma(), tokenizer_config=config))
    assert "expected a normalizer that lowers the case" in found, found
    # Files that contradict each other.
    found = refusal(shard, saved(tmp_path / "c", gemma(bos=True), tokenizer_config=SIGLIP_2))
    assert "places <bos>, and add_bos_token = false" in found, found
    found = refusal(shard, saved(tmp_path / "d", gemma(eos=False), tokenizer_config=SIGLIP_2))
    assert "does not place <eos>, and add_eos_token = true" in found, found
    # What open_clip asks for and is not followed here.
    for name, kwargs in [("e", {"language": "en"}), ("f", {"clean": "nothing"})]:
        found = refusal(shard, saved(tmp_path / name, bert(), open_clip_config=of_open_clip(**kwargs)))
        assert "open_clip_config.json: expected" in found, found
    modes = of_open_clip()
    modes["model_cfg"]["text_cfg"]["tokenizer_mode"] = "clips"
    found = refusal(shard, saved(tmp_path / "g", bert(), open_clip_config=modes))
    assert "tokenizer_mode" in found, found
    # A post-processor that repeats the caption, and a row that nothing fills up.
    odd = bert()
    for name, single in [("h", "$A $A"), ("i", "[CLS]"), ("j", "[CLS] $B")]:
        odd.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("[CLS]", 2)])
        found = refusal(shard, saved(tmp_path / name, odd))
        assert "a post-processor that places tokens before and after a text" in found, found
    nothing = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    nothing.pre_tokenizer = pre_tokenizers.Whitespace()
    found = refusal(shard, saved(tmp_path / "k", nothing))
    assert "one without a padding token" in found, found
    assert "pad_token" in found, found
    found = refusal(shard, saved(tmp_path / "l", bert(), tokenizer_config={"pad_token": "<none>"}))
    assert "'<none>'" in found.replace('"', "'"), found
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "tokenizer_config.json").write_text("{")
    found = refusal(shard, saved(tmp_path / "m", bert()))
    assert "tokenizer_config.json: expected json" in found, found


def test_a_row_has_room_for_a_token(tmp_path: Path, shard: Path) -> None:
    path = saved(tmp_path, xlm_roberta())
    with pytest.raises(tldr.ConfigError, match="context_length"):
        ids(shard, path, 2)
    assert ids(shard, path, 3).shape == (len(TEXTS), 3)
    path = saved(tmp_path / "t5", t5())
    assert ids(shard, path, 2)[:, 1].eq(1).all()


def test_clips_own_file_follows_open_clips_rules(tmp_path: Path, shard: Path) -> None:
    """Whatever transformers pads CLIP with: models of open_clip were trained on 0."""
    simple = open_clip.SimpleTokenizer()
    vocab = {token.replace("<start_of_text>", "<|startoftext|>").replace("<end_of_text>", "<|endoftext|>"): i
             for token, i in simple.encoder.items()}  # fmt: skip
    merges = list(simple.bpe_ranks)
    tokenizer = Tokenizer(
        models.BPE(
            vocab, merges, unk_token="<|endoftext|>", end_of_word_suffix="</w>", continuing_subword_prefix=""
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "removed", invert=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.add_special_tokens([AddedToken("<|startoftext|>"), AddedToken("<|endoftext|>")])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", 49407), ("<|startoftext|>", 49406), trim_offsets=False, add_prefix_space=False
    )
    config = {"tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"}
    path = saved(tmp_path, tokenizer, tokenizer_config=config)
    texts = [text for text in TEXTS if "<start_of_text>" not in text and "<end_of_text>" not in text
             and "<|" not in text]  # fmt: skip
    rows = [i for i, text in enumerate(TEXTS) if text in texts]
    assert (ids(shard, path, 77)[rows] == simple([TEXTS[i] for i in rows])).all()
