"""Rows of models alone: the matrix product, which is the ceiling, and our captioner.

Our captioner is measured by the Rust bench `captioner_device`, where its binary is given, else as a loader
calls it: through Python, uploads of previews, clusters and semantic hashes included. Rows say which.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import bench
import machine
import numpy as np
import torch

import tldr_loader as tldr

BLIP_VOCAB = 30_524
"""Rows of BLIP's word embeddings, and of captioner_device's."""
PROFILED = 4
"""Calls that are profiled."""
TOKENS = 20
"""Of a written caption: all run to the end, so that the work is the same."""


def matrix_product(run: bench.Bench) -> bench.Fields:
    """The ceiling: a product of two square matrices, in the number type that the captioner has there."""
    side, seconds = run.size(8192, 256), 0.1 if run.tiny else 3.0
    kind = torch.bfloat16 if run.on_gpu else torch.float32
    # Random: on zeros the same product is faster than it ever is on data.
    a, b = (torch.randn(side, side, device=run.device, dtype=kind) for _ in range(2))
    speed = machine.per_second(lambda: [a @ b for _ in range(10)], seconds, run.device)
    tflops = speed * 10 * 2 * side**3 * 1e-12
    return {"side": side, "precision": str(kind).removeprefix("torch."), "tflops": bench.digits(tflops)}


class Captioners:
    """One captioner, trained here for a few steps: weights do not change its speed."""

    def __init__(self, run: bench.Bench, source: Path, binary: Path | None) -> None:
        self.run, self.source, self.binary = run, source, binary
        self.path = run.scratch / "captioner"
        self.preset: Literal["tiny", "base"] = "tiny" if run.tiny else "base"
        self.batch = run.size(256, 8)
        self.seconds = 0.1 if run.tiny else 3.0
        self.models: dict[int, Any] = {}
        self.said: dict[int, dict[str, bench.Fields]] = {}

    # Training ---------------------------------------------------------------------------------

    def train(self) -> bench.Fields:
        """Trains on a part of the photographs; pairs a second of the later half of the steps."""
        shards = sorted(self.source.glob("*.tar"))[: self.run.size(12, 2)]
        reports: list[tuple[float, dict[str, float]]] = []
        watch = machine.Watch(self.run.device)
        with watch:
            captioner = tldr.Captioner.train(
                [str(shard) for shard in shards],
                self.path,
                preset=self.preset,
                vocab_size=self.run.size(8000, 300),
                epochs=1,
                batch_size=self.batch,
                validate=0,
                checkpoint_every=0,
                resume="never",
                device=self.run.device,
                progress=lambda report: reports.append((watch.elapsed(), dict(report))),
            )
        half, last = reports[(len(reports) - 1) // 2], reports[-1]
        steps = last[1]["step"] - half[1]["step"]
        return {
            "preset": self.preset,
            "weights": captioner.weights,
            "batch": self.batch,
            "steps": int(last[1]["steps"]),
            "pairs_per_s": bench.ratio(steps * self.batch, last[0] - half[0]),
            "loss": bench.digits(last[1]["loss"]),
            **watch.fields(),
        }

    def fit(self) -> bench.Fields:
        """Clusters and quantiles, on a sample; what loaders need."""
        captioner = tldr.Captioner.load(self.path, device=self.run.device)
        with machine.Watch(self.run.device) as watch:
            fitted = captioner.fit(self.source, samples=self.run.size(4000, 64), seed=0)
        captioner.set_generation(decoding="beam", beams=3, min_tokens=self.tokens, max_tokens=self.tokens)
        return {"points": fitted["points"], "clusters": fitted["clusters"], **watch.fields()}

    @cached_property
    def config(self) -> bench.Fields:
        found: bench.Fields = json.loads((self.path / "config.json").read_text())
        return found

    @cached_property
    def sizes(self) -> bench.Fields:
        """The configuration of what is raced: the binary's model has BLIP's vocabulary."""
        if self.binary is None:
            return self.config
        return {**self.config, "decoder": {**self.config["decoder"], "vocab": BLIP_VOCAB}}

    @property
    def tokens(self) -> int:
        return min(TOKENS, int(self.config["decoder"]["positions"]) - 2)

    # Ours -------------------------------------------------------------------------------------

    def encode(self, batch: int) -> bench.Fields:
        """Images a second from previews and captions to signals."""
        share: bench.Fields = {}
        if self.binary is not None:
            line = self.measured(batch)["encode"]
            images, by = line["images_per_s"], "captioner_device"
            share = {"of_matrix_product": line["of_matrix_product"]}
        else:
            model = self.model(batch)
            previews, captions = self.previews(batch), self.captions_of(batch)
            calls = machine.per_second(
                lambda: model.signals(previews, captions), self.seconds, self.run.device
            )
            images, by = calls * batch, f"the package's model, {model.compute}"
        share = {**self.share(images), **share}
        return {"batch": batch, "images_per_s": bench.digits(images), **share, "measured_by": by}

    def share(self, images_per_s: float, theirs: bool = False) -> bench.Fields:
        """What encoding reaches of the matrix product, ours or BLIP's."""
        peak = self.run.found.get("matrix product", {}).get("tflops")
        reached = images_per_s * operations(self.sizes, theirs) * 1e-12
        return {"tflops": bench.digits(reached), "of_matrix_product": bench.ratio(reached, peak)}

    def codes(self, batch: int) -> bench.Fields:
        """The lookup of a batch's nearest codes, as a share of encoding it."""
        if self.binary is not None:
            line = self.measured(batch)["nearest codes"]
            return {"batch": batch, "codes": line["codes"], "of_encode": line["of_encode"]}
        encode = self.run.found[f"encode, batch {batch}"]["images_per_s"] / batch
        codes, dim = (int(self.config["codebook"][name]) for name in ("codes", "code_dim"))
        rows = torch.rand(batch * patches(self.config), dim, device=self.run.device)
        table = torch.rand(codes, dim, device=self.run.device)
        lookup = machine.per_second(lambda: (rows @ table.T).argmax(-1), self.seconds, self.run.device)
        return {"batch": batch, "codes": codes, "of_encode": bench.ratio(encode, lookup)}

    def captions(self, batch: int) -> bench.Fields:
        """Captions a second by three beams, image encoder included."""
        if self.binary is not None:
            written = self.measured(batch)["captions, 3 beams"]["captions_per_s"]
            by = "captioner_device"
        else:
            model = self.model(batch)
            previews, ids = self.previews(batch), list(range(batch))
            calls = machine.per_second(lambda: model.caption(previews, ids), self.seconds, self.run.device)
            written, by = calls * batch, f"the package's model, {model.compute}"
        return {
            "batch": batch,
            "beams": 3,
            "tokens": self.tokens,
            "captions_per_s": bench.digits(written),
            "measured_by": by,
        }

    def profile(self, batch: int) -> bench.Fields:
        """Where the time of encoding goes, by kernel on a GPU and by operation on a CPU."""
        model, previews, captions = self.model(batch), self.previews(batch), self.captions_of(batch)
        model.signals(previews, captions)
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self.run.on_gpu:
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        profiler = torch.profiler.profile(activities=kinds, acc_events=True)
        with profiler, machine.Watch(self.run.device) as watch:
            for _ in range(PROFILED):
                model.signals(previews, captions)
        self_time = "self_device_time_total" if self.run.on_gpu else "self_cpu_time_total"
        spent = {event.key: float(getattr(event, self_time)) * 1e-6 for event in profiler.key_averages()}
        longest = sorted(spent, key=lambda name: -spent[name])[:12]
        return {
            "batch": batch,
            "calls": PROFILED,
            # What is lacking to 1 was spent outside of torch, or waiting.
            "of_the_time": bench.ratio(sum(spent.values()), watch.seconds),
            "longest": [[name, bench.ratio(spent[name], watch.seconds)] for name in longest if spent[name]],
            **watch.fields(),
        }

    def model(self, batch: int) -> Any:
        """The captioner as a loader calls it, with batches of this size."""
        if batch not in self.models:
            path = self.run.scratch / f"captioner-{batch}"
            shutil.copytree(self.path, path)
            config = {**self.config, "batch_size": batch}
            config["generation"] = {**config["generation"], "batch_size": batch}
            (path / "config.json").write_text(json.dumps(config))
            # A fit accepts the sizes that are there, and vouches for them.
            captioner: Any = tldr.Captioner.load(path, device=self.run.device)
            captioner.fit(self.source, samples=self.run.size(1024, 64), clusters=8)
            captioner.set_generation(
                decoding="beam", beams=3, min_tokens=self.tokens, max_tokens=self.tokens, batch_size=batch
            )
            self.models[batch] = captioner._scorer()
        return self.models[batch]

    def previews(self, batch: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        side = self.config["preview_size"]
        return np.random.default_rng(0).integers(0, 256, (batch, 3, side, side), np.uint8)

    def captions_of(self, batch: int) -> list[str]:
        """As long as the decoder takes them, like those that the floating-point operations are counted of."""
        return [" ".join(["long", "dark", "waves"] * int(self.config["decoder"]["max_tokens"]))] * batch

    def measured(self, batch: int) -> dict[str, bench.Fields]:
        """What the Rust bench says of this batch size, by row."""
        if batch not in self.said:
            environment = {**os.environ, "LD_LIBRARY_PATH": str(Path(torch.__file__).parent / "lib")}
            command = [str(self.binary), "--device", self.run.device, "--batch", str(batch)]
            command += ["--seconds", str(self.seconds)]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            self.said[batch] = {line["what"]: line for line in lines}
        return self.said[batch]


def patches(config: bench.Fields) -> int:
    return int(config["preview_size"] // config["patch_size"]) ** 2


def operations(config: bench.Fields, theirs: bool = False) -> float:
    """Floating-point operations of encoding one image with its caption: those of matrix products.

    Counted as `operations` in captioner_device.rs counts them. BLIP, `theirs`, has no codes.
    """
    vision, decoder = config["vision"], config["decoder"]
    count, dim, width = patches(config), vision["dim"], decoder["dim"]
    # Query, key, value and output, perceptron, then scores and mixtures of attention.
    block = 2 * (4 * dim * dim + 2 * dim * vision["mlp"]) + 4 * (1 + count) * dim
    images = count * 2 * 3 * config["patch_size"] ** 2 * dim + (1 + count) * vision["layers"] * block
    codes = 2 * count * config["codebook"]["codes"] * config["codebook"]["code_dim"]
    length = decoder["max_tokens"]
    # Self- and cross-attention of a token, and its perceptron.
    own = 2 * (6 * width * width + 2 * width * decoder["mlp"]) + 4 * width * (length + count)
    head = 2 * width * (width + decoder["vocab"])
    memory = decoder["layers"] * count * 4 * dim * width
    captions = memory + 2 * length * (decoder["layers"] * own + head)
    # With the image and without it. Ours makes keys and values of "no image" once, BLIP for every row.
    return float(images + captions + (memory if theirs else codes))
