"""Measures what decoding JPEGs at a smaller scale does: to signals, and to training pixels.

    make bench-previews          # --data ../shared/data/openstax ../shared/data/fsac where they are there

A captioner of 16-pixel previews is trained on JPEGs as they are. It then looks at them decoded whole, and
at the smallest of 1/8, 1/4, 1/2 and full size that leaves once and twice the side of its previews. Pillow
decodes, by the same libjpeg-turbo, and the loader gets the pixels as PNG. Images are shrunk to a shorter
side of 128 to 255 first, so that every scale is met at its limit. The table gives the share of samples that
stay in their cluster, the correlation of alignments, and the share that a gate of a half decides as before.
Then: how far the pixels of `scaled_decoding` are from those of full decoding, in levels of 255.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

import tldr_loader as tldr

PREVIEW = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of image-text shards")
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        signals(options.data, options.epochs, Path(scratch))
        scaled(options.data, Path(scratch))


def pairs(folders: list[Path]) -> Iterator[tuple[bytes, bytes]]:
    for shard in sorted(path for folder in folders for path in folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            members = {member.name: member for member in tar}
            for name, member in members.items():
                caption = members.get(name.rsplit(".", 1)[0] + ".txt")
                if name.endswith((".jpg", ".png")) and caption is not None:
                    yield tar.extractfile(member).read(), tar.extractfile(caption).read()  # type: ignore[union-attr]


def write(path: Path, members: Iterator[tuple[str, bytes]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def encoded(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 90} if kind == "JPEG" else {"compress_level": 1}))
    return out.getvalue()


def at_least(jpeg: bytes, side: int) -> Image.Image:
    """Decoded at the smallest scale whose shorter side is not below `side`."""
    image = Image.open(io.BytesIO(jpeg))
    image.draft("RGB", (side, side))
    return image.convert("RGB")


def signals(folders: list[Path], epochs: int, scratch: Path) -> None:
    rng = np.random.default_rng(0)
    jpegs, captions = [], []
    for data, caption in pairs(folders):
        image = Image.open(io.BytesIO(data)).convert("RGB")
        factor = int(rng.integers(128, 256)) / min(image.size)
        if factor < 1:
            width, height = (max(128, round(side * factor)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        jpegs.append(encoded(image, "JPEG"))
        captions.append(caption)
    found = {}
    for name, detail in (("whole", None), ("once", 1), ("twice", 2)):
        corpus = scratch / name
        rows = (
            member
            for i, (jpeg, caption) in enumerate(zip(jpegs, captions, strict=True))
            for member in (
                (f"{i:06}.png", encoded(at_least(jpeg, detail * PREVIEW if detail else 1 << 16), "PNG")),
                (f"{i:06}.txt", caption),
            )
        )
        write(corpus / "00000.tar", rows)
        if detail is None:
            model = tldr.Captioner.train(corpus, scratch / "captioner", preset="tiny", epochs=epochs)
            assert model.preview_size == PREVIEW
            model.fit(corpus)
        found[name] = recorded(corpus, scratch)
    whole = found.pop("whole")
    print(f"{len(whole)} images, {len(np.unique(whole[:, 0]))} clusters in use")
    print(f"{'previews decoded to':22}{'same cluster':>14}{'correlation':>14}{'same by gate':>14}")
    for name, other in found.items():
        known = ~np.isnan(whole[:, 1]) & ~np.isnan(other[:, 1])
        a, b = whole[known], other[known]
        same, gate = np.mean(a[:, 0] == b[:, 0]), np.mean((a[:, 1] >= 0.5) == (b[:, 1] >= 0.5))
        print(f"{name + ' their side':22}{same:14.3f}{np.corrcoef(a[:, 1], b[:, 1])[0, 1]:14.3f}{gate:14.3f}")


def recorded(corpus: Path, scratch: Path) -> np.ndarray:
    """Cluster and alignment of every sample, by key."""
    ledger = scratch / f"ledger-{corpus.name}"
    for _ in tldr.Loader(
        tldr.Source(corpus, name="previews"),
        captioner=scratch / "captioner",
        ledger=ledger,
        selection=tldr.Selection(keep_ratio=0.5, gate=tldr.Top(0.5)),
        batch_size=8,
        images=tldr.Images(image_size=16),
        world=tldr.World(lanes=1),
    ):
        pass
    rows = {}
    for file in ledger.glob("signals/*/*/*.parquet"):
        table = pq.read_table(file, columns=["key", "cluster", "alignment"]).to_pylist()
        rows |= {row["key"]: (row["cluster"], row["alignment"]) for row in table}
    return np.array([rows[key] for key in sorted(rows)], dtype=float)


def scaled(folders: list[Path], scratch: Path) -> None:
    """Random resized crops to 112 pixels, of the JPEGs as they come."""
    jpegs = [(data, caption) for data, caption in pairs(folders) if data.startswith(b"\xff\xd8\xff")]
    members = (
        member
        for i, (data, caption) in enumerate(jpegs)
        for member in ((f"{i:06}.jpg", data), (f"{i:06}.txt", caption))
    )
    write(scratch / "jpegs" / "00000.tar", members)
    images = []
    for on in (False, True):
        images_of = tldr.Images(image_size=112, dtype="uint8", scaled_decoding=on)
        world = tldr.World(lanes=1)
        loader = tldr.Loader(scratch / "jpegs", mode="full", batch_size=8, images=images_of, world=world)
        images.append(np.concatenate([batch.images.numpy() for batch in loader]).astype(int))
    difference = np.abs(images[0] - images[1])
    changed = difference[difference.max(axis=(1, 2, 3)) > 0]
    print(
        f"\nscaled_decoding changes {len(changed)} of {len(difference)} images, by {changed.mean():.2f} of "
        f"255 in the mean, by at most {np.quantile(changed, 0.999):.0f} in 99.9% of values, and by "
        f"{changed.max()} at most"
    )


if __name__ == "__main__":
    sys.exit(main())
