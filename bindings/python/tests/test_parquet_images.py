"""Images in Parquet files, as Hugging Face datasets and img2dataset write them; pyarrow writes them here."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import tldr_loader as tldr
from conftest import SIZE
from serving import serving

FILES, ROWS = 3, 90
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def photograph(file: int, row: int) -> bytes:
    pixels = np.random.default_rng((file, row)).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG" if row % 2 else "PNG")
    return out.getvalue()


def caption(file: int, row: int) -> str:
    return f"picture {row} of file {file}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset as `datasets` stores it."""
    folder = tmp_path_factory.mktemp("set") / "data"
    folder.mkdir()
    for file in range(FILES):
        table = pa.table(
            {
                "image": pa.array(
                    [{"bytes": photograph(file, row), "path": None} for row in range(ROWS)], IMAGE
                ),
                "text": [caption(file, row) for row in range(ROWS)],
                "width": [row for row in range(ROWS)],
                "score": [(7 * row % ROWS) / ROWS for row in range(ROWS)],
            }
        )
        name = f"train-{file:05d}-of-{FILES:05d}.parquet"
        pq.write_table(table, folder / name, row_group_size=25, data_page_size=4096, write_batch_size=4)
    return folder


def loader(source: Any, **options: Any) -> tldr.Loader:
    options = {"batch_size": 8, "images": tldr.Images(image_size=SIZE), **options}
    return tldr.Loader(source, **options)


def test_pixels_and_captions_are_those_that_were_written(folder: Path) -> None:
    seen = {}
    for batch in loader(str(folder), mode="eval"):
        for key, text, pixels in zip(batch.keys, batch.captions, np.from_dlpack(batch.images), strict=True):
            seen[text] = (key, pixels)
    assert len(seen) == FILES * ROWS
    mean, std = np.array(tldr.Images().mean), np.array(tldr.Images().std)
    for file in range(FILES):
        for row in range(ROWS):
            key, pixels = seen[caption(file, row)]
            assert int(key) == row
            wanted = np.asarray(Image.open(io.BytesIO(photograph(file, row))).convert("RGB")) / 255.0
            np.testing.assert_allclose(pixels.transpose(1, 2, 0) * std + mean, wanted, atol=1.01 / 255 + 1e-5)


def test_epochs_by_a_ledger_and_from_a_state_are_those_of_the_first_reading(
    folder: Path, tmp_path: Path
) -> None:
    def run(**options: Any) -> tldr.Loader:
        where = tldr.Source(str(folder), where="width >= 10")
        selection = tldr.Selection(keep_ratio=0.3, gate=tldr.AtLeast(0.2, by="score"), window=32)
        return loader(where, selection=selection, seed=3, world=tldr.World(lanes=2), **options)

    def batches(loader: tldr.Loader, epoch: int) -> list[tuple[list[str], list[str]]]:
        loader.set_epoch(epoch)
        return [(list(batch.keys), list(batch.captions)) for batch in loader]

    plain = run()
    expected = [batches(plain, epoch) for epoch in range(2)]
    assert expected[0]
    assert expected[0] != expected[1]
    assert all(int(key) >= 10 for keys, _ in expected[0] for key in keys)
    recorded = run(ledger=str(tmp_path / "ledger"))
    assert [batches(recorded, epoch) for epoch in range(2)] == expected
    again = run(ledger=str(tmp_path / "ledger"))
    assert [batches(again, epoch) for epoch in range(2)] == expected
    half = run()
    stream = iter(half)
    [next(stream) for _ in range(3)]
    rest = run()
    rest.load_state_dict(half.state_dict())
    assert [(list(b.keys), list(b.captions)) for b in rest] == expected[0][3:]


def test_the_columns_of_img2dataset(tmp_path: Path) -> None:
    """`jpg` beside `key`, `caption` and `status`; rows whose download failed have no bytes."""
    table = pa.table(
        {
            "key": [f"{row:09d}" for row in range(40)],
            "jpg": pa.array([photograph(0, row) if row % 4 else None for row in range(40)], pa.binary()),
            "caption": [caption(0, row) for row in range(40)],
            "status": ["success" if row % 4 else "failed_to_download" for row in range(40)],
        }
    )
    pq.write_table(table, tmp_path / "00000.parquet")
    source = tldr.Source(str(tmp_path), where="status = 'success'")
    good = [caption(0, row) for row in range(40) if row % 4]
    read = loader(source, mode="eval")
    assert [text for batch in read for text in batch.captions] == good
    assert not any(read.stats()["counts"]["failed"].values())
    unfiltered = loader(str(tmp_path), mode="eval")
    assert [text for batch in unfiltered for text in batch.captions] == good
    stats = unfiltered.stats()
    assert stats["counts"]["failed"]["missing-image"] == 10
    assert "status = 'success'" in str(stats)


def test_a_filter_over_http_reads_no_images_to_count_and_a_ledger_few(tmp_path: Path) -> None:
    size = 200_000
    noise = np.random.default_rng(0)
    table = pa.table(
        {
            "image": [photograph(0, row) + noise.bytes(size) for row in range(60)],
            "caption": [caption(0, row) for row in range(60)],
            "width": list(range(60)),
        }
    )
    pq.write_table(table, tmp_path / "0.parquet", row_group_size=10, compression="none", write_batch_size=1)
    with serving(tmp_path) as (address, sent):
        url = f"{address}/0.parquet"
        store = tldr.Store(range_bytes=100_000, ranges_ahead=2)
        source = tldr.Source(url, where="width >= 40", store=store)
        read = loader(source, selection=tldr.Selection.random(1.0), world=tldr.World(lanes=1))
        assert sum(length for _, _, length in sent) < size * 5, "counting reads the footer and a column"
        found = [text for batch in read for text in batch.captions]
        assert len(found) == len(set(found)) == 16  # two batches of 20 samples
        assert set(found) <= {caption(0, row) for row in range(40, 60)}


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["a"], "caption": ["b"], "key": ["0"]}), tmp_path / "0.parquet")
    with pytest.raises(tldr.DataError, match=r"columns url, caption, key.*list those instead.*0\.parquet"):
        loader(str(tmp_path), mode="eval")
    named = pa.table({"image": [photograph(0, 0)], "legend": ["no such name"]})
    pq.write_table(named, tmp_path / "0.parquet")
    read = loader(str(tmp_path), mode="eval")
    assert list(read) == []
    assert "name one by caption_key" in str(read.stats())
    source = tldr.Source(str(tmp_path), caption_key="legend")
    assert [text for batch in loader(source, mode="eval") for text in batch.captions] == ["no such name"]
