"""open_clip's training script on this loader: `get_data` in place of its own, with the same arguments.

    import open_clip_train.main
    import tldr_loader.open_clip

    open_clip_train.main.get_data = tldr_loader.open_clip.get_data
    open_clip_train.main.train_one_epoch = tldr_loader.open_clip.train_one_epoch
    open_clip_train.main.main(sys.argv[1:])

Every flag of open_clip 3.3 that concerns the data is honoured, or refused by its name
(docs/loops/open_clip.md).
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tldr_loader import _preprocess, _tokenizer_files
from tldr_loader._errors import ConfigError
from tldr_loader._frameworks import check_version
from tldr_loader._native import Batch, Loader
from tldr_loader._options import Captions, Images, Runtime, Source, World

__all__ = ["Stream", "get_data", "train_one_epoch"]

logger = logging.getLogger("tldr_loader")

OF_FLAGS = {
    "batch_size": "--batch-size",
    "device": "--device",
    "samples_per_epoch": "--train-num-samples",
    "seed": "--seed",
    "tokenizer": "--model",
}
"""Options of `Loader` that flags of open_clip decide."""

# Flags of later releases that ask for what is not done here, with their defaults there.
LATER = {
    "image_key": ("jpg;png;jpeg;webp",),
    "text_key": ("txt",),
    "json_text_key": (),
    "max_image_pixels": (),
    "length_bucketing": (),
    "text_pad_multiple": (),
    "use_naflex": (),
}
INSTEAD = {
    "text_key": "give `source=tldr_loader.Source(..., caption_key=...)` to get_data",
    "json_text_key": "give `source=tldr_loader.Source(..., caption_key=...)` to get_data",
    "max_image_pixels": "give `images=tldr_loader.Images(max_image_pixels=...)` to get_data",
}


class Stream:
    """A loader as open_clip takes a dataloader: with its sizes, and with batches that it unpacks.

    Attributes:
        loader: The loader.
        first: The batch of the epoch that it goes on with: 0, but after a resumption in the middle.
    """

    def __init__(
        self,
        loader: Loader,
        batch_format: Literal["tuple", "dict"] = "tuple",
        *,
        save_every: int | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.loader = loader
        self.first = 0
        self._format = batch_format
        self._save_every = save_every
        self._training: dict[str, Any] | None = None
        self._offset_is_known = False
        if state is not None:
            loader.load_state_dict(dict(state))
            self.first = int(state["step"])
        self._resumed = loader.epoch

    @property
    def num_batches(self) -> int:
        """Batches of an epoch, on each rank."""
        return self.loader.num_batches

    @property
    def num_samples(self) -> int:
        """Samples of an epoch, over all ranks."""
        return self.loader.num_samples

    def __len__(self) -> int:
        return len(self.loader)

    def set_value(self, epoch: int) -> None:
        """Moves to an epoch, as open_clip's `SharedEpoch` does."""
        epoch = int(epoch)
        if epoch != self._resumed:
            self.first = 0
        self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        if self.first and not self._offset_is_known:
            raise ConfigError(
                f"this run goes on at batch {self.first} of its epoch, which open_clip's train_one_epoch "
                "does not expect, and the learning rate would be that of batch 0. Replace it, too: "
                "open_clip_train.main.train_one_epoch = tldr_loader.open_clip.train_one_epoch"
            )
        if self._save_every is not None and self._training is None:
            raise ConfigError(
                f"invalid save_every={self._save_every}: it has no effect with open_clip's train_one_epoch. "
                "Replace it, too: "
                "open_clip_train.main.train_one_epoch = tldr_loader.open_clip.train_one_epoch"
            )
        done = self.first
        for batch in self.loader:
            yield self._as_asked(batch)
            # Here open_clip asks for the next one, and has trained on all before it.
            done += 1
            if self._is_due(done):
                self._save(done)
        self.first = 0

    def begin(self, **training: Any) -> int:
        """Takes what a checkpoint holds beside the loader's state; the batch that the epoch begins with."""
        self._training = training
        self._offset_is_known = True
        return self.first

    def _as_asked(self, batch: Batch) -> Any:
        if self._format == "dict":
            return {"image": batch.images, "text": batch.tokens}
        return batch.images, batch.tokens

    def _is_due(self, done: int) -> bool:
        if self._save_every is None or self._training is None:
            return False
        args = self._training["args"]
        every = self._save_every * args.accum_freq
        return bool(args.save_logs) and done % every == 0 and done < self.num_batches

    def _save(self, done: int) -> None:
        """Writes a checkpoint as open_clip does, of the epoch that is not over, with the loader's state."""
        import torch

        assert self._training is not None  # it is due
        args = self._training["args"]
        model = self._training["model"]
        epoch = self.loader.epoch
        checkpoint = {
            # Where open_clip goes on; it names the epoch after those that are complete.
            "epoch": epoch,
            "name": args.name,
            "state_dict": getattr(model, "_orig_mod", model).state_dict(),
            "optimizer": self._training["optimizer"].state_dict(),
            "tldr_loader": self.loader.state_dict(),
        }
        if self._training["scaler"] is not None:
            checkpoint["scaler"] = self._training["scaler"].state_dict()
        folder = Path(args.checkpoint_path)
        # `--resume latest` sorts names: this one comes after epoch_1.pt and before epoch_2.pt.
        path = folder / f"epoch_{epoch}_step_{done // args.accum_freq}.pt"
        if getattr(args, "save_most_recent", False):
            path = folder / "epoch_latest.pt"
        partial = folder / "tldr_loader.tmp"
        torch.save(checkpoint, partial)
        partial.replace(path)
        for old in folder.glob("epoch_*_step_*.pt"):
            if old != path:
                old.unlink()
        logger.info("saved %s", path)


