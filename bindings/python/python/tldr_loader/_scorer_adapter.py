"""A scorer of the user's own, as the native module calls it."""

from __future__ import annotations

import contextlib
import hashlib
import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tldr_loader._errors import ConfigError
from tldr_loader._scorer_tokens import Tokens

__all__ = ["PROBE", "Adapter"]

PROBE = "probe.npz"
PROBE_ROWS = 8
# Half precision differs by a few thousandths of what is measured, a fine-tuned model by far more.
PROBE_TOLERANCE = 0.02
NEAREST_ROWS = 16_384
"""Points whose nearest centroids are found at a time."""


class Adapter:
    """A scorer as the native module calls it: plain arrays in, NumPy arrays out, from a thread of its own."""

    def __init__(self, scorer: Any) -> None:
        self.scorer = scorer
        self.preview_size = _whole(scorer, "preview_size")
        self.batch_size = _whole(scorer, "batch_size")
        self.preview_filter = _filter(scorer)
        self.fingerprint = _fingerprint(scorer)
        self.caption_fingerprint = _number(scorer.caption_fingerprint) if hasattr(scorer, "caption") else None
        self.is_exact = True
        self.torch = _torch()
        self.device = getattr(scorer, "device", None) or "cpu"
        self.stream: Any = None
        self.uploading: Any = None
        self.expected: Any = None
        self.ahead: Any = None
        self.centroids: Any = None
        self.scale: Any = None
        self.tokens = None if self.torch is None else Tokens.of(scorer)
        if not callable(getattr(scorer, "score", None)):
            raise ConfigError(f"invalid scorer={scorer!r}: expected an object with a method score")
        if (getattr(scorer, "mean", None) is None) != (getattr(scorer, "std", None) is None):
            raise ConfigError(f"invalid scorer={scorer!r}: expected mean and std together, or neither")

    @property
    def compute(self) -> str:
        """How it computes, in words."""
        if self.torch is None:
            return "numpy"
        autocast = getattr(self.scorer, "autocast", None)
        kind = self.torch.device(self.device).type
        return f"{kind}, {autocast or 'float32'}, torch {self.torch.__version__.split('+')[0]}"

    @property
    def finds_nearest(self) -> bool:
        """Whether nearest centroids are found on the scorer's device: where that is not the CPU."""
        return self.torch is not None and self.torch.device(self.device).type != "cpu"

    @property
    def uploads(self) -> bool:
        """Whether previews are uploaded one batch ahead: to a GPU."""
        return self.torch is not None and self.torch.device(self.device).type == "cuda"

    def expect(self, previews: Any) -> None:
        """Takes note of the previews of the call after the next one, which uploads them while it computes."""
        self.expected = previews

    def _upload(self, previews: Any) -> tuple[Any, Any]:
        """Starts to upload previews, on a stream of its own; the event is that of the end."""
        torch = self.torch
        if self.uploading is None:
            self.uploading = torch.cuda.Stream(torch.device(self.device))
        pinned = torch.from_dlpack(previews).pin_memory()
        with torch.cuda.stream(self.uploading):
            # torch's allocator of pinned memory waits for the copy before it gives the block to others.
            return pinned.to(self.device, non_blocking=True), self.uploading.record_event()

    def _uploaded(self, pixels: Any, end: Any) -> Any:
        """What was uploaded, for this thread's stream, which waits for it; the host does not."""
        stream = self.torch.cuda.current_stream(self.torch.device(self.device))
        stream.wait_event(end)
        pixels.record_stream(stream)
        return pixels

    def _look_ahead(self) -> None:
        """Uploads what comes next. Called once the model is at work, and before anybody waits for it."""
        if self.expected is not None:
            self.ahead, self.expected = (self.expected, *self._upload(self.expected)), None

    def place(self, centroids: np.ndarray[Any, Any]) -> None:
        """Has the nearest centroid found on the scorer's device, where that is faster."""
        if self.finds_nearest:
            self.centroids = self.torch.tensor(centroids, device=self.device)

    def nearest(self, points: Any, centroids: Any) -> tuple[Any, Any]:
        """The nearest of centroids `[dim, clusters]` to each of points `[points, dim]`, and their cosine."""
        torch = self.torch
        with self._running(), torch.autocast(torch.device(self.device).type, enabled=False):
            towards = torch.from_dlpack(centroids).to(self.device)
            found = []
            # In parts: of 300,000 points and 3,000 centroids all cosines would take 3.6 GB.
            for part in torch.from_dlpack(points).split(NEAREST_ROWS):
                found.append((part.to(self.device) @ towards).max(dim=1))
            cosine = torch.cat([best.values for best in found]).cpu().numpy()
            cluster = torch.cat([best.indices for best in found]).cpu().numpy()
            return cluster, cosine

    def score(self, previews: Any, captions: list[str], ids: Any = None) -> tuple[Any, Any, Any]:
        """Embeddings, alignments, and clusters or `None`; `ids` are those that `tokens` asked for."""
        with self._running():
            pixels, texts = self._previews(previews), self._texts(captions, ids)
            found = self.scorer.score(pixels, texts)
            self._look_ahead()
            if not isinstance(found, Mapping) or "embedding" not in found:
                raise TypeError(f"score: a mapping with embedding is expected, and this is {_shown(found)}")
            embedding, alignment = found["embedding"], found.get("alignment")
            cluster = found.get("cluster")
            if alignment is None:
                if found.get("text_embedding") is None:
                    raise TypeError("score: alignment or text_embedding is expected beside embedding")
                alignment = _cosine(embedding, found["text_embedding"])
            if cluster is None and self.centroids is not None:
                # It may be an array of another library, too.
                is_tensor = isinstance(embedding, self.torch.Tensor)
                rows_of = embedding if is_tensor else self.torch.from_dlpack(embedding)
                directions = self.torch.nn.functional.normalize(rows_of.to(self.device).float(), dim=1)
                cluster = (directions @ self.centroids.T).argmax(dim=1)
            rows, used = len(captions), np.array([text != "" for text in captions])
            return (
                _finite("embedding", _array("embedding", embedding, np.float32, (rows, None)), used),
                _finite("alignment", _array("alignment", alignment, np.float32, (rows,)), used),
                None if cluster is None else _array("cluster", cluster, np.int64, (rows,)),
            )

    def caption(self, previews: Any, ids: list[int]) -> list[str]:
        """Captions of previews."""
        with self._running():
            pixels = self._previews(previews)
            # Writing waits for the device at every word.
            self._look_ahead()
            written = self.scorer.caption(pixels, ids)
        if not all(isinstance(text, str) for text in written) or len(written) < len(ids):
            raise TypeError(f"caption: {len(ids)} texts are expected, and these are {_shown(written)}")
        return [*written, *[""] * (self.batch_size - len(written))]

    @contextlib.contextmanager
    def _running(self) -> Any:
        """Without gradients, on the scorer's device, on a stream of its own."""
        torch = self.torch
        if torch is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            device = torch.device(self.device)
            if device.type == "cuda":
                if self.stream is None:
                    self.stream = torch.cuda.Stream(device)
                stack.enter_context(torch.cuda.stream(self.stream))
            autocast = getattr(self.scorer, "autocast", None)
            if autocast is not None:
                stack.enter_context(torch.autocast(device.type, dtype=autocast))
            yield

    def _previews(self, previews: Any) -> Any:
        mean, std = getattr(self.scorer, "mean", None), getattr(self.scorer, "std", None)
        if self.torch is None:
            pixels = np.from_dlpack(previews)
            if mean is None:
                return pixels
            scaled = pixels.astype(np.float32) / 255
            shape = (1, 3, 1, 1)
            return (scaled - np.float32(mean).reshape(shape)) / np.float32(std).reshape(shape)
        torch = self.torch
        if self.uploads:
            ahead, self.ahead = self.ahead, None
            is_there = ahead is not None and ahead[0] is previews
            pixels = self._uploaded(*(ahead[1:] if is_there else self._upload(previews)))
        else:
            pixels = torch.from_dlpack(previews).to(self.device)
        if mean is None:
            return pixels
        if self.scale is None:
            form = {"device": self.device, "dtype": torch.float32}
            self.scale = [torch.tensor(values, **form).view(1, 3, 1, 1) for values in (mean, std)]
        return (pixels.float() / 255 - self.scale[0]) / self.scale[1]

    def _texts(self, captions: list[str], ids: Any) -> Any:
        tokenizer = getattr(self.scorer, "tokenizer", None)
        if tokenizer is None:
            return captions
        texts = tokenizer(captions) if ids is None or self.tokens is None else self.tokens.made(ids)
        if isinstance(texts, dict):
            return {name: values.to(self.device) for name, values in texts.items()}
        move = getattr(texts, "to", None)
        return texts if move is None else move(self.device)

    def probe(self) -> Probe:
        """What it says of a batch that is always the same."""
        draw = random.Random(20087)
        shape = (self.batch_size, 3, self.preview_size, self.preview_size)
        pixels = np.frombuffer(draw.randbytes(int(np.prod(shape))), np.uint8).reshape(shape).copy()
        words = ["a", "photo", "of", "red", "dog", "two", "cars", "on", "water", "with", "child", "house"]
        captions = [" ".join(draw.choices(words, k=3 + row % 6)) for row in range(self.batch_size)]
        embedding, alignment, _ = self.score(pixels, captions)
        if self.batch_size > 1:
            turned = self.score(np.ascontiguousarray(pixels[::-1]), captions[::-1])
            same = [np.array_equal(a, b[::-1]) for a, b in ((embedding, turned[0]), (alignment, turned[1]))]
            self.is_exact = all(same)
        return Probe(embedding[:PROBE_ROWS], alignment[:PROBE_ROWS])

    def check(self, path: Path) -> None:
        """Compares the scorer with the one that was fitted, and its rows with themselves in another order.

        Raises:
            ConfigError: It says something else of the same batch.
        """
        found, fitted = self.probe(), Probe.load(path)
        away = found.distance(fitted)
        if away > PROBE_TOLERANCE:
            raise ConfigError(
                f"invalid scorer={self.scorer!r}: expected the one that {path.parent} was fitted with, "
                f"found one of the same fingerprint whose results differ by {away:.3f} of their size: were "
                "its weights changed? Give it another fingerprint and fit anew"
            )
        if not self.is_exact:
            warnings.warn(
                "the scorer's results depend on where a sample stands in a batch: a run resumes exactly only "
                "with a ledger in a folder",
                RuntimeWarning,
                stacklevel=3,
            )


