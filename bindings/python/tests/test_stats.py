"""Promise: statistics are one number by one name, for those who draw curves of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import flat
import tldr_loader as tldr
from conftest import SIZE, Corpus, Pair, write_shard


def test_scalars_have_every_number_once(corpus: Corpus, tmp_path: Path) -> None:
    pairs = [*corpus.pairs[:20], Pair("blank", corpus.pairs[0].pixels, " ")]
    write_shard(tmp_path / "00000.tar", pairs)
    loader = flat.loader(tmp_path, keep_ratio=0.5, batch_size=2, image_size=SIZE, lanes=1, max_errors=1.0)
    for _ in loader:
        pass
    stats = loader.stats()
    found = tldr.scalars(stats, "loader/")
    assert all(type(value) in (int, float) for value in found.values())
    assert found["loader/counts/read"] == 21
    assert found["loader/counts/failed/empty-caption"] == 1, stats["counts"]
    assert found["loader/yielded"] == stats["yielded"]
    assert found["loader/seconds/wait_loader"] == stats["seconds"]["wait_loader"]
    (source,) = stats["sources"]
    assert found[f"loader/sources/{source['name']}/kept"] == source["kept"]
    assert found["loader/skipped_bytes"] == 0
    assert json.loads(json.dumps(found)) == found
    # Single shards would be a curve each.
    assert not any("00000.tar" in name for name in found)


def test_scalars_go_into_tensorboards_form(corpus: Corpus) -> None:
    loader = flat.loader(corpus.urls, mode="full", batch_size=8, image_size=SIZE)
    next(iter(loader))
    tags = tldr.scalars(loader.stats())
    with pytest.raises(KeyError):
        tags["gate/auc"]  # there is none without a captioner
    assert all(" " not in tag for tag in tags)
