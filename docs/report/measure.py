"""Measures how long a report takes, and how much memory, on so many samples.

    python docs/report/measure.py [SHARDS]

One shard of 2,000 small pictures stands for each of SHARDS (default: 100), under as many names. The report
runs in a process of its own; what is printed is JSON.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import tldr_loader as tldr

SAMPLES = 2_000
"""Samples of a shard."""

CODE = """
import json, resource, sys, time
import tldr_loader as tldr

folder, urls = sys.argv[1:]
selection = tldr.Selection(keep_ratio=0.25, gate=tldr.Top(0.5))
stages, began = {}, time.monotonic()


def progress(stage, done, total):
    stages[stage] = round(time.monotonic() - began, 1)


made = tldr.report(urls, ledger=f"{folder}/ledger", captioner=f"{folder}/fit", selection=selection,
                   out=f"{folder}/report.html", progress=progress)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"samples": made.samples, "pictures": made.pictures, "page_mb": round(made.bytes / 1e6, 1),
                  "seconds": round(time.monotonic() - began, 1), "ended": stages, "peak_mib": round(peak)}))
"""


class Means:
    """A scorer that costs next to nothing."""

    preview_size, resize, batch_size, fingerprint = 8, "squash", 256, "means"

    def score(self, previews: Any, captions: list[str]) -> dict[str, Any]:
        """Embeds four by four pixels; long captions fit."""
        pixels = np.asarray(previews, np.float32).reshape(len(captions), 3, 4, 2, 4, 2)
        grid = pixels.mean(axis=(3, 5)).reshape(len(captions), -1)
        return {
            "embedding": grid - 127.5,
            "alignment": np.array([len(text) for text in captions], np.float32),
        }


def write(path: Path) -> None:
    """Writes the shard."""
    draw = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for number in range(SAMPLES):
            picture = io.BytesIO()
            pixels = np.kron(draw.integers(0, 255, (4, 4, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
            Image.fromarray(pixels).save(picture, "JPEG")
            caption = " ".join(draw.choice(["red", "boat", "tree", "hill"], int(draw.integers(2, 20))))
            for name, data in (("jpg", picture.getvalue()), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{number:06d}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def main() -> None:
    """Records, reports and says what it took."""
    shards = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        first = folder / "corpus" / f"{0:05d}.tar"
        write(first)
        for number in range(1, shards):
            (folder / "corpus" / f"{number:05d}.tar").hardlink_to(first)
        urls = f"{folder}/corpus/{{00000..{shards - 1:05d}}}.tar"
        fitted = tldr.fit(str(first), Means(), folder / "fit", clusters=100)
        began = time.monotonic()
        tldr.record(urls, captioner=fitted, ledger=folder / "ledger")
        recorded = time.monotonic() - began
        command = [sys.executable, "-c", CODE, str(folder), urls]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        size = sum(path.stat().st_size for path in (folder / "ledger").rglob("*.parquet"))
        print(json.dumps({"record_seconds": round(recorded, 1), "ledger_mb": round(size / 1e6, 1), **found}))


if __name__ == "__main__":
    main()
