"""Ctrl-C while a command still imports what it needs, which takes seconds: `interrupted.` and exit code 130.

It imports nothing but the standard library. Commands call it before their other imports, and only where they are the
program; a process that imports a command from Python keeps its own hook.
"""

import sys
from types import TracebackType


def stop_without_traceback() -> None:
    """Let Ctrl-C end this program with one word, unless its main function handles it."""
    sys.excepthook = _without_traceback


def _without_traceback(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted.\n")
        sys.exit(130)
    sys.__excepthook__(kind, error, traceback)
