"""Plans a synthetic corpus of four near-duplicates of each scene, and counts what it keeps.

    make bench-copies

Synthesises 6,000 pairs (half of the captions wrong), trains a `small` captioner on them, fits it, and
plans a quarter of them behind several gates and with several cosines of near-duplicates. For each plan: the
share of the kept that are distinct scenes, and the share of the scenes with a clean pair that are covered.
`at most` is what perfect deduplication could reach behind that gate: a scene of which no pair passes cannot
be kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--gates", type=float, nargs="+", default=[0.5, 0.7, 0.8])
    parser.add_argument("--dedup", type=float, nargs="+", default=[0.98, 0.96, 0.95, 0.94, 0.93])
    parser.add_argument("--binary", type=Path, default=ROOT / "target/debug/tldr-loader")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    def tldr(*words: Any) -> None:
        command = [str(options.binary), *map(str, words)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    train, captioner = folder / "corpus/train", folder / "captioner"
    sizes = ["--samples", options.samples, "--shards", 6, "--duplicates", 4, "--test-samples", 0]
    tldr("synth", "--out", folder / "corpus", *sizes)
    # On all pairs: what is right is known here.
    sizes = ["--preset", "small", "--epochs", options.epochs, "--validate", 0]
    tldr("train", train, "--out", captioner, *sizes)
    tldr("fit", train, "--captioner", captioner)
    truth = truth_of(train)
    clean = {one["scene"] for one in truth.values() if one["noise"] == "none"}
    scenes = len({one["scene"] for one in truth.values()})
    print(f"{options.samples} samples of {scenes} scenes, {platform.machine()}, {options.epochs} epochs")
    print(f"{'gate':>5} {'near-duplicates':>24} {'kept':>6} {'distinct':>9} {'covered':>8}")
    for gate in options.gates:
        ledger = folder / f"ledger-{gate}"
        for by in [[], ["--embeddings"]]:
            for dedup in [None, *options.dedup]:
                copies = [] if dedup is None else ["--dedup", dedup, "--fill-with-copies", *by]
                plan, table = folder / "plan.parquet", folder / "kept.parquet"
                policy = ["--keep-ratio", 0.25, "--gate", f"top({gate})", *copies]
                tldr("plan", train, "--captioner", captioner, "--ledger", ledger, "--out", plan, *policy)
                tldr("export", plan, "--ledger", ledger, "--out", table)
                kept = [truth[Path(key).name]["scene"] for key in pq.read_table(table)["key"].to_pylist()]
                found = set(kept)
                how = "kept" if dedup is None else f"{dedup}{' by embeddings' if by else ' by hashes'}"
                shares = f"{len(found) / len(kept):>9.1%} {len(found & clean) / len(clean):>8.1%}"
                print(f"{gate:>5} {how:>24} {len(kept):>6} {shares}", flush=True)
        candidates = {truth[Path(key).name]["scene"] for key in passing(ledger, gate)}
        most = f"{min(1.0, len(candidates) / scenes):>9.1%} {len(candidates & clean) / len(clean):>8.1%}"
        print(f"{gate:>5} {'at most':>24} {'':>6} {most}", flush=True)


def passing(ledger: Path, gate: float) -> list[str]:
    """Keys of the samples that pass the gate: alignments are quantiles."""
    keys = []
    for file in (ledger / "signals").rglob("*.parquet"):
        table = pq.read_table(file, columns=["key", "alignment"]).to_pydict()
        rows = zip(table["key"], table["alignment"], strict=True)
        keys += [key for key, alignment in rows if alignment is not None and alignment >= 1 - gate]
    return keys


def truth_of(train: Path) -> dict[str, dict[str, Any]]:
    """What the synthetic corpus says of each sample, by key."""
    truth = {}
    for shard in sorted(train.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.name.endswith(".json") else None
                if file is not None:
                    truth[Path(member.name).stem] = json.load(file)
    return truth


if __name__ == "__main__":
    main()
