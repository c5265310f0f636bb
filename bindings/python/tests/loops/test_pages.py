"""Promise: what the pages on training loops show works, with the frameworks themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from test_doc_blocks import LOOPS, captioner, corpora, run_page, runnable

__all__ = ["captioner", "corpora"]  # fixtures


@pytest.mark.parametrize("page", [page for page in LOOPS if runnable(page)], ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_in_order(
    page: Path, corpora: Path, captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_page(page, corpora, captioner, tmp_path, monkeypatch)
