"""Promise: a wrong type, and an option without an effect, are ConfigErrors that say what is accepted."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

import flat
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
            if (
                (positional or keywords)
                and not name.startswith("_")
                and not name.endswith(("__dlpack__", "__getitem__"))
            ):
                found.append((name, positional, keywords))
    return found


def callables(captioner: tldr.Captioner, corpus: Corpus) -> dict[str, Callable[..., Any]]:
    loader = tldr.Loader(corpus.urls, mode="full", batch_size=8, images=tldr.Images(image_size=SIZE))
    return {
        "Loader.__new__": tldr.Loader,
        "Loader.from_config": tldr.Loader.from_config,
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
            right = "absent" if name.endswith("load_blip") else corpus.urls
            before = {"source": right, "path": "absent", "out": "absent"}
            others = {p: before[p] for p in positional if p != argument and p in before}
            for wrong in (Odd(), object):
                if argument == "progress" and callable(wrong):
                    continue
                with pytest.raises((tldr.ConfigError, tldr.StateError)) as caught:
                    known[name](**{**others, argument: wrong})
                if name != "Loader.load_state_dict":
                    start = f"invalid {argument}=an object of type "
                    assert str(caught.value).startswith(start), f"{name}({argument}=): {caught.value}"
                tried += 1
    for option in flat.options():
        with pytest.raises(tldr.ConfigError) as caught:
            flat.loader(corpus.urls, **{option: Odd()})
        assert str(caught.value).startswith(f"invalid {option}=an object of type "), caught.value
        tried += 1
    assert tried > 150, "all arguments and options"


def batches_of(paths: list[Path]) -> Any:
    return (path for path in paths)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captioner": torch.nn.Linear(2, 2)}, r"captioner=an object of type torch.*Linear: expected a capt"),
        ({"tokenizer": open_clip.get_tokenizer("ViT-B-32")}, r"tokenizer=an object of type .*: expected a p"),
        ({"captions": {"a": 7}}, r'captions=\{"a":7\}: expected files by name'),
        ({"subset": ["0", "1"]}, r'subset=\["0","1"\]: expected a path'),
        ({"batch_size": 8.0}, r"batch_size=8\.0: expected a whole number"),
        ({"batch_size": True}, r"batch_size=true: expected a whole number"),
        ({"batch_size": "8"}, r'batch_size="8": expected a whole number'),
        ({"keep_ratio": "half"}, r'keep_ratio="half": expected a number, or \{EPOCH: NUMBER'),
        ({"keep_ratio": True}, r"keep_ratio=true: expected a number"),
        ({"gate": "half"}, r"gate=half: expected top\(SHARE\) or at_least\(SCORE\)"),
        ({"gate": 0.5}, r"gate=0\.5: expected top\(SHARE\) or at_least\(SCORE\)"),
        ({"quota": tldr.Top(0.5)}, r"quota=top\(0\.5\): expected proportional, cap"),
        ({"rotate": 1}, r"rotate=1: expected true or false"),
        ({"rotate": "yes"}, r'rotate="yes": expected true or false'),
        ({"mode": b"full"}, r"mode=b'full': expected one of reduced, full, eval"),
        ({"device": 0}, r"device=0: expected a text"),
        ({"lengths": [3, "4"]}, r'lengths=\[3,"4"\]: expected a list of whole numbers'),
        ({"lengths": 3}, r"lengths=3: expected a list of whole numbers"),
        ({"mean": 0.5}, r"mean=0\.5: expected three numbers"),
        ({"std": [1.0, 1.0]}, r"std=\[1\.0,1\.0\]: expected three numbers"),
        ({"crop_scale": 0.5}, r"crop_scale=0\.5: expected two numbers"),
        ({"ledger": tldr.Captioner}, r"ledger=an object of type type: expected a `Ledger`, or the folder"),
        ({"judge": 3}, r"judge=3: expected a directory of a captioner or a matcher"),
        ({"read_timeout": "30 s"}, r'read_timeout="30 s": expected a number of seconds'),
    ],
)  # fmt: skip
def test_a_wrong_type_is_named_with_what_is_accepted(
    corpus: Corpus, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(tldr.ConfigError, match=f"^invalid {message}") as caught:
        flat.loader(corpus.urls, **options)
    assert len(str(caught.value)) < 400


def test_shards_of_a_wrong_type(corpus: Corpus) -> None:
    paths = sorted(Path(corpus.urls).parent.glob("*.tar"))
    with pytest.raises(
        tldr.ConfigError,
        match=r"invalid source=an object of type .*generator: expected a pattern.*list\(\.\.\.\)",
    ):
        tldr.Loader(batches_of(paths))
    for wrong in (3, [3], [[3]]):
        with pytest.raises(tldr.ConfigError, match=r"^invalid source=.*: expected a pattern of shards"):
            tldr.Loader(wrong)  # type: ignore[arg-type]
    with pytest.raises(tldr.ConfigError, match=r"^invalid source=.*list\(\.\.\.\)"):
        tldr.Captioner.train(batches_of(paths), "absent")


def test_numbers_and_paths_of_other_libraries_are_taken(corpus: Corpus) -> None:
    loader = tldr.Loader(
        tldr.Source([Path(corpus.urls)], lengths=None),
        selection=tldr.Selection(keep_ratio=np.float32(0.5), rotate=bool(np.bool_(True))),
        batch_size=np.int64(8),
        images=tldr.Images(image_size=SIZE, crop_scale=[0.5, 1], mean=np.zeros(3, np.float32)),  # type: ignore[arg-type]
        runtime=tldr.Runtime(max_errors=1),
        device=torch.device("cpu"),
    )
    assert len(loader) == 12


def test_unknown_names_say_what_is_meant(captioner: tldr.Captioner, corpus: Corpus) -> None:
    for name, function in callables(captioner, corpus).items():
        if "load_state_dict" in name or "epoch" in name or "num_batches" in name or name.startswith("Loader"):
            continue
        arguments = {"Captioner.fit": 1, "Captioner.set_generation": 0, "Ledger.__new__": 0}
        count = arguments.get(name, 1 if name.endswith(".load") or name == "synth" else 2)
        with pytest.raises(TypeError, match=r"\(\) got an unexpected keyword argument 'sead'"):
            function(*["absent"] * count, sead=3)
    with pytest.raises(
        tldr.ConfigError,
        match=r"^unknown option sead=3: Config has no option of this name; the nearest is seed",
    ):
        tldr.Loader(corpus.urls, sead=3)  # type: ignore[call-arg]
    with pytest.raises(
        tldr.ConfigError,
        match=r"^unknown option where=width > 3: an option of Source: Source\(.., where=..\), or",
    ):
        tldr.Loader(corpus.urls, where="width > 3")  # type: ignore[call-arg]
    with pytest.raises(
        tldr.ConfigError,
        match=r"^unknown option window=64: an option of Selection: selection=Selection\(window=..\)",
    ):
        tldr.Loader(corpus.urls, window=64)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"keep_ratio=none: expected a number in \(0, 1\].*without a captioner, a gate by a score"),
        ({"mode": "full", "keep_ratio": 0.3}, r"keep_ratio=0\.3: it has no effect with mode=full"),
        ({"mode": "full", "priority": "longest"}, r"priority=longest: it has no effect with mode=full"),
        ({"mode": "full", "fuse": tldr.Concat(16)}, r"fuse=concat\(16\): it has no effect with mode=full"),
        ({"mode": "full", "captioner": "CAPTIONER"}, r"captioner=.*: it has no effect with mode=full"),
        ({"mode": "eval", "rotate": True}, r"rotate=true: it has no effect with mode=eval"),
        ({"mode": "eval", "lanes": 4}, r"lanes=4: it has no effect with mode=eval"),
        ({"mode": "eval", "shuffle_windows": 9}, r"shuffle_windows=9: it has no effect with mode=eval"),
        ({"keep_ratio": 0.5, "context_length": 76}, r"context_length=76: it has no effect without a tok"),
        ({"keep_ratio": 0.5, "replace_repetitive": False}, r"replace_repetitive=false: it has no effect"),
        ({"mode": "full", "dtype": "uint8", "mean": (0, 0, 0)}, r"mean=\[0,0,0\]: it has no effect with"),
        ({"mode": "full", "on_error": "raise", "max_errors": 5}, r"max_errors=5: it has no effect with"),
        ({"mode": "full", "captioner_device": "cpu"}, r"captioner_device=cpu: it has no effect without"),
        ({"captioner": "LOADED", "captioner_device": "cpu"}, r"captioner_device=cpu: it has no effect bes"),
        ({"keep_ratio": 0.5, "gate": tldr.Top(0.5)}, r"gate=top\(0\.5\): expected a captioner directory"),
        ({"keep_ratio": 0.5, "gate": tldr.AtLeast(0.3)}, r"gate=at_least\(0\.3\): expected .*by=FIELD\)"),
        ({"keep_ratio": 0.5, "judge": "CAPTIONER"}, r"judge=given: it has no effect"),
        ({"mode": "eval", "samples_per_epoch": 8}, r"samples_per_epoch=8: it has no effect with mode=eval"),
    ],
)  # fmt: skip
def test_an_option_without_an_effect_is_refused(
    corpus: Corpus, fitted: tldr.Captioner, options: dict[str, Any], message: str
) -> None:
    models = {"CAPTIONER": fitted.path, "LOADED": fitted}
    given: dict[str, Any] = {
        name: models.get(value, value) if isinstance(value, str) else value for name, value in options.items()
    }
    with pytest.raises(tldr.ConfigError, match=f"^invalid {message}"):
        flat.loader(corpus.urls, batch_size=8, image_size=SIZE, **given)


def test_what_asks_for_nothing_is_taken_anywhere(corpus: Corpus) -> None:
    nothing: dict[str, Any] = {
        "keep_ratio": None, "gate": None, "dedup": None, "quota": None, "rotate": False, "thin": False,
        "fuse": "original", "judge": None, "rescue": False, "captioner": None, "captioner_device": None,
        "defer_duplicates": False, "weights": False, "lanes": None,
    }  # fmt: skip
    for mode in ("full", "eval"):
        assert len(flat.loader(corpus.urls, mode=mode, batch_size=8, image_size=SIZE, **nothing)) == 25


def test_groups_are_values(corpus: Corpus) -> None:
    selection = tldr.Selection(keep_ratio=0.25, gate=tldr.Top(0.5, within="cluster"), rotate=True)
    assert (
        repr(selection)
        == "Selection(keep_ratio=0.25, gate=Top(share=0.5, by=None, within='cluster'), rotate=True)"
    )
    assert selection == tldr.Selection(rotate=True, gate=tldr.Top(0.5, within="cluster"), keep_ratio=0.25)
    assert selection != tldr.Selection(keep_ratio=0.25)
    assert hash(tldr.Selection.tldr()) == hash(tldr.Selection.tldr())
    with pytest.raises(AttributeError):
        selection.rotate = False  # type: ignore[misc]
    with pytest.raises(TypeError):
        tldr.Selection(0.25)  # type: ignore[call-arg]
    everything = tldr.Loader(
        corpus.urls, selection=tldr.Selection.full(), batch_size=8, images=tldr.Images(image_size=SIZE)
    )
    assert everything.num_samples == len(corpus.pairs)
    a_half = tldr.Loader(
        corpus.urls, selection=tldr.Selection.random(0.5), batch_size=8, images=tldr.Images(image_size=SIZE)
    )
    assert len(a_half) == len(corpus.pairs) // 2 // 8


def test_a_file_has_the_same_options(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        f"""
        batch_size = 8
        seed = 3
        [[sources]]
        urls = "{corpus.urls}"
        name = "a corpus"
        [selection]
        keep_ratio = {{0 = 0.25, 2 = 1.0}}
        rotate = true
        [images]
        image_size = {SIZE}
        mean = [0.5, 0.5, 0.5]
        """
    )
    images = tldr.Images(image_size=SIZE, mean=(0.5, 0.5, 0.5))
    selection = tldr.Selection(keep_ratio={0: 0.25, 2: 1.0}, rotate=True)
    same = tldr.Loader(
        tldr.Source(corpus.urls, name="a corpus"), batch_size=8, seed=3, selection=selection, images=images
    )
    read = tldr.Loader.from_config(path)
    assert read.state_dict() == same.state_dict()
    # What is given goes before; the other options of its group stay.
    changed = tldr.Loader.from_config(path, selection=tldr.Selection(keep_ratio=0.5), seed=4)
    assert (len(changed), changed.state_dict()["settings"]["rotate"]) == (12, "true")
    path.write_text("batch_size = 8\n[selection]\nkeep_ration = 0.5\n")
    with pytest.raises(
        tldr.ConfigError, match=r"^unknown option keep_ration=0\.5: Selection has no option.* keep_ratio"
    ):
        tldr.Loader.from_config(path)
    path.write_text("batch_size = [")
    with pytest.raises(tldr.DataError, match=r"run\.toml: expected a TOML file of options"):
        tldr.Loader.from_config(path)
    with pytest.raises(tldr.DataError, match=r"absent\.toml"):
        tldr.Loader.from_config(tmp_path / "absent.toml")


def test_what_is_made_of_the_options_is_as_they_are() -> None:
    made = Path(__file__).parents[1] / "reference.py"
    done = subprocess.run([sys.executable, made, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_notation_is_read(corpus: Corpus) -> None:
    """Python's classes write what Rust reads."""
    options: list[dict[str, Any]] = [
        {"gate": tldr.Top(0.25)},
        {"gate": tldr.Top(1)},
        {"gate": tldr.Top(0.5, within="cluster")},
        {"gate": tldr.Top(0.5, by="a, strange (field)")},
        {"gate": tldr.AtLeast(-0.5, by="score")},
        {"quota": tldr.Cap()},
        {"quota": tldr.Cap(100)},
        {"quota": tldr.Tempered(0.5)},
        {"fuse": tldr.Concat(16)},
        {"fuse": tldr.Best(0.7)},
        {"fuse": tldr.Coin(0.3)},
        {"fuse": tldr.Coin({0: 0.2, 10: 1})},
        {"fuse": tldr.Gated()},
    ]
    for given in options:
        ((name, value),) = given.items()
        # Refused, since it has no effect: in the words of Rust, which are those of Python.
        with pytest.raises(tldr.ConfigError) as caught:
            flat.loader(corpus.urls, mode="full", **given)
        assert str(caught.value).startswith(f"invalid {name}={value}: it has no effect with mode"), (
            caught.value
        )


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
    with pytest.raises(tldr.ConfigError, match=r"^invalid vocab_size=300: it has no effect with a tokenizer"):
        tldr.Captioner.train(
            corpus.urls, tmp_path / "new", preset="tiny", tokenizer=tokenizer, vocab_size=300
        )
    with pytest.raises(
        tldr.ConfigError, match=r"^invalid generation\.top_p=0\.5: it has no effect with decoding=beam"
    ):
        captioner.set_generation(top_p=0.5)
    with pytest.raises(tldr.ConfigError, match=r"^invalid cache_bytes=.*: it has no effect without a path"):
        tldr.Ledger(cache_bytes=1)
    with pytest.raises(tldr.ConfigError, match=r"^invalid codes=20: it has no effect"):
        fitted.fit(corpus.urls, clusters=4, codes=20)
