"""Promise: open_clip's own main() trains, evaluates and resumes; its flags are honoured or refused."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip_train.params import parse_args

import tldr_loader as tldr
import tldr_loader.open_clip
from conftest import Corpus
from test_tokenizers import BERT, SIGLIP, SIGLIP_2, bert, gemma, of_open_clip, saved, t5

LOOPS = Path(__file__).parent
RUN = LOOPS / "open_clip_run.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--"]


@pytest.fixture(scope="session", autouse=True)
def configs() -> None:
    open_clip.add_model_config(LOOPS / "models")


@pytest.fixture(scope="module")
def pairs(make_corpus: Callable[[int, int], Corpus]) -> Corpus:
    """96 samples: of two ranks with batches of 4, 12 batches an epoch."""
    return make_corpus(4, 24)


@pytest.fixture(scope="module")
def held_out(make_corpus: Callable[[int, int], Corpus]) -> Corpus:
    return make_corpus(1, 10)


def flags(train: str, **more: Any) -> list[str]:
    options = {
        "model": "tiny-clip",
        "train-data": train,
        "epochs": 2,
        "batch-size": 4,
        "workers": 1,
        "precision": "fp32",
        "device": "cpu",
        "warmup": 2,
        "lr": 1e-2,
        "seed": 3,
        "log-every-n-steps": 1,
        **more,
    }
    words: list[str] = []
    for name, value in options.items():
        words += [f"--{name}"] if value is True else [f"--{name}", *str(value).split()]
    return words


Run = Callable[..., tuple[Path, list[Any]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs main(): the folder of the experiment, and what was yielded, by rank."""

    def run(
        name: str, words: list[str], *, ranks: int = 1, fails: bool = False, **options: Any
    ) -> tuple[Path, list[Any]]:
        keys = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        keys.mkdir()
        (tmp_path / "options.json").write_text(json.dumps({**options, "keys": str(keys)}))
        launcher = [sys.executable, *(TORCHRUN if ranks > 1 else [])]
        command = [*launcher, str(RUN), str(tmp_path / "options.json"), *words]
        command += ["--logs", str(tmp_path / "logs"), "--name", name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode != 0) == fails, done.stdout[-3000:] + done.stderr[-5000:]
        files = [keys / str(rank) for rank in range(ranks)]
        lines = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
        return tmp_path / "logs" / name, lines

    return run


def last(folder: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "checkpoints" / "epoch_2.pt", weights_only=True)
    return checkpoint