@dataclass
class Probe:
    """What a scorer said of a batch that is always the same."""

    embedding: np.ndarray[Any, Any]
    alignment: np.ndarray[Any, Any]

    def save(self, path: Path) -> None:
        np.savez(path, embedding=self.embedding, alignment=self.alignment)

    @classmethod
    def load(cls, path: Path) -> Probe:
        with np.load(path, allow_pickle=False) as file:
            return cls(file["embedding"], file["alignment"])

    def distance(self, other: Probe) -> float:
        """Greatest difference, as a share of the size of what is compared."""
        shares = []
        for own, theirs in ((self.embedding, other.embedding), (self.alignment, other.alignment)):
            if own.shape != theirs.shape:
                return float("inf")
            size = float(np.sqrt(np.mean(np.square(theirs)))) or 1.0
            shares.append(float(np.sqrt(np.mean(np.square(own - theirs)))) / size)
        return max(shares)


def _torch() -> Any:
    """The module torch, where it is installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def _whole(scorer: Any, name: str) -> int:
    value = getattr(scorer, name, None)
    if value is None and not hasattr(scorer, "score"):
        raise ConfigError(
            f"invalid scorer={_shown(scorer)}: expected a scorer, such as tldr_loader.models.hf_clip(folder),"
            " tldr_loader.models.open_clip(model, preprocess, tokenizer), or an object of your own "
            "(docs/scorers.md)"
        )
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"invalid scorer.{name}={value!r}: expected a whole number of at least 1")
    return value


def _filter(scorer: Any) -> str:
    resize: Any = getattr(scorer, "resize", None)
    interpolation = getattr(scorer, "interpolation", "bicubic")
    filters = {
        ("squash", "bilinear"): "bilinear",
        ("squash", "bicubic"): "bicubic",
        ("crop", "bicubic"): "bicubic-crop",
    }
    found = filters.get((resize, interpolation))
    if found is None:
        raise ConfigError(
            f"invalid scorer.resize={resize!r} with interpolation={interpolation!r}: expected squash with "
            "bilinear or bicubic, or crop with bicubic"
        )
    return found


def _number(value: Any) -> int:
    """A fingerprint as 64 bits."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ConfigError(f"invalid scorer.fingerprint={value!r}: expected a text or a whole number")
    text = str(value).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _fingerprint(scorer: Any) -> int:
    """Of the weights, and of whatever else the loader does for it."""
    own = getattr(scorer, "fingerprint", None)
    if own is None:
        raise ConfigError(
            f"invalid scorer={scorer!r}: expected an attribute fingerprint, a text or number that names the "
            "weights"
        )
    scale = [getattr(scorer, name, None) for name in ("mean", "std", "autocast")]
    return _number(f"{_number(own)} {[None if part is None else str(part) for part in scale]}")


