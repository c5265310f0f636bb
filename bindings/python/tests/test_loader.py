"""The loader from Python: batches, order, state, statistics, errors."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

import flat
import tldr_loader as tldr
from conftest import SIZE, Corpus, Pair, write_shard

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])
MERGES = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"


def loader(corpus: Corpus, **options: Any) -> tldr.Loader:
    defaults: dict[str, Any] = {"batch_size": 8, "image_size": SIZE, "tokenizer": MERGES}
    if "mode" not in options:
        defaults["keep_ratio"] = 0.25
    return flat.loader(corpus.urls, **{**defaults, **options})


def test_eval_yields_every_sample_once_in_order_with_the_right_pixels_and_tokens(corpus: Corpus) -> None:
    batches = list(loader(corpus, mode="eval", batch_size=64))
    assert [len(b) for b in batches] == [64, 64, 64, 8]
    keys = [key for batch in batches for key in batch.keys]
    assert keys == [pair.key for pair in corpus.pairs]
    images = torch.cat([b.images for b in batches])
    assert images.dtype == torch.float32
    pixels = torch.from_numpy(np.stack([pair.pixels for pair in corpus.pairs])).float() / 255
    expected = ((pixels - MEAN) / STD).permute(0, 3, 1, 2)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    tokens = torch.cat([b.tokens for b in batches if b.tokens is not None])
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, open_clip.tokenize([pair.caption for pair in corpus.pairs]))


def test_a_batch_unpacks_and_names_its_rows(corpus: Corpus) -> None:
    batch = next(iter(loader(corpus, mode="full")))
    images, tokens = batch
    assert images is batch.images
    assert tokens is batch.tokens
    assert images.shape == (8, 3, SIZE, SIZE)
    assert tokens.shape == (8, 77)
    captions = {pair.key: pair.caption for pair in corpus.pairs}
    assert batch.original == batch.captions == [captions[key] for key in batch.keys]
    assert batch.generated == [None] * 8
    assert batch.clusters == [None] * 8
    assert batch.alignment == [None] * 8
    assert batch.json == [f'{{"key": "{key}"}}'.encode() for key in batch.keys]
    assert len(set(batch.ids)) == len(batch) == 8
    assert (batch.epoch, batch.step) == (0, 0)


def test_uint8_pixels_arrive_as_stored(corpus: Corpus) -> None:
    batch = next(iter(loader(corpus, mode="eval", dtype="uint8")))
    assert batch.images.dtype == torch.uint8
    assert np.array_equal(
        batch.images.permute(0, 2, 3, 1).numpy(), np.stack([p.pixels for p in corpus.pairs[:8]])
    )


def test_without_a_tokenizer_batches_do_not_unpack(corpus: Corpus) -> None:
    batch = next(iter(loader(corpus, mode="full", tokenizer=None)))
    assert batch.tokens is None
    with pytest.raises(
        tldr.ConfigError, match="invalid tokenizer=None: expected a tokenizer, for batches to unpack"
    ):
        _, _ = batch


def test_batches_outlive_their_loader(corpus: Corpus) -> None:
    images = [batch.images for batch in loader(corpus, mode="full")]
    again = [batch.images for batch in loader(corpus, mode="full")]
    assert len(images) == 25
    assert all(torch.equal(a, b) for a, b in zip(images, again, strict=True))


def test_lengths_and_epochs(corpus: Corpus) -> None:
    reduced = loader(corpus, keep_ratio=0.25)
    assert len(reduced) == reduced.num_batches == 6
    assert reduced.num_samples == 48
    first = [batch.keys for batch in reduced]
    assert len(first) == 6
    assert reduced.epoch == 1
    second = [batch.keys for batch in reduced]
    assert first != second
    reduced.set_epoch(0)
    assert [batch.keys for batch in reduced] == first


def test_statistics_add_up(corpus: Corpus) -> None:
    reduced = loader(corpus, keep_ratio=0.25)
    samples = sum(len(batch) for batch in reduced)
    stats = reduced.stats()
    counts = stats["counts"]
    assert counts["read"] == len(corpus.pairs)
    dropped = counts["dropped_gate"] + counts["dropped_dedup"] + counts["dropped_quota"]
    assert counts["read"] == counts["kept"] + dropped + sum(counts["failed"].values())
    assert stats["yielded"] == samples == counts["kept"] + stats["repeats"] - stats["surplus"]
    assert sum(shard["read"] for shard in stats["shards"].values()) == counts["read"]
    assert stats["seconds"]["example"] > 0


def test_what_is_left_over_is_said(corpus: Corpus) -> None:
    # 50 of 200 are kept: six batches of eight and a part of a batch, which is no cause for a warning.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reduced = loader(corpus, keep_ratio=0.25, lanes=4)
        assert len(list(reduced)) == 6
    assert reduced.stats()["surplus"] == 2
    # A table that knows half of the samples: three batches of eight, and the rest is too much.
    shards = len(reduced.stats()["shards"])
    wrong = loader(corpus, keep_ratio=0.25, lanes=4, lengths=[100 // shards] * shards)
    with pytest.warns(RuntimeWarning, match=r"epoch 0: 26 kept samples \(108\.3%\) were left over"):
        assert len(list(wrong)) == 3


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_a_saved_state_resumes_with_what_was_left(corpus: Corpus, after: int) -> None:
    whole = [batch.keys for batch in loader(corpus)]
    interrupted = loader(corpus)
    batches = iter(interrupted)
    for _ in range(after):
        next(batches)
    state = interrupted.state_dict()
    assert json.loads(json.dumps(state)) == state, "plain data, for any checkpoint"
    assert (state["epoch"], state["step"]) == (0, after)
    resumed = loader(corpus)
    resumed.load_state_dict(state)
    assert [batch.keys for batch in resumed] == whole[after:]


def threads() -> list[str]:
    """Names of this process's threads that belong to loaders."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if name.startswith(("tldr-read", "tldr-select", "tldr-batch"))]


