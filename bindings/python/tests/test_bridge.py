"""Promise: what was recorded where the captioner runs is trained on where it cannot be imported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tldr_loader as tldr
from conftest import SIZE, Child, Corpus

GOLDEN = Path(__file__).parents[3] / "tests" / "golden"

# In a process of its own: what a loader yields, or the exception that it raises.
ELSEWHERE = """
import hashlib, json, sys
if {without}:
    sys.modules["tldr_loader_captioner"] = None
import tldr_loader as tldr
sys.path.insert(0, {tests!r})
import flat
try:
    loader = flat.loader(**json.loads({options!r}))
    rows = []
    for batch in loader:
        pixels = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in batch.images]
        rows.append([batch.keys, batch.captions, batch.generated, batch.judged, pixels])
    stats = loader.stats()
    print(json.dumps([rows, stats["encoded"] + stats["captioned"] + stats["judged"]]))
except tldr.TldrError as error:
    print(json.dumps([type(error).__name__, str(error)]))
assert sys.modules.get("tldr_loader_captioner") is None or not {without}
"""


@pytest.fixture(scope="module")
def directory(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captioner") / "captioner"
    captioner = tldr.Captioner.train(
        corpus.urls, path, preset="tiny", epochs=1, batch_size=20, vocab_size=300
    )
    captioner.fit(corpus.urls, clusters=8)
    assert (path / "identity.json").exists()
    return path


def options(corpus: Corpus, captioner: Path, **more: Any) -> dict[str, Any]:
    given = {"source": corpus.urls, "captioner": captioner, "keep_ratio": 0.25, "batch_size": 8}
    return {**given, "image_size": SIZE, **more}


def elsewhere(given: dict[str, Any], *, without: bool) -> Any:
    """What a loader with these options does in a process of its own, `without` the captioner or with it."""
    code = ELSEWHERE.format(
        tests=str(Path(__file__).parent), options=json.dumps(given, default=str), without=without
    )
    with Child(code) as child:
        status, out, err = child.end()
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


def check(given: dict[str, Any]) -> None:
    """Records an epoch, and asks for the same without the captioner."""
    rows, asked = elsewhere(given, without=False)
    assert asked > 0
    assert len(rows) > 2
    assert elsewhere(given, without=True) == [rows, 0]


@pytest.mark.parametrize("fuse", ["original", "generated", "concat", "best(0.7)"])
def test_a_complete_ledger_needs_no_captioner(
    corpus: Corpus, directory: Path, tmp_path: Path, fuse: str
) -> None:
    check(options(corpus, directory, ledger=tmp_path / "ledger", fuse=fuse))


def test_a_matcher_and_its_scores_are_recorded_too(corpus: Corpus, directory: Path, tmp_path: Path) -> None:
    tldr.Matcher.load_blip(GOLDEN / "blip_matcher" / "model", tmp_path / "matcher")
    more = {"judge": tmp_path / "matcher", "fuse": "gated(0.5)", "rescue": True, "replace_repetitive": False}
    given = options(corpus, directory, ledger=tmp_path / "ledger", **more)
    check(given)
    # Captions without scores: the judge is missed.
    given["rescue"] = False
    check(given)
    (tmp_path / "ledger" / "scores").rename(tmp_path / "scores")
    kind, message = elsewhere(given, without=True)
    assert kind == "LedgerError"
    assert f"judge that could make them, {tmp_path / 'matcher'}, cannot run here" in message


def test_a_plan_needs_no_captioner_either(corpus: Corpus, directory: Path, tmp_path: Path) -> None:
    ledger, plan = tmp_path / "ledger", tmp_path / "plan.parquet"
    command = ["plan", corpus.urls, "--captioner", directory, "--ledger", ledger, "--out", plan]
    done = subprocess.run(
        [sys.executable, "-m", "tldr_loader._command", *map(str, command)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    given = options(corpus, directory, ledger=ledger, plan=plan)
    del given["keep_ratio"]
    # All signals are there, and no caption.
    rows, asked = elsewhere(given, without=True)
    assert asked == 0
    assert elsewhere(given, without=False) == [rows, 0]
    kind, message = elsewhere({**given, "fuse": "concat"}, without=True)
    assert kind == "LedgerError"
    assert "generated captions of some samples" in message
    check({**given, "fuse": "concat"})


def test_what_is_not_recorded_names_the_command(corpus: Corpus, directory: Path, tmp_path: Path) -> None:
    given = options(corpus, directory, ledger=tmp_path / "ledger")
    kind, message = elsewhere(given, without=True)
    assert kind == "LedgerError"
    for part in (
        "the ledger lacks signals of some samples",
        f"tldr-loader plan SHARDS --captioner {directory} --ledger LEDGER --out PLAN",
        'pip install "tldr-loader[captioner]", with torch 2.11',
    ):
        assert part in message
    elsewhere(given, without=False)
    kind, message = elsewhere({**given, "fuse": "generated"}, without=True)
    assert kind == "LedgerError"
    assert "lacks generated captions of some samples" in message
    assert "by the same epoch of a loader with the same options and this ledger" in message


def test_without_a_ledger_both_ways_out_are_named(corpus: Corpus, directory: Path) -> None:
    kind, message = elsewhere(options(corpus, directory), without=True)
    assert kind == "ConfigError"
    assert message.startswith(f'invalid captioner="{directory}": ')
    assert 'the captioner is not installed (pip install "tldr-loader[captioner]", with torch 2.11)' in message
    assert "beside a `ledger` that was recorded with it where the captioner is" in message


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "clusters.safetensors", "model.safetensors"]
)
def test_a_captioner_that_was_changed_is_not_what_was_recorded(
    corpus: Corpus, directory: Path, tmp_path: Path, name: str
) -> None:
    changed = tmp_path / "captioner"
    shutil.copytree(directory, changed)
    with (changed / name).open("ab") as file:
        file.write(b" ")
    kind, message = elsewhere(options(corpus, changed, ledger=tmp_path / "ledger"), without=True)
    assert kind == "DataError"
    assert f"{changed / name}: expected the file that identity.json was written for" in message
    assert "fit it again" in message


def test_settings_of_captions_change_the_identity_with_them(
    corpus: Corpus, directory: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "captioner"
    shutil.copytree(directory, changed)
    given = options(corpus, changed, ledger=tmp_path / "ledger", fuse="generated")
    check(given)
    tldr.Captioner.load(changed).set_generation(max_tokens=4)
    kind, message = elsewhere(given, without=True)
    assert kind == "LedgerError"
    assert "lacks generated captions" in message
    check(given)


def test_the_models_themselves_say_what_they_need(corpus: Corpus) -> None:
    code = """
import sys
sys.modules["tldr_loader_captioner"] = None
import tldr_loader as tldr
try:
    tldr.Captioner
except ImportError as error:
    print(error)
"""
    with Child(code) as child:
        status, out, err = child.end()
    assert status == 0, err
    assert 'pip install "tldr-loader[captioner]" (it needs torch 2.11)' in out
    assert "a ledger that was recorded where the captioner is" in out
