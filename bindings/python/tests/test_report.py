"""The report's numbers are those of the export, and its page does what it shows.

Promise: the page opens from a file, asks for nothing and takes no caption for markup; `explain` agrees with
both.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import tldr_loader as tldr
from conftest import Pair, add_member, png

CHROMIUM = shutil.which("chromium")
ODD = [
    "<script>document.title = 'taken'</script> a red square",
    "</script></style><img src=x onerror=\"document.title='taken'\"> a blue square",
    "quotes \" ' ` & &lt; {{ 7 * 7 }} {% raw %} ${1}",
    "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd",
    "emoji \U0001f468\u200d\U0001f469\u200d\U0001f467 and \u2028 a line",
]


class Colours:
    """A scorer: the picture's colours, and how many words its caption has."""

    preview_size, resize, batch_size, fingerprint = 16, "squash", 32, "colours"

    def score(self, previews: Any, captions: list[str]) -> dict[str, Any]:
        pixels = np.asarray(previews, np.float32).reshape(len(captions), 3, 4, 4, 4, 4)
        grid = pixels.mean(axis=(3, 5)).reshape(len(captions), -1)
        words = [len(text.split()) + len(text) / 1000 for text in captions]
        return {"embedding": grid, "alignment": np.array(words, np.float32)}


def bomb() -> bytes:
    """A PNG whose header promises 40,000 pixels a side."""
    data = bytearray(png(np.zeros((4, 4, 3), np.uint8)))
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@dataclass
class Run:
    """A corpus of two sources, recorded and planned."""

    folder: Path
    source: tldr.Source
    plan: Path
    selection: tldr.Selection

    @property
    def given(self) -> dict[str, Any]:
        return {"ledger": self.folder / "ledger", "captioner": self.folder / "fit"}


def write(path: Path, pairs: list[Pair], seed: int) -> None:
    with tarfile.open(path, "w") as tar:
        for at, pair in enumerate(pairs):
            if seed == 0 and at == 3:
                add_member(tar, f"{pair.key}.png", bomb())
            elif seed == 0 and at == 4:
                add_member(tar, f"{pair.key}.png", b"no picture")
            elif at % 2:
                out = io.BytesIO()
                Image.fromarray(pair.pixels).save(out, "JPEG", quality=95)
                add_member(tar, f"{pair.key}.jpg", out.getvalue())
            else:
                add_member(tar, f"{pair.key}.png", png(pair.pixels))
            if not (seed == 1 and at == 5):
                add_member(tar, f"{pair.key}.txt", pair.caption.encode())
            add_member(tar, f"{pair.key}.json", json.dumps({"key": pair.key}).encode())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(3)
    scenes = [rng.integers(0, 255, (4, 4, 3), dtype=np.uint8) for _ in range(90)]
    number = 0
    for source in ("alpha", "beta"):
        (folder / source).mkdir()
        for shard in range(2):
            pairs = []
            for _ in range(80):
                scene = np.kron(scenes[int(rng.integers(90))], np.ones((6, 9, 1), np.uint8))
                noise = rng.integers(-3, 3, scene.shape)
                words = " ".join(
                    rng.choice(["red", "boat", "tree", "dog", "hill", "sea", "cup"], int(rng.integers(2, 9)))
                )
                caption = (
                    ODD[number // 7] if number % 7 == 0 and number // 7 < len(ODD) else f"{words} {number}"
                )
                pixels = np.clip(scene.astype(int) + noise, 0, 255).astype(np.uint8)
                pairs.append(Pair(f"{number:06d}", pixels, caption))
                number += 1
            write(folder / source / f"{shard:05d}.tar", pairs, shard if source == "alpha" else 9)
    # One corpus of two folders, whose names are those of its sources.
    both = tldr.Source([f"{folder}/{name}/{{00000..00001}}.tar" for name in ("alpha", "beta")])
    tldr.fit(f"{folder}/beta/{{00000..00001}}.tar", Colours(), folder / "fit", clusters=6)
    selection = tldr.Selection(keep_ratio=0.2, gate=tldr.Top(0.7), dedup=0.97, window=64)
    plan = folder / "plan.parquet"
    scorer = tldr.FittedScorer(folder / "fit", Colours())
    tldr.plan(both, captioner=scorer, ledger=folder / "ledger", out=plan, selection=selection)
    return Run(folder, both, plan, selection)


@pytest.fixture(scope="module")
def made(run: Run) -> tldr.Report:
    scorer = tldr.FittedScorer(run.folder / "fit", Colours())
    return tldr.report(run.source, **run.given, plan=run.plan, out=run.folder / "report.html", scorer=scorer)


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
    assert str(answer) == "000165 in 00000.tar is excluded: where key != '000165'."
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
    assert (made.samples, made.pictures) == (160, 157)
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@dataclass
class Seen:
    """A page that is open, and what it said and asked for."""

    page: Any
    said: list[str]
    asked: list[str]


def opened(browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> Seen:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    seen = Seen(context.new_page(), [], [])
    seen.page.on("console", lambda message: seen.said.append(message.text))
    seen.page.on("pageerror", lambda error: seen.said.append(str(error)))
    seen.page.on("request", lambda request: seen.asked.append(request.url))
    seen.page.goto(path.as_uri())
    return seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_from_a_file(browser: Any, made: tldr.Report, width: int, scheme: str) -> None:
    seen = opened(browser, made.out, width, scheme)
    page, model = seen.page, json.loads(made.json.read_text())
    assert seen.said == []
    assert [url for url in seen.asked if not url.startswith("data:")] == [made.out.as_uri()]
    # It fits the screen.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for section in ("funnel", "gate", "clusters", "near", "histograms", "captions", "failures", "filter"):
        assert page.locator(f"#{section}").is_visible()
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back)[:3])) < 200) == (scheme == "dark")
    # No word of a table is broken.
    assert page.locator("table.funnel tr.loss th").first.bounding_box()["height"] < 45
    # The numbers on it.
    kept = page.locator("table.funnel tr.kept td.number").first.inner_text()
    assert int(kept.replace(",", "")) == model["funnel"]["kept"]
    groups = model["near"]["groups"]
    assert page.locator("#groups .card").count() == len(groups)
    assert page.locator('#edge [data-edge="above"] .tile').count() == len(model["edge"]["above"]) > 0
    assert page.locator("#cluster-cards .card").count() == len(model["clusters"])
    assert page.locator("#histogram-charts svg").count() >= 5
    reasons = {row["reason"] for row in model["failures"]}
    assert reasons == {"image-too-large", "undecodable-image", "missing-caption"}
    # Where a picture can be decoded it is shown: of the sample without a caption.
    assert page.locator('#failure-rows [data-reason="missing-caption"] .picture').count() == 1
    # Every picture has a text, and every tile names shard and key.
    assert page.locator(".picture:not([aria-label])").count() == 0
    where = page.locator("#filter-tiles .tile .where").first.inner_text()
    assert re.fullmatch(r"(alpha|beta)/\d{5}\.tar \d{6}", where)
    page.context.close()


