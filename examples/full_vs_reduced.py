"""Trains one small CLIP on full and on streamed-reduced data and compares them.

A cell is a synthetic corpus (share of misaligned pairs, copies of each scene, seed). In every cell
all arms train the same model on the same stream, once for equal epochs and once for equal steps,
and are tested on clean, unseen pairs. Seconds are wall-clock; the captioner's stand in a column of
their own. Finished runs are kept in OUT/results.csv and not run again.

Needs the captioner (pip install "tldr-loader[captioner]"), whose tokenizer all arms use.

No option was chosen by looking at test numbers: the model, the schedule and the sizes were set on
the clean control (noise 0, copies 1).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Cells run side by side, one thread each: that beats one cell with two threads.
THREADS = int(os.environ.get("TLDR_THREADS", "0")) or os.cpu_count() or 1
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
# torch's threads shall sleep between two operations, not spin on cores that the loader's threads could use.
# OpenMP reads this once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch  # noqa: E402
from clip_scorer import ClipScorer  # noqa: E402
from small_clip import CONTEXT_LENGTH, IMAGE_SIZE, SmallClip, optimizer_for, retrieval  # noqa: E402

import tldr_loader as tldr  # noqa: E402

KEEP_RATIO = 0.25
BATCH_SIZE = 128
LEARNING_RATE = 2e-3
BUDGETS = ("equal epochs", "equal steps")


@dataclass(frozen=True)
class Arm:
    """What the loader of an arm is told; without a selection it yields everything."""

    selection: tldr.Selection | None
    fuse: str | tldr.Concat | tldr.Best = "original"
    captioner: bool = True
    # Whether a CLIP that was trained on a part of the corpus decides, in the captioner's place.
    clip: bool = False


HALF = tldr.Selection(keep_ratio=KEEP_RATIO, gate=tldr.Top(0.5))
ARMS = {
    "full": Arm(None, captioner=False),
    "random": Arm(tldr.Selection.random(KEEP_RATIO), captioner=False),
    "gate+cluster": Arm(HALF),
    "gate+cluster by clip": Arm(HALF, clip=True),
    "gate+cluster rotating": Arm(replace(HALF, rotate=True)),
    "gate+cluster concat": Arm(HALF, fuse=tldr.Concat(12)),
    "random best": Arm(tldr.Selection.random(KEEP_RATIO), fuse=tldr.Best()),
    "longest captions": Arm(replace(tldr.Selection.random(KEEP_RATIO), priority="longest"), captioner=False),
}
DEMO_ARMS = ["full", "random", "gate+cluster"]

KEYS = ("noise", "copies", "seed", "arm", "budget")
SCORES = ("i2t_r1", "i2t_r5", "t2i_r1", "t2i_r5")
FIELDS = (
    *KEYS,
    *SCORES,
    "steps",
    "pairs_seen",
    "scenes_seen",
    "clean_share",
    "train_s",
    "wait_s",
    "captioner_s",
    "alignment_auc",
)
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for corpora, captioners, results")
    parser.add_argument("--samples", type=int, default=12000)
    parser.add_argument("--test-samples", type=int, default=1000)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.5])
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--epochs", type=int, default=4, help="epochs of the full arm")
    parser.add_argument("--captioner-epochs", type=int, default=4)
    parser.add_argument("--preset", default="small", help="size of the captioner")
    parser.add_argument("--jobs", type=int, default=1, help="cells that run side by side")
    parser.add_argument("--report", action="store_true", help="only report what is finished")
    parser.add_argument("--demo", action="store_true", help="three arms on one small corpus")
    parser.add_argument("--smoke", action="store_true", help="every arm for a few steps: does it run?")
    options = parser.parse_args()
    if options.demo:
        vars(options).update(samples=5000, noise=[0.5], copies=[4], seeds=[0], arms=DEMO_ARMS)
        options.captioner_epochs = 6
    if options.smoke:
        vars(options).update(samples=640, test_samples=100, noise=[0.5], copies=[4], seeds=[0], epochs=1)
        vars(options).update(preset="tiny", captioner_epochs=1)
        scratch = tempfile.TemporaryDirectory()
        options.out = Path(scratch.name)
    if options.out is None:
        parser.error("the following arguments are required: --out")
    options.out.mkdir(parents=True, exist_ok=True)
    # Seeds outermost: an interrupted study has whole grids of the first seeds.
    cells = [(n, c, s) for s in options.seeds for n in options.noise for c in options.copies]
    if not options.report:
        if options.jobs > 1:
            side_by_side(cells, options.jobs)
        else:
            for cell in cells:
                run_cell(*cell, options)
    report(options)


def side_by_side(cells: list[tuple[float, int, int]], jobs: int) -> None:
    """Runs each cell in a process of its own, `jobs` at a time."""
    base = [sys.executable, *sys.argv, "--jobs", "1"]
    environment = {**os.environ, "TLDR_THREADS": "1", "OMP_NUM_THREADS": "1"}
    waiting = list(cells)
    running: list[subprocess.Popen[bytes]] = []
    while waiting or running:
        while waiting and len(running) < jobs:
            noise, copies, seed = waiting.pop(0)
            one = ["--noise", str(noise), "--copies", str(copies), "--seeds", str(seed)]
            running.append(subprocess.Popen([*base, *one], env=environment, stdout=subprocess.DEVNULL))
        time.sleep(1)
        for process in [p for p in running if p.poll() is not None]:
            running.remove(process)
            if process.returncode != 0:
                for other in running:
                    other.terminate()
                raise SystemExit(f"a cell failed: {process.args!r}")


# One cell ------------------------------------------------------------------------------------


class Cell:
    """A corpus with its captioner, made once and found again later."""

    def __init__(self, noise: float, copies: int, seed: int, options: argparse.Namespace) -> None:
        name = f"noise{noise:g}-copies{copies}-seed{seed}-{options.samples}"
        self.folder = options.out / name
        self.train, self.test = self.folder / "train", self.folder / "test"
        self.captioner = self.folder / "captioner"
        self.ledger = tldr.Ledger()
        self.captions_s: dict[str, float] = {}
        self.clip: tuple[tldr.FittedScorer, float] | None = None
        self.options, self.seed = options, seed
        if not (self.test / "sizes.json").exists():
            tldr.synth(
                self.folder,
                samples=options.samples,
                test_samples=options.test_samples,
                shards=8,
                misaligned=noise,
                duplicates=copies,
                seed=seed,
            )
        costs = self.folder / "costs.json"
        if not costs.exists():
            say(f"{name}: training the captioner")
            fitted = timed(self.fit_captioner)
            signals = timed(self.record_signals)
            costs.write_text(json.dumps({"fit_s": fitted[1], "signals_s": signals[1], "auc": signals[0]}))
        else:
            self.record_signals()
        self.costs = json.loads(costs.read_text())
        say(f"{name}: alignment separates clean from other pairs with AUC {self.costs['auc']}")

    def fit_captioner(self) -> None:
        captioner = tldr.Captioner.train(
            self.train,
            self.captioner,
            preset=self.options.preset,
            epochs=self.options.captioner_epochs,
            seed=self.seed,
            threads=THREADS,
            # On all pairs: which of them are right is known here, and tells more than held-out ones would.
            validate=0,
            progress=progress("captioner"),
        )
        captioner.fit(self.train, seed=self.seed)

    def record_signals(self) -> float | None:
        """Encodes every sample once, into the ledger; returns the AUC of the alignment."""
        everything = tldr.Selection(keep_ratio=1.0, gate=tldr.Top(1.0))
        loader = self.loader(Arm(everything), tiny=True)
        clean: list[float] = []
        other: list[float] = []
        for batch in loader:
            for alignment, truth in zip(batch.alignment, truths(batch), strict=True):
                (clean if truth["noise"] == "none" else other).append(alignment or 0.0)
        return round(area_under_curve(clean, other), 4) if clean and other else None

    def clip_scorer(self) -> tldr.FittedScorer:
        """A CLIP as large as the trained ones, of a quarter of the shards; made once, its seconds noted."""
        if self.clip is None:
            self.clip = timed(self.fit_clip)
        return self.clip[0]

    def fit_clip(self) -> tldr.FittedScorer:
        torch.manual_seed(self.seed + 1)
        part = self.loader(Arm(None, captioner=False), source=f"{self.train}/{{00000..00001}}.tar")
        model = SmallClip(part.vocab_size or 0)
        steps = part.num_batches * self.options.captioner_epochs
        optimizer, schedule = optimizer_for(model, steps, LEARNING_RATE)
        for _ in range(self.options.captioner_epochs):
            for images, tokens in part:
                optimizer.zero_grad()
                model.loss(images, tokens).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        scorer = ClipScorer(
            model.eval(), self.captioner / "tokenizer.json", f"{self.folder.name}, {steps} steps"
        )
        return tldr.fit(self.train, scorer, self.folder / "clip", seed=self.seed)

    def loader(self, arm: Arm, tiny: bool = False, source: str | None = None) -> tldr.Loader:
        if arm.clip:
            captioner: tldr.FittedScorer | Path | None = self.clip_scorer()
        else:
            captioner = self.captioner if arm.captioner else None
        return tldr.Loader(
            source or self.train,
            captioner=captioner,
            selection=arm.selection,
            mode="reduced" if arm.selection else "full",
            captions=tldr.Captions(fuse=arm.fuse, context_length=CONTEXT_LENGTH),
            images=tldr.Images(image_size=8 if tiny else IMAGE_SIZE),
            tokenizer=self.captioner / "tokenizer.json",
            batch_size=BATCH_SIZE,
            ledger=self.ledger,
            seed=self.seed,
            runtime=tldr.Runtime(threads=THREADS),
        )

    def test_loader(self) -> tldr.Loader:
        return tldr.Loader(
            self.test,
            mode="eval",
            batch_size=250,
            images=tldr.Images(image_size=IMAGE_SIZE),
            tokenizer=self.captioner / "tokenizer.json",
            captions=tldr.Captions(context_length=CONTEXT_LENGTH),
            runtime=tldr.Runtime(threads=THREADS),
        )


def run_cell(noise: float, copies: int, seed: int, options: argparse.Namespace) -> None:
    results = options.out / "results.csv"
    todo = []
    for arm in options.arms:
        # Full data is the reference of both budgets.
        for budget in BUDGETS[:1] if arm == "full" else BUDGETS:
            if (str(noise), str(copies), str(seed), arm, budget) not in finished(results):
                todo.append((arm, budget))
    if not todo:
        return
    cell = Cell(noise, copies, seed, options)
    steps_of_full = cell.loader(ARMS["full"]).num_batches * options.epochs
    for arm, budget in todo:
        row = run_arm(cell, arm, steps_of_full if budget == "equal steps" else None)
        row |= {"noise": noise, "copies": copies, "seed": seed, "arm": arm, "budget": budget}
        append(results, row)
        scores = f"R@1 {row['i2t_r1']:.1f} / {row['t2i_r1']:.1f}"
        say(f"  {arm}, {budget}: {row['steps']} steps, {row['train_s']:.0f} s, {scores}")


def run_arm(cell: Cell, arm: str, steps: int | None) -> Row:
    """Trains one model: for as many epochs as the full arm, or for `steps` steps."""
    torch.manual_seed(cell.seed)
    loader = cell.loader(ARMS[arm])
    steps = steps or loader.num_batches * cell.options.epochs
    model = SmallClip(loader.vocab_size or 0)
    optimizer, schedule = optimizer_for(model, steps, LEARNING_RATE)
    scenes: set[int] = set()
    clean, pairs, done, captioner_s, wait_s = 0, 0, 0, 0.0, 0.0
    if ARMS[arm].fuse != "original" and arm not in cell.captions_s:
        # Captions are written before the clock of the training starts: they have a column of their own.
        cell.captions_s[arm] = timed(lambda: [len(batch) for batch in cell.loader(ARMS[arm], tiny=True)])[1]
    captioner_s += cell.captions_s.get(arm, 0.0)
    start = time.perf_counter()
    while done < steps:
        for batch in loader:
            images, tokens = batch
            loss = model.loss(images, tokens)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            for truth in truths(batch):
                scenes.add(truth["scene"])
                clean += truth["noise"] == "none"
            pairs += len(batch)
            done += 1
            if done == steps:
                break
        wait_s += loader.stats()["seconds"]["wait_loader"]
    train_s = time.perf_counter() - start
    if cell.clip and ARMS[arm].clip:
        captioner_s += cell.clip[1]
    elif ARMS[arm].captioner:
        captioner_s += cell.costs["fit_s"] + cell.costs["signals_s"]
    scores = retrieval(model, ((images, tokens) for images, tokens in cell.test_loader()))
    return {
        **{name: round(scores[name], 2) for name in SCORES},
        "steps": steps,
        "pairs_seen": pairs,
        "scenes_seen": len(scenes),
        "clean_share": round(clean / pairs, 4),
        "train_s": round(train_s, 1),
        "wait_s": round(wait_s, 1),
        "captioner_s": round(captioner_s, 1),
        "alignment_auc": cell.costs["auc"],
    }


def truths(batch: tldr.Batch) -> list[dict[str, Any]]:
    """What the synthetic corpus says of each row."""
    return [json.loads(text or b"{}") for text in batch.json]


def area_under_curve(positive: list[float], negative: list[float]) -> float:
    """Probability that a positive scores above a negative; ties count half."""
    a, b = torch.tensor(positive).sort().values, torch.tensor(negative)
    below = torch.searchsorted(a, b, right=False).double()
    upto = torch.searchsorted(a, b, right=True).double()
    return float(1 - ((below + upto) / 2 / len(a)).mean())


# Results -------------------------------------------------------------------------------------


def finished(results: Path) -> dict[tuple[str, ...], dict[str, str]]:
    if not results.exists():
        return {}
    with results.open(newline="") as file:
        return {tuple(row[k] for k in KEYS): row for row in csv.DictReader(file)}


def append(results: Path, row: Row) -> None:
    """Adds a row in one write, so that cells side by side do not mix."""
    new = not results.exists()
    with results.open("a", newline="") as file:
        text = ",".join(str(row[name]) for name in FIELDS) + "\n"
        file.write((",".join(FIELDS) + "\n" if new else "") + text)


# Heading and format of the columns after R@1.
COLUMNS = {
    "i2t_r5": ("i2t R@5", "9.1f"),
    "t2i_r5": ("t2i R@5", "9.1f"),
    "steps": ("steps", "7.0f"),
    "clean_share": ("clean", "7.2f"),
    "scenes_seen": ("scenes", "8.0f"),
    "train_s": ("train s", "9.0f"),
    "captioner_s": ("captioner s", "13.0f"),
}
HEADER = f"{'arm':24}{'budget':14}{'i2t R@1':>13}{'t2i R@1':>13}" + "".join(
    f"{name:>{width.split('.')[0]}}" for name, width in COLUMNS.values()
)


def report(options: argparse.Namespace) -> None:
    """Prints a table per corpus, and writes summary.csv and comparison.png."""
    rows = list(finished(options.out / "results.csv").values())
    for row in [r for r in rows if r["arm"] == "full"]:
        rows.append({**row, "budget": "equal steps"})
    groups: dict[tuple[float, int], dict[tuple[str, str], list[dict[str, str]]]] = {}
    for row in rows:
        cell = groups.setdefault((float(row["noise"]), int(row["copies"])), {})
        cell.setdefault((row["arm"], row["budget"]), []).append(row)
    lines = []
    for (noise, copies), cell in sorted(groups.items()):
        times = "copy" if copies == 1 else "copies"
        say(f"\nnoise {noise:g}, {copies} {times} of each scene: mean ± sd over seeds")
        say(HEADER)
        for arm in ARMS:
            for budget in BUDGETS:
                runs = cell.get((arm, budget))
                if runs is None or (arm == "full" and budget == BUDGETS[1]):
                    continue
                mean = {n: statistics.fmean(float(r[n]) for r in runs) for n in FIELDS[5:-1]}
                sd = {n: deviation([float(r[n]) for r in runs]) for n in SCORES}
                label = "reference" if arm == "full" else budget
                both = "".join(f"{show(mean[n], sd[n]):>13}" for n in ("i2t_r1", "t2i_r1"))
                rest = "".join(f"{mean[n]:{width}}" for n, (_, width) in COLUMNS.items())
                say(f"{arm:24}{label:14}{both}{rest}")
                line = {"noise": noise, "copies": copies, "arm": arm, "budget": label, "seeds": len(runs)}
                lines.append(line | mean | {f"{n}_sd": sd[n] for n in SCORES})
    if lines:
        with (options.out / "summary.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, lines[0].keys())
            writer.writeheader()
            writer.writerows(
                {k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()} for line in lines
            )
        plot(groups, options.out / "comparison.png")
        say(f"\nwritten: {options.out}/results.csv, summary.csv, comparison.png")


def deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def show(mean: float, sd: float) -> str:
    return f"{mean:.1f} ± {sd:.1f}" if sd else f"{mean:.1f}"


def plot(groups: dict[tuple[float, int], dict[tuple[str, str], list[dict[str, str]]]], path: Path) -> None:
    """R@1, mean of both directions, of every arm; one panel per corpus."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import patches
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1,
        len(groups),
        figsize=(max(1.2 + 4.2 * len(groups), 8.0), 4.6),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    arms = [a for a in ARMS if any((a, b) in cell for cell in groups.values() for b in BUDGETS)]
    for axis, ((noise, copies), cell) in zip(axes[0], sorted(groups.items()), strict=True):
        for b, (budget, colour) in enumerate(zip(BUDGETS, ("#9aa5b1", "#2b6cb0"), strict=True)):
            for a, arm in enumerate(arms):
                runs = cell.get((arm, budget))
                if not runs or (arm == "full" and b == 1):
                    continue
                values = [(float(r["i2t_r1"]) + float(r["t2i_r1"])) / 2 for r in runs]
                place = a if arm == "full" else a + (b - 0.5) * 0.38
                colour_of_bar = "#2d3748" if arm == "full" else colour
                axis.barh(
                    place, statistics.fmean(values), 0.36, xerr=deviation(values) or None, color=colour_of_bar
                )
        axis.set_yticks(range(len(arms)), arms)
        axis.set_title(f"noise {noise:g}, copies {copies}", fontsize=10)
        axis.set_xlabel("R@1 on clean pairs, mean of both directions, %")
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].invert_yaxis()  # shared by all panels
    handles = [patches.Rectangle((0, 0), 1, 1, color=colour) for colour in ("#2d3748", "#9aa5b1", "#2b6cb0")]
    labels = ["full data", f"{KEEP_RATIO:.0%} kept, equal epochs", f"{KEEP_RATIO:.0%} kept, equal steps"]
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=130)


# Small things --------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, round(time.perf_counter() - start, 1)


def progress(name: str) -> Callable[[dict[str, float]], None]:
    """Prints a line every tenth of the run."""

    def tell(report: dict[str, float]) -> None:
        step, steps = int(report["step"]), int(report["steps"])
        if step % max(steps // 10, 1) == 0 or step == steps:
            say(
                f"  {name}: step {step} of {steps}, loss {report['loss']:.2f}, "
                f"perplexity {report['perplexity']:.0f}, {report['images_per_s']:.0f} images/s"
            )

    return tell


if __name__ == "__main__":
    main()
