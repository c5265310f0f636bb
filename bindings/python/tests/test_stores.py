"""Promise: shards on an HTTP server that asks for credentials read as local ones; secrets are not shown."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tldr_loader as tldr
from conftest import SIZE, Corpus

SECRET = "s3cret"


class Handler(http.server.BaseHTTPRequestHandler):
    """Files of a folder, by ranges, for whoever has the token."""

    protocol_version = "HTTP/1.1"
    sent = 0

    def __init__(self, folder: Path, *rest: object) -> None:
        self.folder = folder
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        content = b""
        path = self.folder / self.path.rsplit("/", 1)[-1]
        status = 404
        if self.headers["Authorization"] != f"Bearer {SECRET}" or self.headers["X-Key"] != SECRET:
            status = 401
        elif path.is_file():
            status, content = 200, path.read_bytes()
        whole = len(content)
        asked = self.headers["Range"]
        if status == 200 and asked:
            first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
            last = min(last, whole - 1)
            status, content = 206, content[first : last + 1]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        type(self).sent += len(content)

    def log_message(self, *rest: object) -> None:
        pass


@pytest.fixture
def server(corpus: Corpus) -> Iterator[str]:
    folder = Path(corpus.urls).parent
    make = functools.partial(Handler, folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), make) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        name = Path(corpus.urls).name
        yield f"http://127.0.0.1:{running.server_address[1]}/{folder.name}/{name}"
        running.shutdown()


def epoch(source: tldr.Source) -> list[tuple[list[str], np.ndarray]]:
    loader = tldr.Loader(source, mode="full", batch_size=8, images=tldr.Images(image_size=SIZE))
    return [(batch.captions, np.asarray(batch.ids)) for batch in loader]


def test_an_epoch_with_credentials_and_a_cache_is_that_of_local_files(
    server: str, corpus: Corpus, tmp_path: Path
) -> None:
    store = tldr.Store(token=SECRET, headers={"X-Key": SECRET}, shard_cache_dir=tmp_path / "cache")
    local = epoch(tldr.Source(corpus.urls))
    far = tldr.Source(server, name=Path(corpus.urls).parent.name, store=store)
    sent = []
    for _ in range(2):
        Handler.sent = 0
        found = epoch(far)
        assert len(found) == len(local)
        for (captions, ids), (expected, of) in zip(found, local, strict=True):
            assert captions == expected
            assert (ids == of).all()
        sent.append(Handler.sent)
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
