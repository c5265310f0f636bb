"""Makes what docs/report.md shows: the page of a synthetic corpus, and its screenshots.

    python docs/report/make.py [FOLDER]

Needs playwright and Debian's Chromium (requirements-dev.txt, .ci/packages); with FOLDER what is trained
there is used again.
Minutes on two cores, most of them training.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import tldr_loader as tldr

HERE = Path(__file__).parent
SECTIONS = {"funnel": 842, "gate": 1000, "clusters": 900, "captions": 800}
"""What is shown, and how many pixels of it."""
CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def page(folder: Path) -> Path:
    """Writes the corpus, trains, records, plans, and makes the page."""
    # By relative paths, which the page shows.
    os.chdir(folder)
    names = ("corpus", "captioner", "ledger", "plan.parquet")
    corpus, captioner, ledger, plan = (Path(name) for name in names)
    if not corpus.exists():
        tldr.synth(corpus, samples=4000, shards=8, test_samples=0, size=64, duplicates=3)
    urls = f"{corpus}/train/{{00000..00007}}.tar"
    if not captioner.exists():
        made = tldr.Captioner.train(urls, captioner, preset="small", epochs=6)
        made.fit(urls, clusters=32)
    # Captions are generated for some of what is kept, so that there is something to compare.
    selection = tldr.Selection(keep_ratio=0.25, gate=tldr.Top(0.5), dedup=0.95)
    tldr.plan(urls, captioner=captioner, ledger=ledger, out=plan, selection=selection)
    captions = tldr.Captions(fuse="concat(16)")
    loader = tldr.Loader(
        urls,
        captioner=captioner,
        ledger=ledger,
        plan=plan,
        captions=captions,
        images=tldr.Images(image_size=32),
        batch_size=32,
    )
    for number, _ in enumerate(loader):
        if number == 8:
            break
    del loader
    out = Path("synthetic.html")
    tldr.report(urls, ledger=ledger, plan=plan, captioner=captioner, captions=captions, out=out, max_mb=5)
    return out.resolve()


def shots(path: Path) -> None:
    """Draws the sections at 1280 pixels."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        opened = browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme="light")
        opened.goto(path.as_uri())
        for name, height in SECTIONS.items():
            box = opened.locator(f"#{name}").bounding_box()
            assert box is not None
            shown = min(float(height), box["height"])
            opened.screenshot(
                path=HERE / f"{name}.png",
                clip={"x": 0, "y": box["y"], "width": 1280, "height": shown},
                full_page=True,
            )
        browser.close()


def main() -> None:
    """Makes the page and the screenshots in this folder."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        made = page(folder)
        shutil.copy(made, HERE / "synthetic.html")
        shots(made)


if __name__ == "__main__":
    main()
