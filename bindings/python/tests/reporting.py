"""Corpora that reports are made of, and a browser to look at the pages."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tldr_loader as tldr
from conftest import Pair, add_member, png

CHROMIUM = shutil.which("chromium")
ODD = [
    "<script>document.title = 'taken'</script> a red square",
    "</script></style><img src=x onerror=\"document.title='taken'\"> a blue square",
    "quotes \" ' ` & &lt; {{ 7 * 7 }} {% raw %} ${1}",
    "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd",
    "emoji \U0001f468\u200d\U0001f469\u200d\U0001f467 and \u2028 a line",
]


class Colours:
    """A scorer: the picture's colours, and how many words its caption has."""

    preview_size, resize, batch_size, fingerprint = 16, "squash", 32, "colours"

    def score(self, previews: Any, captions: list[str]) -> dict[str, Any]:
        pixels = np.asarray(previews, np.float32).reshape(len(captions), 3, 4, 4, 4, 4)
        grid = pixels.mean(axis=(3, 5)).reshape(len(captions), -1)
        words = [len(text.split()) + len(text) / 1000 for text in captions]
        return {"embedding": grid, "alignment": np.array(words, np.float32)}


def bomb() -> bytes:
    """A PNG whose header promises 40,000 pixels a side."""
    data = bytearray(png(np.zeros((4, 4, 3), np.uint8)))
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@dataclass
class Run:
    """A corpus of two sources, recorded and planned."""

    folder: Path
    source: tldr.Source
    plan: Path
    selection: tldr.Selection

    @property
    def given(self) -> dict[str, Any]:
        return {"ledger": self.folder / "ledger", "captioner": self.folder / "fit"}


def write(path: Path, pairs: list[Pair], seed: int) -> None:
    with tarfile.open(path, "w") as tar:
        for at, pair in enumerate(pairs):
            if seed == 0 and at == 3:
                add_member(tar, f"{pair.key}.png", bomb())
            elif seed == 0 and at == 4:
                add_member(tar, f"{pair.key}.png", b"no picture")
            elif at % 2:
                out = io.BytesIO()
                Image.fromarray(pair.pixels).save(out, "JPEG", quality=95)
                add_member(tar, f"{pair.key}.jpg", out.getvalue())
            else:
                add_member(tar, f"{pair.key}.png", png(pair.pixels))
            if not (seed == 1 and at == 5):
                add_member(tar, f"{pair.key}.txt", pair.caption.encode())
            add_member(tar, f"{pair.key}.json", json.dumps({"key": pair.key}).encode())


def recorded(folder: Path) -> Run:
    """A corpus with near-duplicates, odd captions and three samples that fail, recorded and planned."""
    rng = np.random.default_rng(3)
    scenes = [rng.integers(0, 255, (4, 4, 3), dtype=np.uint8) for _ in range(90)]
    number = 0
    for source in ("alpha", "beta"):
        (folder / source).mkdir()
        for shard in range(2):
            pairs = []
            for _ in range(80):
                scene = np.kron(scenes[int(rng.integers(90))], np.ones((6, 9, 1), np.uint8))
                noise = rng.integers(-3, 3, scene.shape)
                words = " ".join(
                    rng.choice(["red", "boat", "tree", "dog", "hill", "sea", "cup"], int(rng.integers(2, 9)))
                )
                caption = (
                    ODD[number // 7] if number % 7 == 0 and number // 7 < len(ODD) else f"{words} {number}"
                )
                pixels = np.clip(scene.astype(int) + noise, 0, 255).astype(np.uint8)
                pairs.append(Pair(f"{number:06d}", pixels, caption))
                number += 1
            write(folder / source / f"{shard:05d}.tar", pairs, shard if source == "alpha" else 9)
    # One corpus of two folders, whose names are those of its sources.
    both = tldr.Source([f"{folder}/{name}/{{00000..00001}}.tar" for name in ("alpha", "beta")])
    tldr.fit(f"{folder}/beta/{{00000..00001}}.tar", Colours(), folder / "fit", clusters=6)
    selection = tldr.Selection(keep_ratio=0.2, gate=tldr.Top(0.7), dedup=0.97, window=64)
    plan = folder / "plan.parquet"
    scorer = tldr.FittedScorer(folder / "fit", Colours())
    tldr.plan(both, captioner=scorer, ledger=folder / "ledger", out=plan, selection=selection)
    return Run(folder, both, plan, selection)


def report(run: Run) -> tldr.Report:
    """The page of its plan."""
    scorer = tldr.FittedScorer(run.folder / "fit", Colours())
    return tldr.report(run.source, **run.given, plan=run.plan, out=run.folder / "report.html", scorer=scorer)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; skips the test where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@dataclass
class Seen:
    """A page that is open, and what it said and asked for."""

    page: Any
    said: list[str]
    asked: list[str]


def opened(browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> Seen:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    seen = Seen(context.new_page(), [], [])
    seen.page.on("console", lambda message: seen.said.append(message.text))
    seen.page.on("pageerror", lambda error: seen.said.append(str(error)))
    seen.page.on("request", lambda request: seen.asked.append(request.url))
    seen.page.goto(path.as_uri())
    return seen