def test_cuda_is_the_device_that_torch_uses(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 99)
    with pytest.raises(tldr.ConfigError, match="invalid device=cuda:99: expected "):
        loader(corpus, device="cuda")


def test_an_iterator_that_nothing_was_asked_of_has_no_effect(corpus: Corpus) -> None:
    whole = [batch.keys for batch in loader(corpus)]
    resumed = loader(corpus)
    resumed.load_state_dict({**resumed.state_dict(), "step": 2})
    running = threads()
    iter(resumed)  # as Lightning asks whether it can be iterated over
    kept = iter(resumed)
    assert threads() == running
    assert resumed.state_dict()["step"] == 2
    assert [batch.keys for batch in resumed] == whole[2:]
    resumed.set_epoch(0)
    assert [batch.keys for batch in kept] == whole, "it begins where the loader is with its first batch"


def test_a_state_of_another_configuration_is_refused(corpus: Corpus) -> None:
    state = loader(corpus).state_dict()
    with pytest.raises(tldr.StateError, match="configuration: seed: this loader has 1, the state 0"):
        loader(corpus, seed=1).load_state_dict(state)
    for wrong, named in [
        ({**state, "step": "4"}, "expected u64"),
        ({**state, "step": True}, "step: a whole number"),
        ({**state, "epoch": 0.5}, "epoch: a whole number, a text or a dict is expected, and this is 0.5"),
        ({**state, "settings": {}}, "no settings"),
        ({"epoch": 0, "step": 0}, "missing field"),
        (None, "a dict is expected"),
    ]:
        with pytest.raises(tldr.StateError, match=named):
            loader(corpus).load_state_dict(wrong)  # type: ignore[arg-type]
    del state["step"]
    with pytest.raises(tldr.StateError, match=r"not a state of a loader.*missing field `step`"):
        loader(corpus).load_state_dict(state)
    with pytest.raises(tldr.StateError, match="not a state of a loader"):
        loader(corpus).load_state_dict({"step": "three"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_ratio": 1.5}, "invalid keep_ratio=1.5: expected "),
        ({"keep_ratio": 0.0}, "invalid keep_ratio=0: expected "),
        ({"keep_ratio": 7.0, "mode": "full"}, "invalid keep_ratio=7: expected "),
        ({"seed": -1}, "invalid seed=-1: expected a whole number, 0 or more"),
        ({"batch_size": 2**70}, f"invalid batch_size={2**70}: expected a whole number, 0 or more"),
        ({"lengths": [3, -3]}, "invalid lengths=[3,-3]: expected a list of whole numbers"),
        ({"crop_scale": (0.5, 1.5)}, "invalid crop_scale=(0.5, 1.5): expected "),
        ({"crop_ratio": (2.0, 1.0)}, "invalid crop_ratio=(2.0, 1.0): expected "),
        ({"captioner": "nowhere"}, "invalid captioner=nowhere: it does not exist"),
        ({"tokenizer": "nowhere.json"}, "invalid tokenizer=nowhere.json: it does not exist"),
        ({"batch_size": 9, "lanes": 4}, "invalid batch_size=9: the global batch"),
        ({"batch_size": 100_000}, "invalid batch_size=100000: expected "),
        ({"rank": 2, "world_size": 2}, "invalid rank=2: expected "),
        ({"lanes": 4, "world_size": 3, "rank": 0}, "invalid lanes=4: expected "),
        ({"mode": "half"}, "invalid mode=half: expected one of reduced, full, eval"),
        ({"dtype": "float16"}, "invalid dtype=float16: expected one of float32, bfloat16, uint8"),
        ({"transform": "eval", "flip": 0.5}, "invalid flip=0.5: it has no effect with transform=eval"),
        ({"device": "cuda:999"}, "invalid device=cuda:999: expected "),
        ({"device": torch.device("meta")}, "invalid device=meta: expected cpu, cuda or cuda:N"),
        ({"std": [1.0, 0.0, 1.0]}, "invalid std="),
        ({"fuse": "concat"}, "invalid fuse=concat"),
        ({"priority": "tallest"}, "invalid priority=tallest: expected "),
    ],
)
def test_a_wrong_option_is_named(corpus: Corpus, options: dict[str, Any], message: str) -> None:
    with pytest.raises(tldr.ConfigError) as caught:
        loader(corpus, **options)
    assert str(caught.value).startswith(message)
    assert isinstance(caught.value, ValueError)


