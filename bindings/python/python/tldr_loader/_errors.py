"""The exceptions of the package. The native module raises them."""

from __future__ import annotations

__all__ = [
    "CaptionerError",
    "ConfigError",
    "DataError",
    "LedgerError",
    "LockedError",
    "NoSamplesError",
    "OutOfMemoryError",
    "StateError",
    "TldrError",
]


class TldrError(Exception):
    """Anything that goes wrong in tldr_loader.

    Attributes:
        shard: Path or URL of the shard that was being read, if one was.
        key: Key of the sample that was being read, if one was.
        offset: Byte offset in the decompressed shard, if known.
    """

    shard: str | None
    key: str | None
    offset: int | None

    def __init__(
        self,
        message: str = "",
        *,
        shard: str | None = None,
        key: str | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.shard = shard
        self.key = key
        self.offset = offset


class ConfigError(TldrError, ValueError):
    """An option has a value that cannot be used; the message says what is accepted."""


class DataError(TldrError):
    """A shard, an image or a file cannot be read, or is not what it should be."""


class NoSamplesError(DataError):
    """There is no sample to yield; the message says what became of those that were read."""


class LedgerError(DataError):
    """A shard is not what the ledger knows of it; or the ledger lacks what no captioner is there to make."""


class OutOfMemoryError(TldrError, MemoryError):
    """Memory ran out, on the host or on a device."""


class LockedError(TldrError):
    """Another process has what only one may have at a time: a captioner's folder while it trains."""


class CaptionerError(TldrError):
    """The captioner failed while running."""


class StateError(TldrError):
    """A saved state does not fit this loader; the message lists every difference."""


for _name in __all__:
    globals()[_name].__module__ = "tldr_loader"
