"""Promise: shards on an HTTP server that asks for credentials read as local ones; secrets are not shown."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import numpy as np
import pytest

import tldr_loader as tldr
from conftest import SIZE, Corpus
from serving import Sent, serving

SECRET = "s3cret"


def may(headers: Message) -> bool:
    return headers["Authorization"] == f"Bearer {SECRET}" and headers["X-Key"] == SECRET


@pytest.fixture
def served(corpus: Corpus) -> Iterator[tuple[str, Sent]]:
    folder = Path(corpus.urls).parent
    with serving(folder, may) as (address, sent):
        yield f"{address}/{folder.name}/{Path(corpus.urls).name}", sent


@pytest.fixture
def server(served: tuple[str, Sent]) -> str:
    return served[0]


def epoch(source: tldr.Source) -> list[tuple[list[str], np.ndarray]]:
    loader = tldr.Loader(source, mode="full", batch_size=8, images=tldr.Images(image_size=SIZE))
    return [(batch.captions, np.asarray(batch.ids)) for batch in loader]


def test_an_epoch_with_credentials_and_a_cache_is_that_of_local_files(
    served: tuple[str, Sent], corpus: Corpus, tmp_path: Path
) -> None:
    server, log = served
    store = tldr.Store(token=SECRET, headers={"X-Key": SECRET}, shard_cache_dir=tmp_path / "cache")
    local = epoch(tldr.Source(corpus.urls))
    far = tldr.Source(server, name=Path(corpus.urls).parent.name, store=store)
    sent = []
    for _ in range(2):
        log.clear()
        found = epoch(far)
        assert len(found) == len(local)
        for (captions, ids), (expected, of) in zip(found, local, strict=True):
            assert captions == expected
            assert (ids == of).all()
        sent.append(sum(length for _, _, length in log))
    assert sent[1] < sent[0] / 2


def test_secrets_are_shown_nowhere(server: str) -> None:
    store = tldr.Store(token=SECRET, headers={"X-Key": SECRET}, retries=3)
    assert repr(store) == "Store(token=(hidden), headers=(hidden), retries=3)"
    assert SECRET not in repr(tldr.Source("a.tar", store=store))
    for wrong in [
        tldr.Store(token=SECRET + " "),
        tldr.Store(token=SECRET + "\N{SNOWMAN}"),
        tldr.Store(token=[SECRET]),  # type: ignore[arg-type]
        tldr.Store(token=SECRET.encode()),  # type: ignore[arg-type]
        tldr.Store(headers={"a b": SECRET}),
        tldr.Store(headers=SECRET),  # type: ignore[arg-type]
        tldr.Store(headers={"X-Key": 5}),  # type: ignore[dict-item]
        tldr.Store(token=SECRET),
    ]:
        with pytest.raises(tldr.TldrError) as error:
            epoch(tldr.Source(server, store=wrong))
        assert SECRET not in str(error.value)
    with pytest.raises(tldr.ConfigError) as error:
        tldr.Loader([tldr.Source(server, store=store), 5], mode="full")  # type: ignore[arg-type]
    assert SECRET not in str(error.value)


def test_a_refusal_says_what_to_do(server: str) -> None:
    with pytest.raises(tldr.DataError, match=r"no credentials were sent: give the options token or headers"):
        epoch(tldr.Source(server))
    with pytest.raises(tldr.DataError, match="does not accept the token or headers that were sent"):
        epoch(tldr.Source(server, store=tldr.Store(token="another")))
