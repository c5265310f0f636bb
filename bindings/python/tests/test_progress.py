"""Promise: long calls draw a bar where tqdm is there and somebody looks; `progress` takes its place."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

import tldr_loader as tldr
from conftest import Corpus
from test_scorers import ByColour

TRAINING: dict[str, Any] = {"preset": "tiny", "epochs": 1, "batch_size": 20, "vocab_size": 300, "validate": 0}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


@pytest.mark.skipif(importlib.util.find_spec("tqdm") is None, reason="tqdm is not installed")
def test_bars(
    watched: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    corpus: Corpus,
) -> None:
    # What capsys put there.
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    captioner = tldr.Captioner.train(corpus.urls, tmp_path / "captioner", **TRAINING)
    said = capsys.readouterr().err
    assert "train:" in said
    assert "10/10" in said
    assert "loss=" in said
    captioner.fit(corpus.urls, clusters=4)
    said = capsys.readouterr().err
    assert "fit:" in said
    assert "200/200" in said
    options: dict[str, Any] = {"captioner": captioner, "ledger": tmp_path / "ledger"}
    tldr.record(corpus.urls, **options)
    assert "record: " in capsys.readouterr().err
    tldr.plan(corpus.urls, **options, out=tmp_path / "plan.parquet", selection=tldr.Selection(keep_ratio=0.5))
    assert "plan: " in capsys.readouterr().err
    # Whoever gives a callback of their own sees no bar.
    calls: list[Any] = []
    tldr.inspect(corpus.urls, progress=lambda *at: calls.append(at))
    assert calls
    assert "inspect" not in capsys.readouterr().err


def test_nothing_is_drawn_where_nobody_looks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, corpus: Corpus, caplog: pytest.LogCaptureFixture
) -> None:
    captioner = tldr.Captioner.train(corpus.urls, tmp_path / "captioner", **TRAINING)
    with caplog.at_level(logging.WARNING, "tldr_loader"):
        fitted = captioner.fit(corpus.urls, clusters=4)
    assert capsys.readouterr().err == ""
    # Ten steps make no captioner that tells captions apart.
    assert fitted["warnings"]
    logged = [record.getMessage() for record in caplog.records if record.name == "tldr_loader"]
    assert set(fitted["warnings"]) <= set(logged)


def test_the_fit_of_a_scorer_logs_its_warnings(
    tmp_path: Path, corpus: Corpus, caplog: pytest.LogCaptureFixture
) -> None:
    class Guessing(ByColour):
        """Says of every caption that it fits as well."""

        def score(self, previews: Any, captions: Any) -> dict[str, Any]:
            found = super().score(previews, captions)
            return {**found, "alignment": 0 * found["alignment"]}

    with caplog.at_level(logging.WARNING, "tldr_loader"):
        report = tldr.fit(corpus.urls, Guessing(), tmp_path / "fit", clusters=2).report
    assert report is not None
    assert report.warnings, report
    assert set(report.warnings) <= {record.getMessage() for record in caplog.records}
