"""Token ids for a scorer, made by the loader's threads.

A tokenizer in Python would keep Python's lock from the training.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tldr_loader import _tokenizer_files
from tldr_loader._errors import ConfigError
from tldr_loader._probe import TEXTS, token_ids

__all__ = ["Tokens"]

logger = logging.getLogger("tldr_loader")

ODD = (*TEXTS, "two  blanks,\ta tab\nand a line", "http://x.y/?a=1&b=2")
"""What captions are like that nobody cleaned: the loader's ids must be the tokenizer's for these, too."""


class Tokens:
    """The ids of a tokenizer, and what the scorer gets of them.

    Attributes:
        file: The file by whose rules the loader makes them.
        context_length: Ids of a caption.
        cleans: Whether captions are cleaned before, as open_clip's tokenizers do.
    """

    def __init__(self, file: Path, context_length: int, rows: Any, folder: Any) -> None:
        self.file, self.context_length = str(file), context_length
        self.cleans = rows is None
        self._rows = rows
        # The file goes with it.
        self._folder = folder

    @classmethod
    def of(cls, scorer: Any) -> Tokens | None:
        """Those of a scorer's tokenizer; `None` where the loader cannot make them: it is called then."""
        tokenizer = getattr(scorer, "tokenizer", None)
        if tokenizer is None:
            return None
        folder = tempfile.TemporaryDirectory(prefix="tldr-tokenizer-")
        try:
            fast: tuple[Any, int] | None = getattr(scorer, "fast_tokenizer", None)
            if fast is not None:
                made = cls._of_transformers(*fast, folder)
            elif type(tokenizer).__module__.startswith("open_clip"):
                file = _tokenizer_files.of_open_clip(tokenizer, Path(folder.name))
                made = cls(file, int(tokenizer.context_length), None, folder)
            else:
                return None
            made._check(tokenizer)
        except (ConfigError, ImportError) as error:
            logger.info("token ids of the scorer are made in Python, since the loader cannot: %s", error)
            return None
        return made

    @classmethod
    def _of_transformers(cls, tokenizer: Any, context_length: int, folder: Any) -> Tokens:
        from tldr_loader.transformers import _Rows

        file = _tokenizer_files.saved(tokenizer, Path(folder.name))
        return cls(file, context_length, _Rows(tokenizer, file, context_length), folder)

    def _check(self, tokenizer: Any) -> None:
        """Fails where the scorer would get something else than from its tokenizer."""
        import torch

        ids = token_ids(self.file, self.context_length, ODD, cleans=self.cleans)
        own, theirs = self.made(ids), tokenizer(list(ODD))
        names = list(own) if self._rows is not None else [None]
        for name in names:
            ids, other = (own, theirs) if name is None else (own[name], theirs[name])
            for text, ours, row in zip(ODD, ids, other, strict=True):
                if not torch.equal(ours, torch.as_tensor(row)):
                    raise ConfigError(f"tokenizer: it makes other {name or 'ids'} of {text[:40]!r}")

    def made(self, ids: Any) -> Any:
        """What the tokenizer makes of captions with these ids, int64 `[captions, context_length]`."""
        import torch

        tokens = ids if isinstance(ids, torch.Tensor) else torch.from_numpy(np.from_dlpack(ids).copy())
        return tokens if self._rows is None else self._rows.of(tokens)
