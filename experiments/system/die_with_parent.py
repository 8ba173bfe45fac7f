"""Kill a process when its parent ends, even if the parent was killed: its result is no longer needed.

`python die_with_parent.py SCRIPT FOLDER` runs `SCRIPT FOLDER` while the parent keeps the other end of its standard
input open. This module uses only the standard library, and SCRIPT must not import this package either.
"""

import ctypes
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable
from multiprocessing import connection
from threading import Thread

PR_SET_PDEATHSIG = 1  # from Linux' sys/prctl.h


def die_with_parent() -> None:
    """Kill this `multiprocessing` process when its parent ends: the process that requested it, not the fork server."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    _die_after(lambda: connection.wait([parent.sentinel]))


def die_with_parent_by_kernel() -> None:
    """Let the kernel kill this process with its parent: long native calls block Python's threads. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_with_standard_input() -> None:
    _die_after(lambda: os.read(sys.stdin.fileno(), 1))


def _die_after(wait: Callable[[], object]) -> None:
    """Kill this process as soon as `wait` returns, which releases its locks and cores."""

    def wait_and_die() -> None:
        wait()
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=wait_and_die, daemon=True).start()


if __name__ == "__main__":
    _die_with_standard_input()
    sys.path.pop(0)  # this folder, whose modules would shadow others of the same name
    sys.argv.pop(0)
    runpy.run_path(sys.argv[0], run_name="__main__")
