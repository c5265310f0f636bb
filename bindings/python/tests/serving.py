"""An HTTP server of a folder's files, by ranges, that remembers what it sent."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import Any, TypeAlias

Sent: TypeAlias = list[tuple[str, int | None, int]]
"""Of each file that was sent: its name, where the range began that was asked for, and the bytes sent."""


class Ranges(http.server.BaseHTTPRequestHandler):
    """Answers with files of a folder to whoever `may` read them."""

    protocol_version = "HTTP/1.1"

    def __init__(self, folder: Path, sent: Sent, may: Callable[[Message], bool], *rest: Any) -> None:
        self.folder, self.sent, self.may = folder, sent, may
        super().__init__(*rest)

    def do_GET(self) -> None:
        self.answer(send=True)

    def do_HEAD(self) -> None:
        self.answer(send=False)

    def answer(self, send: bool) -> None:
        path, content = self.folder / self.path.rsplit("/", 1)[-1], b""
        status, first = 404, None
        if not self.may(self.headers):
            status = 401
        elif path.is_file():
            status, content = 200, path.read_bytes()
        whole, asked = len(content), self.headers["Range"]
        if status == 200 and asked:
            start, end = asked.removeprefix("bytes=").split("-")
            first = int(start)
            status, content = 206, content[first : int(end) + 1 if end else whole]
        self.send_response(status)
        if first is not None:
            self.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{whole}")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if send:
            self.wfile.write(content)
            self.sent.append((path.name, first, len(content)))

    def log_message(self, *rest: object) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path, may: Callable[[Message], bool] = lambda _: True) -> Iterator[tuple[str, Sent]]:
    """The address of a server of `folder`, and what it has sent."""
    sent: Sent = []
    make = functools.partial(Ranges, folder, sent, may)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), make) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", sent
        running.shutdown()
