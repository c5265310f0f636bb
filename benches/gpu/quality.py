"""Measures what training by a reduced stream is worth on a GPU: 6 minutes at most.

    python benches/gpu/quality.py --out quality.jsonl

Draws 30,000 pairs, half of them with another's caption; trains a captioner on them; then one small CLIP for
each arm: everything, and a quarter by a rotating gate at as many steps and at 35% of them. Every arm says R@1
on 2,000 clean pairs at a dozen places of its training, with the seconds until there, tests not counted; the
captioner's seconds stand apart. Further arms follow where time is left. One JSON line a row, written when it
is finished; what does not fit the time left is skipped by name.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from typing import Literal

import bench
import drawn
import machine
import torch
from full_vs_reduced import HALF, area_under_curve, truths
from small_clip import CONTEXT_LENGTH, IMAGE_SIZE, SmallClip, optimizer_for, retrieval

import tldr_loader as tldr

EVERYTHING = tldr.Selection(keep_ratio=1.0, gate=tldr.Top(1.0))
LEARNING_RATE = 1e-3
PLACES = 12
"""Tests of an arm, at equal distances of its training."""
FULL = "full"
Pairs = list[tuple[torch.Tensor, torch.Tensor]]

ROTATING = replace(HALF, rotate=True)
RANDOM = replace(tldr.Selection.random(0.25), rotate=True)
# Selection, and its share of the steps that the full arm makes; the first three are what the run is for.
ARMS: dict[str, tuple[tldr.Selection | None, float]] = {
    FULL: (None, 1.0),
    "rotating gate, equal steps": (ROTATING, 1.0),
    "rotating gate, 35% of the steps": (ROTATING, 0.35),
    "full, 35% of the steps": (None, 0.35),
    "rotating random, equal steps": (RANDOM, 1.0),
    "gate kept whole, equal steps": (tldr.Selection(keep_ratio=0.5, gate=tldr.Top(0.5)), 1.0),
    "gate that does not rotate, equal steps": (HALF, 1.0),
}


class Study:
    """One corpus, its captioner and the arms that are trained on it."""

    def __init__(self, run: bench.Bench) -> None:
        self.run = run
        self.corpus = drawn.Corpus(
            run.size(30_000, 800), run.size(2000, 100), shards=run.size(32, 4), seed=20087
        )
        self.train, self.test = run.scratch / "train", run.scratch / "test"
        self.captioner = run.scratch / "captioner"
        self.preset: Literal["tiny", "small"] = "tiny" if run.tiny else "small"
        self.batch = run.size(512, 32)
        self.epochs = run.size(8, 1)
        self.ledger = tldr.Ledger()
        self.held_out: Pairs = []

    def draw(self) -> bench.Fields:
        with machine.Watch(self.run.device) as watch:
            found = drawn.write(self.run.scratch, self.corpus, self.run.device)
        return {**found, **watch.fields()}

    def teach(self) -> bench.Fields:
        """Trains the captioner on all pairs, the wrong ones among them."""
        reports: list[dict[str, float]] = []
        batch = self.run.size(128, 32)
        with machine.Watch(self.run.device) as watch:
            captioner = tldr.Captioner.train(
                self.train,
                self.captioner,
                preset=self.preset,
                epochs=self.run.size(6, 1),
                batch_size=batch,
                # Which pairs are right is known here, and tells more than held-out ones would.
                validate=0,
                checkpoint_every=0,
                resume="never",
                seed=1,
                device=self.run.device,
                progress=lambda report: reports.append(dict(report)),
            )
        last = reports[-1]
        found = {"preset": self.preset, "weights": captioner.weights, "steps": int(last["steps"])}
        pairs = bench.ratio(last["steps"] * batch, watch.seconds)
        return {**found, "loss": bench.digits(last["loss"]), "pairs_per_s": pairs, **watch.fields()}

    def fit(self) -> bench.Fields:
        captioner = tldr.Captioner.load(self.captioner, device=self.run.device)
        with machine.Watch(self.run.device) as watch:
            fitted = captioner.fit(self.train, seed=1)
        return {"points": fitted["points"], "clusters": fitted["clusters"], **watch.fields()}

    def record(self) -> bench.Fields:
        """Signals of every pair, once, into the ledger that all arms share; what the alignment knows."""
        clean: list[float] = []
        other: list[float] = []
        with machine.Watch(self.run.device) as watch:
            loader = self.loader(EVERYTHING, image_size=8)
            for batch in loader:
                for alignment, truth in zip(batch.alignment, truths(batch), strict=True):
                    (clean if truth["noise"] == "none" else other).append(alignment or 0.0)
        auc = area_under_curve(clean, other) if clean and other else None
        return {
            "encoded": loader.stats()["encoded"],
            "alignment_auc": None if auc is None else round(auc, 4),
            **watch.fields(),
        }

    def loader(self, selection: tldr.Selection | None, image_size: int = IMAGE_SIZE) -> tldr.Loader:
        return tldr.Loader(
            self.train,
            captioner=self.captioner if asks_captioner(selection) else None,
            selection=selection,
            mode="reduced" if selection else "full",
            captions=tldr.Captions(context_length=CONTEXT_LENGTH),
            images=tldr.Images(image_size=image_size),
            tokenizer=self.captioner / "tokenizer.json",
            batch_size=self.batch,
            device=self.run.device,
            ledger=self.ledger,
            seed=5,
        )

    def pairs(self) -> Pairs:
        """The clean pairs that every arm is tested on, once on the device."""
        if not self.held_out:
            loader = tldr.Loader(
                self.test,
                mode="eval",
                batch_size=250,
                images=tldr.Images(image_size=IMAGE_SIZE),
                tokenizer=self.captioner / "tokenizer.json",
                captions=tldr.Captions(context_length=CONTEXT_LENGTH),
                device=self.run.device,
            )
            self.held_out = [(images, tokens) for images, tokens in loader]
        return self.held_out

    def steps(self, share: float) -> int:
        full = self.loader(None).num_batches * self.epochs
        return max(1, int(full * share))

    def arm(self, name: str) -> bench.Fields:
        """Trains one CLIP; cut where the time is nearly over, and tested then."""
        selection, share = ARMS[name]
        steps, pairs = self.steps(share), self.pairs()
        torch.manual_seed(3)
        loader = self.loader(selection)
        model = SmallClip(loader.vocab_size or 0).to(self.run.device)
        optimizer, schedule = optimizer_for(model, steps, LEARNING_RATE)
        curve: list[bench.Fields] = []
        done = clean = seen = epochs = 0
        waited = testing = 0.0
        cut = False
        with machine.Watch(self.run.device) as watch:
            while done < steps and not cut:
                for batch in loader:
                    images, tokens = batch
                    loss = model.loss(images, tokens)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
                    done += 1
                    clean += sum(truth["noise"] == "none" for truth in truths(batch))
                    seen += len(batch)
                    cut = self.run.left() < 3
                    if done * PLACES // steps > (done - 1) * PLACES // steps or cut:
                        machine.wait(self.run.device)
                        begun = time.perf_counter()
                        scores = retrieval(model, pairs)
                        both = (scores["i2t_r1"] + scores["t2i_r1"]) / 2
                        taken = begun - watch.started - testing
                        curve.append({"step": done, "seconds": round(taken, 3), "r1": round(both, 2)})
                        machine.wait(self.run.device)
                        testing += time.perf_counter() - begun
                    if done == steps or cut:
                        break
                epochs += 1
                waited += loader.stats()["seconds"]["wait_loader"]
        return {
            "steps": done,
            "of_steps": steps,
            "cut": cut,
            "epochs": epochs,
            "pairs_seen": seen,
            "clean_share": bench.ratio(clean, seen),
            "r1": curve[-1]["r1"],
            "curve": curve,
            "train_s": curve[-1]["seconds"],
            "seconds_to_r1_of_full": self.seconds_to_full(curve),
            "wait_loader_s": round(waited, 3),
            "captioner_s": self.captioner_seconds() if asks_captioner(selection) else 0.0,
            **watch.fields(),
        }

    def seconds_to_full(self, curve: list[bench.Fields]) -> float | None:
        """When the arm is first as good as the full arm is at its end; `None` where it never is."""
        full = self.run.found.get(FULL)
        best = full["r1"] if full else curve[-1]["r1"]
        return next((float(place["seconds"]) for place in curve if place["r1"] >= best), None)

    def captioner_seconds(self) -> float:
        """Training, fit and signals: paid once a corpus, however many arms follow."""
        rows = ("captioner", "fit", "signals")
        return round(sum(float(self.run.found[row]["seconds"]) for row in rows), 1)

    def needs(self, name: str) -> float:
        """Seconds that an arm will take, by what the full one took."""
        full = self.run.found.get(FULL)
        return 60.0 * ARMS[name][1] if full is None else 1.2 * float(full["seconds"]) * ARMS[name][1] + 3


def asks_captioner(selection: tldr.Selection | None) -> bool:
    return selection is not None and selection.quota != "random"


def main() -> int:
    options = bench.arguments(__doc__, seconds=360).parse_args()
    run = bench.begin(options)
    study = Study(run)
    before = ("signals",)
    return run.run(
        [
            bench.Row("machine", partial(machine.describe, run)),
            bench.Row("pairs", study.draw, 30),
            bench.Row("captioner", study.teach, 60, ("pairs",)),
            bench.Row("fit", study.fit, 20, ("captioner",)),
            bench.Row("signals", study.record, 15, ("fit",)),
            *(
                bench.Row(
                    name,
                    partial(study.arm, name),
                    partial(study.needs, name),
                    before if name == FULL else (*before, FULL),
                )
                for name in ARMS
            ),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
