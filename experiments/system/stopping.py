"""Orderly stop at any moment, even if a library swallows the exception: on Ctrl-C, SIGTERM, and a closed terminal.

Python raises KeyboardInterrupt wherever the main thread is. A library that catches everything, or a finalizer, can lose
it. So the signal is recorded, and the exception is raised again at the next check.
"""

import atexit
import gc
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SOON = 0.05  # seconds after which a lost KeyboardInterrupt is raised again
_signals = 0
_handled = False


def stop_on_signals() -> None:
    """Install the handlers: a second signal still lets the process close its runs, a third one does not."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it, to survive the terminal
        signal.signal(signal.SIGHUP, _stop)
    signal.signal(signal.SIGALRM, _raise_again)
    sys.unraisablehook = _on_unraisable
    atexit.register(_skip_cleanup)  # registered first, so it runs last


def raise_if_stopped() -> None:
    """Stop here if a signal came whose exception was lost.

    Raises:
        KeyboardInterrupt: a signal was not handled yet.
    """
    if _signals and not _handled:
        raise KeyboardInterrupt


def is_stopped() -> bool:
    """Whether this process is being stopped."""
    return _signals > 0


def stop_handled() -> None:
    """Mark the stop as handled, so that the code that closes runs is not interrupted again."""
    global _handled  # noqa: PLW0603  # there is one process to stop
    _handled = True


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let a signal end the process itself during the block, before which it must not have opened anything to close.

    For libraries in C that may never return, as HDF5 for some damaged files: until then, no handler of Python is run.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ours = {number: handler for number, handler in handlers.items() if handler is _stop}
    if threading.current_thread() is threading.main_thread():
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in ours.items():
                signal.signal(number, handler)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    global _signals  # noqa: PLW0603
    _signals += 1
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)  # it would log what the stop interrupts
    if _signals != 2:
        raise KeyboardInterrupt
    with suppress(OSError):  # the terminal was closed
        sys.stderr.write("stopping: closing open runs first. Press Ctrl-C again to quit at once.\n")


def _raise_again(_signal: int, _frame: FrameType | None) -> None:
    raise_if_stopped()


def _on_unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Python prints errors in finalizers and continues; a KeyboardInterrupt is raised again instead."""
    if lost.exc_type is KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, SOON)
    else:
        sys.__unraisablehook__(lost)


def _skip_cleanup() -> None:
    """Skip Python's cleanup of loaded modules after a stop, which would take seconds."""
    if is_stopped():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the exit code stays that of a stop
        exec("")  # clears Python's record of a KeyboardInterrupt within exec, which would end it by the signal
        gc.freeze()
