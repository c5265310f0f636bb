from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias, final

import torch

from tldr_loader import Images, Source

_Path: TypeAlias = str | PathLike[str]
_Sources: TypeAlias = _Path | Sequence[_Path] | Source
_Device: TypeAlias = str | torch.device | None

__all__ = ["Captioner", "Matcher", "__version__", "_command", "_scorer"]

__version__: str

def _command(words: Sequence[str]) -> int: ...
def _scorer(option: str, path: _Path, device: str) -> Any: ...

@final
class Captioner:
    """A captioner directory that was found to be sound. Each loader loads its own model from it."""

    @classmethod
    def train(
        cls,
        source: _Sources,
        path: _Path,
        *,
        images: Images | None = None,
        preset: Literal["tiny", "small", "base"] = "small",
        tokenizer: _Path | None = None,
        vocab_size: int = 2000,
        epochs: int = 10,
        batch_size: int = 32,
        accumulate: int = 1,
        precision: Literal["float32", "bfloat16"] | None = None,
        learning_rate: float | None = None,
        schedule: Literal["cosine", "step"] = "cosine",
        warmup: int = 3000,
        augment: Literal["none", "shift", "shift-flip"] = "none",
        codebook_start: Literal["patches", "kmeans", "uniform", "keywords"] = "patches",
        codebook_update: Literal["ema", "loss"] = "ema",
        commitment: float = 0.25,
        validate: float | None = None,
        checkpoint_every: int = 1000,
        resume: Literal["auto", "never", "must"] = "auto",
        folds: int = 1,
        seed: int = 0,
        threads: int | None = None,
        device: _Device = None,
        progress: Callable[[dict[str, float]], object] | None = None,
    ) -> Captioner:
        """Trains a captioner from scratch on image-caption pairs and saves it in the folder `path`.

        Args:
            source: Shards or a `Source`, as for `Loader`.
            path: The captioner directory to write; made if missing.
            images: `max_image_pixels`, `exif_orientation` and `alpha`, as in the loaders to come.
            preset: Sizes: `tiny`, `small` or `base` (the paper's).
            tokenizer: A tokenizer to use. Default: one is trained on the captions.
            vocab_size: Entries of a tokenizer that is trained.
            epochs: Passes over the corpus.
            batch_size: Pairs per step.
            accumulate: Parts that a batch is worked on in, one after the other, to save memory.
            precision: Numbers that matrix products are computed in: `float32` or `bfloat16`.
                Default: bfloat16 on a GPU, float32 on a CPU.
            learning_rate: Highest learning rate. Default: the preset's.
            schedule: What the learning rate does after the warm-up: `cosine`, or `step`, the paper's:
                times 0.9 after every epoch.
            warmup: Steps of linear warm-up; a tenth of all steps at most.
            augment: What is done to previews: `none`, `shift` (by up to an eighth of the side), or
                `shift-flip` (every second one is mirrored too).
            codebook_start: Where codes start: on `patches` of the first batch, on `kmeans` centroids
                of patches, anywhere (`uniform`), or on the embeddings of `keywords`, the paper's way.
            codebook_update: How codes follow their patches: as moving averages (`ema`), or by a
                codebook loss (`loss`), the paper's way.
            commitment: Weight of the commitment loss.
            validate: What is validated on instead of trained on: a share of the shards below 1 (of the
                samples, where that is less than one shard), or a count of shards; 0 for nothing. Default:
                about 2048 pairs, a tenth of the corpus at most, and nothing of fewer than 160 pairs.
            checkpoint_every: Steps between two checkpoints, each with a validation; 0 for none. They
                lie beside the captioner, in `path` with `.checkpoint` behind it, until it is whole.
            resume: What to do with a checkpoint that is there: go on from it (`auto`), start anew
                (`never`), or fail without one (`must`). One of other settings is an error.
            folds: With 2, two captioners are trained, each on its own half of the shards, in
                `path/fold-0` (which is returned) and `path/fold-1`: one can judge what the other has
                seen. `path/folds.json` says which shards each has seen.
            seed: Seed of weights, order, dropped images and what is held out.
            threads: Threads that train, on a CPU. Default: one per core.
            device: `cpu` (the default), `cuda` or `cuda:N`.
            progress: Called after each step with a dict of `step`, `steps`, `loss`, `lm_loss`,
                `vq_loss`, `perplexity`, `used_codes`, `learning_rate`, `images_per_s`, `seconds_left`,
                `fold`, and once measured `validation_lm_loss` and `validation_auc`; an exception from
                it ends the run.

        Raises:
            ConfigError: An option cannot work.
            DataError: A file is not what it should be; a loss is not finite: names step and keys.
        """

    @classmethod
    def load_blip(
        cls,
        source: _Path,
        path: _Path,
        *,
        preview_size: int | None = None,
        batch_size: int = 32,
        matcher: _Path | None = None,
        device: _Device = None,
    ) -> Captioner:
        """Makes a captioner of a Hugging Face BLIP captioning model and saves it in the folder `path`.

        Reads `config.json`, `model.safetensors` and `tokenizer.json` or `vocab.txt` from `source`,
        as `save_pretrained` writes them. Nothing is downloaded and nothing unpickled. `fit` comes
        next: it learns the codebook, too.

        Args:
            source: Folder of the BLIP model.
            path: The captioner directory to write; made if missing.
            preview_size: Side of the previews. Default: the model's own; for another size the
                position embeddings are interpolated.
            batch_size: Rows of every encode batch and caption batch.
            matcher: Folder of a Hugging Face BLIP for image-text retrieval, which then measures alignment.
            device: `cpu` (the default), `cuda` or `cuda:N`.

        Raises:
            ConfigError: An option cannot work.
            DataError: A file is missing or not what it should be; names file and tensor.
        """

    def set_generation(
        self,
        *,
        decoding: Literal["greedy", "beam", "nucleus"] | None = None,
        beams: int | None = None,
        length_penalty: float | None = None,
        top_p: float | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        min_tokens: int | None = None,
        max_tokens: int | None = None,
        prompt: str | None = None,
        repetition_penalty: float | None = None,
        batch_size: int | None = None,
    ) -> dict[str, Any]:
        """Changes how captions are written, in the captioner directory; what is `None` stays.

        Loaders made from then on write captions that way. Weights and clusters stay.

        Args:
            decoding: `greedy`, `beam` (the likeliest of several that grow side by side) or
                `nucleus` (drawn, by `seed` and sample).
            beams: Captions that grow side by side, for `beam`.
            length_penalty: Above 0 longer captions win more often, for `beam`.
            top_p: Probability of the tokens that are drawn from, in (0, 1], for `nucleus`.
            temperature: Divides the logits before drawing, for `nucleus`.
            seed: Seed of what is drawn, for `nucleus`.
            min_tokens: Fewest tokens of a caption.
            max_tokens: Most tokens of a caption.
            prompt: Text that every caption goes on from; it is not part of the caption.
            repetition_penalty: Above 1 words are repeated less.
            batch_size: Rows of every caption batch.

        Returns:
            All settings from then on.

        Raises:
            ConfigError: A setting cannot work; nothing is changed.
        """

    @classmethod
    def load(cls, path: _Path, *, device: _Device = None) -> Captioner:
        """Opens a captioner directory and checks it.

        Raises:
            DataError: A file is missing or not what it should be.
        """

    def fit(
        self,
        source: _Sources,
        *,
        images: Images | None = None,
        clusters: int | None = None,
        samples: int | None = None,
        alignment_norm: str | None = None,
        features: Literal["bag-of-codes", "raw-index"] = "bag-of-codes",
        codes: int | None = None,
        decode_from: Literal["raw", "quantised"] | None = None,
        seed: int = 0,
        progress: Callable[[int, int], object] | None = None,
    ) -> dict[str, Any]:
        """Finds clusters, their shares and the alignment quantiles of a corpus, and saves them.

        Args:
            source: Shards or a `Source`, as for `Loader`.
            images: `max_image_pixels`, `exif_orientation` and `alpha`, as in the loaders to come.
            clusters: Number of clusters. Default: a hundredth of the points, between 8 and 3000.
            samples: Points to sample. Default: all, up to 300000.
            alignment_norm: How raw alignments are made comparable.
            features: What images are compared by: `bag-of-codes`, or `raw-index`, the public code's way,
                as an ablation.
            codes: Codes to learn for a loaded BLIP. Default: up to 3000, one for 64 sampled patches; a
                codebook that is there is kept.
            decode_from: What the decoder of a loaded BLIP attends to: `raw` or `quantised` patches.
                Default: as before, `raw` at first.
            seed: Seed of sampling and of initial centroids.
            progress: Called as `progress(done, total)`, in images while a codebook is learned, then in
                points; an exception from it ends the run.

        Returns:
            `points` and `failed` samples, `clusters`, `errors` (mean of 1 - cosine in each cluster),
            `runs`, `pass_rate` of a gate of one half, also `pass_by_run`, `pass_by_source` and
            `pass_by_length` (shortest and longest caption in tokens, points, rate), `warnings`,
            `seconds`; `directions`, the length of an embedding, `None` where fewer than 32 images were seen
            and embeddings are mean patches; `codebook` is `None`, or where one was learned `codes`, `patches`
            and `error`, the share of the patches' variance that the codes lose; `validation` as the property
            of this name; `captions` says of generated ones how many were `sampled`, and of these are `empty`,
            `repetitive` or `equal` to another picture's, and which is the `commonest`. Warnings are logged.
        """

    @property
    def path(self) -> str:
        """The captioner directory."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def clusters(self) -> int | None:
        """Number of clusters; `None` before the fit."""

    @property
    def weights(self) -> int:
        """Number of trained weights."""

    @property
    def validation(self) -> dict[str, Any] | None:
        """What a gate by this captioner's alignment is worth; `None` where it was not measured.

        `auc` is the chance that an image's own caption aligns better than a swapped one (0.5 is guessing),
        `auc_error` its standard error; `close_to_chance` says whether it is below 0.6, or within two
        standard errors of 0.5. `perplexity` is that of true captions, `pairs` the number that was
        measured, and `measured_on` which: `held-out` of the training, of a fit's `sample`, or `trained` on.
        """

    @property
    def preview_size(self) -> int:
        """Side of the square previews it takes, in pixels."""

@final
class Matcher:
    """A matcher directory that was found to be sound: it tells whether a text belongs to an image.

    It writes no captions, so it may be the `judge` of a loader, whatever writes them.
    """

    @classmethod
    def load_blip(
        cls,
        source: _Path,
        path: _Path,
        *,
        preview_size: int | None = None,
        batch_size: int = 32,
        device: _Device = None,
    ) -> Matcher:
        """Makes a matcher of a Hugging Face BLIP for image-text retrieval and saves it in the folder `path`.

        Reads the files that `Captioner.load_blip` reads. Its scores are probabilities of a match.

        Args:
            source: Folder of the BLIP model.
            path: The matcher directory to write; made if missing.
            preview_size: Side of the previews. Default: the model's own; for another size the
                position embeddings are interpolated.
            batch_size: Rows of every batch.
            device: `cpu` (the default), `cuda` or `cuda:N`.

        Raises:
            ConfigError: An option cannot work.
            DataError: A file is missing or not what it should be; names file and tensor.
        """

    @classmethod
    def load(cls, path: _Path, *, device: _Device = None) -> Matcher:
        """Opens a matcher directory and checks it.

        Raises:
            DataError: A file is missing or not what it should be.
        """

    @property
    def path(self) -> str:
        """The matcher directory."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def weights(self) -> int:
        """Number of trained weights."""

    @property
    def preview_size(self) -> int:
        """Side of the square previews it takes, in pixels."""
