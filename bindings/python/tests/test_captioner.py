"""Train, fit, load, use: the captioner from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import flat
import tldr_loader as tldr
from conftest import SIZE, Corpus


@pytest.fixture(scope="module")
def directory(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captioner")
    seen: list[dict[str, float]] = []
    captioner = tldr.Captioner.train(
        corpus.urls, path, preset="tiny", epochs=2, batch_size=20, vocab_size=300, progress=seen.append
    )
    # A tenth of the 200 pairs is held out: two epochs of 8 or 9 steps.
    steps = int(seen[0]["steps"])
    assert steps in (16, 18)
    assert [said["step"] for said in seen] == list(range(1, steps + 1))
    assert all(said["steps"] == steps and said["loss"] > 0 for said in seen)
    assert captioner.clusters is None
    before = captioner.validation
    done: list[tuple[int, int]] = []
    report = captioner.fit(corpus.urls, clusters=8, progress=lambda at, of: done.append((at, of)))
    assert done[-1] == (200, 200)
    assert report["points"] == 200
    assert captioner.clusters == report["clusters"] == 8
    assert captioner.validation == report["validation"] == before
    assert report["captions"]["sampled"] == 64
    return path


def reduced(corpus: Corpus, captioner: Any, **options: Any) -> tldr.Loader:
    return flat.loader(
        corpus.urls,
        captioner=captioner,
        **{"keep_ratio": 0.25, "batch_size": 8, "image_size": SIZE, **options},
    )


def test_load_describes_the_captioner(directory: Path) -> None:
    captioner = tldr.Captioner.load(directory)
    assert captioner.path == str(directory)
    assert captioner.device == "cpu"
    assert captioner.clusters == 8
    assert captioner.preview_size == 16
    assert captioner.weights > 1000


def test_batches_carry_signals_and_captions(corpus: Corpus, directory: Path) -> None:
    loader = reduced(corpus, directory, fuse="concat", tokenizer=directory / "tokenizer.json")
    for batch in loader:
        assert all(cluster is not None and 0 <= cluster < 8 for cluster in batch.clusters)
        assert all(a is not None and 0.0 <= a <= 1.0 for a in batch.alignment)
        assert all(pi is not None and 0.0 < pi <= 1.0 for pi in batch.pi)
        for original, generated, fused in zip(batch.original, batch.generated, batch.captions, strict=True):
            assert generated is not None
            assert fused.startswith(original)
    stats = loader.stats()
    assert stats["encoded"] == 200
    assert stats["captioned"] > 0


def test_the_second_epoch_needs_no_captioner_and_a_shared_ledger_none_at_all(
    corpus: Corpus, directory: Path
) -> None:
    loader = reduced(corpus, directory)
    first = [key for batch in loader for key in batch.keys]
    assert loader.stats()["encoded"] == 200
    kept = loader.stats()["counts"]["kept"]
    list(loader)
    assert loader.stats()["encoded"] == 0
    assert loader.stats()["counts"]["kept"] == kept
    again = reduced(corpus, directory, ledger=loader.ledger)
    assert [key for batch in again for key in batch.keys] == first
    assert again.stats()["encoded"] == 0


def test_a_ledger_in_a_folder_outlives_its_loader_and_opens_anywhere(
    corpus: Corpus, directory: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "ledger"
    loader = reduced(corpus, directory, fuse="concat", ledger=folder)
    first = [batch.keys for batch in loader]
    captioned = loader.stats()["captioned"]
    assert captioned > 0
    again = reduced(corpus, directory, fuse="concat", ledger=tldr.Ledger(folder, cache_bytes=10_000))
    assert again.ledger.path == str(folder)
    assert [batch.keys for batch in again] == first
    stats = again.stats()
    assert (stats["encoded"], stats["captioned"]) == (0, 0)
    more = reduced(corpus, directory, ledger=folder, keep_ratio=0.4)
    assert len(list(more)) > len(first)
    assert more.stats()["encoded"] == 0

    dataset = pytest.importorskip("pyarrow.dataset")
    table = dataset.dataset(folder / "signals", format="parquet").to_table()
    assert table.num_rows == 200
    keys = {key for batch in first for key in batch}
    assert keys <= set(table["key"].to_pylist())
    assert all(0 <= cluster < 8 for cluster in table["cluster"].to_pylist())
    assert all(0.0 <= alignment <= 1.0 for alignment in table["alignment"].to_pylist())
    assert all(kind == "png" for kind in table["image"].to_pylist())
    # The bytes that it names are the image's.
    row = table.slice(0, 1).to_pylist()[0]
    shards = sorted(Path(str(corpus.urls)).parent.glob("*.tar"))
    at, size = row["offset"] + row["image_at"], row["image_size"]
    assert any(shard.read_bytes()[at : at + size].startswith(b"\x89PNG") for shard in shards)

    duckdb = pytest.importorskip("duckdb")
    captions = folder / "captions" / "*" / "*" / "*.parquet"
    ((count,),) = duckdb.sql(f"select count(*) from '{captions}' where caption is not null").fetchall()
    assert count == captioned
    # As docs/ledger.md has it, also where files of other kinds lie beside them.
    list(flat.loader(corpus.urls, keep_ratio=0.25, batch_size=8, image_size=SIZE, ledger=folder))
    signals = folder / "signals" / "*" / "*" / "*.parquet"
    query = f"select cluster, count(*) from read_parquet('{signals}', union_by_name = true) group by cluster"
    assert {cluster for cluster, _ in duckdb.sql(query).fetchall()} >= set(table["cluster"].to_pylist())


def test_a_captioner_object_serves_several_loaders(corpus: Corpus, directory: Path) -> None:
    captioner = tldr.Captioner.load(directory)
    a, b = reduced(corpus, captioner), reduced(corpus, captioner)
    assert [batch.keys for batch in a] == [batch.keys for batch in b]


def test_a_captioner_without_clusters_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    captioner = tldr.Captioner.train(
        corpus.urls, tmp_path, preset="tiny", epochs=1, batch_size=100, vocab_size=300
    )
    with pytest.raises(
        tldr.ConfigError, match=r"invalid captioner=.*: expected one with clusters: run `Captioner\.fit`"
    ):
        reduced(corpus, captioner)


def test_a_directory_that_is_none_is_named(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(tldr.TldrError, match="no-captioner"):
        tldr.Captioner.load(tmp_path / "no-captioner")
    with pytest.raises(tldr.TldrError, match="no-captioner"):
        reduced(corpus, tmp_path / "no-captioner")


def test_wrong_options_of_training_are_named(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(tldr.ConfigError, match="invalid preset=huge: expected one of tiny, small, base"):
        tldr.Captioner.train(corpus.urls, tmp_path, preset="huge")  # type: ignore[arg-type]
    with pytest.raises(tldr.ConfigError, match="invalid epochs=0: expected at least 1"):
        tldr.Captioner.train(corpus.urls, tmp_path, preset="tiny", epochs=0)


def test_an_exception_in_progress_ends_the_training(corpus: Corpus, tmp_path: Path) -> None:
    def stop(said: dict[str, float]) -> None:
        raise RuntimeError(f"enough after {said['step']}")

    with pytest.raises(RuntimeError, match="enough after 1"):
        tldr.Captioner.train(
            corpus.urls, tmp_path, preset="tiny", epochs=1000, batch_size=20, vocab_size=300, progress=stop
        )


def test_training_options_reach_the_run(corpus: Corpus, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "preset": "tiny", "epochs": 1, "batch_size": 20, "vocab_size": 300, "threads": 1, "accumulate": 2,
        "schedule": "step", "codebook_start": "keywords", "codebook_update": "loss", "commitment": 0.5,
        "precision": "float32", "checkpoint_every": 3, "validate": 0,
    }  # fmt: skip
    path = tmp_path / "captioner"

    def stop(said: dict[str, float]) -> None:
        if said["step"] == 4:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        tldr.Captioner.train(corpus.urls, path, progress=stop, **options)
    with pytest.raises(tldr.StateError, match=r"commitment was 0\.5 and is 0\.25"):
        tldr.Captioner.train(corpus.urls, path, **{**options, "commitment": 0.25})
    seen: list[dict[str, float]] = []
    tldr.Captioner.train(corpus.urls, path, progress=seen.append, **options)
    assert [said["step"] for said in seen] == list(range(int(seen[0]["step"]), 11))
    assert seen[0]["step"] > 1
    assert all(said["seconds_left"] >= 0 and said["fold"] == 0 for said in seen)
    for option, value in [("schedule", "linear"), ("precision", "f16"), ("resume", "maybe"), ("folds", 3)]:
        with pytest.raises(tldr.ConfigError, match=f"invalid {option}={value}"):
            tldr.Captioner.train(corpus.urls, tmp_path / "other", **{**options, option: value})


GOLDEN = Path(__file__).parents[3] / "tests" / "golden" / "blip"


def test_a_blip_becomes_a_captioner(corpus: Corpus, tmp_path: Path) -> None:
    captioner = tldr.Captioner.load_blip(GOLDEN / "base", tmp_path / "captioner", preview_size=48)
    assert captioner.preview_size == 48
    assert captioner.clusters is None
    settings = captioner.set_generation(decoding="nucleus", max_tokens=8, prompt="a", seed=3)
    assert settings["decoding"] == "nucleus"
    assert (settings["prompt"], settings["max_tokens"], settings["beams"]) == ("a", 8, 3)
    report = captioner.fit(corpus.urls, clusters=4, codes=20)
    assert report["codebook"]["codes"] == 20
    assert 0 < report["codebook"]["error"] < 1
    assert captioner.fit(corpus.urls, clusters=4, decode_from="quantised")["codebook"] is None
    loader = reduced(corpus, captioner, fuse="generated")
    first = [caption for batch in loader for caption in batch.generated]
    assert all(caption is not None for caption in first)
    stats = loader.stats()
    assert 0 <= stats["captions_empty"] + stats["captions_repetitive"] <= stats["captioned"]
    again = [caption for batch in reduced(corpus, captioner, fuse="generated") for caption in batch.generated]
    assert again == first


def test_a_matcher_judges_what_the_captioner_writes(corpus: Corpus, tmp_path: Path) -> None:
    retrieval = GOLDEN.parent / "blip_matcher" / "model"
    captioner = tldr.Captioner.load_blip(GOLDEN / "base", tmp_path / "captioner", matcher=retrieval)
    captioner.fit(corpus.urls, clusters=4, codes=20)
    matcher = tldr.Matcher.load_blip(retrieval, tmp_path / "matcher")
    assert (matcher.path, matcher.device, matcher.preview_size) == (str(tmp_path / "matcher"), "cpu", 32)
    assert tldr.Matcher.load(tmp_path / "matcher").weights == matcher.weights > 1000
    options: dict[str, Any] = {
        "fuse": "gated(0.5)",
        "rescue": True,
        "replace_repetitive": False,
        "strict": True,
    }
    seen = []
    for judge, device in ((matcher, None), (tmp_path / "matcher", "cpu")):
        loader = reduced(corpus, captioner, judge=judge, captioner_device=device, **options)
        rows = []
        for batch in loader:
            for rescued, alignment, judged, generated, fused in zip(
                batch.rescued, batch.alignment, batch.judged, batch.generated, batch.captions, strict=True
            ):
                assert rescued == (alignment is not None and alignment < 0.5)
                if rescued:
                    assert judged is not None
                    assert judged >= 0.5
                    assert fused == generated
                rows.append((rescued, judged, fused))
        seen.append(rows)
        stats = loader.stats()
        assert stats["judged"] > 0
        assert stats["rescued"] <= stats["counts"]["kept"]
    assert seen[0] == seen[1]


def test_a_caption_is_not_judged_by_its_generator(corpus: Corpus, directory: Path, tmp_path: Path) -> None:
    with pytest.raises(tldr.ConfigError, match=r"invalid fuse=gated\(0\.5\): expected a judge beside it"):
        reduced(corpus, directory, fuse="gated")
    with pytest.raises(tldr.ConfigError, match="invalid judge=the captioner itself"):
        reduced(corpus, directory, fuse="gated", judge=tldr.Captioner.load(directory))
    with pytest.raises(tldr.ConfigError, match=r"invalid judge=.*absent: it does not exist"):
        reduced(corpus, directory, fuse="gated", judge=tmp_path / "absent")
    with pytest.raises(tldr.ConfigError, match="invalid captioner_device=tpu: expected cpu, cuda or cuda:N"):
        reduced(corpus, directory, captioner_device="tpu")


def test_a_coin_follows_its_schedule(corpus: Corpus, directory: Path) -> None:
    loader = reduced(corpus, directory, fuse="coin({0: 0, 1: 1})")
    for wrote in (False, True):
        for batch in loader:
            assert [generated is not None for generated in batch.generated] == [wrote] * len(batch)


def test_what_is_no_blip_is_named(tmp_path: Path) -> None:
    with pytest.raises(tldr.ConfigError, match=r"invalid source=.*absent"):
        tldr.Captioner.load_blip(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(tldr.DataError, match=r'config\.json: expected model_type "blip"'):
        tldr.Captioner.load_blip(tmp_path, tmp_path / "out")


def test_settings_that_cannot_work_change_nothing(directory: Path) -> None:
    captioner = tldr.Captioner.load(directory)
    before = captioner.set_generation()
    with pytest.raises(tldr.ConfigError, match=r"invalid generation\.top_p=2"):
        captioner.set_generation(top_p=2.0)
    with pytest.raises(
        tldr.ConfigError, match="invalid decoding=best: expected one of greedy, beam, nucleus"
    ):
        captioner.set_generation(decoding="best")  # type: ignore[arg-type]
    assert captioner.set_generation() == before


def test_a_captioner_that_is_whole_is_not_trained_again(corpus: Corpus, directory: Path) -> None:
    seen: list[dict[str, float]] = []
    captioner = tldr.Captioner.train(
        corpus.urls, directory, preset="tiny", epochs=2, batch_size=20, vocab_size=300, progress=seen.append
    )
    assert seen == []
    assert captioner.clusters == 8
    with pytest.raises(tldr.StateError, match=r"epochs was 2 and is 3.*resume = never"):
        tldr.Captioner.train(corpus.urls, directory, preset="tiny", epochs=3, batch_size=20, vocab_size=300)


def test_warnings_reach_the_logger(corpus: Corpus, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    reduced(corpus, directory, gate=tldr.Top(0.5), fuse="best(0.7)")
    assert "every kept sample keeps its original caption" not in caplog.text
    # It was trained on the corpus.
    assert "fuse=best(0.7): the captioner was trained on 4 of the 4 shards" in caplog.text
    caplog.clear()
    reduced(corpus, directory, gate=tldr.Top(0.5), fuse="best")
    assert {record.name for record in caplog.records} == {"tldr_loader"}
    assert "every kept sample keeps its original caption" in caplog.text


def test_what_a_gate_is_worth_is_measured_and_said(
    corpus: Corpus, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worth = tldr.Captioner.load(directory).validation
    assert worth is not None
    auc, error = worth["auc"], worth["auc_error"]
    assert worth["measured_on"] == "held-out"
    assert 8 <= worth["pairs"] <= 32
    assert worth["perplexity"] > 1
    assert worth["close_to_chance"] == (auc < 0.6 or abs(auc - 0.5) <= 2 * error)
    with caplog.at_level("INFO", logger="tldr_loader"):
        loader = reduced(corpus, directory)
    assert loader.stats()["gate"] == worth
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines[0][0] == "INFO"
    assert f"AUC {auc:.3f} ± {error:.3f}" in lines[0][1]
    warned = [line for level, line in lines if level == "WARNING" and "close to chance" in line]
    assert len(warned) == int(auc < 0.6 or abs(auc - 0.5) <= 2 * error)
    caplog.clear()
    assert reduced(corpus, directory, gate=tldr.Top(1.0)).stats()["gate"] is None
    assert "AUC" not in caplog.text
