"""Which process writes a run, and whether it is still there."""

import os

import psutil

CLOCK_TOLERANCE = 60.0  # seconds


def this_process() -> str:
    """A process number, and when it started, since numbers are given out again."""
    return f"{os.getpid()}@{psutil.Process().create_time():.0f}"


def alive(process: str) -> bool:
    """Whether a process of this machine, as `this_process` names it, is still there."""
    number, _, started = process.partition("@")
    try:
        if not number.isdigit() or (found := psutil.Process(int(number))).status() == psutil.STATUS_ZOMBIE:
            return False
        # The time of the start is reckoned from the clock, which may have been set since.
        return abs(found.create_time() - float(started)) < CLOCK_TOLERANCE
    except psutil.NoSuchProcess:
        return False
