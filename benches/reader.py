"""Races the reader against its ceiling and against what people use today.

    make bench-reader            # --data ../shared/data/openstax where that folder is there

Then the same over drawn photographs of 640x480 at 166 kB, as large as COCO's are.

Every contestant makes normalised float32 [64, 3, 224, 224] batches of the same images with the same
number of threads (or worker processes). Rounds are interleaved: each runs every contestant once, and
the table gives medians and ratios within a round. `tldr-loader`, its ceiling and open_clip read tar
shards or, the ceiling, images in memory; the thread pools get their images in memory too, which
favours them; and their time to start is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SIZE, BATCH, PREVIEW = 224, 64, 112
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
ROOT = Path(__file__).resolve().parent.parent
Contestants = dict[str, Callable[[], float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of image-text shards, raced before drawn ones")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decodes", type=int, default=5000, help="images per round, at least")
    parser.add_argument(
        "--package", action="store_true", help="race only the package that make built with open_clip: minutes"
    )
    parser.add_argument("--smoke", action="store_true", help="one short round of what is installed")
    options = parser.parse_args()
    if options.smoke:
        options.rounds, options.decodes = 1, 128
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    if options.data:
        print(f"== {options.data.name} ==\n")
        with tempfile.TemporaryDirectory() as scratch:
            run(options.data, Path(scratch), options)
        print()
    with tempfile.TemporaryDirectory() as scratch:
        print("== drawn photographs ==\n")
        run(drawn(Path(scratch)), Path(scratch), options)


def run(folder: Path, scratch: Path, options: argparse.Namespace) -> None:
    shards = sorted(folder.glob("*.tar"))
    images = in_memory(shards)
    times = -(-options.decodes // len(images))
    whole: Contestants = {
        "ceiling": lambda: rust(folder, "ceiling", options),
        "tldr-loader": lambda: rust(folder, "train", options),
        "... as make built it": lambda: package(shards, times, options.threads),
        "tldr-loader, eval": lambda: rust(folder, "eval", options),
        "... scaled_decoding": lambda: rust(folder, "scaled", options),
        "open_clip": lambda: open_clip(shards, times, options.threads),
        "SPDL": lambda: rate(spdl_batches(images * times, options.threads)),
        "torchvision pool": lambda: rate(pool(torchvision_image, images * times, options.threads)),
        "simplejpeg pool": lambda: rate(pool(simplejpeg_image, images * times, options.threads)),
    }
    if options.package:
        print(f"{len(images)} images; {options.rounds} rounds; {machine()}")
        ours = "... as make built it"
        race("open_clip", ours, {name: whole[name] for name in (ours, "open_clip")}, options.rounds)
        return
    jpegs = [data for data in images if data.startswith(b"\xff\xd8\xff")]
    decoders: Contestants = {
        "tldr-loader": lambda: rust(folder, "decode", options),
        "... crops 0.08 to 1": lambda: rust(folder, "decode", options, "decode crop"),
        "... for previews": lambda: rust(folder, "decode", options, "decode preview"),
        "simplejpeg": lambda: one_by_one(jpegs),
        "... likewise": lambda: one_by_one(jpegs, min_height=2 * PREVIEW, min_width=2 * PREVIEW),
    }
    mean = sum(map(len, images)) / len(images) / 1000
    print(f"{len(images)} images of {mean:.0f} kB, {len(jpegs)} JPEG; {options.rounds} rounds; {machine()}")
    race("ceiling", "tldr-loader", whole, options.rounds)
    print("\nJPEG decoders, one thread, nothing but decoding to RGB:")
    race("simplejpeg", "tldr-loader", decoders, options.rounds)
    print("\nShards:")
    random_access(folder, options)
    memory(folder, scratch, options)


def race(base: str, ours: str, contestants: Contestants, rounds: int) -> None:
    """Runs every contestant once a round; prints medians, and medians of the ratios in a round."""
    found: list[dict[str, float]] = []
    for round_ in range(rounds):
        found.append({})
        for name, contestant in contestants.items():
            try:
                found[-1][name] = contestant()
            except ImportError as missing:
                if round_ == 0:
                    print(f"skipped: {name} ({missing}); make bench-reader installs it", flush=True)
    print(f"{'':22}{'images/s':>10}{'of ' + base:>16}{ours + ' is':>18}")
    for name in [name for name in contestants if name in found[0]]:
        speed = statistics.median(one[name] for one in found)
        share = statistics.median(one[name] / one[base] for one in found)
        times = statistics.median(one[ours] / one[name] for one in found)
        print(f"{name:22}{speed:10.0f}{share:16.2f}{times:17.2f}x", flush=True)


def random_access(folder: Path, options: argparse.Namespace) -> None:
    """Headers alone, and a quarter of the samples: by index, and from shards that hold no more."""
    scans, ratios = [], []
    for _ in range(options.rounds):
        scans.append({line["what"]: line for line in measured(folder, "scan", options)})
        quarter = {line["what"]: line["samples_per_s"] for line in measured(folder, "index", options)}
        ratios.append(quarter["quarter by index"] / quarter["quarter alone"])
    gigabytes = statistics.median(scan["scan"]["bytes_per_s"] for scan in scans) / 1e9
    samples = statistics.median(scan["scan samples"]["samples_per_s"] for scan in scans)
    print(f"header scan: {gigabytes:.1f} GB of shard, {samples:,.0f} samples a second")
    print(f"a quarter by index: {statistics.median(ratios):.2f}x the speed of shards that hold only that")


def memory(folder: Path, scratch: Path, options: argparse.Namespace) -> None:
    """The most that an epoch over 10 and over 100 shards holds; each shard is all of the images."""
    whole = scratch / "whole"
    with whole.open("wb") as out:
        for shard in sorted(folder.glob("*.tar")):
            out.write(shard.read_bytes())
    peaks = []
    counts = (1, 2) if options.smoke else (10, 100)
    for count in counts:
        corpus = scratch / f"{count}-shards"
        corpus.mkdir()
        for i in range(count):
            (corpus / f"{i:05}.tar").symlink_to(whole)
        (line,) = measured(corpus, "memory", options, decodes=1)
        peaks.append(line["peak_kb"] / 1000)
    print(
        f"peak memory, {counts[0]} and {counts[1]} shards of {whole.stat().st_size / 1e6:.0f} MB: "
        f"{peaks[0]:.0f} and {peaks[1]:.0f} MB, {peaks[1] / peaks[0]:.3f}x"
    )


def machine() -> str:
    names = ("torch", "torchvision", "open_clip_torch", "webdataset", "spdl", "simplejpeg", "pillow")
    versions = []
    for name in names:
        with contextlib.suppress(ImportError):
            versions.append(f"{name} {version(name)}")
    return f"{os.cpu_count()} cores ({platform.machine()}), {', '.join(versions)}"


# The images ----------------------------------------------------------------------------------


def in_memory(shards: list[Path]) -> list[bytes]:
    images = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith((".jpg", ".png", ".webp")):
                    data = tar.extractfile(member)
                    assert data is not None
                    images.append(data.read())
    return images


def drawn(folder: Path) -> Path:
    """Photographs of 640x480 with as many bytes as COCO's, 166 kB: waves and noise."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:480, 0:640]
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for i in range(20):
            wave = 60 * np.sin(columns / rng.uniform(20, 60)) + 40 * np.cos(rows / rng.uniform(5, 20))
            pixels = 110 + wave[..., None] + rng.uniform(-18, 18, (480, 640, 3))
            out = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=95)
            for name, data in ((f"{i:03}.jpg", out.getvalue()), (f"{i:03}.txt", b"a drawing")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return folder


# The contestants -----------------------------------------------------------------------------


def rust(folder: Path, only: str, options: argparse.Namespace, what: str | None = None) -> float:
    """The speed of one measurement of the Rust bench, which does its own timing."""
    lines = measured(folder, only, options)
    (speed,) = [float(line["images_per_s"]) for line in lines if line["what"] == (what or only)]
    return speed


def measured(
    folder: Path, only: str, options: argparse.Namespace, decodes: int | None = None
) -> list[dict[str, Any]]:
    """What one run of the Rust bench says."""
    command = ["cargo", "bench", "--quiet", "--bench", "reader_path", "--"]
    command += ["--data", str(folder), "--only", only, "--rounds", "1"]
    command += ["--threads", str(options.threads), "--decodes", str(decodes or options.decodes)]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def package(shards: list[Path], times: int, threads: int) -> float:
    """The Python package in the profile of `make`. Timed as the Rust bench, which has that of a release."""
    import tldr_loader as tldr

    with tempfile.TemporaryDirectory() as folder:
        for i in range(times):
            for shard in shards:
                (Path(folder) / f"{i:03}-{shard.name}").symlink_to(shard.resolve())
        images_of, runtime = tldr.Images(image_size=SIZE), tldr.Runtime(threads=threads)
        loader = tldr.Loader(folder, mode="full", batch_size=BATCH, images=images_of, runtime=runtime)
        start = time.perf_counter()
        images = sum(len(batch) for batch in loader)
        return images / (time.perf_counter() - start)


def rate(batches: Iterator[int]) -> float:
    """Images a second from the first batch on: starting up is not counted."""
    next(batches)
    start = time.perf_counter()
    images = sum(batches)
    return images / (time.perf_counter() - start)


def one_by_one(jpegs: list[bytes], **scaled: int) -> float:
    import simplejpeg

    start = time.perf_counter()
    for data in jpegs:
        simplejpeg.decode_jpeg(data, **scaled)
    return len(jpegs) / (time.perf_counter() - start)


def open_clip(shards: list[Path], times: int, workers: int) -> float:
    """open_clip's own training pipeline: webdataset, PIL, torchvision's transforms, worker processes."""
    import webdataset  # noqa: F401
    from open_clip import SimpleTokenizer, image_transform
    from open_clip_train.data import get_wds_dataset

    samples = (
        times * sum(json.loads((shards[0].parent / "sizes.json").read_text()).values())
        if (shards[0].parent / "sizes.json").exists()
        else times * len(in_memory(shards))
    )
    arguments = SimpleNamespace(
        train_data="::".join(str(shard) for shard in shards),
        train_data_upsampling_factors=None,
        train_num_samples=samples,
        dataset_resampled=True,
        seed=0,
        batch_size=BATCH,
        workers=workers,
        world_size=1,
    )
    transform = image_transform(SIZE, is_train=True, mean=MEAN, std=STD)
    data = get_wds_dataset(arguments, transform, is_train=True, tokenizer=SimpleTokenizer())
    return rate(len(images) for images, _ in data.dataloader)


def normalised(pixels: Any) -> Any:
    """uint8 [batch, 3, height, width] to float32, in place where possible."""
    import torch

    mean, std = torch.tensor(MEAN) * 255, torch.tensor(STD) * 255
    return pixels.float().sub_(mean[:, None, None]).div_(std[:, None, None])


def spdl_batches(images: list[bytes], threads: int) -> Iterator[int]:
    """SPDL's own batch loader: FFmpeg decodes and scales, outside the GIL."""
    import spdl.io
    import spdl.pipeline

    def load(batch: list[bytes]) -> int:
        frames = []
        for data in batch:
            packets = spdl.io.demux_image(data)
            filters = spdl.io.get_video_filter_desc(scale_width=SIZE, scale_height=SIZE, pix_fmt="rgb24")
            frames.append(spdl.io.decode_packets(packets, filter_desc=filters))
        pixels = spdl.io.to_torch(spdl.io.convert_frames(frames))
        return len(normalised(pixels.permute(0, 3, 1, 2)))

    builder = spdl.pipeline.PipelineBuilder().add_source(images).aggregate(BATCH)
    pipeline = builder.pipe(load, concurrency=threads).add_sink(2).build(num_threads=threads)
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()


def pool(one: Callable[[bytes], Any], images: list[bytes], threads: int) -> Iterator[int]:
    """Batches made by a thread pool, one image a task; both decoders release the GIL."""
    import torch

    with ThreadPoolExecutor(threads) as executor:
        for start in range(0, len(images), BATCH):
            rows = list(executor.map(one, images[start : start + BATCH]))
            yield len(normalised(torch.stack(rows)))


def resized(pixels: Any) -> Any:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as f

    return f.resize(pixels, [SIZE, SIZE], interpolation=InterpolationMode.BICUBIC, antialias=True)


def torchvision_image(data: bytes) -> Any:
    import torch
    from torchvision.io import ImageReadMode, decode_image

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return resized(decode_image(encoded, mode=ImageReadMode.RGB))


def simplejpeg_image(data: bytes) -> Any:
    import simplejpeg
    import torch

    if not simplejpeg.is_jpeg(data):
        return torchvision_image(data)
    return resized(torch.from_numpy(simplejpeg.decode_jpeg(data)).permute(2, 0, 1))


if __name__ == "__main__":
    sys.exit(main())