def test_options_are_keyword_only(corpus: Corpus) -> None:
    with pytest.raises(TypeError):
        tldr.Loader(corpus.urls, None)  # type: ignore[call-arg]
    with pytest.raises(
        tldr.ConfigError, match=r"unknown option keep_ratio=0\.5: an option of Selection: selection=Selection"
    ):
        tldr.Loader(corpus.urls, keep_ratio=0.5)  # type: ignore[call-arg]
    with pytest.raises(tldr.ConfigError, match=r"unknown option bach_size=8: .* the nearest is batch_size"):
        tldr.Loader(corpus.urls, bach_size=8)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="keep_ration"):
        tldr.Selection(keep_ration=0.5)  # type: ignore[call-arg]


def test_no_shards_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(tldr.TldrError, match="nothing"):
        flat.loader(tmp_path / "nothing" / "*.tar", mode="full")
    write_shard(tmp_path / "0.tar", [])
    with pytest.raises(tldr.TldrError, match=r"no-tokenizer\.json"):
        flat.loader(tmp_path / "0.tar", mode="full", tokenizer=tmp_path / "no-tokenizer.json")


def test_a_bad_sample_costs_one_sample_and_is_named(tmp_path: Path) -> None:
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pairs = [Pair(f"{i:03d}", pixels, f"caption {i}" if i != 3 else " ") for i in range(17)]
    write_shard(tmp_path / "0.tar", pairs)
    full = flat.loader(tmp_path / "0.tar", mode="full", batch_size=4, image_size=SIZE, lanes=1)
    seen = [key for batch in full for key in batch.keys]
    assert sorted(seen) == [pair.key for pair in pairs if pair.key != "003"]
    stats = full.stats()
    assert stats["counts"]["failed"] == {"empty-caption": 1}
    (failure,) = stats["failures"]
    assert (failure["key"], failure["reason"]) == ("003", "empty-caption")
    strict = flat.loader(tmp_path / "0.tar", mode="full", batch_size=4, image_size=SIZE, on_error="raise")
    with pytest.raises(tldr.DataError, match="empty-caption") as caught:
        list(strict)
    assert caught.value.key == "003"
    assert caught.value.shard is not None
    assert caught.value.shard.endswith("0.tar")
    assert isinstance(caught.value.offset, int)


def test_urls_may_be_paths_and_lists(corpus: Corpus) -> None:
    folder = Path(corpus.urls).parent
    shards = sorted(folder.glob("*.tar"))
    for urls in (shards, [str(s) for s in shards], folder, f"{folder}/*.tar"):
        assert flat.loader(urls, mode="eval", image_size=SIZE).num_samples == len(corpus.pairs)


def test_ranks_share_the_global_batches(corpus: Corpus) -> None:
    whole = [batch.keys for batch in loader(corpus, mode="full", batch_size=8, lanes=4)]
    ranks = [
        [batch.keys for batch in loader(corpus, mode="full", batch_size=4, lanes=4, rank=r, world_size=2)]
        for r in range(2)
    ]
    assert len(ranks[0]) == len(ranks[1]) == len(whole)
    for step, keys in enumerate(whole):
        assert sorted(ranks[0][step] + ranks[1][step]) == sorted(keys)


