from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import torch

from tldr_loader_captioner import Captioner, Matcher

_Path: TypeAlias = str | PathLike[str]
_Urls: TypeAlias = _Path | Sequence[_Path]
_Device: TypeAlias = str | torch.device | None

__all__ = [
    "_OPTIMISED",
    "Array",
    "Batch",
    "Batches",
    "Ledger",
    "Loader",
    "__version__",
    "_command",
    "_end",
    "_hand_over",
    "synth",
]

__version__: str
_OPTIMISED: bool

@final
class Loader:
    """A stream of batches of survivors, epoch after epoch.

    Iterating yields an epoch; with its last batch the loader moves on to the next one. The sequence
    of batches depends on the data, the captioner directory, the policy and the seed: not on
    threads, ranks or machine load. `len(loader)` is the number of batches in the current epoch.

    Args:
        urls: Shards, one pattern or several: paths or URLs (`s3://`, `gs://`, `az://`, `http(s)://`)
            with `{00000..00331}` ranges, globs, folders, or `@FILE` that lists them. Or corpora with their
            weights, a pattern each: `{"cc3m/{00000..00331}.tar": 0.7, "sbu/": 0.3}` mixes them in this
            proportion, in every batch.
        samples_per_epoch: Samples that an epoch yields over all ranks, rounded down to whole batches; the
            next epoch goes on in the shards where this one stops. Default: what one pass over the shards
            is expected to keep.
        captioner: A captioner directory (after `Captioner.fit`), or a `Captioner`. Without one the
            selection is plain random.
        keep_ratio: Share of readable samples to keep, in (0, 1]; or one from each of several epochs on,
            `{0: 0.25, 28: 1.0}`, where 1 keeps every readable sample, whatever `gate`, `dedup` and `quota`
            say. Default: 0.25 with a captioner or a score_key; without either, and without a plan, it has to
            be given.
        batch_size: Samples per batch and rank.
        image_size: Side of the square images, in pixels.
        tokenizer: A `tokenizer.json`, obeyed with what lies beside it (`open_clip_config.json`,
            `tokenizer_config.json`), or open_clip's merges file. Without one, batches carry captions
            only and do not unpack.
        device: `cpu` (the default), `cuda` (torch's current device) or `cuda:N`: where batches end up, and
            where the captioner runs unless `captioner_device` says otherwise.
        captioner_device: Where a captioner and a judge that are given as directories run, such as a second
            GPU. Default: `device`; a `Captioner` or `Matcher` has a device of its own.
        mode: `reduced` yields survivors; `full` every sample with its original caption; `eval`
            every sample once, in order, with the eval transform. One process yields a short last batch; of
            several each yields as many batches of `batch_size` rows, and `batch.valid` says which are real.
        gate: Share of samples that pass, by alignment of image and original caption, or by `score_key`; 1.0
            turns the gate off, None is the default. Default: 0.5 with a captioner or a score_key, off
            without, and off with a threshold.
        gate_by: Of what the gate lets that share through: the `corpus`, or each `cluster`.
        score_key: A score that the corpus has, such as a CLIP similarity: field of the json member, or column
            of the parquet beside the shard. It takes the place of the alignment in the gate and in the
            priorities `hard` and `score`; no captioner is needed for it. A sample without one does not pass.
        threshold: Least score that passes, with `score_key`, instead of a share.
        dedup: Cosine of image embeddings from which two samples of a window are near-copies.
            Default: no deduplication.
        quota: How likely a sample is kept, by the size n of its cluster: `proportional` (the same for
            all), `cap` (clusters above one size are cut down to it), `cap(100)` (to 100 samples;
            keep_ratio follows), `tempered(0.5)` (between them, as n^(0.5 - 1)), or `random` (clusters
            do not count). Default: proportional with a captioner.
        priority: Which candidates fill a quota first: `uniform`, `diverse` (farthest first, of the
            embeddings in a window), `hard` (worst aligned), `score` (best aligned), `longest` (captions),
            or `every-nth` (as the paper's code; an ablation).
        rotate: Whether epochs keep disjoint subsets until the pool is used up.
        thin: Whether the draw comes before everything else: a share of keep_ratio / gate of the stream is
            taken, and what of it passes the gate survives. Nothing else is decoded or encoded, so that a
            survivor costs 1 / gate encodes instead of 1 / keep_ratio; clusters have their quota in
            expectation only. With quota `proportional` or `random` and priority `uniform`.
        fuse: The caption of a survivor: `original`, `generated`, `concat`, `best`, `coin` or `gated`.
            The last four take a number, as in `concat:16` tokens for the generated part, `best:0.5`
            (the generated caption below this alignment), `coin:0.3` (the generated caption with this
            probability, drawn for each sample and epoch; `coin:{0: 0.2, 10: 0.5}` changes it from an
            epoch on) or `gated:0.5` (each caption must pass: a fair coin where both do, the original
            where none does).
        judge: Scores generated captions, for `gated` and `rescue`: a captioner that was trained on other
            data than the one that writes them, or a `Matcher`; a directory, or one that is loaded.
        rescue: Whether samples that the gate drops come back with their generated caption, where the judge
            scores it as high as the gate asks. They share the places of their window with those that pass
            by themselves, so that `keep_ratio` means what it means without. Each dropped sample then costs
            a caption.
        replace_repetitive: Whether a generated caption that repeats a phrase three times in a row
            gives way to the original, as an empty one always does.
        defer_duplicates: Whether a survivor whose caption, or nearly whose image, stands in its lane's part
            of a batch already waits for a later batch of the lane. Images are compared where signals are.
            Not in mode `eval`.
        weights: Whether batches carry `weights`, 1 / pi. They make sums over the kept samples unbiased for
            all that pass gate and dedup; they do not debias a contrastive loss.
        seed: Seed of every random choice.
        transform: `train` (random resized crop), `eval` (resize, centre crop) or `preview`
            (squash). Default: by mode.
        crop_scale: Least and greatest share of the area, for `train`.
        crop_ratio: Least and greatest width over height, for `train`.
        flip: Probability of a horizontal flip, for `train`.
        mean: Mean of R, G, B for pixels in [0, 1]. Default: CLIP's.
        std: Standard deviation of R, G, B. Default: CLIP's.
        pixels: `float32` or `bfloat16`, normalised; or `uint8`, as decoded and resized.
        context_length: Token ids per caption.
        rank: Rank of this process among those that share the corpus, with `world_size`. Default: that of
            torch.distributed's process group, else `RANK` with `WORLD_SIZE` of the environment, else what
            Open MPI, PMI (MPICH, Intel MPI) or a step of Slurm says, else 0: the first of these that says
            both.
        world_size: Number of processes that share the corpus, with `rank`; 1 for a loader that one rank has
            for itself. Default: as for the rank, else 1.
        lanes: Canonical streams; a multiple of the world size that divides the global batch. A state
            resumes on as many ranks as divide the lanes. Default: 8, which 1, 2, 4 and 8 ranks share; 4, 2
            or 1 where 8 does not divide the global batch; the world size where that divides none of them. A
            run that is to grow further starts with the largest world size that is planned.
        window: Samples per decision window.
        shuffle_windows: Windows whose survivors are shuffled together.
        threads: Threads that decode images. Default: one per core.
        prefetch: Finished batches that may wait for the training loop.
        buffer_bytes: Bytes of encoded images and json that may wait in memory, over all lanes of the rank;
            what is above them waits in unlinked files. Default: 4 GiB.
        spill_dir: Folder of these files. Default: the system's folder for temporary files (`TMPDIR`).
        source: Name of the corpus in the identity of its samples. Default: the name of the folder
            that holds the shards.
        lengths: Samples per shard, in the order of the list. Default: `sizes.json`, img2dataset's
            `_stats.json` or `.parquet`, or a scan.
        endpoint: URL of a server that speaks S3, for `s3://` shards. Default: the environment's
            `AWS_ENDPOINT_URL`, or Amazon. Credentials come from the environment (`AWS_*`,
            `GOOGLE_*`, `AZURE_*`).
        read_timeout: Seconds to wait for the next bytes of a remote shard. Default: 30.
        retries: Times that a request is made again before a fault of its store ends the run.
            Default: 8.
        caption_key: Field of the json member, or column of the parquet beside the shard, that
            holds the caption. Default: the txt member.
        where: Which samples count, by fields of their json or columns of the parquet beside the shard: a
            condition as in SQL, `"NSFW = 'UNLIKELY' and width >= 200"`. Default: all.
        subset: A file that lists the samples that count: a `.parquet` or `.jsonl` with `uid` or `key` (or as
            `tldr-loader export` writes it), a `.txt` of one key a line, or DataComp's `.npy` of uids.
            Default: all.
        captions: A `.parquet`, `.jsonl` or `.tsv` with `caption`, and `uid` or `key`: samples that are in it
            have their caption from there, the others their own. Default: none.
        max_image_pixels: Pixels an image may have; larger ones are refused from their header.
        exif_orientation: Whether images are turned as their EXIF data say; CLIP trainers do not.
        scaled_decoding: Whether the random crop of a JPEG is decoded at the smallest of 1/8, 1/4, 1/2 and
            full size at which it is still twice `image_size` or more, each way. Faster for large photographs;
            the pixels differ a little (docs/benchmarks.md).
        on_error: `skip` counts and names a sample that cannot be used; `raise` ends the run.
        max_errors: Failed samples that end the run: a count, or below 1 a share of what was read.
        max_errors_per_shard: The same of one shard. Default: no limit.
        stall_timeout: Seconds that a stage may hold up the training loop without a sign of life; then an
            error names the stage and its shard. Default: for ever, with a warning every so often.
        strict: Whether signals of the ledger that were computed on another kind of device, in another
            number type or by another torch end the run, instead of a warning.
        ledger: Signals and captions to re-use and to add to: another loader's, or a folder, local or of a
            bucket. Default: an empty one in memory.
        plan: A plan of the corpus, as `tldr-loader plan` writes it: it says which samples survive, and the
            options of the policy may be left out. Default: the policy decides, window by window.

    Raises:
        ConfigError: An option cannot work, is of a wrong type, or was given and has no effect beside the
            others; names it, what was given and what is accepted.
        DataError: Shards or files cannot be read.
    """

    def __new__(
        cls,
        urls: _Urls | Mapping[str, float] | Mapping[Path, float],
        *,
        captioner: Captioner | _Path | None = None,
        keep_ratio: float | dict[int, float] | None = None,
        batch_size: int = 256,
        image_size: int = 224,
        tokenizer: _Path | None = None,
        device: _Device = None,
        captioner_device: _Device = None,
        mode: Literal["reduced", "full", "eval"] = "reduced",
        gate: float | None = None,
        gate_by: Literal["corpus", "cluster"] = "corpus",
        score_key: str | None = None,
        threshold: float | None = None,
        dedup: float | None = None,
        quota: str | None = None,
        priority: Literal["uniform", "diverse", "hard", "score", "longest", "every-nth"] = "uniform",
        rotate: bool = False,
        thin: bool = False,
        fuse: str = "original",
        judge: Captioner | Matcher | _Path | None = None,
        rescue: bool = False,
        replace_repetitive: bool = True,
        defer_duplicates: bool = False,
        weights: bool = False,
        seed: int = 0,
        transform: Literal["train", "eval", "preview"] | None = None,
        crop_scale: tuple[float, float] | None = None,
        crop_ratio: tuple[float, float] | None = None,
        flip: float | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        pixels: Literal["float32", "bfloat16", "uint8"] = "float32",
        context_length: int = 77,
        rank: int | None = None,
        world_size: int | None = None,
        lanes: int | None = None,
        window: int = 2048,
        shuffle_windows: int = 8,
        threads: int | None = None,
        prefetch: int = 2,
        buffer_bytes: int | None = None,
        spill_dir: _Path | None = None,
        source: str | None = None,
        lengths: Sequence[int] | None = None,
        endpoint: str | None = None,
        read_timeout: float | None = None,
        retries: int | None = None,
        caption_key: str | None = None,
        where: str | None = None,
        subset: _Path | None = None,
        captions: _Path | None = None,
        max_image_pixels: int | None = None,
        exif_orientation: bool = False,
        scaled_decoding: bool = False,
        on_error: Literal["skip", "raise"] = "skip",
        max_errors: float = 0.1,
        max_errors_per_shard: float | None = None,
        strict: bool = False,
        ledger: Ledger | _Path | None = None,
        plan: _Path | None = None,
        samples_per_epoch: int | None = None,
        stall_timeout: float | None = None,
    ) -> Loader: ...
    def __iter__(self) -> Batches:
        """The batches of an epoch: of the current one, from its start or from where a loaded state left off.

        Nothing happens before the first batch is asked for; which epoch it is, and where it starts, is what
        holds then. With the first batch of all, where torch.distributed is initialised, the ranks compare
        their loaders.
        """

    def __len__(self) -> int: ...
    @property
    def num_batches(self) -> int:
        """Batches of the current epoch, the same on every rank; in mode `eval` as the lengths make."""

    def num_batches_of(self, epoch: int) -> int:
        """Batches of an epoch: epochs differ where `keep_ratio` is a schedule."""

    @property
    def num_samples(self) -> int:
        """Samples of the current epoch over all ranks."""

    @property
    def batch_size(self) -> int:
        """Samples per batch on this rank."""

    @property
    def vocab_size(self) -> int | None:
        """Number of token ids: rows that a text embedding needs; `None` without a tokenizer."""

    @property
    def rank(self) -> int | None:
        """Rank of this process among those that share the corpus.

        `None` before the first batch where the environment has `WORLD_SIZE` and no `RANK`: the process group
        says it then.
        """

    @property
    def world_size(self) -> int:
        """Number of processes that share the corpus."""

    @property
    def sampler(self) -> Loader:
        """The loader itself: Lightning calls `loader.sampler.set_epoch` at the start of an epoch."""

    @property
    def epoch(self) -> int:
        """The epoch of the next batch: after the last batch of an epoch the next one."""

    @property
    def ledger(self) -> Ledger:
        """What the loader remembers of samples; pass it to another loader to re-use it."""

    def set_epoch(self, epoch: int) -> None:
        """Moves to the start of an epoch. Epochs are independent: no history is needed.

        Naming the epoch of a state that was just loaded keeps the place in it: iterating yields what is left,
        which is nothing where the state was saved after the last batch.
        """

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: the batches handed over so far. The same on every rank."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Moves to a saved state, of any world size with the same global batch and lanes.

        Iterating then yields exactly what the saved run had not yielded yet, which after the last batch of an
        epoch is the next one.

        Raises:
            StateError: The state was saved by another configuration; lists every difference.
        """

    def stats(self) -> dict[str, Any]:
        """Statistics of the epoch that was started last, on this rank.

        `counts` has the outcome of every sample read (`read` = `kept` + `dropped_gate` + `dropped_dedup`
        + `dropped_quota` + `dropped_thin` + `excluded` (by `where` or `subset`) + all of `failed`, by
        reason), `shards` the same by shard, `failures` the first failed samples by name, `seconds` the
        work of each stage. `n_eff` is (sum of w)² / sum of w² over what was yielded, w being 1 / pi;
        `None` where a pi is not known. `alike_captions` and `alike_images` are samples that repeat an
        earlier one of their batch, of this rank: false negatives. `sources` has of each corpus its
        `share` of an epoch's samples, the `passes` that an epoch makes over it, `read`, `kept` and
        `yielded`; `activity` what every stage is doing, and for how many seconds. Further fields:
        `epoch`, `rank`, `world_size`, `rank_from` (who says so), `yielded`, `replayed`, `repeats`, `surplus`,
        `padded` (rows that are not `valid`, no part of `yielded`), `encoded` (windows that two ranks share
        are encoded by both), `captioned`, `judged` (captions
        scored), `rescued` (of `counts["kept"]`), `captions_empty`, `captions_repetitive` (both of
        captions that were generated), `deferred` (by `defer_duplicates`), `spilled_bytes` (for which
        `buffer_bytes` had no room), `length_mismatches`, `empty_shards` (those without samples),
        `skipped_bytes` (after damaged tar headers, by
        shard), `unscored` (usable samples without a `score_key`), `not_numbers` (by field that was asked
        for, samples where it is NaN: no value), `unread_json` (samples whose json cannot be read, and that
        count without it; both of the json that this epoch read), `gate` (as `Captioner.validation`, where
        the captioner's alignment gates and that was measured), and, where there is such a table,
        `subset` and `captions`: `by` (`key`, `uid` or `id`), `entries`, and `matched`, the samples of
        this rank that were found in it.
        """

@final
class Batches:
    """The batches of one epoch, which begins with the first. Dropping it stops the epoch's threads."""

    def __iter__(self) -> Batches: ...
    def __next__(self) -> Batch:
        """The next batch. Ctrl-C ends the wait.

        The first call starts the epoch. `RuntimeWarning`s say that an epoch which was broken off starts
        again, what a wait of a minute and more is for, and with the last batch what was odd.

        Raises:
            ConfigError: The rank is not known, or the loaders of some ranks differ or were not started; names
                them.
            TldrError: The first error of any stage; the epoch is over after it.
        """

@final
class Batch:
    """One batch of survivors on one rank; unpacks as `images, tokens`.

    Lists have one entry per row and are made on access.
    """

    @property
    def images(self) -> torch.Tensor:
        """Pixels, `[batch, 3, image_size, image_size]`, in the type of `pixels`."""

    @property
    def tokens(self) -> torch.Tensor | None:
        """Token ids of `captions`, int64 `[batch, context_length]`; `None` without a tokenizer."""

    @property
    def epoch(self) -> int:
        """Epoch, from 0."""

    @property
    def step(self) -> int:
        """Index of the batch in its epoch, from 0."""

    @property
    def ids(self) -> list[int]:
        """Identities: 64-bit hashes of source, shard and key."""

    @property
    def keys(self) -> list[str]:
        """WebDataset keys."""

    @property
    def json(self) -> list[bytes | None]:
        """The json members, as stored."""

    @property
    def clusters(self) -> list[int | None]:
        """Clusters; `None` where no captioner ran."""

    @property
    def alignment(self) -> list[float | None]:
        """Alignment of image and original caption as a quantile of the corpus."""

    @property
    def pi(self) -> list[float | None]:
        """Probability of inclusion, given gate and dedup; `None` where it depends on the sample."""

    @property
    def weights(self) -> torch.Tensor | None:
        """1 / pi, float32 `[batch]`, where `weights` was asked for.

        1 where nothing was selected, 0 where a row is not `valid`.
        """

    @property
    def valid(self) -> torch.Tensor:
        """Whether a row is a sample's own, bool `[batch]`.

        Always true but in mode `eval` on several ranks, where rows that are not real repeat samples of the
        rank, or are blank where it has none: leave them out of what is summed.
        """

    @property
    def policy(self) -> int:
        """Fingerprint of what decided which samples are here, as in the loader's state."""

    @property
    def original(self) -> list[str]:
        """Original captions."""

    @property
    def generated(self) -> list[str | None]:
        """Generated captions, where one was needed."""

    @property
    def judged(self) -> list[float | None]:
        """What the judge says of the generated captions, in [0, 1]; `None` where it was not asked."""

    @property
    def rescued(self) -> list[bool]:
        """Whether the gate dropped the sample and its generated caption brought it back."""

    @property
    def captions(self) -> list[str]:
        """The captions to train on: original and generated, fused."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yields images and tokens.

        Warns, once a loader, where rows are not real and nobody has looked at `valid`.

        Raises:
            ConfigError: The loader has no tokenizer.
        """

@final
class Array:
    """A contiguous array in host memory.

    `torch.from_dlpack`, `jax.dlpack.from_dlpack` and `numpy.from_dlpack` take it without a copy.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""

    @property
    def dtype(self) -> str:
        """Number type, as NumPy and torch name it."""

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        """A DLPack capsule of the memory, which stays as long as anything uses it."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and number of the device: the CPU."""

    def __len__(self) -> int: ...

@final
class Ledger:
    """Signals and captions seen so far, shared by any number of loaders.

    Loaders that differ in keep_ratio, gate, policy or seed share one, so that a sweep runs the
    captioner once. In memory it grows with the corpus; in a folder it outlives the run, for the next
    one to begin with. It is a cache: without it everything is the same, and slower.

    Args:
        path: Folder of Parquet files to keep it in, local or of a bucket (`s3://BUCKET/FOLDER`); begun
            where nothing is. Default: memory.
        cache_bytes: Bytes of a folder's contents that may be in memory. Default: 512 MiB.
        endpoint: URL of a server that speaks S3, as for `Loader`.
    """

    def __new__(
        cls, path: _Path | None = None, *, cache_bytes: int | None = None, endpoint: str | None = None
    ) -> Ledger: ...
    @property
    def path(self) -> str | None:
        """The folder it is in, a path or a URL; None in memory."""

    @property
    def windows(self) -> int:
        """Number of windows in memory."""

    @property
    def captions(self) -> int:
        """Number of captions in memory."""

    @property
    def bytes(self) -> int:
        """Approximate size in memory."""

def synth(
    out: _Path,
    *,
    samples: int = 12_000,
    test_samples: int = 1000,
    shards: int = 12,
    size: int = 64,
    misaligned: float = 0.5,
    duplicates: int = 4,
    zipf: float = 1.0,
    seed: int = 0,
    threads: int | None = None,
) -> dict[str, Any]:
    """Draws a synthetic web-like corpus with ground truth: `out/train` and a clean `out/test`.

    The truth of a sample stands in its json: `scene`, `class`, `caption_truth`, `noise` and more.
    The same options give the same bytes.

    Args:
        out: Folder to write to; its `train` and `test` must be empty or absent.
        samples: Training samples.
        test_samples: Clean test samples, whose captions are distinct and unseen.
        shards: Training shards.
        size: Side of the square images, in pixels.
        misaligned: Share of training captions that are noise.
        duplicates: Near-copies of each scene; 1 draws every scene once.
        zipf: Exponent of Zipf's law for the classes.
        seed: Seed of every random choice.
        threads: Threads that draw; they change nothing but the time.

    Returns:
        `samples`, `scenes`, `shards`, `test_samples`, `bytes`, and `noise` with a count by kind.
    """

def _hand_over(dtype: str, shape: Sequence[int]) -> tuple[int, Array]: ...
def _command(words: Sequence[str]) -> int: ...
def _end(process: int) -> None: ...
