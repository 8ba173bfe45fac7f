"""Ctrl-C and SIGTERM stop a command at any moment, also where a library swallows the exception, and in good order.

Python raises KeyboardInterrupt wherever the main thread is. A library that catches everything, or a finalizer, can lose
it there. So it is remembered, and raised again at the next place that asks.
"""

import atexit
import gc
import signal
import sys
from types import FrameType

SOON = 0.05  # seconds after which a stop that was swallowed is raised again
_signals = 0
_heard = False


def stop_on_signals() -> None:
    """Let both signals stop this process; the second one lets it close what is open, and a third one does not."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, _stop_again)
    sys.unraisablehook = _swallowed
    atexit.register(_end_quietly)  # last of all


def raise_if_stopped() -> None:
    """Stop here where a signal has come that nobody has heard of.

    Raises:
        KeyboardInterrupt: one has.
    """
    if _signals and not _heard:
        raise KeyboardInterrupt


def is_stopped() -> bool:
    """Whether this process is being stopped."""
    return _signals > 0


def stop_handled() -> None:
    """Called where a stop is dealt with: what is done to close things is not stopped again."""
    global _heard  # noqa: PLW0603  # there is one process to stop
    _heard = True


def _stop(_signal: int, _frame: FrameType | None) -> None:
    global _signals  # noqa: PLW0603
    _signals += 1
    if _signals != 2:
        raise KeyboardInterrupt
    sys.stderr.write("stopping: what is open is closed first; once more to leave it as it is.\n")


def _stop_again(_signal: int, _frame: FrameType | None) -> None:
    raise_if_stopped()


def _swallowed(lost: "sys.UnraisableHookArgs") -> None:
    """What Python does with an error in a finalizer: it says so and goes on. A stop is not lost there."""
    if lost.exc_type is KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, SOON)
    else:
        sys.__unraisablehook__(lost)


def _end_quietly() -> None:
    """Python takes apart what was loaded, which takes seconds and helps nobody who has stopped it."""
    if is_stopped():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the exit code stays that of a stop
        exec("")  # Python remembers a stop within exec, and would end by its signal; it forgets that with the next one
        gc.freeze()
