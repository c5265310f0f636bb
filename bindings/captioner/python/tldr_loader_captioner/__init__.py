"""The captioner of tldr_loader: a model of codes and captions, trained on image-text pairs.

`tldr_loader.Captioner` and `tldr_loader.Matcher` are its classes. It works with one release of torch; what
it has recorded in a ledger is of use under any.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

# libtorch has no stable interface: the native module works with the release it was built against.
_TORCH = "2.11."
if not torch.__version__.startswith(_TORCH):
    raise ImportError(
        f"tldr_loader_captioner was built for PyTorch {_TORCH}x and found {torch.__version__}: install "
        f"torch=={_TORCH}*. To train under this torch, record a ledger in an environment with torch "
        f"{_TORCH}x and give it to the loader here, which then needs no model (docs/captioner.md); or gate "
        "by scores of a model of your own, with `Top(share, by=FIELD)`"
    )

# After torch, whose libraries the native module shares, and after the package whose exceptions it raises.
import tldr_loader._errors  # noqa: F401
from tldr_loader._progress import with_bar
from tldr_loader_captioner._captioner import Captioner, Matcher, __version__, _command, _scorer

__all__ = ["Captioner", "Matcher", "__version__", "_command", "_scorer"]


def _of_training(at: dict[str, float]) -> tuple[str, int, int, dict[str, Any]]:
    stage = f"fold {int(at['fold'])}" if at.get("fold") is not None else ""
    shown: dict[str, Any] = {
        name: f"{at[name]:.3g}" for name in ("loss", "perplexity", "images_per_s") if name in at
    }
    return stage, int(at["step"]), int(at["steps"]), shown


def _of_fit(done: int, total: int) -> tuple[str, int, int, dict[str, Any]]:
    return "", done, total, {}


def _draw_bars() -> None:
    """Trains and fits with a bar where the caller gives no `progress` and somebody looks."""
    captioner: Any = Captioner
    train = with_bar("train", captioner.train, _of_training)

    def bound(cls: type, *args: Any, **options: Any) -> Any:
        return train(*args, **options)

    bound.__name__, bound.__doc__ = "train", train.__doc__
    signature = inspect.signature(captioner.train)
    own = inspect.Parameter("cls", inspect.Parameter.POSITIONAL_ONLY)
    bound.__signature__ = signature.replace(parameters=[own, *signature.parameters.values()])  # type: ignore[attr-defined]
    captioner.train = classmethod(bound)
    captioner.fit = with_bar("fit", captioner.fit, _of_fit)


_draw_bars()
