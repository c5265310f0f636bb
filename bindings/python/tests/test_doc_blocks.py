"""Promise: what the pages show works. Every code block of the pages in the root folder and docs/ is run.

Those of docs/loops are run by loops/test_pages.py, with the frameworks that they are about.

The blocks of a page run in order in one folder, as a reader would type them: `python` here, `sh` by bash
with the package's command, `sql` by DuckDB; cargo compiles `rust` as doctests (src/lib.rs, or where they
need the captioner, crates/captioner/src/lib.rs). `text` is output. The corpora that pages name are small ones
here, and SMALLER makes the numbers fit them. A block that cannot run has the reason above it in the page:
`<!-- not run: installs packages -->`.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import small_models
import tldr_loader as tldr
from conftest import Corpus, add_member, png

ROOT = Path(__file__).parents[3]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "RELEASE.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
LOOPS = sorted((ROOT / "docs" / "loops").glob("*.md"))

MODELS = Path(__file__).parent / "loops" / "models"
# What a script of open_clip's training is run with.
FLAGS = {
    "model": "tiny-clip",
    "train-data": "cc3m/{00000..00003}.tar",
    "val-data": "sbu/{000..001}.tar",
    "batch-size": "8",
    "epochs": "1",
    "device": "cpu",
    "precision": "fp32",
    "workers": "1",
}

# What a page says, and what is run in its place.
SMALLER = [
    ("{00000..00331}", "{00000..00003}"),
    ("{00000..00999}", "{00000..00003}"),
    ("{00000000..00001287}", "{00000000..00000003}"),
    ("{000..100}", "{000..001}"),
    ("batch_size=256", "batch_size=8"),
    ('keep_ratio=0.1, gate=tldr.Top(0.3, by="dfn")', 'keep_ratio=0.3, gate=tldr.Top(0.5, by="dfn")'),
    ("image_size=224", "image_size=16"),
    ("3_000_000", "64"),
    ("range(32)", "range(2)"),
    ('device="cuda"', 'device="cpu"'),
    ("--preset small", "--preset tiny --epochs 1 --vocab-size 300"),
]
# Languages that are run, compiled or, for text, shown.
LANGUAGES = {"python", "sh", "sql", "rust", "rust,no_run", "text"}
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


@dataclass
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    inside: Block | None = None
    before = ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = re.match(r" *```(.*)$", line)
        if fence and inside is None:
            marked = NOT_RUN.fullmatch(before.strip())
            inside = Block(page, number, fence[1], "", marked and marked[1])
        elif fence and inside is not None:
            found.append(inside)
            inside = None
        elif inside is not None:
            inside.text += line + "\n"
        if line.strip():
            before = line
    assert inside is None, f"{page}: the last block does not end"
    return found


@pytest.mark.parametrize("page", [*PAGES, *LOOPS], ids=lambda page: page.name)
def test_every_block_has_a_language_that_is_tried(page: Path) -> None:
    compiled = [
        (ROOT / "src" / "lib.rs").read_text(),
        (ROOT / "crates/captioner/src/lib.rs").read_text().replace("../../../", "../"),
    ]
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.name}: the language is one of {sorted(LANGUAGES)}"
        if block.language.startswith("rust"):
            include = f'include_str!("../{page.relative_to(ROOT)}")'
            assert any(include in text for text in compiled), f"{block.name}: no crate compiles it: {include}"


def runnable(page: Path) -> list[Block]:
    return [b for b in blocks(page) if b.reason is None and b.language in ("python", "sh", "sql")]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Path:
    """The corpora that pages name, with the metadata that they ask for."""
    folder = tmp_path_factory.mktemp("corpora")
    uids = [f"{i:032x}" for i in range(len(corpus.pairs))]
    for name, digits, shards in [
        ("cc3m", 5, 4),
        ("laion", 5, 4),
        ("datacomp", 8, 4),
        ("coco", 5, 4),
        ("sbu", 3, 2),
    ]:
        (folder / name).mkdir()
        for shard in range(shards):
            with tarfile.open(folder / name / f"{shard:0{digits}d}.tar", "w") as tar:
                for i in range(shard, len(corpus.pairs), shards):
                    pair = corpus.pairs[i]
                    fields = {
                        "uid": uids[i],
                        "similarity": i % 100 / 100,
                        "NSFW": "UNLIKELY",
                        "width": 150 + i,
                        "captions": [pair.caption, f"{pair.caption} again"],
                    }
                    add_member(tar, f"{pair.key}.png", png(pair.pixels))
                    add_member(tar, f"{pair.key}.txt", pair.caption.encode())
                    add_member(tar, f"{pair.key}.json", json.dumps(fields).encode())
    (folder / "shards").symlink_to("cc3m")
    (folder / "flickr" / "data").mkdir(parents=True)
    rows = [
        {"image": {"bytes": png(pair.pixels)}, "caption": pair.caption, "width": 150 + i}
        for i, pair in enumerate(corpus.pairs)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "flickr" / "data" / "train-00000-of-00001.parquet")
    numbers = [i / len(uids) for i in range(len(uids))]
    pq.write_table(pa.table({"uid": uids, "dfn": numbers, "hype": numbers[::-1]}), folder / "scores.parquet")
    texts = [f"a picture of {pair.caption}" for pair in corpus.pairs]
    pq.write_table(pa.table({"uid": uids, "caption": texts}), folder / "blip2.parquet")
    halves = [(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids[: len(uids) // 2]]
    np.save(folder / "basic_filter.npy", np.array(halves, np.dtype("u8,u8")))
    small_models.clip(folder / "clip-vit-base-patch32")
    golden = ROOT / "tests" / "golden"
    (folder / "blip-image-captioning-base").symlink_to(golden / "blip" / "base")
    (folder / "blip-itm-base-coco").symlink_to(golden / "blip_matcher" / "model")
    return folder


@pytest.fixture(scope="module")
def captioner(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captioner") / "captioner"
    made = tldr.Captioner.train(
        corpora / "cc3m", path, preset="tiny", epochs=1, batch_size=20, vocab_size=300
    )
    made.fit(corpora / "cc3m", clusters=4)
    return path


def run_python(block: Block, text: str, names: dict[str, Any]) -> None:
    loader = names.get("loader")
    # Tracebacks name the page and its line.
    exec(compile("\n" * block.line + text, str(block.page), "exec"), names)
    made = names.get("loader")
    if made is not loader and isinstance(made, tldr.Loader):
        assert len(next(iter(made))) > 0, f"{block.name}: its loader yields nothing"


def run_script(block: Block, text: str) -> None:
    """Runs a block that is a script of open_clip's training, on a small model."""
    script = Path("train.py")
    script.write_text(f"import open_clip\n\nopen_clip.add_model_config({str(MODELS)!r})\n{text}")
    flags = [word for name, value in FLAGS.items() for word in (f"--{name}", value)]
    command = [sys.executable, str(script), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{block.name}: {done.stdout}{done.stderr}"
    assert "Eval Epoch: 1" in done.stderr + done.stdout, f"{block.name}: {done.stderr}"


def run_sh(block: Block, text: str) -> None:
    # As pip puts it on the path.
    program = f'tldr-loader() {{ {shlex.quote(sys.executable)} -m tldr_loader._command "$@"; }}\n'
    command = ["bash", "-euo", "pipefail", "-c", program + text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{block.name}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_in_order(
    page: Path, corpora: Path, captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_page(page, corpora, captioner, tmp_path, monkeypatch)


def run_page(
    page: Path, corpora: Path, captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = runnable(page)
    for given in corpora.iterdir():
        (tmp_path / given.name).symlink_to(given)
    if page.name != "captioner.md":  # which makes one
        shutil.copytree(captioner, tmp_path / "captioner")
    shutil.copy(captioner / "tokenizer.json", tmp_path / "clip.json")
    monkeypatch.chdir(tmp_path)
    # What the pages take as given: the package, shards, and a loader where they do not make one.
    names: dict[str, Any] = {"tldr": tldr, "shards": "cc3m/{00000..00003}.tar"}
    names["loader"] = tldr.Loader(
        names["shards"],
        mode="full",
        batch_size=8,
        images=tldr.Images(image_size=16),
        tokenizer="clip.json",
    )
    for block in wanted:
        text = block.text
        for said, small in SMALLER:
            text = text.replace(said, small)
        if block.language == "python" and "sys.argv" in text:
            run_script(block, text)
        elif block.language == "python":
            run_python(block, text, names)
        elif block.language == "sh":
            run_sh(block, text)
        else:
            pytest.importorskip("duckdb").sql(text).fetchall()


def test_the_parts_of_a_page_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n```python\nx = 1\n```\n<!-- not run: costs money -->\n\n   ```sh\nrm x\n   ```\n")
    first, second = blocks(page)
    assert (first.language, first.line, first.text, first.reason) == ("python", 2, "x = 1\n", None)
    assert (second.language, second.reason) == ("sh", "costs money")


def test_a_block_that_fails_names_its_line(tmp_path: Path) -> None:
    block = Block(tmp_path / "page.md", 7, "python", "", None)
    with pytest.raises(ZeroDivisionError) as caught:
        run_python(block, "x = 1\nx / 0\n", {})
    (*_, last) = caught.traceback
    assert (str(last.path), last.lineno + 1) == (str(tmp_path / "page.md"), 9)
