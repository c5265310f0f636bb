"""Measures what a GPU makes of the captioner and of the whole loader: 5 minutes at most.

    python benches/gpu/speed.py --data SHARDS --out speed.jsonl

The captioner beside a large matrix product and beside transformers' BLIP of the same size; its training;
epochs of the whole loader over 16,000 photographs, made of those in the shards of `--data` (drawn ones
without); signals by CPU and GPU; what arrives on the GPU. One JSON line a row, written when it is finished;
what does not fit the machine or the time left is skipped by name. It needs torch and the built packages, no
network. `docs/benchmarks.md`, "On a GPU", has the goals.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import agreement
import bench
import blip
import captioners
import machine
import photographs
import whole_loader

GOALS = {
    "encode": "0.6 of the matrix product",
    "nearest codes": "below 0.05 of encode",
    "transformers, captions": "ours 5 times as many",
    "loader, first epoch": "0.9 of the slower of GPU and decoders",
    "batches on their own stream": "all the same",
    "memory on other GPUs": "0",
}


def main() -> int:
    parser = bench.arguments(__doc__, seconds=300)
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders of image-text shards")
    parser.add_argument("--captioner-device", type=Path, help="the built Rust bench of that name")
    options = parser.parse_args()
    run = bench.begin(options)
    return run.run(rows(run, options.data, options.captioner_device))


def rows(run: bench.Bench, data: list[Path], binary: Path | None) -> list[bench.Row]:
    """All rows, in order; what they need at full size is a guess until they have run on a GPU."""
    corpus, few, small = (run.scratch / name for name in ("photographs", "few", "small"))
    models = captioners.Captioners(run, corpus, binary)
    theirs = blip.Blip(run, models)
    epochs = whole_loader.Epochs(run, corpus, models)

    def make() -> bench.Fields:
        originals = photographs.carried(data)
        found = {"carried": bool(originals)}
        if not originals:
            originals = photographs.drawn(run.size(60, 6), *((64, 48) if run.tiny else (640, 480)))
        found |= photographs.make(corpus, originals, run.size(16_000, 160), run.size(500, 40))
        photographs.make(few, originals, run.size(256, 64), 256)
        photographs.make(small, originals, run.size(2048, 64), run.size(512, 16), side=96)
        return found

    batches = (256, 1024) if not run.tiny else (8, 16)
    least = batches[0]
    photos, train, fit = "photographs", "training", "fit"
    tokenizer = models.path / "tokenizer.json"
    found = [
        bench.Row("machine", partial(machine.describe, run)),
        bench.Row("matrix product", partial(captioners.matrix_product, run), 5),
        bench.Row(photos, make, 25),
        bench.Row(train, models.train, 25, (photos,)),
        bench.Row(fit, models.fit, 12, (train,)),
        *(bench.Row(f"encode, batch {n}", partial(models.encode, n), 12, (fit,)) for n in batches),
        *(
            bench.Row(f"nearest codes, batch {n}", partial(models.codes, n), 4, (f"encode, batch {n}",))
            for n in batches
        ),
        bench.Row(f"captions, batch {least}", partial(models.captions, least), 8, (fit,)),
        bench.Row("loader, full", epochs.full, 12, (fit,)),
        bench.Row("loader, first epoch", epochs.first, 20, (fit,)),
        bench.Row("loader, second epoch", epochs.second, 10, ("loader, first epoch",)),
        bench.Row("loader, thin", epochs.thin, 15, (fit,)),
        bench.Row("loader, with captions", epochs.captions, 30, (fit,)),
        bench.Row(
            "batches on their own stream", partial(agreement.copies, run, small, tokenizer), 20, (fit,), True
        ),
        bench.Row("memory on other GPUs", partial(agreement.other_gpus, run, small), 20, (photos,), True),
        bench.Row("signals, CPU and device", partial(agreement.compared, run, few, models), 30, (fit,)),
        *(
            bench.Row(f"transformers, encode, batch {n}", partial(theirs.encode, n), 12, (fit,))
            for n in batches
        ),
        bench.Row(f"transformers, captions, batch {least}", partial(theirs.captions, least), 15, (fit,)),
        bench.Row("encode, profiled", partial(models.profile, least), 10, (fit,)),
    ]
    return [with_goal(row) for row in found]


def with_goal(row: bench.Row) -> bench.Row:
    """The row, with the goal that stands beside it in what it says."""
    goal = next((goal for name, goal in GOALS.items() if row.name.partition(", batch")[0] == name), None)
    if goal is None:
        return row
    return bench.Row(row.name, lambda: {**row.work(), "goal": goal}, row.needs, row.after, row.gpu)


if __name__ == "__main__":
    sys.exit(main())
