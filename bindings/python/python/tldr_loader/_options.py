"""The groups of options, made by bindings/python/reference.py of what Rust declares."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from tldr_loader._groups import Group
from tldr_loader._notation import AtLeast, Best, Cap, Coin, Concat, Gated, Mix, Tempered, Top

__all__ = ["Captions", "Images", "Runtime", "Selection", "Source", "Store", "World"]

LOADER = """\
A stream of batches of kept samples, epoch after epoch.

Iterating yields an epoch; with its last batch the loader moves on to the next one. The sequence of
batches depends on the data, the captioner directory, the options and the seed: not on threads, ranks or
machine load. `len(loader)` is the number of batches in the current epoch.

Args:
    source: Shards, one pattern or several: paths or URLs, with `{00000..00331}` ranges, globs or folders.
        Or a `Source`, which says how a corpus is read; or a list of these, mixed by their weights.
    captioner: Directory of a captioner, after `fit`. Default: none, and the selection is plain random.
    selection: What is kept of it.
    captions: Which captions samples have.
    images: What images look like.
    tokenizer: The tokenizer of the trained model: a `tokenizer.json`, obeyed with what lies beside it
        (`open_clip_config.json`, `tokenizer_config.json`), or open_clip's merges file. Default: none, and
        batches carry captions only.
    batch_size: Samples per batch and rank. Default: 256.
    device: `cpu`, `cuda` (torch's current device) or `cuda:N`: where batches end up, and where the
        captioner runs unless `captioner_device` says otherwise. Default: `cpu`.
    mode: What the loader yields: `reduced`, what is kept; `full`, every sample with its original caption;
        `eval`, every sample once, in order, with the eval transform. Of `eval` one process yields a short
        last batch; of several each yields as many batches of `batch_size` rows as the others, and `valid`
        says which rows are real. Default: `reduced`.
    seed: Seed of every random choice. Default: 0.
    ledger: Folder that signals and captions are remembered in, of this machine or of a bucket; begun
        where nothing is. Default: memory.
    plan: A plan, as `tldr-loader plan` writes it: it says which samples are kept, and the options of the
        selection may be omitted. Shards, window size, reading options and captioner must be those it was
        made with; a captioner is only needed where captions are generated, or chosen by alignment.
        Default: the selection decides, window by window.
    samples_per_epoch: Samples that an epoch yields over all ranks, rounded down to whole batches: a part
        of a pass over the shards, or several. The next epoch goes on in the shards where this one stops.
        Default: what one pass is expected to keep.
    fields: Fields of the samples that batches carry, as `fields`: by name, of tables of scores, of the
        json member, or of the Parquet file beside the shard. Default: none.
    runtime: How the loader works.
    world: Which of how many processes this one is.

Raises:
    ConfigError: An option is not known, cannot work, is of a wrong type, or asks for something and
        has no effect beside the others; names it, what was given and what is accepted.
    DataError: Shards or files cannot be read.
"""


@dataclass(frozen=True, kw_only=True, repr=False)
class Store(Group):
    """How shards in object stores and on HTTP servers are read; local shards need none of it.

    A reader holds at most `ranges_ahead * range_bytes` of a shard. Credentials of buckets come from the
    environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`), and so may those of HTTP servers (`TLDR_LOADER_HTTP_TOKENS`)
    and of the Hugging Face hub (`HF_TOKEN`).

    Args:
        endpoint: URL of a server that speaks S3 (MinIO, Ceph, R2), for `s3://` shards. Default:
            `AWS_ENDPOINT_URL` where that is set, else Amazon.
        token: Bearer token for the HTTP server of the source's shards, or for the Hugging Face hub; sent to
            no other. Default: that of `TLDR_LOADER_HTTP_TOKENS` (`TOKEN@HOST;TOKEN@HOST:PORT`) for this
            server; for `hf://` shards `HF_TOKEN`, or what `hf auth login` wrote.
        headers: Headers for the HTTP server of the source's shards, by their names; sent to no other.
            Default: none.
        read_timeout: Seconds to wait for the next bytes of an answer. Default: 30.
        retries: Times that a request is made again after a fault that may pass, before the fault ends the
            run; counted anew after each `range_bytes`. They also bound how long a server that asks for time
            (`Retry-After`) is given. Default: 8, which take 23 s of waiting.
        range_bytes: Bytes per request. Default: 4 MiB.
        ranges_ahead: Requests of one reader at a time. Default: 4.
        shard_cache_dir: Local folder in which what was read of remote shards is kept for later epochs and
            runs; processes may share it. Default: none.
        shard_cache_bytes: Bytes that this folder may hold; the least recently used go first. Default: 64 GiB.
    """

    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    read_timeout: float = 30.0
    retries: int = 8
    range_bytes: int = 4194304
    ranges_ahead: int = 4
    shard_cache_dir: str | os.PathLike[str] | None = None
    shard_cache_bytes: int = 68719476736


@dataclass(frozen=True, repr=False)
class Source(Group):
    """One corpus and how it is read.

    Args:
        urls: Shards, one pattern or several: paths or URLs (`s3://`, `gs://`, `az://`, `hf://datasets/`,
            `http(s)://`) with `{00000..00331}` ranges, globs, folders, or `@FILE` that lists them. Tar files,
            or Parquet files with a column of images.
        name: Its name in the identity of its samples. Default: that of the folder that holds the shards.
        weight: Its share of the samples that are yielded, over the sum of all weights. Default: corpora
            without weights are read as one.
        caption_key: Where the original caption is: the name of a table in `captions`, a field of the json
            member, or a column of the Parquet file beside the shard, each with a caption or a list of
            captions. A sample that has none there has that of its txt member. Default: the txt member; in
            Parquet files with images the column `caption`, `text` or `txt`.
        caption_choice: Which caption a sample has where there are several (a list, or members like `0.txt`
            and `1.txt`): `first`, `random` (one that is drawn for each sample and epoch; a captioner sees the
            first) or `all` (as one text, between them "; "). Default: the first, with a warning.
        where: Which samples count, by columns of tables of `scores`, fields of their json or columns of the
            Parquet file beside the shard: a condition as in SQL, `NSFW = 'UNLIKELY' and width >= 200`. The
            others are excluded unseen, and no part of what keep_ratio is a share of. How many pass in each
            shard is counted when the loader is built: by the Parquet files beside the shards, else by one
            pass over their metadata (of local uncompressed shards only json is read). Default: all.
        subset: A file that lists the samples that count: a `.parquet` or `.jsonl` with `uid` or `key` (or as
            `tldr-loader export` writes it), a `.txt` of one key a line, or DataComp's `.npy` of uids; or a
            pattern of its parts. The others are excluded. Default: all.
        captions: Tables of other captions by name, `{"blip2": "captions.parquet"}`: each a `.parquet`,
            `.jsonl` or `.tsv` with `caption`, and `uid` or `key`, or a pattern of its parts. `fuse` chooses
            among them, the original and the generated caption by name; `caption_key` takes one for the
            original. Default: none.
        scores: Tables of scores, one or several: each a `.parquet`, `.jsonl` or structured `.npy` with `uid`
            or `key`, and columns of numbers, or a pattern of such files (`metadata/*.parquet`). Files with
            the same columns are parts of one table. `where` and `gate` know the columns by name, before
            fields of the same name, and batches carry them as `scores`. Default: none.
        lengths: Samples per shard, in the order of the list. Default: `sizes.json`, img2dataset's
            `_stats.json` or `.parquet`, or a scan.
        store: How remote shards are read.
    """

    urls: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    _: KW_ONLY
    name: str | None = None
    weight: float | None = None
    caption_key: str | None = None
    caption_choice: Literal["first", "random", "all"] | None = None
    where: str | None = None
    subset: str | os.PathLike[str] | None = None
    captions: Mapping[str, str | os.PathLike[str]] = field(default_factory=dict)
    scores: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = ()
    lengths: Sequence[int] | None = None
    store: Store = field(default_factory=lambda: Store())


@dataclass(frozen=True, kw_only=True, repr=False)
class Selection(Group):
    """Which samples are kept.

    Args:
        keep_ratio: Share of the readable samples to keep, in (0, 1]: one number, or one from each of several
            epochs on, as in `{0: 0.25, 28: 1.0}`, where 1 keeps every readable sample, whatever gate, dedup
            and quota say. Default: 0.25 with a captioner, or a gate by a score of the corpus; without either,
            and without a plan, it has to be given.
        gate: Which samples pass, by the alignment of image and original caption: the best share, `top(0.5)`,
            of the corpus or `within=cluster`. Or by a score that the corpus has, such as a CLIP similarity,
            for which no captioner is needed: `top(0.3, by=similarity)`, `at_least(0.28, by=similarity)`, by
            the name of a column of a table of `scores`, of a field of the json member, or of a column of the
            Parquet file beside the shard. It takes the place of the alignment in the priorities `hard` and
            `score`, too; a sample without one does not pass. `top(1)` lets everything pass. Default:
            `top(0.5)` with a captioner, no gate without.
        quota: How likely a sample is kept, by the size n of its cluster: `proportional` (the same for all),
            `cap` (clusters above one size are cut down to it), `cap(100)` (to 100 samples; keep_ratio
            follows), `tempered(0.5)` (between them, as n^(0.5 - 1)), or `random` (clusters do not count).
            Default: `proportional` with a captioner, `random` without.
        priority: Which candidates fill a quota first: `uniform`, `diverse` (farthest first, of the embeddings
            in a window), `hard` (worst aligned) or `score` (best aligned); `longest` (captions) and
            `every-nth` (as the paper's code) are ablations. Default: `uniform`.
        dedup: Cosine of image embeddings from which two samples of a window are near-duplicates, of which one
            is kept. Default: no deduplication.
        rotate: Whether epochs keep disjoint subsets until the pool is used up. Default: false.
        thin: Whether the draw comes before everything else: a share of keep_ratio / gate of the stream is
            taken, and what of it passes the gate is kept. Nothing else is decoded or scored, so that a kept
            sample costs 1 / gate scored ones instead of 1 / keep_ratio. Its price: a cluster has its quota in
            expectation only. With quota `proportional` or `random` and priority `uniform`. Default: false.
        window: Samples per decision window. Default: 2048.
        defer_duplicates: Whether a kept sample whose caption, or nearly whose image, stands in its lane's
            part of a batch already waits for a later batch of the lane (64 at a time may wait). Images are
            compared where signals are. Not in mode `eval`. Default: false.
        weights: Whether batches carry `weights`, 1 / pi. With them sums over the kept samples are unbiased
            for all that pass gate and dedup; they do not debias a contrastive loss, whose terms are not sums
            over samples. Default: false.
    """

    keep_ratio: float | Mapping[int, float] | None = None
    gate: Top | AtLeast | str | None = None
    quota: Cap | Tempered | Literal["proportional", "cap", "random"] | str | None = None
    priority: Literal["uniform", "diverse", "hard", "score", "longest", "every-nth"] = "uniform"
    dedup: float | None = None
    rotate: bool = False
    thin: bool = False
    window: int = 2048
    defer_duplicates: bool = False
    weights: bool = False

    @classmethod
    def tldr(cls) -> Selection:
        """The paper's: of the better aligned half a uniform quarter of every cluster."""
        return cls(keep_ratio=0.25, gate=Top(0.5), quota="proportional")

    @classmethod
    def random(cls, keep_ratio: float) -> Selection:
        """A plain random share."""
        return cls(keep_ratio=keep_ratio, gate=Top(1.0), quota="random")

    @classmethod
    def full(cls) -> Selection:
        """Everything, through the same pipeline."""
        return cls.random(1.0)


@dataclass(frozen=True, kw_only=True, repr=False)
class Captions(Group):
    """The captions of kept samples.

    Args:
        fuse: The caption of a kept sample: `original`, `generated`, the name of a table in `captions` of the
            sources, `mix({original: 0.5, blip2: 0.5})` (one of these by its share, drawn for each sample and
            epoch), `concat(16)` (original and generated, with 16 tokens for the generated part), `best(0.5)`
            (the generated one below this alignment), `coin(0.3)` (the generated one with this probability,
            drawn for each sample and epoch; `coin({0: 0.2, 10: 0.5})` changes it from an epoch on) or
            `gated(0.5)` (each caption must pass: a fair coin where both do, the original where none does).
            With `other=NAME` concat, best and coin take the caption of a table in place of the generated one.
            A sample that a table lacks keeps its original. Default: `original`.
        judge: Directory of a model that scores generated captions, for `gated` and `rescue`: a captioner that
            was trained on other data than the one that writes them, or an image-text matching model. Default:
            none.
        rescue: Whether samples that the gate drops come back with their generated caption, where the judge
            scores it as high as the gate asks. They share the quota of their window with those that pass by
            themselves: `keep_ratio`, and its maximum, mean what they mean without. Every sample that the gate
            drops then costs a caption. Default: false.
        replace_repetitive: Whether a generated caption that repeats a phrase three times in a row gives way
            to the original, as an empty one always does. Default: true.
        context_length: Token ids per caption. Default: 77.
    """

    fuse: Concat | Best | Coin | Gated | Mix | str = "original"
    judge: str | os.PathLike[str] | object | None = None
    rescue: bool = False
    replace_repetitive: bool = True
    context_length: int = 77


@dataclass(frozen=True, kw_only=True, repr=False)
class Images(Group):
    """Decoding, cropping and number type of the images.

    Args:
        image_size: Side of the square images, in pixels. Default: 224.
        transform: How images are cropped and resized: `train` (random resized crop), `eval` (resize, centre
            crop), `squash` (both sides, bicubic) or `preview` (both sides, bilinear). Default: `train`;
            `eval` in mode `eval`.
        crop_scale: Least and greatest share of the area, for `train`. Default: 0.9 to 1.
        crop_ratio: Least and greatest width over height, for `train`. Default: 3/4 to 4/3.
        flip: Probability of a horizontal flip, for `train`. Default: 0.
        mean: Mean of red, green and blue, for pixels in [0, 1]. Default: CLIP's.
        std: Standard deviation of red, green and blue. Default: CLIP's.
        dtype: Number type of the pixels: `float32` or `bfloat16`, normalised; or `uint8`, as decoded and
            resized. Default: `float32`.
        max_image_pixels: Pixels an image may have; larger ones are refused from their header. Default: 100
            million.
        exif_orientation: Whether images are turned as their EXIF data or XMP say. Default: false, as CLIP
            trainers do.
        alpha: What becomes of transparent pixels: they lie on `white` or `black`, or `drop` takes their
            colours as they are stored, as PIL's `convert("RGB")` does, and so open_clip. For previews too.
            Default: `white`.
        scaled_decoding: Whether the random crop of a JPEG is decoded at the smallest of 1/8, 1/4, 1/2 and
            full size at which it is still twice the image size or more, each way: less work for large
            photographs, and pixels that differ a little (docs/benchmarks.md). Default: false, full size.
    """

    image_size: int = 224
    transform: Literal["train", "eval", "squash", "preview"] | None = None
    crop_scale: Sequence[float] | None = None
    crop_ratio: Sequence[float] | None = None
    flip: float | None = None
    mean: Sequence[float] = (0.48145467, 0.4578275, 0.40821072)
    std: Sequence[float] = (0.26862955, 0.2613026, 0.2757771)
    dtype: Literal["float32", "bfloat16", "uint8"] = "float32"
    max_image_pixels: int = 100000000
    exif_orientation: bool = False
    alpha: Literal["white", "black", "drop"] = "white"
    scaled_decoding: bool = False


@dataclass(frozen=True, kw_only=True, repr=False)
class Runtime(Group):
    """Threads, memory, and what happens when something goes wrong.

    Args:
        threads: Threads that decode images. Default: 0, one per core.
        prefetch: Finished batches that may wait for the training loop. Default: 2.
        shuffle_windows: Windows whose kept samples are shuffled together. Default: 8.
        buffer_bytes: Bytes of encoded images and json that may wait in memory, over all lanes of the rank;
            what is above them waits in unlinked files. Default: 4 GiB.
        spill_dir: Folder of these files. Default: the system's folder for temporary files (`TMPDIR`).
        captioner_device: Where a captioner and a judge that are given as directories run, such as a second
            GPU. Default: `device`; a model that is given loaded has a device of its own.
        strict: Whether signals of the ledger that were computed otherwise than this captioner computes (kind
            of device, number type, torch) end the run, instead of a warning. Default: false.
        on_error: What to do with a sample that cannot be used: `skip` counts and names it, `raise` ends the
            run. Default: `skip`.
        max_errors: Failed samples that end the run: a count, or below 1 a share of what was read (judged from
            1,000 samples on). Default: 0.1.
        max_errors_per_shard: The same of one shard (judged from 100 samples on). Default: no limit.
        stall_timeout: Seconds that a stage may hold up the training loop without a sign of life; then an
            error names the stage and its shard. Default: for ever, with a warning from a minute on.
    """

    threads: int = 0
    prefetch: int = 2
    shuffle_windows: int = 8
    buffer_bytes: int = 4294967296
    spill_dir: str | os.PathLike[str] | None = None
    captioner_device: str | None = None
    strict: bool = False
    on_error: Literal["skip", "raise"] = "skip"
    max_errors: float = 0.1
    max_errors_per_shard: float | None = None
    stall_timeout: float | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class World(Group):
    """This process among those that share the corpus.

    Args:
        rank: Its rank, with `world_size`. Default: that of the process group (torch.distributed's), else
            `RANK` with `WORLD_SIZE` of the environment, else what Open MPI, PMI (MPICH, Intel MPI) or a step
            of Slurm says, else 0: the first of these that says both. Where `WORLD_SIZE` is set and `RANK` is
            not, the process group says it with the first batch.
        world_size: Number of processes that share the corpus, with `rank`. It may be smaller than that of the
            process group: 1 for a loader that one rank has for itself, the number of data-parallel ranks
            where several processes see the same data. Default: as for the rank, else 1.
        lanes: Canonical streams; a multiple of the world size that divides the global batch. A state resumes
            on as many ranks as divide the lanes. Default: 8, which 1, 2, 4 and 8 ranks share; 4, 2 or 1 where
            8 does not divide the global batch; the world size where that divides none of them. A run that is
            to grow further starts with the largest world size that is planned.
    """

    rank: int | None = None
    world_size: int | None = None
    lanes: int | None = None
