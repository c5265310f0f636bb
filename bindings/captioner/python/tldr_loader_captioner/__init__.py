"""The captioner of tldr_loader: a model of codes and captions, trained on image-text pairs.

`tldr_loader.Captioner` and `tldr_loader.Matcher` are its classes. It works with one release of torch; what
it has recorded in a ledger is of use under any.
"""

from __future__ import annotations

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
from tldr_loader_captioner._captioner import Captioner, Matcher, __version__, _command, _scorer

__all__ = ["Captioner", "Matcher", "__version__", "_command", "_scorer"]
