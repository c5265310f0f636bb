"""The command `tldr-loader`."""

from __future__ import annotations

import importlib.util
import signal
import sys

__all__ = ["main"]

WITH_CAPTIONER = {"train", "load", "fit", "plan"}
"""Subcommands that run a captioner, and so need its package and the torch that it works with."""


def main() -> int:
    """Runs the command line of this process; the exit code."""
    # The work is native and asks Python nothing: signals end it, as they end any command.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    words = ["tldr-loader", *sys.argv[1:]]
    named = [word for word in words[1:] if not word.startswith("-")]
    asks = bool(named) and named[0] == "help"  # of a subcommand, or of all
    wanted = next(iter(named[1:] if asks else named), "")
    installed = importlib.util.find_spec("tldr_loader_captioner") is not None
    if wanted in WITH_CAPTIONER or (not wanted and installed):
        try:
            from tldr_loader_captioner import _command

            return _command(words)
        except ImportError as error:
            if wanted not in ("plan", ""):
                print(f"error: {wanted} needs the captioner: {_reason(error)}", file=sys.stderr)
                return 2
    from tldr_loader._native import _command as without

    return without(words)


def _reason(error: ImportError) -> str:
    if importlib.util.find_spec("tldr_loader_captioner") is None:
        return 'pip install "tldr-loader[captioner]"'
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