def _cosine(a: Any, b: Any) -> Any:
    torch = _torch()
    if torch is not None and isinstance(a, torch.Tensor):
        return torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=1)
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _array(what: str, value: Any, dtype: Any, shape: tuple[int | None, ...]) -> np.ndarray[Any, Any]:
    """A contiguous array on the CPU."""
    torch = _torch()
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().to("cpu", torch.float32 if value.is_floating_point() else torch.int64).numpy()
    elif not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__"):
        value = np.from_dlpack(value)
    try:
        # A copy: what inference made cannot be handed on as it is.
        array = np.array(value, dtype, order="C")
    except (TypeError, ValueError) as error:
        raise TypeError(f"score: {what} is no array of numbers: {error}") from None
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = [("dim" if n is None else n) for n in shape]
        raise ValueError(f"score: {what} of shape {wanted} is expected, and this is {list(array.shape)}")
    return array


def _finite(
    what: str, array: np.ndarray[Any, Any], used: np.ndarray[Any, np.dtype[np.bool_]]
) -> np.ndarray[Any, Any]:
    """The array, with zeros in the rows that are not used: a mean over no words is no number."""
    if not np.isfinite(array[used]).all():
        raise ValueError(f"score: {what} has NaN or infinite values: is the model in the right number type?")
    array[~used] = 0
    return array


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}..."