def equal(one: Path, other: Path) -> None:
    """Checks that two runs ended with equal weights, moments and learning rates."""
    first, second = last(one), last(other)
    for name, weight in first["state_dict"].items():
        assert torch.equal(weight, second["state_dict"][name]), name
    assert first["optimizer"]["param_groups"] == second["optimizer"]["param_groups"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_main_trains_evaluates_and_resumes_within_an_epoch(
    run: Run, pairs: Corpus, held_out: Corpus, ranks: int
) -> None:
    words = flags(pairs.urls, **{"val-data": held_out.urls})
    whole, yielded = run("whole", words, ranks=ranks, save_every=5)
    every = [pair.key for pair in pairs.pairs]
    for epoch in (0, 1):
        keys = [
            key
            for lines in yielded
            for mode, at, _, keys in lines
            if (mode, at) == ("train", epoch)
            for key in keys
        ]
        assert sorted(keys) == every
    batches = 96 // (4 * ranks)
    # Rank 0 alone evaluates, after each epoch, every sample once.
    evaluated = [[keys for mode, _, _, keys in lines if mode == "val"] for lines in yielded]
    assert sorted(key for keys in evaluated[0] for key in keys) == sorted(2 * [p.key for p in held_out.pairs])
    assert all(found == [] for found in evaluated[1:])
    results = [
        json.loads(line) for line in (whole / "checkpoints" / "results.jsonl").read_text().splitlines()
    ]
    assert [(found["epoch"], found["num_samples"]) for found in results] == [(1, 10), (2, 10)]
    log = (whole / "out.log").read_text()
    assert f"/96 ({100 * batches // batches}%)" in log

    # Killed in the second epoch, just after it wrote a checkpoint at step 5.
    _, before = run("halves", words, ranks=ranks, save_every=5, die_after=[1, 5], fails=True)
    halves = whole.parent / "halves"
    assert (halves / "checkpoints" / "epoch_1_step_5.pt").is_file()
    halves_, after = run("halves", [*words, "--resume", "latest"], ranks=ranks, save_every=5)
    for rank in range(ranks):
        # The other rank may have gone on for a moment.
        trained = [line for line in before[rank] if line[1:3] < [1, 5]]
        both = [line for line in trained + after[rank] if line[0] == "train"]
        assert both == [line for line in yielded[rank] if line[0] == "train"]
    equal(whole, halves_)


def test_a_state_needs_the_other_line_too(run: Run, pairs: Corpus, tmp_path: Path) -> None:
    args, fns, tokenizer = prepared(pairs.urls)
    data = tldr_loader.open_clip.get_data(args, fns, 0, tokenizer)
    batches = iter(data["train"].dataloader)
    for _ in range(3):
        next(batches)
    state = data["train"].dataloader.loader.state_dict()
    torch.save({"epoch": 0, "tldr_loader": state}, tmp_path / "epoch_0_step_3.pt")
    args.resume = str(tmp_path / "epoch_0_step_3.pt")
    data = tldr_loader.open_clip.get_data(args, fns, 0, tokenizer)
    data["train"].set_epoch(0)
    with pytest.raises(
        tldr.ConfigError, match=r"open_clip_train.main.train_one_epoch = tldr_loader.open_clip"
    ):
        next(iter(data["train"].dataloader))


def test_the_step_goes_on_where_it_was(run: Run, pairs: Corpus, tmp_path: Path) -> None:
    words = flags(pairs.urls, **{"accum-freq": 2, "save-most-recent": True})
    whole, yielded = run("whole", words, save_every=4)
    _, before = run("halves", words, save_every=4, die_after=[0, 8], fails=True)
    halves, after = run("halves", [*words, "--resume", "latest"], save_every=4)
    assert before[0] + after[0] == yielded[0]
    equal(whole, halves)


def test_a_selection(run: Run, pairs: Corpus) -> None:
    words = flags(pairs.urls, epochs=1)
    _, yielded = run("quarter", words, keep_ratio=0.5)
    assert sum(len(keys) for *_, keys in yielded[0]) == 48


# --- what flags do --------------------------------------------------------------------------


def prepared(train: str | None, more: list[str] | None = None, **kwargs: Any) -> tuple[Any, Any, Any]:
    """Flags, transforms and a tokenizer, as main() makes them."""
    args = parse_args(
        [*(flags(train) if train else ["--model", "tiny-clip", "--batch-size", "4"]), *(more or [])]
    )
    args.device = "cpu"
    size = args.force_image_size
    args.force_image_size = size[0] if size and len(size) == 1 else size
    _, train_fn, val_fn = open_clip.create_model_and_transforms(
        args.model,
        force_image_size=args.force_image_size,
        image_mean=args.image_mean,
        image_std=args.image_std,
        image_interpolation=args.image_interpolation,
        image_resize_mode=args.image_resize_mode,
        aug_cfg=args.aug_cfg,
    )
    tokenizer = open_clip.get_tokenizer(args.model, context_length=args.force_context_length, **kwargs)
    return args, (train_fn, val_fn), tokenizer


def data(train: str | None, more: list[str] | None = None, **options: Any) -> Any:
    args, fns, tokenizer = prepared(train, more)
    return tldr_loader.open_clip.get_data(args, fns, 0, tokenizer, **options)


def test_batches_are_open_clips(pairs: Corpus, held_out: Corpus) -> None:
    more = ["--val-data", held_out.urls, "--image-mean", "0.5", "--image-std", "0.25"]
    args, fns, tokenizer = prepared(pairs.urls, more)
    both = tldr_loader.open_clip.get_data(args, fns, 0, tokenizer)
    texts = {pair.key: pair.caption for pair in [*pairs.pairs, *held_out.pairs]}
    keys = iter([batch.keys for batch in both["val"].dataloader.loader])
    from PIL import Image

    for images, tokens in both["val"].dataloader:
        names = next(keys)
        assert torch.equal(tokens, tokenizer([texts[name] for name in names]))
        own = {pair.key: pair.pixels for pair in held_out.pairs}
        theirs = torch.stack([fns[1](Image.fromarray(own[name])) for name in names])
        torch.testing.assert_close(images, theirs, atol=1.1 / 255 / 0.25, rtol=0)
    (images, tokens), *_ = both["train"].dataloader
    assert (images.shape, images.dtype, tokens.shape) == ((4, 3, 16, 16), torch.float32, (4, 24))
    assert both["val"].dataloader.num_samples == 10


def crops(train: str, *more: str) -> tldr.Loader:
    """The loader of a training."""
    found: tldr.Loader = data(train, list(more))["train"].dataloader.loader
    return found


def settings(loader: tldr.Loader) -> dict[str, Any]:
    found: dict[str, Any] = loader.state_dict()["settings"]
    return found


def test_the_models_preprocessing_and_aug_cfg(pairs: Corpus) -> None:
    plain = settings(crops(pairs.urls))
    assert (plain["crop_scale"], plain["image_size"], plain["context_length"]) == ("[0.9,1]", "16", "24")
    assert "mean" not in plain, "CLIP's own is the default"
    more = ("scale=(0.4,1.0)", "ratio=(0.5,2.0)")
    for timm in ([], ["use_timm=True"]):
        asked = settings(crops(pairs.urls, "--aug-cfg", *more, *timm))
        assert (asked["crop_scale"], asked["crop_ratio"]) == ("[0.4,1]", "[0.5,2]")
    asked = settings(crops(pairs.urls, "--force-image-size", "24", "--image-mean", "0.1", "0.2", "0.3"))
    assert (asked["image_size"], asked["mean"]) == ("24", "[0.1,0.2,0.3]")
    assert settings(crops(pairs.urls, "--force-context-length", "32"))["context_length"] == "32"
    args, fns, tokenizer = prepared(pairs.urls)
    args.precision = "bf16"
    stream = tldr_loader.open_clip.get_data(args, fns, 0, tokenizer)["train"].dataloader
    assert next(iter(stream))[0].dtype == torch.bfloat16


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_an_evaluation_that_squashes(pairs: Corpus, interpolation: str) -> None:
    from PIL import Image

    more = ["--val-data", pairs.urls, "--image-resize-mode", "squash", "--image-interpolation", interpolation]
    more += ["--force-image-size", "8"]
    args, fns, tokenizer = prepared(None, more)
    stream = tldr_loader.open_clip.get_data(args, fns, 0, tokenizer)["val"].dataloader
    images, _ = next(iter(stream))
    theirs = torch.stack([fns[1](Image.fromarray(pair.pixels)) for pair in pairs.pairs[:4]])
    torch.testing.assert_close(images, theirs, atol=1.1 / 255 / 0.26, rtol=0)


def test_the_size_of_an_epoch(pairs: Corpus) -> None:
    def sizes(*more: str, **options: Any) -> tuple[int, int]:
        stream = data(pairs.urls, list(more), **options)["train"].dataloader
        assert len(list(stream)) == stream.num_batches == len(stream)
        return stream.num_batches, stream.num_samples

    assert sizes() == (24, 96)
    assert sizes("--train-num-samples", "42") == (10, 40)
    assert sizes("--train-num-samples", "200", "--dataset-resampled") == (50, 200)
    # Whole steps: 24 batches are 4 steps of 5, and 10 are 3 of 3.
    assert sizes("--accum-freq", "5") == (20, 80)
    assert sizes("--train-num-samples", "42", "--accum-freq", "3") == (9, 36)
    assert sizes(selection=tldr.Selection(keep_ratio=0.5)) == (12, 48)


def test_upsampling_factors_are_converted(make_corpus: Callable[[int, int], Corpus]) -> None:
    # 40 and 10 samples: by weights of 1 and 2, open_clip's draws yield 40 of the first to 20 of the second.
    parts = [make_corpus(4, 10), make_corpus(1, 10)]
    more = ["--dataset-resampled", "--train-data-upsampling-factors", "1::2", "--train-num-samples", "240"]
    names = "::".join(part.urls for part in parts)
    stream = data(names, more)["train"].dataloader
    stream.set_value(0)
    assert sum(len(images) for images, _ in stream) == 240
    found = stream.loader.stats()["sources"]
    assert [source["yielded"] for source in found] == [160, 80]
    # Joined without factors they are one corpus.
    assert data(names)["train"].dataloader.num_samples == 48  # of 50, in batches of 4


def test_every_rank_reads_its_part(pairs: Corpus) -> None:
    found = []
    for rank in (0, 1):
        args, fns, tokenizer = prepared(pairs.urls)
        args.rank, args.world_size = rank, 2
        loader = tldr_loader.open_clip.get_data(args, fns, 0, tokenizer)["train"].dataloader.loader
        assert (loader.rank, loader.world_size) == (rank, 2)
        found += [key for batch in loader for key in batch.keys]
    assert sorted(found) == [pair.key for pair in pairs.pairs]


def test_workers_and_options(pairs: Corpus) -> None:
    images = tldr.Images(exif_orientation=True)
    loader = data(pairs.urls, images=images, world=tldr.World(lanes=2))["train"].dataloader.loader
    assert settings(loader)["exif_orientation"] == "true"
    assert loader.state_dict()["lanes"] == 2
    loader = data(pairs.urls, source=tldr.Source(pairs.urls, name="mine"))["train"].dataloader.loader
    assert settings(loader)["shards"] == '4 of "mine"'


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        (["--aug-cfg", "color_jitter=0.4", "use_timm=True"], {}, "--aug-cfg color_jitter=0.4: the loader"),
        (["--aug-cfg", "gray_scale_prob=0.2"], {}, "--aug-cfg gray_scale_prob=0.2"),
        (["--aug-cfg", "re_prob=0.1", "use_timm=True"], {}, "--aug-cfg re_prob=0.1"),
        (["--force-image-size", "16", "24"], {}, r"image_size=\(16, 24\): the loader's images are square"),
        (["--aug-cfg", "use_timm=True", "--image-interpolation", "random"], {}, "interpolation random"),
        (["--val-data", "x.tar", "--image-resize-mode", "longest"], {}, "--image-resize-mode longest"),
        (
            ["--val-data", "x.tar", "--image-interpolation", "bilinear"],
            {},
            "preprocess_val: interpolation bili",
        ),
        (["--train-data-upsampling-factors", "1"], {}, "factors 1: expected --dataset-resampled beside it"),
        (
            ["--train-data-upsampling-factors", "1::2", "--dataset-resampled"],
            {},
            "factors 1::2: expected 1 numbers above 0",
        ),
        (
            ["--train-data-upsampling-factors", "0", "--dataset-resampled"],
            {},
            "factors 0: expected 1 numbers",
        ),
        (
            ["--train-num-samples", "7", "--accum-freq", "2"],
            {},
            "--train-num-samples 7: expected at least one",
        ),
        (["--accum-freq", "25"], {}, "--accum-freq 25: expected at most the 24 batches"),
        (["--dataset-type", "csv"], {}, "--dataset-type csv: the loader reads shards"),
        (["--dataset-type", "synthetic"], {}, "--dataset-type synthetic"),
        ([], {"batch_size": 8}, "batch_size: expected open_clip's --batch-size"),
        ([], {"samples_per_epoch": 8}, "samples_per_epoch: expected open_clip's --train-num-samples"),
        ([], {"mode": "eval"}, "mode=eval: expected reduced or full"),
        ([], {"batch_format": "list"}, "batch_format=list"),
        ([], {"save_every": 0}, "save_every=0"),
        ([], {"images": tldr.Images(image_size=32)}, "image_size: the model and open_clip's flags say 16"),
        ([], {"world": tldr.World(rank=0, world_size=2)}, "rank, world_size: expected neither"),
        ([], {"selection": tldr.Selection(keep_ratio={0: 0.5, 1: 1.0})}, "keep_ratio: open_clip fixes"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    pairs: Corpus, more: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(tldr.ConfigError, match=message):
        data(pairs.urls, more, **options)


def test_checkpoints_within_an_epoch_need_the_other_function_too(pairs: Corpus) -> None:
    stream = data(pairs.urls, [], save_every=2)["train"].dataloader
    with pytest.raises(tldr.ConfigError, match=r"save_every=2: it has no effect .*train_one_epoch = "):
        next(iter(stream))
    stream.begin()
    next(iter(stream))


def test_flags_of_later_releases(pairs: Corpus) -> None:
    args, fns, tokenizer = prepared(pairs.urls)
    args.image_key, args.text_key, args.use_naflex = "jpg;png;jpeg;webp", "txt", False
    tldr_loader.open_clip.get_data(args, fns, 0, tokenizer)
    later: list[tuple[str, Any, str]] = [
        ("use_naflex", True, "--use-naflex True"),
        ("json_text_key", "a;b", "caption_key="),
        ("text_key", "caption", "--text-key caption"),
    ]
    for name, value, said in later:
        changed = argparse.Namespace(**{**vars(args), name: value})
        with pytest.raises(tldr.ConfigError, match=said):
            tldr_loader.open_clip.get_data(changed, fns, 0, tokenizer)


def test_another_transform_is_refused(pairs: Corpus) -> None:
    from torchvision import transforms

    args, (train, val), tokenizer = prepared(pairs.urls, ["--val-data", pairs.urls])
    odd = transforms.Compose([transforms.RandomRotation(10), *train.transforms])
    with pytest.raises(tldr.ConfigError, match=r"preprocess_train: .* found RandomRotation"):
        tldr_loader.open_clip.get_data(args, (odd, val), 0, tokenizer)
    with pytest.raises(tldr.ConfigError, match=r"preprocess_val: .* found RandomResizedCrop"):
        tldr_loader.open_clip.get_data(args, (train, train), 0, tokenizer)
    with pytest.raises(tldr.ConfigError, match="tokenizer: expected open_clip's"):
        tldr_loader.open_clip.get_data(args, (train, val))


# --- tokenizers -----------------------------------------------------------------------------

KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "siglip 2": (gemma, SIGLIP_2, {"clean": "canonicalize"}),
    "siglip": (t5, SIGLIP, {"clean": "canonicalize"}),
    "bert": (bert, BERT, {"strip_sep_token": True}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_models_tokenizer(tmp_path: Path, pairs: Corpus, kind: str) -> None:
    make, config, kwargs = KINDS[kind]
    saved(tmp_path, make(), tokenizer_config=config, open_clip_config=of_open_clip(**kwargs))
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    tokenizer(["first"])  # which leaves its mark in what transformers saves
    args, fns, _ = prepared(pairs.urls)
    stream = tldr_loader.open_clip.get_data(args, fns, 0, tokenizer)["train"].dataloader
    texts = {pair.key: pair.caption for pair in pairs.pairs}
    for batch in stream.loader:
        assert torch.equal(batch.tokens, tokenizer([texts[key] for key in batch.keys]))


def test_tokenizers_that_cannot_be_obeyed(tmp_path: Path, pairs: Corpus) -> None:
    args, fns, plain = prepared(pairs.urls)

    def refusal(tokenizer: Any) -> str:
        with pytest.raises(tldr.ConfigError) as error:
            tldr_loader.open_clip.get_data(args, fns, 0, tokenizer)
        return str(error.value)

    assert "reduction_mask" in refusal(open_clip.SimpleTokenizer(reduction_mask="simple"))
    # Other ids than those of the rules that its files say.
    assert "a photo of a dog" in refusal(open_clip.SimpleTokenizer(additional_special_tokens=["photo"]))
    saved(tmp_path, bert(), tokenizer_config=BERT, open_clip_config=of_open_clip())
    odd = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    odd.tokenizer_mode = "clips"
    assert "tokenizer_mode=clips" in refusal(odd)
    odd.tokenizer_mode = ""
    odd.clean_fn = str.upper
    assert "clean=upper" in refusal(odd)
    assert "found a type" in refusal(str)
    assert plain.context_length == 24


# --- the main branch ------------------------------------------------------------------------


class PrepareBatch:
    """What open_clip's main branch does to a batch: all of it goes to the model, by its names."""

    accum_freq = 2

    def __init__(self) -> None:
        self.held: list[dict[str, torch.Tensor]] = []

    def step(self, batch: dict[str, torch.Tensor]) -> None:
        moved = {key: value.to(device="cpu", non_blocking=True) for key, value in batch.items()}
        self.held.append(moved)
        if len(self.held) == self.accum_freq:
            joined = {key: torch.cat([held[key] for held in self.held]) for key in moved}
            self.forward(**joined)
            self.held.clear()

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> None:
        assert (image.dtype, image.shape) == (torch.float32, (8, 3, 16, 16))
        assert (text.dtype, text.shape) == (torch.int64, (8, 24))


def test_batches_of_the_main_branch(pairs: Corpus, held_out: Corpus) -> None:
    both = data(pairs.urls, ["--val-data", held_out.urls], batch_format="dict")
    task = PrepareBatch()
    for batch in both["train"].dataloader:
        assert list(batch) == ["image", "text"]
        task.step(batch)
    assert [len(batch["image"]) for batch in both["val"].dataloader] == [4, 4, 2]


def test_an_unknown_release_is_named(monkeypatch: pytest.MonkeyPatch, pairs: Corpus) -> None:
    import importlib.metadata

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        data(pairs.urls)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "4.0.1")
    with pytest.warns(RuntimeWarning, match=r"tried with open_clip_torch 3.3 and found 4.0.1"):
        data(pairs.urls)
