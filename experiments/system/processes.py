"""Which process writes a run, and whether it is still there; which one has locked a file."""

import os
import re
import shlex
from pathlib import Path

import psutil

CLOCK_TOLERANCE = 60.0  # seconds


def this_process() -> str:
    """A process number, and when it started, since numbers are given out again."""
    return f"{os.getpid()}@{psutil.Process().create_time():.0f}"


def alive(process: str) -> bool:
    """Whether a process of this machine, as `this_process` names it, is still there."""
    number, _, started = process.partition("@")
    try:
        if (
            not re.fullmatch(r"[0-9]{1,9}", number)
            or (found := psutil.Process(int(number))).status() == psutil.STATUS_ZOMBIE
        ):
            return False
        # The time of the start is reckoned from the clock, which may have been set since.
        return abs(found.create_time() - float(started)) < CLOCK_TOLERANCE
    except (psutil.NoSuchProcess, ValueError):  # ValueError: somebody else wrote what started is
        return False


def lock_holders(file: Path) -> list[str]:
    """The processes that have locked a part of a file, as "process NUMBER: COMMAND"; Linux tells, others do not."""
    try:
        inode, locks = str(file.stat().st_ino), Path("/proc/locks").read_text()
    except OSError:
        return []
    # A line: 1: POSIX  ADVISORY  WRITE 1234 08:01:5678 0 EOF. Those who wait have -> behind the number.
    held = [words for line in locks.splitlines() if "->" not in (words := line.split())]
    numbers = {int(words[4]) for words in held if len(words) > 5 and words[5].split(":")[-1] == inode}
    return [f"process {number}: {_command(number)}" for number in sorted(numbers - {os.getpid()}) if number > 0]


def _command(number: int) -> str:
    try:
        return shlex.join(psutil.Process(number).cmdline())[:80] or "?"
    except psutil.Error:
        return "?"
