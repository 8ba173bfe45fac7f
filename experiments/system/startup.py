"""Ctrl-C while a command imports its modules, which takes seconds: prints `interrupted.`, with exit code 130.

This module imports only the standard library. A command calls it before its other imports, but only if it is the main
program; a process that imports a command keeps its own exception hook.
"""

import sys
from types import TracebackType


def stop_without_traceback() -> None:
    """Let Ctrl-C end this program without a traceback, unless its main function handles it."""
    sys.excepthook = _without_traceback


def _without_traceback(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted.\n")
        sys.exit(130)
    sys.__excepthook__(kind, error, traceback)
