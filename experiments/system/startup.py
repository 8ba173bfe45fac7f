"""Ends of a command without a traceback: Ctrl-C while it imports its modules, which takes seconds; too little memory.

This module imports only the standard library. A command calls it before its other imports, but only if it is the main
program; a process that imports a command keeps its own exception hook.
"""

import sys
from types import TracebackType

# How Python, the loader of libraries and threads report that memory is exhausted, besides MemoryError.
NO_MEMORY = ("Cannot allocate memory", "failed to map segment from shared object", "can't start new thread")


def stop_without_traceback() -> None:
    """Let Ctrl-C and a lack of memory end this program without a traceback, unless its main function handles them."""
    sys.excepthook = _without_traceback


def _without_traceback(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted.\n")
        sys.exit(130)
    if _is_memory(error):
        sys.stderr.write(
            "out of memory: this command requires more memory than this process may use. Raise the limit (ulimit -v, "
            "or that of the container or job), or end other programs.\n"
        )
        sys.exit(1)
    sys.__excepthook__(kind, error, traceback)


def _is_memory(error: BaseException | None) -> bool:
    """Whether memory was exhausted; libraries wrap the error in others."""
    if error is None:
        return False
    found = isinstance(error, MemoryError) or any(each in str(error) for each in NO_MEMORY)
    return found or _is_memory(error.__cause__ or error.__context__)
