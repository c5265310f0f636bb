"""Tries the wheel of the core in fresh virtual environments, and prints a table of what works in each.

    make test-environments

No torch, the oldest torch that is supported, the one that the captioner works with, and the newest on PyPI:
each environment gets the wheel in dist/ and nothing else of this tree. The captioner's environment is
.venv, lent by a path file rather than installed again. There a ledger is recorded first, which the others
then train on. Every environment has to yield the same batches. It takes about 15 GB of a disk and half an
hour, most of it for the installation of torch; an environment is deleted after its turn (--keep leaves it,
for the next run).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "any_torch.py"
CAPTIONER_TORCH = "2.11"
ENVIRONMENTS = {"no torch": None, "torch 2.4": "torch==2.4.*", "torch 2.11": "", "newest torch": "torch"}
"""What is installed beside NumPy: nothing, a release, what .venv has, the newest release."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ENVIRONMENTS, help="which of them")
    parser.add_argument(
        "--folder", type=Path, help="where environments are made; a temporary folder by default"
    )
    parser.add_argument("--keep", action="store_true", help="leave them there, and use those that are there")
    parser.add_argument("--probe", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        print(json.dumps(probe(options.probe)))
        return 0
    wheels = sorted((ROOT / "dist").glob("tldr_loader-*x86_64.whl"))
    if len(wheels) != 1:
        parser.error(f"dist/ holds {len(wheels)} wheels of tldr_loader for this machine: run make wheel")
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given"
        prepare(given)
        rows = {
            name: run(name, wheels[0], given, options)
            for name in ["torch 2.11", *(name for name in ENVIRONMENTS if name != "torch 2.11")]
            if name in (options.only or ENVIRONMENTS) or name == "torch 2.11"
        }
    return report(rows)


# --- what is tried in an environment ----------------------------------------------------------


def probe(given: Path) -> dict[str, str]:
    """Tries everything with the packages of this interpreter; what each part gave."""
    import numpy

    import tldr_loader as tldr

    found = {"Python": "{}.{}.{}".format(*sys.version_info), "NumPy": numpy.__version__, "torch": "none"}
    try:
        import torch

        found["torch"] = torch.__version__
    except ImportError:
        pass
    found["package"] = tldr.__version__ + (
        "" if "site-packages" in tldr.__file__ else f", of {tldr.__file__}"
    )
    command = Path(sys.executable).parent / "tldr-loader"
    for words, expected in ((["--help"], "inspect"), (["inspect", f"{given}/shards"], "64")):
        done = subprocess.run([command, *words], capture_output=True, text=True, timeout=120, check=False)
        is_fine = done.returncode == 0 and expected in done.stdout
        found[words[0]] = "works" if is_fine else f"exit status {done.returncode}: {done.stdout}{done.stderr}"
    common: dict[str, Any] = {"batch_size": 8, "images": tldr.Images(image_size=32)}
    tokenizer = given / "smoke" / "captioner" / "tokenizer.json"
    full = tldr.Loader(f"{given}/shards", mode="full", tokenizer=tokenizer, **common)
    found["full"] = digest(full)
    scored = tldr.Selection(keep_ratio=0.5, gate=tldr.Top(0.5, by="similarity"))
    found["score"] = digest(tldr.Loader(f"{given}/shards", selection=scored, tokenizer=tokenizer, **common))
    recorded: dict[str, Any] = {
        "source": given / "smoke" / "train",
        "captioner": given / "smoke" / "captioner",
        "selection": tldr.Selection(keep_ratio=0.25),
        "captions": tldr.Captions(fuse=tldr.Concat(), context_length=32),
        "tokenizer": tokenizer,
        **common,
        "batch_size": 16,
    }
    loader = tldr.Loader(ledger=given / "smoke" / "ledger", **recorded)
    found["bridge"] = digest(loader)
    stats = loader.stats()
    assert (stats["encoded"], stats["captioned"]) == (0, 0)
    if not found["torch"].startswith(CAPTIONER_TORCH):
        try:
            tldr.Loader(**recorded)
        except tldr.ConfigError as error:
            refusal = str(error)
        else:
            refusal = "nothing is refused"
        assert "tldr-loader[captioner]" in refusal, refusal
        assert "`ledger`" in refusal, refusal
    return found


def digest(loader: Any) -> str:
    """Hash of an epoch: pixels, tokens, keys and captions; and what the batches are."""
    import numpy

    total, kind = hashlib.sha256(), ""
    for batch in loader:
        images, tokens = batch
        kind = type(images).__module__.split(".")[0]
        for array in (images, tokens):
            total.update(numpy.from_dlpack(array).tobytes())
        total.update(json.dumps([batch.keys, batch.captions]).encode())
    return f"{total.hexdigest()[:8]} ({kind})"


# --- making environments ----------------------------------------------------------------------


def prepare(given: Path) -> None:
    """Shards with scores, and what .venv records: captioner, corpus and ledger."""
    (given / "shards").mkdir(parents=True)
    for shard in range(2):
        with tarfile.open(given / "shards" / f"{shard:05d}.tar", "w") as tar:
            for i in range(32):
                fields = {"similarity": (i * 7 + shard) % 32 / 32}
                for end, data in (
                    ("png", png(i)),
                    ("txt", f"a picture of {i}".encode()),
                    ("json", json.dumps(fields).encode()),
                ):
                    member = tarfile.TarInfo(f"{shard}{i:04d}.{end}")
                    member.size = len(data)
                    tar.addfile(member, BytesIO(data))
    paths = os.pathsep.join(str(ROOT / "bindings" / name / "python") for name in ("python", "captioner"))
    (given / "smoke").mkdir()
    call(
        [ROOT / ".venv" / "bin" / "python", EXAMPLE, "record", "--smoke", "--folder", given / "smoke"],
        PYTHONPATH=paths,
    )


def png(seed: int) -> bytes:
    """A picture of 48x48 pixels."""
    rows = b"".join(
        b"\0" + bytes((x * seed + y * 5 + c * 40) % 256 for x in range(48) for c in range(3))
        for y in range(48)
    )
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 48, 48, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def run(name: str, wheel: Path, given: Path, options: argparse.Namespace) -> dict[str, str]:
    """Makes an environment, tries everything in it and deletes it."""
    print(f"{name}: installing", file=sys.stderr, flush=True)
    folder = (options.folder or given.parent) / name.replace(" ", "-")
    python = folder / "bin" / "python"
    packages = ENVIRONMENTS[name]
    if not python.exists():
        call([sys.executable, "-m", "venv", folder])
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if packages == "":
        (lib,) = (ROOT / ".venv" / "lib").glob("python3*")
        (own,) = (folder / "lib").glob("python3*")
        (own / "site-packages" / "lent.pth").write_text(f"{lib / 'site-packages'}\n")
    else:
        call([*pip, "numpy", *([packages] if packages else [])])
    call([*pip, "--force-reinstall", "--no-deps", wheel])
    try:
        found: dict[str, str] = json.loads(call([python, __file__, "--probe", given]).splitlines()[-1])
        trained = call([python, EXAMPLE, "train", "--smoke", "--folder", given / "smoke"])
        found["train"] = trained.splitlines()[0].removeprefix("training with ")
        found["last"] = trained.splitlines()[-1]
    finally:
        if not options.keep:
            shutil.rmtree(folder)
    return found


def call(command: list[str | Path], **environment: str) -> str:
    """Runs a command without this process's Python paths; what it wrote to stdout."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**kept, "OMP_WAIT_POLICY": "PASSIVE", **environment},
        check=False,
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


# --- what is said of it -----------------------------------------------------------------------

COLUMNS = {
    "Python": "Python", "torch": "torch", "NumPy": "NumPy", "--help": "`--help`", "inspect": "`inspect`",
    "full": "mode full", "score": "a score", "bridge": "recorded ledger", "train": "trained with",
}  # fmt: skip


def report(rows: dict[str, dict[str, str]]) -> int:
    print(f"| environment | {' | '.join(COLUMNS.values())} |")
    print(f"| --- {'| --- ' * len(COLUMNS)}|")
    for name in (name for name in ENVIRONMENTS if name in rows):
        print(f"| {name} | {' | '.join(rows[name][column] for column in COLUMNS)} |")
    wrong = 0
    for part in ("full", "score", "bridge"):
        digests = {row[part].split()[0] for row in rows.values()}
        if len(digests) > 1:
            print(f"error: {part}: environments differ: {sorted(digests)}", file=sys.stderr)
            wrong = 1
    for name, row in rows.items():
        print(f"{name}: {row['last']}", file=sys.stderr)
        for part in ("--help", "inspect"):
            if row[part] != "works":
                wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
