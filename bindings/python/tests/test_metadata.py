"""What a corpus knows of its samples: scores, lists and captions, as other tools write them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flat
import tldr_loader as tldr
from conftest import SIZE, add_member, png

COUNT = 120
UIDS = [f"{(i * 0x9E3779B97F4A7C15) % 2**64:016x}{i:016x}" for i in range(COUNT)]
SCORES = [(7 * i % COUNT) / COUNT for i in range(COUNT)]


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("scored")
    rng = np.random.default_rng(0)
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for i in range(shard * COUNT // 2, (shard + 1) * COUNT // 2):
                fields = {"uid": UIDS[i], "similarity": SCORES[i]}
                if i % 10 == 9:
                    del fields["similarity"]
                add_member(tar, f"{i:05d}.png", png(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)))
                add_member(tar, f"{i:05d}.txt", f"number {i}".encode())
                add_member(tar, f"{i:05d}.json", json.dumps(fields).encode())
    return f"{folder}/{{00000..00001}}.tar"


def loader(urls: str, **options: Any) -> tldr.Loader:
    lanes = {} if options.get("mode") == "eval" else {"lanes": 1}
    return flat.loader(urls, **{"batch_size": 4, "image_size": SIZE, **lanes, **options})


def captions(loader: tldr.Loader) -> dict[str, str]:
    return {key: text for batch in loader for key, text in zip(batch.keys, batch.captions, strict=True)}


WANTED = [i for i in range(COUNT) if i % 3 == 0]


def test_a_list_of_uids_as_numpy_and_arrow_write_them(urls: str, tmp_path: Path) -> None:
    wanted = [UIDS[i] for i in WANTED]
    halves = np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in wanted], np.dtype("u8,u8"))
    # As DataComp's scripts do: sorted.
    np.save(tmp_path / "halves.npy", np.sort(halves))
    np.save(tmp_path / "text.npy", np.array(wanted))
    np.save(tmp_path / "bytes.npy", np.array(wanted, dtype="S32"))
    pq.write_table(pa.table({"uid": wanted, "other": range(len(wanted))}), tmp_path / "uids.parquet")
    pq.write_table(pa.table({"key": [f"{i:05d}" for i in WANTED]}), tmp_path / "keys.parquet")
    (tmp_path / "keys.txt").write_text("".join(f"{i:05d}\n" for i in WANTED))
    for path in sorted(tmp_path.iterdir()):
        found = loader(urls, mode="eval", subset=path)
        assert list(captions(found)) == [f"{i:05d}" for i in WANTED], path
        by = "key" if path.stem == "keys" else "uid"
        assert found.stats()["subset"] == {
            "by": by,
            "entries": len(WANTED),
            "matched": len(WANTED),
            "samples": COUNT,
        }
        assert found.stats()["counts"]["excluded"] == COUNT - len(WANTED)


def test_a_subset_of_one_source_counts_its_own_samples(urls: str, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("".join(f"{i:05d}\n" for i in WANTED))
    first, second = (urls.replace("{00000..00001}", f"{shard:05d}") for shard in range(2))
    sources = [tldr.Source(first, name="all"), tldr.Source(second, name="some", subset=tmp_path / "keys.txt")]
    found = tldr.Loader(sources, mode="eval", batch_size=4, images=tldr.Images(image_size=SIZE))
    matched = len([i for i in WANTED if i >= COUNT // 2])
    assert sum(len(batch.keys) for batch in found) == COUNT // 2 + matched
    assert found.stats()["subset"] == {
        "by": "key",
        "entries": len(WANTED),
        "matched": matched,
        "samples": COUNT // 2,
    }


def test_arrays_that_hold_no_uids_are_refused(urls: str, tmp_path: Path) -> None:
    for name, array in [
        ("floats.npy", np.zeros(3)),
        ("big.npy", np.zeros(3, np.dtype(">u8,>u8"))),
        ("table.npy", np.zeros((2, 2), np.dtype("u8,u8"))),
    ]:
        np.save(tmp_path / name, array)
        with pytest.raises(tldr.DataError, match=f"subset=.*{name}.*expected uids"):
            loader(urls, mode="eval", subset=tmp_path / name)


def test_captions_of_a_table(urls: str, tmp_path: Path) -> None:
    table = pa.table({"uid": UIDS[:5], "caption": ["a", None, "c", "", "e"]})
    pq.write_table(table, tmp_path / "side.parquet")
    found = loader(urls, mode="eval", captions={"side": tmp_path / "side.parquet"}, caption_key="side")
    expected = {f"{i:05d}": f"number {i}" for i in range(COUNT)}
    expected |= {"00000": "a", "00002": "c", "00004": "e"}
    assert captions(found) == expected
    assert found.stats()["captions"] == {"side": {"by": "uid", "entries": 3, "matched": 3, "samples": COUNT}}
    assert found.stats()["subset"] is None


def test_scores_gate_without_a_captioner(urls: str) -> None:
    scored = {f"{i:05d}": SCORES[i] for i in range(COUNT) if i % 10 != 9}
    passing = {key for key, score in scored.items() if score >= 0.5}
    found = loader(
        urls, gate=tldr.AtLeast(0.5, by="similarity"), keep_ratio=len(passing) / COUNT, batch_size=1
    )
    assert set(captions(found)) == passing
    assert found.stats()["unscored"] == COUNT - len(scored)
    half = set(captions(loader(urls, gate=tldr.Top(0.5, by="similarity"), keep_ratio=0.5, batch_size=1)))
    best = sorted(scored, key=lambda key: scored[key])[-COUNT // 2 :]
    assert half == set(best)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"gate": tldr.AtLeast(0.5)}, "by=FIELD"),
        ({"gate": tldr.Top(0.5, by="score")}, "their fields are similarity, uid"),
    ]
    for options, message in wrong:
        with pytest.raises(tldr.ConfigError, match=message):
            loader(urls, **options)


def test_parquet_counts_as_a_scan_does(tmp_path: Path) -> None:
    """What counts lies in one shard of four, and in a stretch of it: lanes are as long by either count."""
    good = [shard == 2 and 10 <= i < 50 for shard in range(4) for i in range(60)]
    for shard in range(4):
        keys = [f"{shard}{i:03d}" for i in range(60)]
        with tarfile.open(tmp_path / f"{shard:05d}.tar", "w") as tar:
            for i, key in enumerate(keys):
                fields = {"good": good[shard * 60 + i]}
                pixels = np.full((SIZE, SIZE, 3), i, dtype=np.uint8)
                add_member(tar, f"{key}.png", png(pixels))
                add_member(tar, f"{key}.txt", f"number {key}".encode())
                add_member(tar, f"{key}.json", json.dumps(fields).encode())
    urls = f"{tmp_path}/{{00000..00003}}.tar"
    options: dict[str, Any] = {"mode": "full", "where": "good = true", "lanes": 4}
    scanned = loader(urls, **options)
    first = [batch.keys for batch in scanned]
    flat = [key for keys in first for key in keys]
    assert (len(flat), len(set(flat)), scanned.stats()["repeats"]) == (40, 40, 0)
    for shard in range(4):
        own = slice(shard * 60, (shard + 1) * 60)
        # In an order of its own, and with a download that failed.
        table = {
            "key": [*[f"{shard}{i:03d}" for i in reversed(range(60))], "none"],
            "status": ["success"] * 60 + ["failed_to_download"],
            "good": [*reversed(good[own]), True],
        }
        pq.write_table(pa.table(table), tmp_path / f"{shard:05d}.parquet")
    by_file = loader(urls, **options)
    by_file.load_state_dict(scanned.state_dict() | {"epoch": 0, "step": 0})
    assert [batch.keys for batch in by_file] == first
    # Files that count otherwise make other lanes, which a state is not of.
    table["good"] = [True, *[False] * 60]
    pq.write_table(pa.table(table), tmp_path / "00003.parquet")
    with pytest.raises(tldr.StateError, match=r"samples that count: this loader has 41, the state 40"):
        loader(urls, **options).load_state_dict(scanned.state_dict())


def test_a_list_that_names_shards_counts_by_itself(tmp_path: Path, urls: str) -> None:
    whole = [batch for batch in loader(urls, mode="eval")]
    rows = [(i, key) for batch in whole for i, key in zip(batch.ids, batch.keys, strict=True)]
    kept = [row for n, row in enumerate(rows) if 70 <= n < 110]
    source, shard = Path(urls).parent.name, "00001.tar"
    signed = [i - (1 << 64) if i >= 1 << 63 else i for i, _ in kept]
    keys = [key for _, key in kept]
    table = {"id": signed, "source": [source] * 40, "shard": [shard] * 40, "key": keys}
    pq.write_table(pa.table(table), tmp_path / "export.parquet")
    found = loader(urls, mode="full", lanes=4, subset=tmp_path / "export.parquet")
    seen = [key for batch in found for key in batch.keys]
    assert sorted(seen) == keys
    assert found.stats()["repeats"] == found.stats()["surplus"] == 0
    assert found.state_dict()["settings"]["samples that count"] == "40"
