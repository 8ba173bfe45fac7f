"""Ends a process with the one that started it, also where that was killed: nobody waits for what it finds any more.

It imports nothing but the standard library. `python die_with_parent.py SCRIPT FOLDER` runs `SCRIPT FOLDER` for as long
as its starter holds its standard input open; neither may such a script import anything of ours.
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
    """For a process of `multiprocessing`, whose parent is the one that asked for it, and not the server that forks."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    _die_after(lambda: connection.wait([parent.sentinel]))


def die_with_parent_by_kernel() -> None:
    """For a process that loads native code for a long time, in which no thread of Python gets its turn; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_with_standard_input() -> None:
    _die_after(lambda: os.read(sys.stdin.fileno(), 1))


def _die_after(wait: Callable[[], object]) -> None:
    """Kill this process as soon as `wait` returns; it must not hold locks and cores any longer."""

    def wait_and_die() -> None:
        wait()
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=wait_and_die, daemon=True).start()


if __name__ == "__main__":
    _die_with_standard_input()
    sys.path.pop(0)  # this folder, whose modules would hide others of the same name
    sys.argv.pop(0)
    runpy.run_path(sys.argv[0], run_name="__main__")