def get_data(
    args: Any,
    preprocess_fns: Sequence[Any],
    epoch: int = 0,
    tokenizer: Any = None,
    *,
    batch_format: Literal["tuple", "dict"] = "tuple",
    save_every: int | None = None,
    source: Source | Sequence[Source] | None = None,
    val_source: Source | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Data as open_clip's own `get_data` returns it, read by this loader.

    Args:
        args: open_clip's flags.
        preprocess_fns: Its transforms for training and evaluation, whose settings are obeyed.
        epoch: The epoch that comes first.
        tokenizer: Its tokenizer, whose rules are obeyed.
        batch_format: `tuple`, for 3.3, or `dict`, with the keys `image` and `text`, for its main branch.
        save_every: Optimizer steps between two checkpoints within an epoch, beside those that open_clip
            writes at its end. They need `train_one_epoch`. Default: none.
        source: What to train on, in place of --train-data, which has to be given all the same.
        val_source: What to evaluate on, in place of --val-data, which has to be given all the same.
        options: Of `Loader`, for training: `captioner`, `selection`, `captions`, `images`, `ledger`, `plan`,
            `mode`, `runtime`, `world`. Without any of captioner, selection and plan the mode is `full`.

    Raises:
        ConfigError: A flag or an option that cannot be honoured; names it.
    """
    import open_clip_train.data as theirs

    check_version("open_clip_torch")
    _check_flags(args, batch_format, save_every, options)
    preprocess_train, preprocess_val = preprocess_fns
    data: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        texts: dict[str, Any] = {}
        if args.train_data or args.val_data:
            if tokenizer is None:
                raise ConfigError(
                    "tokenizer: expected open_clip's, from get_tokenizer(args.model); found None"
                )
            texts["tokenizer"] = _tokenizer_files.of_open_clip(tokenizer, Path(folder))
            texts["context_length"] = int(tokenizer.context_length)
        if args.train_data:
            pixels = _preprocess.training(preprocess_train, args.aug_cfg)
            loader = _training(args, pixels, texts, source, options)
            state = _saved_state(args)
            if state is None:
                loader.set_epoch(epoch)
            stream = Stream(loader, batch_format, save_every=save_every, state=state)
            data["train"] = theirs.DataInfo(dataloader=stream, shared_epoch=stream)
        if args.val_data:
            pixels = _preprocess.evaluation(preprocess_val)
            loader = _evaluation(args, pixels, texts, val_source)
            data["val"] = theirs.DataInfo(dataloader=Stream(loader, batch_format))
    for split, folder_of in (("val", args.imagenet_val), ("v2", args.imagenet_v2)):
        if folder_of is not None:
            data[f"imagenet-{split}"] = theirs.get_imagenet(args, preprocess_fns, split)
    return data


def train_one_epoch(
    model: Any, data: Mapping[str, Any], loss: Any, epoch: int, *rest: Any, **more: Any
) -> Any:
    """open_clip's own, which also writes checkpoints within an epoch and goes on from them."""
    import inspect

    from open_clip_train import train as theirs

    stream = data["train"].dataloader
    if isinstance(stream, Stream):
        data["train"].set_epoch(epoch)  # a state of another epoch counts no longer
        bound = (
            inspect.signature(theirs.train_one_epoch).bind(model, data, loss, epoch, *rest, **more).arguments
        )
        first = stream.begin(
            model=model, optimizer=bound["optimizer"], scaler=bound["scaler"], args=bound["args"]
        )
        epoch = _resumed(epoch, first // bound["args"].accum_freq)
    return theirs.train_one_epoch(model, data, loss, epoch, *rest, **more)


def _resumed(epoch: int, done: int) -> int:
    """An epoch of which so many steps are done.

    open_clip counts steps as `steps of an epoch * epoch + i`, for its learning rate and its logs, and i
    begins at 0.
    """
    counting = type("Epoch", (int,), {"__rmul__": lambda _, steps: steps * epoch + done})
    found: int = counting(epoch)
    return found


def _check_flags(args: Any, batch_format: str, save_every: int | None, options: Mapping[str, Any]) -> None:
    if batch_format not in ("tuple", "dict"):
        raise ConfigError(f"invalid batch_format={batch_format}: expected tuple or dict")
    if save_every is not None and save_every < 1:
        raise ConfigError(f"invalid save_every={save_every}: expected at least 1 optimizer step")
    for name, flag in OF_FLAGS.items():
        if name in options:
            raise ConfigError(f"{name}: expected open_clip's {flag}, which decides it; leave the option out")
    if options.get("mode") == "eval":
        raise ConfigError("mode=eval: expected reduced or full; what --val-data names is read in mode eval")
    for flag in ("train_data", "val_data"):
        path, kind = getattr(args, flag), args.dataset_type
        if kind in ("csv", "synthetic") or (kind == "auto" and str(path).endswith((".csv", ".tsv"))):
            given = f"--{flag.replace('_', '-')} {path} with --dataset-type {kind}"
            raise ConfigError(
                f"{given}: the loader reads shards; expected .tar shards (or Parquet files with images), "
                "with --dataset-type webdataset or auto"
            )
    for flag, defaults in LATER.items():
        value = getattr(args, flag, None)
        if value and value not in defaults:
            instead = INSTEAD.get(flag, "leave it out, or read this data with open_clip's own get_data")
            raise ConfigError(f"--{flag.replace('_', '-')} {value}: the loader does not follow it: {instead}")


def _training(
    args: Any,
    pixels: dict[str, Any],
    texts: Mapping[str, Any],
    source: Source | Sequence[Source] | None,
    given: Mapping[str, Any],
) -> Loader:
    options = dict(given)
    if not any(options.get(name) is not None for name in ("captioner", "selection", "plan", "mode")):
        options["mode"] = "full"
    selection = options.get("selection")
    if selection is not None and isinstance(selection.keep_ratio, Mapping):
        raise ConfigError(
            "keep_ratio: open_clip fixes the steps of an epoch, and so its learning rate, at the start; "
            "expected one number, found a schedule, by which epochs have other lengths"
        )
    options["images"] = _pixels(args, pixels, options.get("images"))
    options["captions"] = replace(
        options.get("captions") or Captions(), context_length=texts["context_length"]
    )
    runtime = options.get("runtime") or Runtime()
    options["runtime"] = runtime if runtime.threads else replace(runtime, threads=max(1, args.workers))
    options["world"] = _world(args, options.get("world"))
    options.update(
        tokenizer=texts["tokenizer"],
        batch_size=args.batch_size,
        device=_device(args),
        seed=args.seed,
    )
    shards = _sources(args) if source is None else source
    if source is not None and args.train_data_upsampling_factors is not None:
        raise ConfigError(
            "--train-data-upsampling-factors: expected none beside source=, whose weights are shares"
        )
    step = args.batch_size * getattr(args, "world_size", 1) * args.accum_freq
    if args.train_num_samples is not None:
        samples = args.train_num_samples // step * step
        if not samples:
            raise ConfigError(
                f"--train-num-samples {args.train_num_samples}: expected at least one step of {step} samples "
                "(--batch-size times processes times --accum-freq)"
            )
        return Loader(shards, samples_per_epoch=samples, **options)
    loader = Loader(shards, **options)
    left_over = loader.num_batches % args.accum_freq
    if not left_over:
        return loader
    # open_clip drops the gradients of the batches that are no whole step.
    samples = loader.num_samples // step * step
    if not samples:
        raise ConfigError(
            f"--accum-freq {args.accum_freq}: expected at most the {loader.num_batches} batches of an epoch"
        )
    return Loader(shards, samples_per_epoch=samples, **options)


def _evaluation(args: Any, pixels: dict[str, Any], texts: Mapping[str, Any], source: Source | None) -> Loader:
    """The loader of rank 0, which alone evaluates; every rank makes it."""
    return Loader(
        _paths(args.val_data) if source is None else source,
        mode="eval",
        images=_pixels(args, pixels, None),
        tokenizer=texts["tokenizer"],
        captions=Captions(context_length=texts["context_length"]),
        batch_size=args.batch_size,
        device=_device(args),
        runtime=Runtime(threads=max(1, args.workers)),
        world=World(rank=0, world_size=1),
    )


def _pixels(args: Any, fields: dict[str, Any], given: Images | None) -> Images:
    """The images that open_clip's transforms make, with what else was asked for."""
    import torch
    from open_clip import get_input_dtype

    if get_input_dtype(args.precision) is torch.bfloat16:
        fields = {**fields, "dtype": "bfloat16"}
    given = given or Images()
    for name, value in given._fields_given().items():
        if fields.get(name, value) != value:
            raise ConfigError(
                f"{name}: the model and open_clip's flags say {fields[name]}; leave {name}={value} out of "
                "images"
            )
    return replace(given, **fields)


def _world(args: Any, given: World | None) -> World:
    given = given or World()
    if given.rank is not None or given.world_size is not None:
        raise ConfigError("rank, world_size: expected neither, since open_clip says them; lanes may be given")
    rank = getattr(args, "rank", None)
    return given if rank is None else replace(given, rank=rank, world_size=args.world_size)


def _device(args: Any) -> str:
    """Where batches are made: open_clip moves them on to devices that the loader does not know."""
    device = str(args.device)
    return device if device.partition(":")[0] == "cuda" else "cpu"


def _paths(urls: str | Sequence[str]) -> list[str]:
    """Patterns of open_clip: several are joined by `::`."""
    return [str(url) for part in ([urls] if isinstance(urls, str) else urls) for url in str(part).split("::")]


def _sources(args: Any) -> list[str] | list[Source]:
    paths = _paths(args.train_data)
    factors = args.train_data_upsampling_factors
    if factors is None:
        return paths
    flag = f"--train-data-upsampling-factors {factors}"
    if not getattr(args, "dataset_resampled", False):
        raise ConfigError(f"{flag}: expected --dataset-resampled beside it, as open_clip does")
    try:
        weights = [float(factor) for factor in str(factors).split("::")]
    except ValueError:
        weights = []
    if len(weights) != len(paths) or not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ConfigError(f"{flag}: expected {len(paths)} numbers above 0, one for each part of --train-data")
    # open_clip draws shards by these weights and yields what is in them: a part's share is its weight times
    # its samples. Ours are shares.
    return [Source(path, weight=weight * _samples(path)) for path, weight in zip(paths, weights, strict=True)]


def _samples(path: str) -> int:
    """Samples in shards, as files beside them say, or their headers."""
    return Loader(
        path, mode="eval", batch_size=1, images=Images(image_size=2), world=World(rank=0, world_size=1)
    ).num_samples


def _saved_state(args: Any) -> Mapping[str, Any] | None:
    """The loader's state in the checkpoint that open_clip resumes, where it was saved within an epoch."""
    path = getattr(args, "resume", None)
    if not path:
        return None
    import torch

    if Path(path).is_file():
        # Its tensors are not read: open_clip has done so.
        checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    else:
        from open_clip_train.file_utils import pt_load

        checkpoint = pt_load(path, map_location="cpu")
    state: Mapping[str, Any] | None = checkpoint.get("tldr_loader")
    return state
