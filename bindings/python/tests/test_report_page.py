"""Promise: the page opens from a file, asks for nothing, takes no caption for markup, does what it shows."""

from __future__ import annotations

import io
import itertools
import json
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import reporting
import tldr_loader as tldr
from reporting import ODD, Run, opened


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return reporting.recorded(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def made(run: Run) -> tldr.Report:
    return reporting.report(run)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with reporting.chromium() as started:
        yield started


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
    # What a step is, is said at every width; the sections are at hand everywhere.
    assert page.locator("table.funnel tr.kept td.what").is_visible()
    page.evaluate("document.getElementById('filter').scrollIntoView()")
    assert page.locator("nav").bounding_box()["y"] == 0
    page.evaluate("scrollTo(0, 0)")
    # An outcome has one colour: in the funnel, on tiles, in the bars of clusters.
    for name in ("kept", "gate", "quota", "near-duplicate"):
        colours = page.evaluate(
            """(name) => [[`table.funnel tr.${name} rect`, "fill"], [`#filter-tiles .is-${name}`, "color"],
                [`#sizes .fill-${name}`, "fill"], [`#sizes .is-${name}`, "color"]].map(
                ([place, of]) => getComputedStyle(document.querySelector(place))[of])""",
            name,
        )
        assert len(set(colours)) == 1, (name, colours)
    # Without captions nothing is said of their judges.
    text = page.locator("#captions").inner_text()
    assert text.count("The ledger has no ") == 1
    assert "A kept sample is trained on the caption that fuse=original takes." in text
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
    assert (
        page.locator("#filter-count")
        .inner_text()
        .startswith(f"{len(expected)} of the {len(samples)} samples on this page match")
    )
    page.locator("#filter-tiles .tick").nth(0).check()
    page.locator("#filter-tiles .tile .frame").nth(1).focus()
    page.keyboard.press("x")
    assert page.locator("#filter-count").inner_text().endswith("2 ticked")
    page.click("#tick-all")
    page.click("#copy-subset")
    status = page.locator("#copy-status")
    status.filter(has_text=f"To keep ONLY these {len(expected)}: save it as subset.jsonl").wait_for()
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
    page.click("#copy-exclude")
    status.filter(
        has_text=f"To leave these {len(expected)} OUT: save it as exclude.jsonl, run tldr-loader export"
    ).wait_for()
    assert status.inner_text().endswith("and give the source subset=subset.parquet.")
    # What it says runs, and leaves them out.
    (tmp_path / "exclude.jsonl").write_text(page.locator("#copied").input_value())
    command = shlex.split(status.locator("code").inner_text())
    done = subprocess.run(
        [sys.executable, "-m", "tldr_loader._command", *command[1:]],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = pq.read_table(tmp_path / "subset.parquet").to_pylist()
    assert len(left) == made.kept - len(expected)
    # It is of these ticks: with others it is gone.
    page.locator("#filter-tiles .tick").first.uncheck()
    assert status.inner_text() == ""
    assert not page.locator("#copied").is_visible()
    page.click("#tick-none")
    page.click("#copy-exclude")
    assert status.inner_text() == "Tick samples first."
    # All matches are ticked, by their number; where there are none it says so.
    assert page.locator("#tick-all").inner_text() == f"Tick all {len(expected)} matches"
    names = page.locator("#filter-outcome option").all_inner_texts()
    assert {"kept", "dropped: gate", "dropped: quota", "dropped: near-duplicate"} <= set(names)
    page.fill("#filter-text", "no such words")
    assert page.locator("#nothing").inner_text() == "Nothing matches: clear the filter"
    page.click("#clear")
    assert page.locator("#filter-count").inner_text().startswith(f"{len(samples)} of the ")
    page.select_option("#filter-outcome", "kept")
    page.select_option("#filter-source", "beta")
    # A tile opens its facts, and the switches work.
    page.locator("#filter-tiles .tile .frame").first.click()
    assert page.locator("#one").is_visible()
    assert expected[0]["sentence"] in {
        page.locator("#one-content p").inner_text(),
        *(one["sentence"] for one in expected),
    }
    # It is trained on as it is; a caption that the page cuts is said to be cut.
    assert "the caption above" in page.locator("#one-content dl").inner_text()
    for length, pieces in ((599, 1), (600, 2)):
        assert page.evaluate("(n) => whole('x'.repeat(n) + '…').length", length) == pieces
    assert page.evaluate("whole('x'.repeat(600) + '…')[1].textContent") == " cut at 600 characters"
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    assert page.evaluate("document.body.classList.contains('blurred')")
    page.click("#dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert seen.said == []
    page.context.close()


@pytest.mark.parametrize("gate", [tldr.Top(0.7), tldr.Top(0.6667), tldr.Top(0.6667, within="cluster")])
def test_the_curve_starts_at_what_was_decided(
    browser: Any, run: Run, made: tldr.Report, tmp_path: Path, gate: tldr.Top
) -> None:
    """At a cut and a keep_ratio between the steps of the sliders, too."""
    page_of = made
    if gate != tldr.Top(0.7):
        selection = tldr.Selection(keep_ratio=0.2345, gate=gate, window=64)
        page_of = tldr.report(run.source, **run.given, selection=selection, out=tmp_path / "odd.html")
    model = json.loads(page_of.json.read_text())
    funnel = model["funnel"]
    seen = opened(browser, page_of.out)
    page = seen.page
    before = page.locator("#curve-said").inner_text()
    passing, usable = funnel["usable"] - funnel["gate"], funnel["usable"]
    what = "The gate in force has a cut of its own for each cluster"
    if not model["gate"]["is_by_cluster"]:
        what = f"alignment of {float(np.float32(model['gate']['least'])):.6g} or more"
    if model["gate"]["least"] is not None:
        what += f" (= gate top({gate.share:g}))"
    assert f"{what}: {passing} of {usable} usable samples pass" in before
    assert f"keep_ratio {model['head']['keep_ratio']:g} keeps {funnel['kept']}, " in before
    assert before.endswith("this is what was decided.")
    page.locator("#curve-gate").fill("0")
    page.locator("#curve-ratio").fill("98")
    after = page.locator("#curve-said").inner_text()
    assert (
        f"alignment of 0 or more (= gate top(1)): {usable} of {usable} usable samples pass (100.0%)" in after
    )
    assert "decided" not in after
    # Each stop says how many pass: the samples with as much alignment.
    values = sorted(row["alignment"] for row in rows_of(run) if row["alignment"] is not None)
    last = int(page.locator("#curve-gate").get_attribute("max"))
    for stop in (40, 90, 140, last):
        page.locator("#curve-gate").fill(str(stop))
        text = page.locator("#curve-said").inner_text()
        match = re.match(r"alignment of ([\d.]+) or more(?: \(= gate top\([\d.]+\)\))?: (\d+) of", text)
        assert match is not None
        cut, found = match.groups()
        assert int(found) == sum(value >= np.float32(float(cut)) for value in values)
        # Shares are of the usable samples, and what cannot be is not promised.
        assert all(of == str(usable) for of in re.findall(r"of (\d+) usable", text))
        assert "of what passes" not in text
        page.locator("#curve-ratio").fill("99")
        most = min(usable, int(found))
        assert (
            f"at most {most} can be kept; the loader refuses this policy"
            in page.locator("#curve-said").inner_text()
        )
        page.locator("#curve-ratio").fill("98")
    # At the cut in force the near-duplicates that it found are left out.
    page.click("#curve-reset")
    assert page.locator("#curve-said").inner_text() == before
    assert page.locator("#curve-reset").is_disabled()
    page.locator("#curve-ratio").fill("5")
    low = page.locator("#curve-said").inner_text()
    if model["gate"]["least"] is not None:
        without = f", without {funnel['dedup']} near-duplicates" if funnel["dedup"] else ""
        most = min(round(0.06 * usable), passing - funnel["dedup"])
        assert low.endswith(
            f"keeps at most {most}, {100 * most / usable:.1f}% of the usable samples{without}."
        )
    assert seen.said == []
    page.context.close()


def rows_of(run: Run) -> list[dict[str, Any]]:
    out = run.folder / "all.parquet"
    tldr.export(out, **run.given, plan=run.plan, all=True)
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows


@pytest.mark.parametrize("width", [1280, 390])
def test_axes_have_round_numbers_that_can_be_read(browser: Any, made: tldr.Report, width: int) -> None:
    page = opened(browser, made.out, width).page
    texts = page.evaluate(
        """[...document.querySelectorAll("svg text.tick")].map((text) => {
            const box = text.getBoundingClientRect(), svg = text.closest("svg");
            const line = [svg.getAttribute("aria-label"), box.top].join();
            return [text.textContent, box.height, box.left, box.right, line];
        })"""
    )
    assert len(texts) > 25
    for text, height, *_ in texts:
        assert height >= 11, (text, height)
        number = re.fullmatch(r"(\d+:)?([\d,.]+)(%|:1| M| k| guessing| perfect)?", text)
        assert number, text
        digits = number[2].replace(",", "").replace(".", "").strip("0")
        assert len(digits) <= 2, text
    # None is over another one of its line.
    for line in {line for *_, line in texts}:
        own = sorted((left, right) for _, _, left, right, of in texts if of == line)
        assert all(right <= left + 1 for (_, right), (left, _) in itertools.pairwise(own)), line
    page.context.close()


def test_clusters_are_sorted_as_asked(browser: Any, made: tldr.Report) -> None:
    model = json.loads(made.json.read_text())
    clusters = {row["cluster"]: row["funnel"] for row in model["clusters"]}
    page = opened(browser, made.out).page
    values: dict[str, Callable[[dict[str, int]], float]] = {
        "size": lambda f: -f["usable"],
        "pass": lambda f: (f["usable"] - f["gate"]) / f["usable"],
        "kept": lambda f: f["kept"] / f["usable"],
    }
    orders = set()
    for name, value in values.items():
        page.select_option("#clusters-order", name)
        shown = page.locator("#cluster-cards .card").evaluate_all(
            "(cards) => cards.map((card) => +card.dataset.cluster)"
        )
        keys = [value(clusters[cluster]) for cluster in shown]
        assert keys == sorted(keys)
        assert len(shown) == len(clusters)
        orders.add(tuple(shown))
    assert len(orders) > 1


@pytest.mark.parametrize("key", ["Enter", "Space", "click"])
def test_a_tile_of_every_section_opens(browser: Any, made: tldr.Report, key: str) -> None:
    samples = json.loads(made.json.read_text())["samples"]
    seen = opened(browser, made.out)
    page = seen.page
    places = [f"{part} .tile .frame" for part in ("#edge", "#cluster-cards", "#groups", "#failure-rows")]
    for place in [*places, "#filter-tiles .tile .frame", "#failure-rows .link"]:
        button = page.locator(place).first
        assert button.get_attribute("aria-haspopup") == "dialog"
        if key == "click":
            button.click()
        else:
            button.focus()
            page.keyboard.press(key)
        assert page.locator("#one").is_visible(), place
        title = page.locator("#one-title").inner_text()
        sentence = page.locator("#one-content p").first.inner_text()
        assert any(one["key"] == title and one["sentence"] == sentence for one in samples)
        # It is read from its top, the arrows go through its list, and a click beside it closes.
        assert page.evaluate("document.activeElement.id") == "one-title"
        place_of = page.locator("#one-place").inner_text()
        if not place_of.endswith("of 1"):
            page.keyboard.press("ArrowRight")
            assert page.locator("#one-place").inner_text() == place_of.replace("1 of", "2 of")
            page.keyboard.press("ArrowLeft")
            assert page.locator("#one-title").inner_text() == title
        if key == "click":
            page.mouse.click(5, 450)
        else:
            page.keyboard.press("Escape")
        assert not page.locator("#one").is_visible()
    # A near-duplicate is shown beside the one that it fell to.
    page.locator("#groups .pair .tile:nth-child(2) .frame").first.click()
    assert page.locator("#one .large .picture").count() == 2
    page.keyboard.press("Escape")
    # Every picture is in a button that says that it opens: by its mark, and by its title.
    assert page.locator("main .picture").count() == page.locator("main .frame .picture").count()
    mark = page.locator("#edge .frame").first.evaluate(
        "(frame) => getComputedStyle(frame, '::after').content"
    )
    assert mark not in ("none", "normal")
    assert seen.said == []
    page.context.close()


def test_numbers_lie_on_their_own_side_of_the_cut(browser: Any, made: tldr.Report) -> None:
    page = opened(browser, made.out).page
    for value, cut, expected in [
        (0.4995226, 0.5, "0.4995"),
        (0.5, 0.5, "0.5"),
        (0.50004, 0.5, "0.50004"),
        (0.3449, 0.5, "0.345"),
        (0.9999, 0.5, "0.9999"),
        (1, 0.5, "1"),
        (0.00001, 0.5, "0.00001"),
        (0.49999997, 0.5, "0.49999997"),
        (0.33331, 0.3333, "0.33331"),
        (0.3333, 0.3333, "0.3333"),
        (-0.4, 2, "-0.4"),
    ]:
        assert page.evaluate("([value, cut]) => short(value, cut)", [value, cut]) == expected
    assert page.evaluate("[percent(1, 9999), percent(9999, 10000), percent(3, 3), percent(0, 3)]") == [
        "<0.1%", ">99.9%", "100.0%", "0.0%",
    ]  # fmt: skip
    # No tile that the gate dropped shows a number that passes.
    model = json.loads(made.json.read_text())
    tiles = page.locator("#edge .tile").evaluate_all(
        "(tiles) => tiles.map((tile) => [+tile.dataset.sample, tile.querySelector('.state').textContent])"
    )
    assert len(tiles) > 20
    for at, text in tiles:
        dropped = model["samples"][at].get("reason") == "gate"
        assert (float(text.rsplit("\u00a0", 1)[1]) < model["gate"]["least"]) == dropped, text
    page.context.close()


def test_a_group_says_what_is_kept_of_it(browser: Any, made: tldr.Report) -> None:
    model = json.loads(made.json.read_text())
    page = opened(browser, made.out).page
    said = page.locator("#groups .card > .soft").all_inner_texts()
    found = set()
    for group, text in zip(model["near"]["groups"], said, strict=True):
        kept = model["samples"][group["keeper"]]["outcome"] == "kept"
        found.add(kept)
        copies = f"{group['size']} near-duplicate" + ("s" if group["size"] > 1 else "")
        expected = f"1 stays, {group['size']} dropped" if kept else f"0 kept: {copies}, then the quota"
        assert text.split(": ", 1)[1].startswith(expected)
    assert found == {True, False}
    page.context.close()
