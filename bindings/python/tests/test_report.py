"""Promise: the report's numbers are those of an export, of `explain` and of a loader, wherever shards are."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import reporting
import tldr_loader as tldr
from conftest import add_member, png
from reporting import Colours, Run
from serving import serving


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return reporting.recorded(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def made(run: Run) -> tldr.Report:
    return reporting.report(run)


def table_of(run: Run, **given: Any) -> list[dict[str, Any]]:
    out = run.folder / "all.parquet"
    tldr.export(out, ledger=run.folder / "ledger", captioner=run.folder / "fit", all=True, **given)
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows


def test_the_numbers_are_those_of_the_export(run: Run, made: tldr.Report) -> None:
    rows = table_of(run, plan=run.plan)
    model = json.loads(made.json.read_text())
    found = Counter(row["reason"] or row["outcome"] for row in rows)
    funnel = model["funnel"]
    assert (funnel["read"], funnel["kept"], funnel["gate"]) == (len(rows), found["kept"], found["gate"])
    assert (funnel["dedup"], funnel["quota"]) == (found["near-duplicate"], found["quota"])
    assert funnel["failed"] == sum(row["outcome"] == "failed" for row in rows) == 3
    parts = ("failed", "excluded", "thin", "gate", "dedup", "quota", "kept")
    assert funnel["read"] == sum(funnel[part] for part in parts)
    assert min(found["near-duplicate"], found["quota"], found["gate"]) > 0
    for name in ("alpha", "beta"):
        own = next(row["funnel"] for row in model["sources"] if row["name"] == name)
        assert own["kept"] == sum(row["outcome"] == "kept" for row in rows if row["source"] == name)
    clusters = {row["cluster"]: row["funnel"] for row in model["clusters"]}
    for cluster, own in clusters.items():
        mine = [row for row in rows if row["cluster"] == cluster]
        assert (own["usable"], own["kept"]) == (len(mine), sum(row["outcome"] == "kept" for row in mine))
    # Histograms are of every sample, and pass at the cut as the gate does.
    bins = [histogram["alignment"] for histogram in model["histograms"].values()]
    assert sum(sum(own["kept"]) for own in bins) == funnel["kept"]
    at = round(model["gate"]["least"] / bins[0]["step"])
    passing = sum(sum(own["kept"][at:]) + sum(own["dropped"][at:]) for own in bins)
    assert passing == funnel["usable"] - funnel["gate"]
    assert {row["reason"]: row["count"] for row in model["failures"]} == Counter(
        row["reason"] for row in rows if row["outcome"] == "failed"
    )
    by_id = {str(row["id"]): row for row in rows}
    for sample in model["samples"]:
        row = by_id[sample["id"]]
        assert (sample["outcome"], sample.get("reason"), sample["key"]) == (
            row["outcome"],
            row["reason"],
            row["key"],
        )
    # Pairs are those of the export, across sources first.
    pairs = pq.read_table(made.pairs).to_pylist()
    assert pairs
    for pair in pairs:
        assert by_id[str(pair["id"])]["near_id"] == pair["near_id"]
        assert by_id[str(pair["near_id"])]["reason"] in (None, "quota")
    across = [group["across"] for group in model["near"]["groups"]]
    assert across == sorted(across, key=["sources", "shards", "shard"].index)
    assert across[0] == "sources"
    # What fell to one keeper is one group, the least certain first.
    groups = model["near"]["groups"]
    assert len({group["keeper"] for group in groups}) == len(groups)
    for group in groups:
        keeper = int(model["samples"][group["keeper"]]["id"])
        fell = [row for row in rows if row["near_id"] == keeper and row["reason"] == "near-duplicate"]
        assert group["size"] == len(fell) >= len(group["members"])
    for kind in ("sources", "shards", "shard"):
        own = [group["members"] for group in groups if group["across"] == kind]
        doubt = [max(member["bits"] for member in members) for members in own]
        assert doubt == sorted(doubt, reverse=True)
    # A picture is nearest or random, not both; what has no hash here is named.
    for row in model["clusters"]:
        assert not set(row["nearest"]) & set(row["random"])
    nearest = [model["samples"][at] for row in model["clusters"] for at in row["nearest"]]
    gated = any(one.get("reason") == "gate" for one in nearest)
    assert gated != ("of what passed the gate" in model["cluster_label"])
    assert model["gate"]["answer"].startswith(("No: ", "Hardly: ", "Somewhat: ", "Yes: "))
    assert (model["gate"]["warning"] is None) == model["gate"]["answer"].startswith(("Somewhat: ", "Yes: "))
    assert "perplexity" not in made.out.read_text()
    assert model["gate"]["swapped"]["pairs"] > 100


def test_the_numbers_are_those_of_a_loader(run: Run) -> None:
    selection = tldr.Selection(keep_ratio=0.3, gate=tldr.Top(0.7), window=64)
    ledger = run.folder / "ledger"
    made = tldr.report(
        run.source,
        ledger=ledger,
        captioner=run.folder / "fit",
        selection=selection,
        out=run.folder / "policy.html",
    )
    scorer = tldr.FittedScorer(run.folder / "fit", Colours())
    images = tldr.Images(image_size=16)
    loader = tldr.Loader(
        run.source,
        captioner=scorer,
        ledger=ledger,
        selection=selection,
        batch_size=4,
        images=images,
        runtime=tldr.Runtime(max_errors=0.5),
    )
    for _ in loader:
        pass
    stats, funnel = loader.stats()["counts"], json.loads(made.json.read_text())["funnel"]
    assert stats["read"] == funnel["read"]
    assert (stats["kept"], stats["dropped_gate"], stats["dropped_quota"]) == (
        funnel["kept"],
        funnel["gate"],
        funnel["quota"],
    )


def test_one_sentence_agrees(run: Run) -> None:
    rows = table_of(run, plan=run.plan)
    keys = [row["key"] for row in rows]
    answers = tldr.explain(keys, **run.given, plan=run.plan)
    assert [(one.outcome, one.reason) for one in answers] == [(row["outcome"], row["reason"]) for row in rows]
    copy = next(one for one in answers if one.reason == "near-duplicate")
    assert copy.near is not None
    assert f"near-duplicate of {copy.near['key']} in {copy.near['shard']}" in str(copy)
    failed = next(one for one in answers if one.reason == "image-too-large")
    assert re.search(r"40000x40000", failed.sentence)
    assert tldr.explain(rows[0]["id"], **run.given, plan=run.plan)[0].key == rows[0]["key"]
    with pytest.raises(tldr.ConfigError, match=r'^invalid keys="nobody": expected a key'):
        tldr.explain("nobody", **run.given, plan=run.plan)
    rotating = tldr.Selection(keep_ratio=0.35, gate=tldr.Top(0.7), rotate=True, window=64)
    answers = tldr.explain(keys, **run.given, selection=rotating, epochs=4)
    kept = [one for one in answers if one.epochs]
    assert kept
    assert all(1 <= len(one.epochs["kept"]) <= 3 for one in kept if one.epochs)


def test_an_excluded_sample_names_its_condition(run: Run, tmp_path: Path) -> None:
    some = tldr.Source(f"{run.folder}/beta/{{00000..00001}}.tar", where="key != '000165'")
    scorer = tldr.FittedScorer(run.folder / "fit", Colours())
    tldr.record(some, captioner=scorer, ledger=tmp_path / "ledger")
    (answer,) = tldr.explain("00000.tar/000165", ledger=tmp_path / "ledger", source=some)
    condition = "it does not pass where: key != '000165' (key is \"000165\")"
    assert str(answer) == f"000165 in 00000.tar is excluded: {condition}."
    (other,) = tldr.explain("000166", ledger=tmp_path / "ledger", source=some)
    assert other.outcome == "usable"
    made = tldr.report(some, ledger=tmp_path / "ledger", out=tmp_path / "report.html")
    model = json.loads(made.json.read_text())
    assert (model["funnel"]["excluded"], model["funnel"]["usable"]) == (1, 159)
    assert model["head"]["conditions"] == "where key != '000165'"


def test_the_same_inputs_give_the_same_bytes(run: Run, made: tldr.Report, tmp_path: Path) -> None:
    scorer = tldr.FittedScorer(run.folder / "fit", Colours())
    again = tldr.report(run.source, **run.given, plan=run.plan, out=tmp_path / "report.html", scorer=scorer)
    for first, second in ((made.out, again.out), (made.json, again.json), (made.pairs, again.pairs)):
        assert first.read_bytes() == second.read_bytes()
    other = tldr.report(
        run.source, **run.given, plan=run.plan, out=tmp_path / "small.html", max_mb=1, draw_seed=1
    )
    assert other.bytes <= 1_000_000
    assert other.shown < made.shown
    with pytest.raises(tldr.ConfigError, match=r"^invalid max_mb=0.5: expected megabytes, at least 1"):
        tldr.report(run.source, **run.given, plan=run.plan, out=tmp_path / "x.html", max_mb=0.5)
    with pytest.raises(tldr.ConfigError, match=r"a file that ends in .html"):
        tldr.report(run.source, **run.given, plan=run.plan, out=tmp_path / "x.txt")
    with pytest.raises(tldr.ConfigError, match=r"^invalid captioner=none: expected the captioner directory"):
        tldr.report(run.source, ledger=run.folder / "ledger", plan=run.plan, out=tmp_path / "x.html")


def test_a_missing_shard_costs_its_tiles(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder / "alpha", tmp_path / "alpha")
    shutil.copytree(run.folder / "ledger", tmp_path / "ledger")
    (tmp_path / "alpha" / "00001.tar").unlink()
    some = f"{tmp_path}/alpha/{{00000..00001}}.tar"
    made = tldr.report(
        some,
        ledger=tmp_path / "ledger",
        captioner=run.folder / "fit",
        plan=run.plan,
        out=tmp_path / "report.html",
    )
    assert made.samples == 320
    samples = json.loads(made.json.read_text())["samples"]
    lost = [one for one in samples if one["shard"] == "00001.tar" and one["source"] == "alpha"]
    assert lost
    assert all("tile" not in one and "00001.tar" in one["why"] for one in lost)
    other = [one for one in samples if one["source"] == "beta"]
    assert all("not among those that were given" in one["why"] for one in other)


def test_compressed_shards_and_captions_are_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "alpha").mkdir()
    for shard in (0, 1):
        data = (run.folder / "alpha" / f"{shard:05d}.tar").read_bytes()
        (tmp_path / "alpha" / f"{shard:05d}.tar.gz").write_bytes(gzip.compress(data))
    urls = f"{tmp_path}/alpha/{{00000..00001}}.tar.gz"
    scorer = tldr.FittedScorer(run.folder / "fit", Colours())
    tldr.record(urls, captioner=scorer, ledger=tmp_path / "ledger", selection=tldr.Selection(window=64))
    given: dict[str, Any] = {"ledger": tmp_path / "ledger", "out": tmp_path / "report.html"}
    made = tldr.report(urls, **given, captioner=run.folder / "fit")
    model = json.loads(made.json.read_text())
    # That of the sample without a caption is one of them.
    assert (made.samples, made.pictures) == (160, 158)
    usable = [one for one in model["samples"] if one["outcome"] != "failed"]
    assert all(one["size"] == [36, 24] and one["caption"] for one in usable)
    # Without a captioner nothing decides; near-duplicates are looked for all the same.
    nothing = json.loads(tldr.report(urls, **given).json.read_text())
    assert nothing["funnel"]["kept"] == nothing["funnel"]["usable"] == 157
    assert not nothing["near"]["is_on"]
    groups = nothing["near"]["groups"]
    assert groups
    assert all(member["bits"] <= 26 for group in groups for member in group["members"])
    kept = [one for one in model["samples"] if one["outcome"] == "kept"]
    assert kept
    assert all(one["trained_on"] == one["caption"] for one in kept)
    # Chance decides without one; what looks at alignments does not go.
    chance = tldr.Selection(keep_ratio=0.5, window=64)
    half = json.loads(tldr.report(urls, **given, selection=chance).json.read_text())["funnel"]
    assert abs(half["kept"] - half["usable"] / 2) <= 4
    assert half["kept"] + half["quota"] == half["usable"]
    with pytest.raises(tldr.ConfigError, match=r"invalid gate=top.*captioner directory"):
        tldr.report(urls, **given, selection=tldr.Selection(keep_ratio=0.25, gate=tldr.Top(0.5), window=64))


def test_what_is_excluded_is_shown_with_its_condition(run: Run, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "corpus" / f"{shard:05d}.tar", "w") as tar:
            for at in range(30):
                key = f"{shard}{at:04d}"
                pixels = np.full((24, 36, 3), 5 * at, np.uint8)
                add_member(tar, f"{key}.png", png(pixels))
                add_member(tar, f"{key}.txt", f"caption {at}".encode())
                add_member(tar, f"{key}.json", json.dumps({"width": 100 + at, "score": at % 3}).encode())
    names = [f"{shard}{at:04d}" for shard in range(2) for at in range(30) if at % 10]
    (tmp_path / "subset.jsonl").write_text("".join(json.dumps({"key": key}) + "\n" for key in names))
    urls = f"{tmp_path}/corpus/{{00000..00001}}.tar"
    some = tldr.Source(urls, where="width >= 110 and score < 2", subset=tmp_path / "subset.jsonl")
    scorer = tldr.FittedScorer(run.folder / "fit", Colours())
    tldr.record(some, captioner=scorer, ledger=tmp_path / "ledger")
    made = tldr.report(some, ledger=tmp_path / "ledger", out=tmp_path / "report.html")
    model = json.loads(made.json.read_text())
    rows = {row["condition"]: row for row in model["excluded"]}
    where, subset = "where width >= 110 and score < 2", f"not in the subset {tmp_path}/subset.jsonl"
    assert {name: row["count"] for name, row in rows.items()} == {
        where: sum(int(key[1:]) < 10 or int(key[1:]) % 3 == 2 for key in names),
        subset: 6,
    }
    assert sum(row["count"] for row in rows.values()) == model["funnel"]["excluded"]
    shown = [model["samples"][at] for at in rows[where]["shown"]]
    assert len(shown) == 12
    for one in shown:
        at = int(one["key"][1:])
        # The clauses that fail are named with what they looked at, and no others.
        failing = [f"width >= 110 (width is {100 + at})"] * (at < 10) + ["score < 2 (score is 2)"] * (
            at % 3 == 2
        )
        assert one["sentence"].endswith(f"is excluded: it does not pass where: {', '.join(failing)}.")
    for row in rows.values():
        for one in (model["samples"][at] for at in row["shown"]):
            assert (one["outcome"], one["size"]) == ("excluded", [36, 24])
            assert one["caption"] == f"caption {int(one['key'][1:])}"
    assert "without their picture" not in " ".join(model["head"]["notes"])


def test_remote_shards_give_the_same_page_by_ranges(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    draw = np.random.default_rng(7)
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for at in range(150):
                key = f"{shard}{at:04d}"
                # Noise, which no format makes small: as far apart as photographs are.
                pixels = draw.integers(0, 256, (120, 120, 3), dtype=np.uint8)
                add_member(tar, f"{key}.png", png(pixels) if at != 77 else b"no picture")
                if at != 33:
                    add_member(tar, f"{key}.txt", f"photo {at}".encode())
                add_member(tar, f"{key}.json", json.dumps({"width": at}).encode())
    whole = sum(path.stat().st_size for path in folder.iterdir())
    with serving(folder) as (address, asked):
        root = f"{address}/photos"
        pages = []
        for place, ledger in ((folder, "near"), (root, "far")):
            source = tldr.Source(f"{place}/{{00000..00001}}.tar", name="photos", where="width < 145")
            scorer = tldr.FittedScorer(run.folder / "fit", Colours())
            tldr.record(source, captioner=scorer, ledger=tmp_path / ledger)
            asked.clear()
            out = tmp_path / f"{ledger}.html"
            pages.append(tldr.report(source, ledger=tmp_path / ledger, out=out, max_mb=1.0))
    models = [json.loads(page.json.read_text()) for page in pages]
    near, model = models
    assert (model["funnel"]["failed"], model["funnel"]["excluded"]) == (4, 10)
    assert [len(row["shown"]) for row in model["excluded"]] == [3]
    # All but the commands, which name the place.
    assert all(len({model["head"].pop(name) for model in models}) == 2 for name in ("command", "export"))
    assert model == near
    sheets = [re.findall(r"url\((data:image/jpeg[^)]*)\)", page.out.read_text()) for page in pages]
    assert sheets[0] == sheets[1] != []
    unusable = [one for one in model["samples"] if one["outcome"] in ("excluded", "failed")]
    assert all("tile" in one for one in unusable if one["key"][1:] != "0077")
    # No more than the samples that are shown, and little between them.
    assert asked
    assert all(first is not None for _, first, _ in asked), asked
    assert sum(length for _, _, length in asked) < whole * 0.6