def test_a_ledger_is_shared(corpus: Corpus) -> None:
    ledger = tldr.Ledger()
    assert (ledger.windows, ledger.captions) == (0, 0)
    first = loader(corpus, ledger=ledger)
    list(first)
    assert first.ledger.windows == ledger.windows
    assert ledger.bytes >= 0


def test_the_merges_file_is_the_one_of_open_clip() -> None:
    with gzip.open(MERGES) as file:
        assert b"bpe_simple_vocab_16e6" in file.readline()


def test_a_plan_that_is_none_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(tldr.DataError, match="cannot read the plan"):
        flat.loader(corpus.urls, plan=tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("no plan")
    with pytest.raises(tldr.DataError, match=r"text\.parquet: expected a plan, as tldr-loader plan"):
        flat.loader(corpus.urls, plan=tmp_path / "text.parquet")


def test_keep_ratio_may_change_by_epoch(corpus: Corpus) -> None:
    scheduled = loader(corpus, keep_ratio={0: 0.25, 2: 1.0})
    assert [scheduled.num_batches_of(epoch) for epoch in range(4)] == [6, 6, 25, 25]
    assert len(scheduled) == 6
    scheduled.set_epoch(2)
    assert (len(scheduled), scheduled.num_samples) == (25, 200)
    assert len({key for batch in scheduled for key in batch.keys}) == 200
    with pytest.raises(tldr.ConfigError, match=r"=\{1: 0.25\}: expected a schedule that begins with epoch 0"):
        loader(corpus, keep_ratio={1: 0.25})
    with pytest.raises(
        tldr.ConfigError, match=r"invalid keep_ratio=\{\"-1\":0.25\}: expected a number, or \{EPOCH"
    ):
        loader(corpus, keep_ratio={-1: 0.25})


def test_weights_are_one_over_pi_where_they_are_asked_for(corpus: Corpus) -> None:
    weighted = loader(corpus, keep_ratio=0.25, weights=True)
    for batch in weighted:
        assert batch.weights is not None
        torch.testing.assert_close(batch.weights, torch.full((8,), 4.0))
        assert batch.pi == [0.25] * 8
        assert batch.policy == weighted.state_dict()["policy"]
    assert weighted.stats()["n_eff"] == pytest.approx(weighted.stats()["yielded"])
    plain = loader(corpus, mode="full")
    assert next(iter(plain)).weights is None
    assert plain.stats()["n_eff"] is None
    everything = next(iter(loader(corpus, mode="full", weights=True)))
    assert everything.weights is not None
    assert torch.equal(everything.weights, torch.ones(8))
    with pytest.raises(tldr.ConfigError, match="invalid weights=true: expected false with priority=longest"):
        loader(corpus, priority="longest", weights=True)


def test_a_thinned_stream_keeps_a_share(corpus: Corpus) -> None:
    thinned = loader(corpus, keep_ratio=0.25, thin=True)
    kept = [key for batch in thinned for key in batch.keys]
    stats = thinned.stats()["counts"]
    assert len(kept) == 48
    assert stats["dropped_thin"] == 200 - stats["kept"]
    assert abs(stats["kept"] - 50) <= 8
    with pytest.raises(tldr.ConfigError, match="invalid thin=true: expected false with priority=longest"):
        loader(corpus, priority="longest", thin=True)


def test_duplicates_wait_for_a_later_batch(tmp_path: Path, corpus: Corpus) -> None:
    pairs = [Pair(f"{i:05d}", corpus.pairs[i].pixels, f"caption {i // 3}") for i in range(192)]
    write_shard(tmp_path / "00000.tar", pairs)
    counts = {}
    for defer in (False, True):
        whole = flat.loader(
            tmp_path / "00000.tar",
            mode="full",
            batch_size=16,
            image_size=SIZE,
            lanes=1,
            defer_duplicates=defer,
        )
        batches = [batch.captions for batch in whole]
        assert sorted(caption for batch in batches for caption in batch) == sorted(p.caption for p in pairs)
        counts[defer] = sum(len(batch) - len(set(batch)) for batch in batches)
        assert whole.stats()["duplicate_captions"] == counts[defer]
        assert (whole.stats()["deferred"] > 0) is defer
    assert counts[True] < counts[False]
