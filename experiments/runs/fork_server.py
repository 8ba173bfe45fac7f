"""Loaded first by the fork server: imports the modules that all runs share, and records errors.

Python's own fork server ignores missing modules, ends without a message at any other error, and notices the end of its
parent only after everything is imported.
"""

import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from types import TracebackType

from experiments.system.die_with_parent import die_with_parent_by_kernel

# Environment variables: the modules to import, and the file for an error that ends the fork server.
MODULES, LAST_WORDS = "QUANTIZATION_BENCH_MODULES", "QUANTIZATION_BENCH_LAST_WORDS"
failure: tuple[str, str] | None = None  # why a module could not be imported: one line, and the traceback


def load(modules: list[str]) -> None:
    """Import the shared modules, until one fails."""
    global failure  # noqa: PLW0603  # read by forked processes
    for module in modules:
        try:
            import_module(module)
        except Exception as error:  # noqa: BLE001  # each run reports it as the reason of its failure
            lines = str(error).strip().splitlines()
            reason = f"{module} cannot be imported ({': '.join([type(error).__name__, *lines[:1]])})"
            failure = reason, traceback.format_exc()
            return
    gc.freeze()  # else each run would scan, and so copy, what it shares with the others, for half a second at a time


def _write_to(path: str) -> Callable[..., None]:
    """Return an exception hook that writes the error to a file, from which the parent reports it."""

    def write(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        with open(path, "w") as file:  # noqa: PTH123  # pathlib may be what cannot be imported
            file.write("".join(traceback.format_exception(error)))

    return write


if modules := os.environ.pop(MODULES, ""):  # only in the fork server
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked until it could be ignored
    die_with_parent_by_kernel()
    sys.excepthook = _write_to(os.environ.pop(LAST_WORDS))
    load(modules.split())
