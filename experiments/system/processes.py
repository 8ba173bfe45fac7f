"""Identification of processes: which one writes a run, whether it still runs, and which ones lock a file."""

import math
import os
import re
import shlex
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Literal

import psutil

from experiments.system.disk import is_local

CLOCK_TOLERANCE = 60.0  # seconds
BOOT, NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


def this_process() -> str:
    """Return this process's pid and start time; a pid alone is not unique, since it is reused."""
    return f"{os.getpid()}@{psutil.Process().create_time():.0f}"


def is_running(process: str) -> bool:
    """Whether a process that this one can see, named as by `this_process`, still runs."""
    number = process.partition("@")[0]
    if not re.fullmatch(r"[0-9]{1,9}", number):
        return False
    try:
        if (found := psutil.Process(int(number))).status() == psutil.STATUS_ZOMBIE:
            return False
        # The start time is computed from the clock, which may have been changed since.
        return abs(found.create_time() - _started(process)) < CLOCK_TOLERANCE
    except psutil.NoSuchProcess:
        return _is_hidden(int(number))
    except psutil.AccessDenied:
        return True  # of another user, where /proc shows only one's own (hidepid=1)


def _is_hidden(number: int) -> bool:
    """Whether a process runs that /proc does not show: of another user, with hidepid=2."""
    try:
        os.kill(number, 0)  # sends nothing
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False  # one's own would be shown: it has ended meanwhile


def _started(process: str) -> float:
    """Return the start time in a name of `this_process`; infinite if it is not a number."""
    try:
        return float(process.partition("@")[2])
    except ValueError:
        return math.inf


State = Literal["running", "ended", "unknown"]


@dataclass(frozen=True)
class Origin:
    """The process that a run of a store comes from, as recorded for readers on any machine.

    Containers may share a host name, and each counts its own processes from 1. So a missing process says something only
    where the same processes are seen: since the same start of the kernel, in the same namespace of process ids. Systems
    without these, such as macOS, have one list of processes for each host name.
    """

    host: str = ""
    process: str = ""
    boot_id: str = ""
    pid_namespace: str = ""

    def state(self, records: Path | None) -> State:
        """Return whether the process runs, as far as this one can tell; `records` is the file in which it is recorded.

        A restart has ended the process if the host is called as this one is now, the process started before the restart
        and the file is on a disk of this machine.
        """
        here = this_origin()
        if not self.boot_id and (here.boot_id or self.host != here.host):
            return "unknown"  # recorded by an earlier version, or elsewhere
        if (self.boot_id, self.pid_namespace) == (here.boot_id, here.pid_namespace):
            return "running" if is_running(self.process) else "ended"
        restarted = (
            self.boot_id != here.boot_id and self.host == here.host and _started(self.process) < psutil.boot_time()
        )
        return "ended" if restarted and records and is_local(records) else "unknown"

    def tags(self) -> dict[str, str]:
        """Return the tags of a run that record the process."""
        return asdict(self)

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> "Origin":
        """Return the process that a run's tags record."""
        return cls(**{field.name: tags.get(field.name, "") for field in fields(cls)})


def this_origin() -> Origin:
    """Return this process, as a store records it."""
    return Origin(socket.gethostname(), this_process(), *_namespace())


@cache
def _namespace() -> tuple[str, str]:
    """Return the start of the kernel, and the namespace of process ids in it; empty where the system does not tell."""
    try:
        return BOOT.read_text().strip(), str(NAMESPACE.readlink())
    except OSError:
        return "", ""


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
