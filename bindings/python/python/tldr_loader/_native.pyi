from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any, Literal, NoReturn, TypeAlias, final

import torch

from tldr_loader._options import Captions, Images, Runtime, Selection, Source, World
from tldr_loader._scorers import FittedScorer
from tldr_loader._stats import Stats
from tldr_loader_captioner import Captioner

_Path: TypeAlias = str | PathLike[str]
_Sources: TypeAlias = _Path | Sequence[_Path] | Source | Sequence[Source]
_Device: TypeAlias = str | torch.device | None

__all__ = [
    "_OPTIMISED",
    "Array",
    "Batch",
    "Batches",
    "Ledger",
    "Loader",
    "__version__",
    "_audit",
    "_command",
    "_describe",
    "_end",
    "_explain",
    "_export",
    "_fit",
    "_fitted",
    "_hand_over",
    "_inspect",
    "_plan",
    "_report",
    "_token_ids",
    "synth",
]

__version__: str
_OPTIMISED: bool

@final
class Loader:
    """A stream of batches of kept samples, epoch after epoch.

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

    def __new__(
        cls,
        source: _Sources,
        *,
        captioner: Captioner | FittedScorer | _Path | None = None,
        selection: Selection | None = None,
        captions: Captions | None = None,
        images: Images | None = None,
        tokenizer: _Path | None = None,
        batch_size: int = 256,
        device: str | torch.device = "cpu",
        mode: Literal["reduced", "full", "eval"] = "reduced",
        seed: int = 0,
        ledger: Ledger | _Path | None = None,
        plan: _Path | None = None,
        samples_per_epoch: int | None = None,
        fields: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
        runtime: Runtime | None = None,
        world: World | None = None,
    ) -> Loader: ...
    @classmethod
    def from_config(cls, path: _Path, **options: Any) -> Loader:
        """A loader with the options of a TOML file; those that are given here go before.

        Args:
            path: The file: options by name, groups as tables, sources as an array of tables.
            options: As for `Loader`, and `source`. Of a group, the fields that differ from their defaults.

        Raises:
            ConfigError: As `Loader`; an option that is not known.
        """

    def __iter__(self) -> Batches:
        """The batches of an epoch: of the current one, from its start or from where a loaded state left off.

        Nothing happens before the first batch is asked for; which epoch it is, and where it starts, is what
        holds then. With the first batch of all, where torch.distributed is initialised, the ranks compare
        their loaders.
        """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> NoReturn: ...
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

    def stats(self) -> Stats:
        """Statistics of the epoch that was started last, on this rank: plain data, of the type `Stats`.

        It says what each is, and which seconds are wall-clock and which are summed over threads.
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
    """One batch of kept samples on one rank; unpacks as `images, tokens`.

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
    def scores(self) -> dict[str, torch.Tensor]:
        """What the tables of `scores` say of the rows: float32 `[batch]` by column, `nan` for nothing."""

    @property
    def fields(self) -> dict[str, torch.Tensor | list[Any]]:
        """Values of the `fields` that were asked for, `[batch]` by name.

        int64 where every row of the batch has a whole number, float64 where every row has a number or
        nothing (`nan`), else a list of what the rows have, `None` where they have nothing.
        """

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
        """The captions to train on, as `fuse` makes them."""

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
        duplicates: Near-duplicates of each scene; 1 draws every scene once.
        zipf: Exponent of Zipf's law for the classes.
        seed: Seed of every random choice.
        threads: Threads that draw; they change nothing but the time.

    Returns:
        `samples`, `scenes`, `shards`, `test_samples`, `bytes`, and `noise` with a count by kind.
    """

def _hand_over(dtype: str, shape: Sequence[int]) -> tuple[int, Array]: ...
def _audit(ledger: _Path, **options: Any) -> dict[str, Any]: ...
def _describe() -> list[dict[str, Any]]: ...
def _explain(keys: Sequence[str], **options: Any) -> list[dict[str, Any]]: ...
def _export(out: _Path, **options: Any) -> dict[str, Any]: ...
def _export_all(out: _Path, **options: Any) -> dict[str, Any]: ...
def _fit(source: _Sources, scorer: object, out: _Path, **options: Any) -> dict[str, Any]: ...
def _fitted(path: _Path) -> tuple[Array, int]: ...
def _inspect(source: _Sources, **options: Any) -> dict[str, Any]: ...
def _token_ids(file: _Path, texts: list[str], context_length: int, cleans: bool) -> Array: ...
def _plan(source: _Sources, **options: Any) -> dict[str, Any]: ...
def _report(source: _Sources, **options: Any) -> dict[str, Any]: ...
def _command(words: Sequence[str]) -> int: ...
def _end(process: int) -> None: ...
