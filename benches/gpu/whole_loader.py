"""Rows of the whole loader over photographs: what an epoch takes, and which stage takes it."""

from __future__ import annotations

from pathlib import Path

import bench
import machine
from captioners import Captioners

import tldr_loader as tldr

HALF = tldr.Selection(keep_ratio=0.25, gate=tldr.Top(0.5))
THIN = tldr.Selection(keep_ratio=0.25, gate=tldr.Top(0.5), thin=True)


class Epochs:
    """Epochs of one corpus by one captioner, and the ledger that the second one finds."""

    def __init__(self, run: bench.Bench, source: Path, captioners: Captioners) -> None:
        self.run, self.source, self.captioners = run, source, captioners
        self.batch = run.size(256, 8)
        self.side = run.size(224, 32)
        self.ledger: tldr.Ledger | None = None

    def full(self) -> bench.Fields:
        return self.epoch(None)

    def first(self) -> bench.Fields:
        self.ledger = tldr.Ledger(self.run.scratch / "ledger")
        found = self.epoch(HALF, ledger=self.ledger)
        return found | self.of_slower(found)

    def second(self) -> bench.Fields:
        """The same epoch, whose signals are known."""
        return self.epoch(HALF, ledger=self.ledger)

    def thin(self) -> bench.Fields:
        found = self.epoch(THIN)
        return found | self.of_slower(found)

    def captions(self) -> bench.Fields:
        """Signals and captions of three beams, neither of them known."""
        return self.epoch(HALF, fuse=tldr.Concat(16))

    def epoch(
        self,
        selection: tldr.Selection | None,
        fuse: str | tldr.Concat = "original",
        ledger: tldr.Ledger | None = None,
    ) -> bench.Fields:
        """One epoch, whose batches nothing is done with; cut where the time is nearly over."""
        with machine.Watch(self.run.device) as watch:
            loader = tldr.Loader(
                self.source,
                captioner=self.captioners.path if selection else None,
                selection=selection,
                mode="reduced" if selection else "full",
                captions=tldr.Captions(fuse=fuse),
                images=tldr.Images(image_size=self.side),
                tokenizer=self.captioners.path / "tokenizer.json",
                batch_size=self.batch,
                device=self.run.device,
                ledger=ledger,
            )
            constructed = watch.elapsed()
            first, yielded, cut = None, 0, False
            for batch in loader:
                first = first or watch.elapsed() - constructed
                yielded += len(batch)
                if self.run.left() < 2:
                    cut = True
                    break
            machine.wait(self.run.device)
            seconds = watch.elapsed() - constructed
        stats = loader.stats()
        counts = stats["counts"]
        stages = {
            name.removeprefix("seconds/"): bench.digits(value)
            for name, value in tldr.scalars(stats).items()
            if name.startswith("seconds/")
        }
        found = watch.fields()
        if self.run.on_gpu and found["gpu_busy"] is None:
            # Without nvidia-smi: the share of the time in which the captioner's thread had work for it.
            found["gpu_busy"] = bench.ratio(stages["encode"] + stages["caption"], seconds)
            found["gpu_busy_from"] = "stages"
        return {
            "mode": "full" if selection is None else "reduced",
            "batch": self.batch,
            "read": counts["read"],
            "encoded": stats["encoded"],
            "captioned": stats["captioned"],
            "yielded": yielded,
            "cut": cut,
            "outcomes": outcomes(counts),
            "read_per_s": bench.ratio(counts["read"], seconds),
            "yielded_per_s": bench.ratio(yielded, seconds),
            "construct_s": round(constructed, 3),
            "first_batch_s": None if first is None else round(first, 3),
            "stages_s": stages,
            "decoding_threads": machine.threads(),
            **found,
        }

    def of_slower(self, found: bench.Fields) -> bench.Fields:
        """What the epoch reaches of the slower of GPU and decoders, each alone.

        The GPU's time is that of the row of encode; the decoders' the work of their threads, shared out.
        """
        stages = found["stages_s"]
        encode = self.run.found.get(f"encode, batch {self.captioners.batch}", {}).get("images_per_s")
        gpu = found["encoded"] / encode if encode else stages["encode"]
        decoders = (stages["preview"] + stages["example"]) / found["decoding_threads"]
        taken = found["seconds"] - found["construct_s"]
        return {
            "gpu_alone_s": bench.digits(gpu),
            "decoders_alone_s": bench.digits(decoders),
            "slower": "gpu" if gpu > decoders else "decoders",
            "of_slower": None if found["cut"] else bench.ratio(max(gpu, decoders), taken),
        }


def outcomes(counts: tldr._stats.Counts) -> dict[str, int]:
    """The outcome of every sample read; they add up to `read`."""
    names = ("kept", "dropped_gate", "dropped_dedup", "dropped_quota", "dropped_thin", "excluded")
    found = {name: int(counts[name]) for name in names}  # type: ignore[literal-required]
    return {**found, "failed": sum(counts["failed"].values())}
