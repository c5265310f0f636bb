"""Scorers of the user's own."""

from __future__ import annotations

import io
import tarfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import tldr_loader as tldr
from conftest import add_member
from tldr_loader._scorer_adapter import Adapter

COLOURS = ["red", "green", "blue", "grey"]


class ByColour:
    """Embeds the mean colour; a caption fits if it names the brightest channel. NumPy alone."""

    preview_size = 8
    resize = "squash"
    interpolation = "bilinear"
    batch_size = 16
    fingerprint: str | int = "by colour"

    def score(self, previews: Any, captions: list[str]) -> Mapping[str, Any]:
        pixels = np.asarray(previews, np.float32)
        means = pixels.mean((2, 3)) + 1.0
        brightest = means.argmax(1)
        fits = [
            1.0 if COLOURS[int(row)] in text else 0.0 for row, text in zip(brightest, captions, strict=True)
        ]
        spread = means.max(1) - means.min(1)
        return {"embedding": means - means.mean(), "alignment": np.array(fits) + spread / 1e6}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Pictures of one colour, of which a quarter have the caption of another."""
    folder = tmp_path_factory.mktemp("colours")
    draw = np.random.default_rng(1)
    for shard in range(3):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for i in range(80):
                colour = (i + shard) % 3
                said = colour if i % 4 else (colour + 1) % 3
                pixels = draw.integers(0, 60, (20, 24, 3), dtype=np.uint8)
                pixels[..., colour] += 150
                out = io.BytesIO()
                Image.fromarray(pixels).save(out, "PNG")
                add_member(tar, f"{shard}{i:04d}.png", out.getvalue())
                add_member(tar, f"{shard}{i:04d}.txt", f"a {COLOURS[said]} picture number {i}".encode())
    return f"{folder}/{{00000..00002}}.tar"


def loader(source: str, captioner: Any, **options: Any) -> tldr.Loader:
    selection = tldr.Selection(keep_ratio=0.4, gate=tldr.Top(0.6), window=64)
    options = {"batch_size": 8, "images": tldr.Images(image_size=16), "selection": selection, **options}
    return tldr.Loader(source, captioner=captioner, **options)


def captions(loader: tldr.Loader) -> list[str]:
    return [text for batch in loader for text in batch.captions]


def test_a_scorer_of_ones_own_decides(pairs: str, tmp_path: Path) -> None:
    fitted = tldr.fit(pairs, ByColour(), tmp_path / "fit", clusters=3)
    report = fitted.report
    assert report is not None
    assert (report.points, report.dim, report.clusters) == (240, 3, 3)
    # A true caption fits in three of four cases, a swapped one in one of three.
    assert report.auc is not None
    assert report.auc > 0.6
    found = captions(loader(pairs, fitted))
    wrong = [text for text in found if int(text.rsplit(" ", 1)[1]) % 4 == 0]
    assert found
    assert not wrong, "the gate keeps captions that fit"
    # The same with a ledger, without the scorer, and from the folder alone once that is complete.
    ledger = tmp_path / "ledger"
    assert captions(loader(pairs, fitted, ledger=str(ledger))) == found
    assert captions(loader(pairs, str(tmp_path / "fit"), ledger=str(ledger))) == found
    plan = tmp_path / "plan"
    made = tldr.plan(
        pairs, captioner=fitted, ledger=str(ledger), out=plan, selection=tldr.Selection(keep_ratio=0.3)
    )
    assert made.kept == 72


def test_clusters_are_the_same_where_the_scorers_device_finds_the_nearest(
    pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(name: str) -> dict[str, np.ndarray[Any, Any]]:
        tldr.fit(pairs, ByColour(), tmp_path / name, clusters=5)
        tensors: dict[str, np.ndarray[Any, Any]] = load_file(tmp_path / name / "clusters.safetensors")
        return tensors

    here = fit("here")
    called = []
    own = Adapter.nearest

    def watched(self: Adapter, points: Any, centroids: Any) -> tuple[Any, Any]:
        found = own(self, points, centroids)
        called.append(len(found[0]))
        return found

    # As if the CPU were another device, in parts that do not divide the points.
    monkeypatch.setattr(Adapter, "finds_nearest", True)
    monkeypatch.setattr(Adapter, "nearest", watched)
    monkeypatch.setattr("tldr_loader._scorer_adapter.NEAREST_ROWS", 7)
    there = fit("there")
    assert called
    assert set(called) == {240}
    for name, tensor in here.items():
        np.testing.assert_allclose(there[name], tensor, atol=1e-5, err_msg=name)
    monkeypatch.setattr(Adapter, "nearest", lambda *_: (np.full(240, 5), np.zeros(240, np.float32)))
    with pytest.raises(tldr.TldrError, match=r"nearest centroids that the scorer returned.*below 5"):
        fit("wrong")


def test_the_next_batch_is_uploaded_while_the_model_is_at_work(
    pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, int]] = []

    class Watched(ByColour):
        def score(self, previews: Any, captions: list[str]) -> Mapping[str, Any]:
            if len(said) == 1:
                # Meanwhile others come to wait behind this one.
                time.sleep(1)
            said.append(("score", int(torch.as_tensor(previews).sum())))
            return super().score(previews, captions)

    expected = captions(loader(pairs, tldr.fit(pairs, Watched(), tmp_path / "fit", clusters=3)))

    # As if the CPU were a GPU: what is uploaded is a copy.
    def upload(_: Adapter, previews: Any) -> tuple[Any, Any]:
        pixels = torch.utils.dlpack.from_dlpack(previews).clone()
        said.append(("upload", int(pixels.sum())))
        return pixels, None

    own = Adapter.score

    def score(adapter: Adapter, *batch: Any) -> Any:
        found = own(adapter, *batch)
        said.append(("read", 0))
        return found

    fitted = tldr.FittedScorer(tmp_path / "fit", Watched())
    monkeypatch.setattr(Adapter, "uploads", True)
    monkeypatch.setattr(Adapter, "_upload", upload)
    monkeypatch.setattr(Adapter, "_uploaded", lambda _, pixels, end: pixels)
    monkeypatch.setattr(Adapter, "score", score)
    said.clear()
    assert captions(loader(pairs, fitted)) == expected
    # Every batch is uploaded once and scored once, in order.
    scored = [of for what, of in said if what == "score"]
    assert [of for what, of in said if what == "upload"] == scored
    assert len(set(scored)) == len(scored) >= 15
    # The next one before the results are waited for.
    steps = " ".join(what for what, _ in said)
    assert steps.startswith("upload score ")
    assert steps.count("score upload read") >= 5, steps


def test_jobs_without_a_model_take_a_fitted_scorer_or_its_folder(pairs: str, tmp_path: Path) -> None:
    fitted = tldr.fit(pairs, ByColour(), tmp_path / "fit", clusters=3)
    ledger, plan = tmp_path / "ledger", tmp_path / "plan.parquet"
    selection = tldr.Selection(keep_ratio=0.3, gate=tldr.Top(0.6))
    tldr.plan(pairs, captioner=fitted, ledger=ledger, out=plan, selection=selection)
    for captioner in (fitted, tmp_path / "fit", str(tmp_path / "fit")):
        given: dict[str, Any] = {"ledger": ledger, "captioner": captioner}
        found = tldr.explain("00001", plan=plan, **given)
        assert [one.key for one in found] == ["00001"]
        kept = tldr.export(tmp_path / "kept.parquet", selection=selection, **given)
        assert kept.samples > 0
        assert tldr.audit(ledger, captioner=captioner, selection=selection, seeds=200).checks
        tldr.report(pairs, plan=plan, out=tmp_path / "page.html", **given)


def test_what_a_ledger_lacks_of_a_scorer_names_the_scorer(pairs: str, tmp_path: Path) -> None:
    tldr.fit(pairs, ByColour(), tmp_path / "fit", clusters=3)
    advice = r"was fitted with a scorer of your own, which is not here: give tldr\.FittedScorer\(.*fit"
    with pytest.raises(tldr.LedgerError, match=advice):
        captions(loader(pairs, str(tmp_path / "fit"), ledger=str(tmp_path / "ledger")))
    with pytest.raises(tldr.LedgerError, match=advice):
        tldr.record(pairs, captioner=tmp_path / "fit", ledger=tmp_path / "other")


@pytest.mark.parametrize("model", ["a folder", torch.nn.Linear(1, 1)])
def test_what_is_no_scorer_is_told_where_to_get_one(pairs: str, tmp_path: Path, model: Any) -> None:
    with pytest.raises(
        tldr.ConfigError, match=r"invalid scorer=.*expected a scorer, such as tldr_loader\.models"
    ):
        tldr.fit(pairs, model, tmp_path / "fit")


def test_clusters_of_the_scorers_own(pairs: str, tmp_path: Path) -> None:
    class Own(ByColour):
        def score(self, previews: Any, captions: list[str]) -> Mapping[str, Any]:
            found = dict(super().score(previews, captions))
            return {**found, "cluster": np.asarray(previews).mean((2, 3)).argmax(1)}

    report = tldr.fit(pairs, Own(), tmp_path / "fit").report
    assert report is not None
    assert report.clusters == 3


class Bad(ByColour):
    """Returns what it is told."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def score(self, previews: Any, captions: list[str]) -> Mapping[str, Any]:
        good = dict(super().score(previews, captions))
        return self.found(good)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (lambda good: [good], "a mapping with embedding is expected"),
        (lambda good: {"embedding": good["embedding"]}, "alignment or text_embedding is expected"),
        (
            lambda good: {**good, "alignment": good["alignment"][:3]},
            r"alignment of shape \[16\] is expected.*\[3\]",
        ),
        (lambda good: {**good, "embedding": good["alignment"]}, r"embedding of shape \[16, 'dim'\]"),
        (lambda good: {**good, "embedding": good["embedding"] * np.nan}, "embedding has NaN"),
        (lambda good: {**good, "alignment": ["a"] * 16}, "alignment is no array of numbers"),
        (lambda good: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_does_not_fit_is_named(pairs: str, tmp_path: Path, found: Any, message: str) -> None:
    with pytest.raises(tldr.CaptionerError, match=message):
        tldr.fit(pairs, Bad(found), tmp_path / "fit")


def test_an_error_has_the_traceback_of_the_scorer(pairs: str, tmp_path: Path) -> None:
    def fails(good: dict[str, Any]) -> Any:
        return good["no such key"]

    scorer = Bad(lambda good: good)
    fitted = tldr.fit(pairs, scorer, tmp_path / "fit", clusters=3)

    def wrong() -> None:
        scorer.found = fails
        captions(loader(pairs, fitted))

    for run in (wrong, lambda: tldr.fit(pairs, scorer, tmp_path / "again")):
        with pytest.raises(tldr.CaptionerError, match="KeyError: 'no such key'") as caught:
            run()
        cause = caught.value.__cause__
        assert isinstance(cause, KeyError)
        frames = [frame.name for frame in traceback.extract_tb(cause.__traceback__)]
        assert frames[-1] == "fails", "where it happened"
        assert "score" in frames


def test_attributes_that_cannot_work_are_named(pairs: str, tmp_path: Path) -> None:
    for name, value, message in [
        ("preview_size", 0, r"scorer\.preview_size=0: expected a whole number"),
        ("resize", "pad", r"scorer\.resize='pad'.*expected squash"),
        ("interpolation", "nearest", "interpolation='nearest'"),
        ("fingerprint", 1.5, r"scorer\.fingerprint=1\.5: expected a text"),
        ("mean", (0.5, 0.5, 0.5), "mean and std together"),
    ]:
        scorer = ByColour()
        setattr(scorer, name, value)
        with pytest.raises(tldr.ConfigError, match=message):
            tldr.fit(pairs, scorer, tmp_path / "fit")


def test_another_scorer_than_the_fitted_one_is_refused(pairs: str, tmp_path: Path) -> None:
    tldr.fit(pairs, ByColour(), tmp_path / "fit", clusters=3)
    other = ByColour()
    other.fingerprint = "another"
    with pytest.raises(tldr.ConfigError, match="fingerprint"):
        tldr.FittedScorer(tmp_path / "fit", other)

    class Tuned(ByColour):
        def score(self, previews: Any, captions: list[str]) -> Mapping[str, Any]:
            found = dict(super().score(previews, captions))
            return {**found, "embedding": found["embedding"][:, ::-1]}

    with pytest.raises(tldr.ConfigError, match=r"same fingerprint.*weights changed"):
        tldr.FittedScorer(tmp_path / "fit", Tuned())
    with pytest.raises(tldr.ConfigError, match=r"tldr\.fit"):
        tldr.FittedScorer(tmp_path, ByColour())


def test_a_scorer_whose_rows_depend_on_their_place_needs_a_ledger_to_resume(
    pairs: str, tmp_path: Path
) -> None:
    class Placed(ByColour):
        def score(self, previews: Any, captions: list[str]) -> Mapping[str, Any]:
            found = dict(super().score(previews, captions))
            return {**found, "alignment": found["alignment"] + np.arange(len(captions)) * 1e-6}

    tldr.fit(pairs, Placed(), tmp_path / "fit", clusters=3)
    with pytest.warns(RuntimeWarning, match="depend on where a sample stands"):
        fitted = tldr.FittedScorer(tmp_path / "fit", Placed())
    running = loader(pairs, fitted)
    next(iter(running))
    state = running.state_dict()
    with pytest.raises(tldr.StateError, match="give the loader a `ledger`"):
        loader(pairs, fitted).load_state_dict(state)
    loader(pairs, fitted, ledger=str(tmp_path / "ledger")).load_state_dict(state)


def test_it_writes_captions_too(pairs: str, tmp_path: Path) -> None:
    class Writer(ByColour):
        caption_fingerprint = "one"

        def caption(self, previews: Any, ids: list[int]) -> list[str]:
            return [f"mostly {COLOURS[int(row)]}" for row in np.asarray(previews).mean((2, 3)).argmax(1)]

    fitted = tldr.fit(pairs, Writer(), tmp_path / "fit", clusters=3)
    found = captions(loader(pairs, fitted, captions=tldr.Captions(fuse="generated")))
    assert found
    assert all(text.startswith("mostly ") for text in found)


def test_another_scorer_judges_what_is_written(pairs: str, tmp_path: Path) -> None:
    class Writer(ByColour):
        fingerprint = "writer"
        caption_fingerprint = "one"

        def caption(self, previews: Any, ids: list[int]) -> list[str]:
            # Right for every other sample.
            brightest = np.asarray(previews).mean((2, 3)).argmax(1)
            return [
                f"mostly {COLOURS[(int(row) + id % 2) % 3]}" for row, id in zip(brightest, ids, strict=False)
            ]

    writer = tldr.fit(pairs, Writer(), tmp_path / "writer", clusters=3)
    judge = tldr.fit(pairs, ByColour(), tmp_path / "judge", clusters=3)
    gated = tldr.Captions(fuse=tldr.Gated(0.2), judge=judge)
    judged = loader(pairs, writer, captions=gated, selection=tldr.Selection.full())
    scores: dict[bool, list[float]] = {True: [], False: []}
    for batch in judged:
        rows = zip(batch.ids, batch.captions, batch.generated, batch.judged, strict=True)
        for id, caption, generated, score in rows:
            if generated is None:
                continue
            assert score is not None
            scores[id % 2 == 0].append(score)
            assert caption != generated or score >= 0.2
    assert len(scores[True]) > 20
    assert min(scores[True]) > max(scores[False]), "the judge tells right captions from wrong ones"
    with pytest.raises(tldr.ConfigError, match="judge=the captioner itself"):
        loader(pairs, writer, captions=tldr.Captions(fuse=tldr.Gated(0.5), judge=writer))


def test_previews_arrive_as_tensors_normalised_and_captions_as_tokens(pairs: str, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    class Tensors(ByColour):
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
        autocast = torch.bfloat16

        def tokenizer(self, captions: list[str]) -> torch.Tensor:
            return torch.tensor([[len(text)] for text in captions])

        def score(self, previews: Any, captions: Any) -> Mapping[str, Any]:
            seen.update(previews=previews, captions=captions, autocast=torch.is_autocast_enabled("cpu"))
            seen["inference"] = torch.is_inference_mode_enabled()
            flat = previews.flatten(1)
            return {
                "embedding": flat @ torch.eye(flat.shape[1])[:, :5],
                "text_embedding": captions.expand(-1, 5).float(),
            }

    adapter = Adapter(Tensors())
    pixels = np.arange(16 * 3 * 8 * 8, dtype=np.uint8).reshape(16, 3, 8, 8)
    embedding, alignment, cluster = adapter.score(pixels, ["ab"] * 16)
    wanted = (pixels / 255 - np.reshape(Tensors.mean, (1, 3, 1, 1))) / np.reshape(Tensors.std, (1, 3, 1, 1))
    np.testing.assert_allclose(seen["previews"].numpy(), wanted, atol=1e-5)
    assert seen["captions"].tolist() == [[2]] * 16
    assert seen["autocast"]
    assert seen["inference"]
    assert (embedding.dtype, alignment.dtype, cluster) == (np.float32, np.float32, None)
    assert embedding.shape == (16, 5)
