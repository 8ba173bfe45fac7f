"""Loaded first by the fork server: it loads all that runs share, remembers why that failed, and ends with its starter.

Python's own fork server looks for its starter only when everything is loaded; passes over modules that are missing; and
ends without a word at any other error.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from types import TracebackType

from experiments.system.die_with_parent import die_with_parent_by_kernel

# Environment variables: the modules that are to be loaded, and the file for the error that ends the fork server.
MODULES, LAST_WORDS = "QUANTIZATION_BENCH_MODULES", "QUANTIZATION_BENCH_LAST_WORDS"
failure: tuple[str, str] | None = None  # why a module could not be loaded, in one line and as a traceback


def load(modules: list[str]) -> None:
    """Import what runs share, until one module cannot be loaded."""
    global failure  # noqa: PLW0603  # forked processes look here
    for module in modules:
        try:
            import_module(module)
        except Exception as error:  # noqa: BLE001  # whatever it is, each run tells it as the reason why it failed
            lines = str(error).strip().splitlines()
            reason = f"{module} cannot be imported ({': '.join([type(error).__name__, *lines[:1]])})"
            failure = reason, traceback.format_exc()
            return


def _keep(path: str) -> Callable[..., None]:
    """What to do with an error that ends the fork server: its starter reads it, and tells it in its own way."""

    def kept(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        with open(path, "w") as file:  # noqa: PTH123  # pathlib may be what cannot be imported
            file.write("".join(traceback.format_exception(error)))

    return kept


if modules := os.environ.pop(MODULES, ""):  # only in the fork server
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked until it could be ignored
    die_with_parent_by_kernel()
    sys.excepthook = _keep(os.environ.pop(LAST_WORDS))
    load(modules.split())
