"""Promise: a wrong type, and an option without an effect, are ConfigErrors that say what is accepted."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

import tldr_loader as tldr
import tldr_loader_captioner
from conftest import SIZE, Corpus

STUBS = [
    Path(tldr.__file__).parent / "_native.pyi",
    Path(tldr_loader_captioner.__file__).parent / "_captioner.pyi",
]
GOLDEN = Path(__file__).parents[3] / "tests" / "golden"


class Odd:
    """Of no type that an option has."""


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> tldr.Captioner:
    path = tmp_path_factory.mktemp("captioner")
    return tldr.Captioner.load_blip(GOLDEN / "blip" / "base", path)


def functions() -> list[tuple[str, list[str], list[str]]]:
    """Every public function of the stubs, with its positional and its keyword-only arguments."""
    found = []
    for node in [node for stubs in STUBS for node in ast.parse(stubs.read_text()).body]:
        members = [(node.name, node)] if isinstance(node, ast.FunctionDef) else []
        if isinstance(node, ast.ClassDef):
            members = [(f"{node.name}.{m.name}", m) for m in node.body if isinstance(m, ast.FunctionDef)]
        for name, function in members:
            positional = [a.arg for a in function.args.args if a.arg not in ("self", "cls")]
            keywords = [a.arg for a in function.args.kwonlyargs]
            # Methods of a protocol take what the protocol says.
            if (positional or keywords) and not name.startswith("_") and "__dlpack" not in name:
                found.append((name, positional, keywords))
    return found


def callables(captioner: tldr.Captioner, corpus: Corpus) -> dict[str, Callable[..., Any]]:
    loader = tldr.Loader(corpus.urls, mode="full", batch_size=8, image_size=SIZE)
    return {
        "Loader.__new__": tldr.Loader,
        "Loader.num_batches_of": loader.num_batches_of,
        "Loader.set_epoch": loader.set_epoch,
        "Loader.load_state_dict": loader.load_state_dict,
        "Captioner.train": tldr.Captioner.train,
        "Captioner.load_blip": tldr.Captioner.load_blip,
        "Captioner.load": tldr.Captioner.load,
        "Captioner.set_generation": captioner.set_generation,
        "Captioner.fit": captioner.fit,
        "Matcher.load_blip": tldr.Matcher.load_blip,
        "Matcher.load": tldr.Matcher.load,
        "Ledger.__new__": tldr.Ledger,
        "synth": tldr.synth,
    }


def test_no_argument_takes_an_object_of_another_type(captioner: tldr.Captioner, corpus: Corpus) -> None:
    known = callables(captioner, corpus)
    assert {name for name, _, _ in functions()} == set(known)
    tried = 0
    for name, positional, keywords in functions():
        for argument in positional + keywords:
            # Right values for the arguments before it: it alone is wrong.
            before = {"urls": corpus.urls, "path": "absent", "source": "absent", "out": "absent"}
            others = {p: before[p] for p in positional if p != argument and p in before}
            for wrong in (Odd(), object):
                if argument == "progress" and callable(wrong):
                    continue
                with pytest.raises((tldr.ConfigError, tldr.StateError)) as caught:
                    known[name](**{**others, argument: wrong})
                if name != "Loader.load_state_dict":
                    start = f"{argument} = an object of type "
                    assert str(caught.value).startswith(start), f"{name}({argument}=): {caught.value}"
                tried += 1
    assert tried > 200, "the stubs have all arguments"


def batches_of(paths: list[Path]) -> Any:
    return (path for path in paths)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captioner": torch.nn.Linear(2, 2)}, r"captioner = an object of type torch.*Linear: a capt"),
        ({"tokenizer": open_clip.get_tokenizer("ViT-B-32")}, r"tokenizer = an object of type .*: the path"),
        ({"captions": {"0": "a dog"}}, r"captions = \{'0': 'a dog'\}: the path of a \.parquet, \.jsonl or"),
        ({"subset": ["0", "1"]}, r"subset = \['0', '1'\]: the path of"),
        ({"batch_size": 8.0}, r"batch_size = 8\.0: a whole number"),
        ({"batch_size": True}, r"batch_size = True: a whole number"),
        ({"batch_size": "8"}, r"batch_size = '8': a whole number"),
        ({"keep_ratio": "0.5"}, r"keep_ratio = '0\.5': a number in \(0, 1\], or a dict"),
        ({"keep_ratio": True}, r"keep_ratio = True: a number in"),
        ({"keep_ratio": {"0": 0.5}}, r"keep_ratio = \{'0': 0\.5\}: a number in"),
        ({"gate": "half"}, r"gate = 'half': a number"),
        ({"rotate": 1}, r"rotate = 1: True or False"),
        ({"rotate": "yes"}, r"rotate = 'yes': True or False"),
        ({"mode": b"full"}, r"mode = b'full': a text"),
        ({"device": 0}, r"device = 0: cpu, cuda or cuda:N, as a text or a torch\.device"),
        ({"lengths": [3, "4"]}, r"lengths = \[3, '4'\]: a list of whole numbers"),
        ({"lengths": 3}, r"lengths = 3: a list of whole numbers"),
        ({"mean": 0.5}, r"mean = 0\.5: three numbers"),
        ({"std": [1.0, 1.0]}, r"std = \[1\.0, 1\.0\]: three numbers"),
        ({"crop_scale": 0.5}, r"crop_scale = 0\.5: two numbers"),
        ({"ledger": tldr.Captioner}, r"ledger = an object of type type: a `Ledger`, or the folder of one"),
        ({"judge": 3}, r"judge = 3: a directory of a captioner or a matcher"),
        ({"read_timeout": "30 s"}, r"read_timeout = '30 s': a number"),
        ({"lengths": ["x" * 10_000]}, r"lengths = \['x+\.\.\.x+'\]: "),
    ],
)  # fmt: skip
def test_a_wrong_type_is_named_with_what_is_accepted(
    corpus: Corpus, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(tldr.ConfigError, match=f"^{message}") as caught:
        tldr.Loader(corpus.urls, **options)
    assert len(str(caught.value)) < 400


def test_shards_of_a_wrong_type(corpus: Corpus) -> None:
    paths = sorted(Path(corpus.urls).parent.glob("*.tar"))
    with pytest.raises(
        tldr.ConfigError, match=r"urls = an object of type .*generator: a pattern.*list\(\.\.\.\)"
    ):
        tldr.Loader(batches_of(paths))
    for wrong in (3, None, [3], [[str(paths[0])]], {"a.tar": "much"}):
        with pytest.raises(tldr.ConfigError, match=r"^urls = .*: a pattern of shards"):
            tldr.Loader(wrong)  # type: ignore[arg-type]
    with pytest.raises(tldr.ConfigError, match=r"^urls = .*list\(\.\.\.\)"):
        tldr.Captioner.train(batches_of(paths), "absent")


def test_numbers_and_paths_of_other_libraries_are_taken(corpus: Corpus) -> None:
    loader = tldr.Loader(
        [Path(corpus.urls)],
        keep_ratio=np.float32(0.5),
        batch_size=np.int64(8),
        image_size=SIZE,
        max_errors=1,
        rotate=np.bool_(True),  # type: ignore[arg-type]
        device=torch.device("cpu"),
        crop_scale=[0.5, 1],  # type: ignore[arg-type]
        mean=(0, 0, 0),
        lengths=None,
    )
    assert len(loader) == 12


def test_unknown_names_are_type_errors_as_anywhere(captioner: tldr.Captioner, corpus: Corpus) -> None:
    for name, function in callables(captioner, corpus).items():
        if "load_state_dict" in name or "epoch" in name or "num_batches" in name:
            continue
        arguments = {
            "Loader.__new__": 1,
            "Captioner.fit": 1,
            "Captioner.set_generation": 0,
            "Ledger.__new__": 0,
        }
        count = arguments.get(name, 1 if name.endswith(".load") or name == "synth" else 2)
        with pytest.raises(TypeError, match=r"\(\) got an unexpected keyword argument 'sead'"):
            function(*["absent"] * count, sead=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"keep_ratio = none: a number in \(0, 1\].*without a captioner, score_key or plan it has to"),
        ({"mode": "full", "keep_ratio": 0.3}, r"keep_ratio = 0\.3: left out with mode = full"),
        ({"mode": "full", "priority": "uniform"}, r"priority = uniform: left out with mode = full"),
        ({"mode": "full", "fuse": "concat"}, r"fuse = concat.*: left out with mode = full"),
        ({"mode": "full", "captioner": "CAPTIONER"}, r"captioner = given: left out with mode = full"),
        ({"mode": "eval", "rotate": True}, r"rotate = true: left out with mode = eval"),
        ({"mode": "eval", "lanes": 4}, r"lanes = 4: left out with mode = eval"),
        ({"mode": "eval", "shuffle_windows": 8}, r"shuffle_windows = 8: left out with mode = eval"),
        ({"keep_ratio": 0.5, "gate_by": "corpus"}, r"gate_by = corpus: left out without a gate"),
        ({"keep_ratio": 0.5, "context_length": 77}, r"context_length = 77: left out without a tokenizer"),
        ({"keep_ratio": 0.5, "replace_repetitive": True}, r"replace_repetitive = true: left out with fuse"),
        ({"mode": "full", "pixels": "uint8", "mean": (0, 0, 0)}, r"mean and std = given: left out with pix"),
        ({"mode": "full", "on_error": "raise", "max_errors": 5}, r"max_errors = 5: left out with on_error"),
        ({"mode": "full", "captioner_device": "cpu"}, r"captioner_device = cpu: left out without a capt"),
        ({"captioner": "LOADED", "captioner_device": "cpu"}, r"captioner_device = cpu: left out beside a"),
        ({"keep_ratio": 0.5, "gate": 0.5}, r"gate = 0\.5: needs a captioner directory with clusters"),
        ({"keep_ratio": 0.5, "threshold": 0.3}, r"threshold = 0\.3: left out without score_key"),
        ({"keep_ratio": 0.5, "judge": "CAPTIONER"}, r"judge = given: left out"),
        ({"mode": "eval", "samples_per_epoch": 8}, r"samples_per_epoch = 8: left out in mode eval"),
    ],
)  # fmt: skip
def test_an_option_without_an_effect_is_refused(
    corpus: Corpus, fitted: tldr.Captioner, options: dict[str, Any], message: str
) -> None:
    models = {"CAPTIONER": fitted.path, "LOADED": fitted}
    given: dict[str, Any] = {
        name: models.get(value, value) if isinstance(value, str) else value for name, value in options.items()
    }
    with pytest.raises(tldr.ConfigError, match=f"^{message}"):
        tldr.Loader(corpus.urls, batch_size=8, image_size=SIZE, **given)


def test_what_asks_for_nothing_is_taken_anywhere(corpus: Corpus) -> None:
    nothing: dict[str, Any] = {
        "keep_ratio": None, "gate": 1.0, "dedup": None, "quota": None, "rotate": False, "thin": False,
        "fuse": "original", "judge": None, "rescue": False, "captioner": None, "captioner_device": None,
        "defer_duplicates": False, "weights": False, "lanes": None, "score_key": None, "threshold": None,
    }  # fmt: skip
    for mode in ("full", "eval"):
        assert len(tldr.Loader(corpus.urls, mode=mode, batch_size=8, image_size=SIZE, **nothing)) == 25


@pytest.fixture(scope="module")
def fitted(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tldr.Captioner:
    path = tmp_path_factory.mktemp("fitted")
    made = tldr.Captioner.train(corpus.urls, path, preset="tiny", epochs=1, batch_size=20, vocab_size=300)
    made.fit(corpus.urls, clusters=4)
    return made


def test_other_functions_refuse_what_has_no_effect(
    corpus: Corpus, captioner: tldr.Captioner, fitted: tldr.Captioner, tmp_path: Path
) -> None:
    tokenizer = Path(fitted.path) / "tokenizer.json"
    with pytest.raises(tldr.ConfigError, match=r"^vocab_size = 300: left out with a tokenizer"):
        tldr.Captioner.train(
            corpus.urls, tmp_path / "new", preset="tiny", tokenizer=tokenizer, vocab_size=300
        )
    with pytest.raises(tldr.ConfigError, match=r"^generation\.top_p = 0\.5: left out with decoding = beam"):
        captioner.set_generation(top_p=0.5)
    with pytest.raises(tldr.ConfigError, match=r"^cache_bytes = .*: left out without a path"):
        tldr.Ledger(cache_bytes=1)
    with pytest.raises(tldr.ConfigError, match=r"^codes = 20: "):
        fitted.fit(corpus.urls, clusters=4, codes=20)
