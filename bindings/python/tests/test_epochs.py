"""Promise: an epoch is over with its last batch, in real loops; ranks that evaluate take equal steps."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import open_clip
import pytest
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT

import flat
import tldr_loader as tldr
from conftest import SIZE, Corpus, Pair, write_shard

MERGES = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
EPOCHS = 3


def rotating(corpus: Corpus) -> tldr.Loader:
    """A third of the corpus an epoch, another one each time: 63 or 64 of 200 samples."""
    return flat.loader(corpus.urls, keep_ratio=0.33, rotate=True, batch_size=8, image_size=SIZE, lanes=1)


def expected(corpus: Corpus) -> list[list[list[str]]]:
    """The keys of each batch of each epoch, epochs by their numbers."""
    loader = rotating(corpus)
    epochs = []
    for epoch in range(EPOCHS + 1):
        loader.set_epoch(epoch)
        epochs.append([batch.keys for batch in loader])
    return epochs


def with_range(loader: tldr.Loader) -> Iterator[tldr.Batch]:
    return (batch for _, batch in zip(range(len(loader)), loader))  # noqa: B905


def with_islice(loader: tldr.Loader) -> Iterator[tldr.Batch]:
    return itertools.islice(loader, len(loader))


def with_next(loader: tldr.Loader) -> Iterator[tldr.Batch]:
    batches = iter(loader)
    return (next(batches) for _ in range(len(loader)))


@pytest.mark.parametrize("loop", [with_range, with_islice, with_next, iter])
def test_every_training_loop_goes_through_the_epochs(
    corpus: Corpus, loop: Callable[[tldr.Loader], Iterator[tldr.Batch]]
) -> None:
    loader = rotating(corpus)
    epochs = expected(corpus)[:EPOCHS]
    assert [[batch.keys for batch in loop(loader)] for _ in range(EPOCHS)] == epochs
    seen = {key for epoch in epochs for batch in epoch for key in batch}
    assert len(seen) > 185, "three thirds of 200"
    stopped = rotating(corpus)
    stopped.load_state_dict(loader.state_dict())
    assert [batch.keys for batch in loop(stopped)] == expected(corpus)[EPOCHS]


def test_a_state_of_the_end_of_an_epoch(corpus: Corpus) -> None:
    epochs = expected(corpus)
    loader = rotating(corpus)
    for _ in with_islice(loader):
        pass
    state = loader.state_dict()
    assert (state["epoch"], state["step"], loader.epoch) == (0, len(epochs[0]), 1)
    plain = rotating(corpus)
    plain.load_state_dict(state)
    assert [batch.keys for batch in plain] == epochs[1]
    named = rotating(corpus)
    named.load_state_dict(state)
    found = []
    for epoch in range(state["epoch"], EPOCHS):
        named.set_epoch(epoch)
        found.append([batch.keys for batch in with_range(named)])
    assert found == [[], *epochs[1:EPOCHS]]
    # After a run of it, naming an epoch replays it.
    for _ in range(2):
        loader.set_epoch(0)
        assert [batch.keys for batch in with_islice(loader)] == epochs[0]


def test_an_epoch_that_was_broken_off_says_once_that_it_repeats(corpus: Corpus) -> None:
    loader = rotating(corpus)
    first = next(iter(loader)).keys
    with pytest.warns(RuntimeWarning, match=r"epoch 0 was broken off after 1 of 8 .* set_epoch\(1\)"):
        assert next(iter(loader)).keys == first
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert next(iter(loader)).keys == first
        asked = rotating(corpus)
        next(iter(asked))
        asked.set_epoch(0)
        assert next(iter(asked)).keys == first


def test_what_was_odd_is_said_with_the_last_batch(corpus: Corpus) -> None:
    # A table that knows half of the samples.
    loader = flat.loader(corpus.urls, keep_ratio=0.25, batch_size=8, image_size=SIZE, lengths=[25] * 4)
    batches = iter(loader)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(len(loader) - 1):
            next(batches)
    with pytest.warns(RuntimeWarning, match="left over after the last batch"):
        next(batches)
    assert loader.stats()["counts"]["read"] == 200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert next(batches, None) is None


class Noting(lightning.LightningModule):
    """Notes the keys that each step is given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3 * SIZE * SIZE, 1)
        self.keys: dict[int, list[list[str]]] = {}

    def training_step(self, batch: tldr.Batch, index: int) -> STEP_OUTPUT:
        self.keys.setdefault(self.current_epoch, []).append(batch.keys)
        loss: torch.Tensor = self.linear(batch.images.flatten(1)).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def trainer(folder: Path, epochs: int, limit: int | None = None) -> lightning.Trainer:
    return lightning.Trainer(
        limit_train_batches=limit,
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_lightning_trains_each_epoch_on_its_own_samples_and_resumes(corpus: Corpus, tmp_path: Path) -> None:
    epochs = expected(corpus)
    model = Noting()
    whole = trainer(tmp_path, EPOCHS)
    whole.fit(model, train_dataloaders=rotating(corpus))
    assert model.keys == dict(enumerate(epochs[:EPOCHS]))
    # A part of each epoch: Lightning names the epochs (`sampler.set_epoch`), so that they do not repeat.
    part = Noting()
    trainer(tmp_path, EPOCHS, limit=3).fit(part, train_dataloaders=rotating(corpus))
    assert part.keys == {number: epoch[:3] for number, epoch in enumerate(epochs[:EPOCHS])}
    # What was saved after two epochs goes on with the third: Lightning loads no state, and names it.
    saved = trainer(tmp_path, 2)
    saved.fit(Noting(), train_dataloaders=rotating(corpus))
    saved.save_checkpoint(tmp_path / "two.ckpt")
    resumed = Noting()
    trainer(tmp_path, EPOCHS).fit(
        resumed, train_dataloaders=rotating(corpus), ckpt_path=tmp_path / "two.ckpt"
    )
    assert resumed.keys == {2: epochs[2]}


def shard(folder: Path, samples: int, bad: int | None = None) -> Path:
    rng = np.random.default_rng(samples)
    pixels = rng.integers(0, 256, (samples, SIZE, SIZE, 3), dtype=np.uint8)
    captions = [" " if i == bad else f"caption {i}" for i in range(samples)]
    write_shard(folder / "0.tar", [Pair(f"{i:03d}", pixels[i], captions[i]) for i in range(samples)])
    return folder / "0.tar"


def evaluated(folder: Path, ranks: int, options: dict[str, Any]) -> list[dict[str, Any]]:
    """What each of `ranks` processes that evaluate found."""
    (folder / "options.json").write_text(json.dumps(options))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += [str(Path(__file__).parent / "evaluating.py"), str(folder / "options.json"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize(
    ("samples", "ranks", "bad", "real"),
    [
        (9, 2, None, [[2, 2, 0], [2, 2, 1]]),
        (3, 4, None, [[0], [1], [1], [1]]),
        (9, 2, 5, [[2, 2, 0], [1, 2, 1]]),
    ],
)
def test_ranks_that_evaluate_take_equal_steps(
    tmp_path: Path, samples: int, ranks: int, bad: int | None, real: list[list[int]]
) -> None:
    urls = shard(tmp_path, samples, bad)
    options = {"source": str(urls), "batch_size": 2, "image_size": SIZE}
    found = evaluated(tmp_path, ranks, options)
    assert all(rank["len"] == len(rank["batches"]) == len(real[0]) for rank in found)
    assert all(batch["shape"] == [2, 3, SIZE, SIZE] for rank in found for batch in rank["batches"])
    assert [[sum(batch["valid"]) for batch in rank["batches"]] for rank in found] == real
    rows = [
        (key, valid)
        for rank in found
        for batch in rank["batches"]
        for key, valid in zip(batch["keys"], batch["valid"], strict=True)
    ]
    keys = [f"{i:03d}" for i in range(samples) if i != bad]
    assert [key for key, valid in rows if valid] == keys
    # What the ranks have summed is what one process sums.
    alone = flat.loader(urls, mode="eval", batch_size=2, image_size=SIZE, rank=0, world_size=1)
    means = torch.cat([batch.images.mean(dim=(1, 2, 3)).double() for batch in alone])
    assert all(rank["samples"] == samples for rank in found)
    for rank in found:
        assert rank["total"] == pytest.approx([float(means.sum()), len(keys)], abs=1e-5)


def test_rows_that_are_not_real_are_said_once_where_nobody_looks(tmp_path: Path) -> None:
    urls = shard(tmp_path, 9)

    def loader(rank: int) -> tldr.Loader:
        return flat.loader(
            urls, mode="eval", batch_size=2, image_size=SIZE, tokenizer=MERGES, rank=rank, world_size=2
        )

    batches = list(loader(0))
    _, _ = batches[0]  # all of it is real
    with pytest.warns(RuntimeWarning, match=r"batch\.valid is False"):
        _, _ = batches[2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, _ = batches[2]
        for batch in loader(1):
            assert batch.valid.dtype == torch.bool
            _, _ = batch
    # One that looks has not been told.
    first = next(iter(loader(0)))
    assert first.valid.tolist() == [True, True]


def test_a_shard_of_another_length_ends_an_evaluation_of_several_ranks(tmp_path: Path) -> None:
    urls = shard(tmp_path, 9)
    options: dict[str, Any] = {"mode": "eval", "batch_size": 2, "image_size": SIZE, "world_size": 2}
    with pytest.raises(tldr.DataError, match=r"expected 11, by lengths, sizes\.json.*found 9") as caught:
        list(flat.loader(urls, rank=1, lengths=[11], **options))
    assert caught.value.shard == str(urls)


def test_a_state_says_how_it_can_be_resumed_on_more_ranks(corpus: Corpus) -> None:
    def loader(rank: int, ranks: int, **options: Any) -> tldr.Loader:
        return flat.loader(
            corpus.urls,
            mode="full",
            batch_size=16 // ranks,
            image_size=SIZE,
            rank=rank,
            world_size=ranks,
            **options,
        )

    state = loader(0, 1).state_dict()
    for ranks in (1, 2, 4, 8):
        loader(ranks - 1, ranks).load_state_dict(state)
    four = loader(0, 4, lanes=4).state_dict()
    with pytest.raises(tldr.StateError, match=r"on 1, 2 or 4 ranks and not on 8.*lanes=8 next time"):
        loader(0, 8).load_state_dict(four)
    with pytest.raises(tldr.ConfigError, match="invalid lanes=4: expected a multiple of the world size, 8"):
        loader(0, 8, lanes=4)