def test_pictures_are_those_of_their_samples(browser: Any, run: Run, made: tldr.Report) -> None:
    seen = opened(browser, made.out)
    model = json.loads(made.json.read_text())
    checked = 0
    for at in model["browse"][:12]:
        sample = model["samples"][at]
        if "tile" not in sample:
            continue
        with tarfile.open(run.folder / sample["source"] / sample["shard"]) as tar:
            member = next(m for m in tar.getmembers() if m.name.split(".")[0] == sample["key"])
            file = tar.extractfile(member)
            assert file is not None
            expected = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"), np.float32)
        picture = seen.page.locator(f'#filter-tiles [data-sample="{at}"] .picture')
        if picture.count() == 0:
            continue
        shot = np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("RGB"), np.float32)
        # Drawn at its own size, but for where it falls between two pixels of the screen.
        assert expected.shape == (24, 36, 3)
        assert 0 <= shot.shape[0] - 24 <= 1
        assert 0 <= shot.shape[1] - 36 <= 1
        assert np.abs(shot[2:22, 2:34] - expected[2:22, 2:34]).mean() < 40
        checked += 1
    assert checked > 3
    seen.page.context.close()


def test_captions_are_inert(browser: Any, made: tldr.Report) -> None:
    seen = opened(browser, made.out)
    page = seen.page
    assert page.title() == "tldr-loader report: 320 samples"
    for caption in ODD[:3]:
        page.fill("#filter-text", caption.split(" a ")[0][:40])
        tile = page.locator("#filter-tiles .tile .text").first
        assert tile.text_content() == caption
    assert page.title() == "tldr-loader report: 320 samples"
    assert page.locator("main img").count() == 0
    for caption in ODD[3:]:
        page.fill("#filter-text", caption.split()[0].strip("\u202e"))
        texts = page.locator("#filter-tiles .tile .text").all_text_contents()
        assert caption in texts
    assert seen.said == []
    page.context.close()


def test_samples_are_filtered_and_copied(browser: Any, run: Run, made: tldr.Report, tmp_path: Path) -> None:
    seen = opened(browser, made.out)
    page, samples = seen.page, json.loads(made.json.read_text())["samples"]
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter-text"
    page.select_option("#filter-outcome", "kept")
    page.select_option("#filter-source", "beta")
    expected = [one for one in samples if one["outcome"] == "kept" and one["source"] == "beta"]
    assert page.locator("#filter-count").inner_text().startswith(f"{len(expected)} of {len(samples)} sampled")
    page.locator("#filter-tiles .tick").nth(0).check()
    page.locator("#filter-tiles .tile .frame").nth(1).focus()
    page.keyboard.press("x")
    assert page.locator("#filter-count").inner_text().endswith("2 ticked")
    page.click("#tick-all")
    page.click("#copy-subset")
    text = page.locator("#copied").input_value()
    subset = tmp_path / "subset.jsonl"
    subset.write_text(text)
    assert len(text.splitlines()) == len(expected) > 3
    # The loader reads them and no others.
    loader = tldr.Loader(
        tldr.Source(f"{run.folder}/beta/{{00000..00001}}.tar", subset=subset),
        mode="eval",
        batch_size=4,
        images=tldr.Images(image_size=16),
    )
    keys = {key for batch in loader for key in batch.keys}
    assert keys == {one["key"] for one in expected}
    page.click("#tick-none")
    page.click("#copy-exclude")
    assert page.locator("#copy-status").inner_text() == "Tick samples first."
    # A tile opens its facts, and the switches work.
    page.locator("#filter-tiles .tile .frame").first.click()
    assert page.locator("#one").is_visible()
    assert expected[0]["sentence"] in {
        page.locator("#one-content p").inner_text(),
        *(one["sentence"] for one in expected),
    }
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    assert page.evaluate("document.body.classList.contains('blurred')")
    page.click("#dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    # The curve says what another gate would let pass.
    before = page.locator("#curve-said").inner_text()
    page.locator("#curve-gate").fill("0")
    after = page.locator("#curve-said").inner_text()
    usable = json.loads(made.json.read_text())["funnel"]["usable"]
    assert before != after
    assert f"{usable} of {usable} usable samples pass (100.0%)" in after
    assert seen.said == []
    page.context.close()
