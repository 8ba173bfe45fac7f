"""Identification of processes: which one writes a run, whether it still runs, and which ones lock a file."""

import os
import re
import shlex
from pathlib import Path

import psutil

CLOCK_TOLERANCE = 60.0  # seconds


def this_process() -> str:
    """Return this process's pid and start time; a pid alone is not unique, since it is reused."""
    return f"{os.getpid()}@{psutil.Process().create_time():.0f}"


def is_running(process: str) -> bool:
    """Whether a process of this machine, named as by `this_process`, still runs."""
    number, _, started = process.partition("@")
    try:
        if (
            not re.fullmatch(r"[0-9]{1,9}", number)
            or (found := psutil.Process(int(number))).status() == psutil.STATUS_ZOMBIE
        ):
            return False
        # The start time is computed from the clock, which may have been changed since.
        return abs(found.create_time() - float(started)) < CLOCK_TOLERANCE
    except (psutil.NoSuchProcess, ValueError):  # ValueError: the start time is not a number
        return False


def lock_holders(file: Path) -> list[str]:
    """Return the processes that have locked a part of a file, as "process PID: COMMAND"; empty except on Linux."""
    try:
        inode, locks = str(file.stat().st_ino), Path("/proc/locks").read_text()
    except OSError:
        return []
    # A line: 1: POSIX  ADVISORY  WRITE 1234 08:01:5678 0 EOF. Waiting processes have -> after the number.
    held = [words for line in locks.splitlines() if "->" not in (words := line.split())]
    numbers = {int(words[4]) for words in held if len(words) > 5 and words[5].split(":")[-1] == inode}
    return [f"process {number}: {_command(number)}" for number in sorted(numbers - {os.getpid()}) if number > 0]


def _command(number: int) -> str:
    try:
        return shlex.join(psutil.Process(number).cmdline())[:80] or "?"
    except psutil.Error:
        return "?"
