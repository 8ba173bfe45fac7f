"""Ends of a command without a traceback: Ctrl-C while it imports its modules, which takes seconds; too little memory.

This module imports only the standard library. A command calls it before its other imports, but only if it is the main
program; a process that imports a command keeps its own exception hook.
"""

import sys
from types import TracebackType

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

# How Python, the loader of libraries and threads report that memory is exhausted, besides MemoryError.
NO_MEMORY = ("Cannot allocate memory", "failed to map segment from shared object", "can't start new thread")
LEAST = 2**30  # bytes of address space to import the libraries; with a little less, they hang or crash


def stop_without_traceback() -> None:
    """Let Ctrl-C and a lack of memory end this program without a traceback, unless its main function handles them."""
    sys.excepthook = _without_traceback
    limit = resource.getrlimit(resource.RLIMIT_AS)[0] if resource else -1
    if 0 <= limit < LEAST:  # -1: unlimited
        sys.stderr.write(
            f"out of memory: this process may use {limit / 2**30:.2f} GiB of address space (ulimit -v); this command "
            f"requires at least {LEAST / 2**30:.0f} GiB, and several to train. Type: ulimit -v unlimited\n"
        )
        sys.exit(1)


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
