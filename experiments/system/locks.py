"""Locks between processes: the operating system gives them back when their holder dies, and who waits is told for whom.

A lock is a file that its holder has locked (flock). It holds the name of its holder, and goes away when it is given
back. Several processes can share a lock; each of them then has a file of its own beside it for its name.
"""

import fcntl
import json
import multiprocessing
import os
import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Timer

import psutil

from experiments.system.processes import alive, this_process
from experiments.system.progress import say

PATIENCE = 5.0  # seconds after which a wait is told
SHARED_BY = ".shared-by-"  # between the name of a lock and that of a process that shares it
_NUMBERS = count()


@contextmanager
def file_lock(path: Path, reason: str, shared: bool = False) -> Iterator[None]:
    """Hold the lock at this path, alone or with others; a long wait is told as `waiting: REASON`, and for whom.

    Raises:
        OSError: the file cannot be made or locked.
    """
    descriptor = _taken(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, reason)
    own = path.with_name(f"{path.name}{SHARED_BY}{this_process()}-{next(_NUMBERS)}") if shared else path
    try:
        _write_holder(own)
        yield
    finally:
        with suppress(FileNotFoundError, PermissionError):  # in a folder of another user it stays
            own.unlink()
        os.close(descriptor)


@contextmanager
def file_lock_if_free(path: Path) -> Iterator[bool]:
    """Hold a lock that nobody has while the block runs; False where somebody has it."""
    try:
        descriptor = _taken(path, fcntl.LOCK_EX | fcntl.LOCK_NB, "")
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def holders(path: Path) -> list[str]:
    """The living processes that hold a lock, for people: their number and command, and the host where it is another."""
    found = []
    for file in (path, *sorted(path.parent.glob(f"{path.name}{SHARED_BY}*"))):
        with suppress(OSError, ValueError, TypeError, KeyError):  # given back meanwhile, or not written yet
            holder = json.loads(file.read_text(errors="replace"))
            elsewhere = holder["host"] != socket.gethostname()
            if elsewhere or alive(holder["process"]):
                place = f" on {holder['host']}" if elsewhere else ""
                found.append(f"process {holder['starter']}{place} ({holder['command']})")
    return found


def remove_dead_names(folder: Path) -> None:
    """Remove the names that killed processes left beside the locks that they shared."""
    for file in folder.glob(f"*{SHARED_BY}*"):
        if not alive(file.name.partition(SHARED_BY)[2].rpartition("-")[0]):
            file.unlink(missing_ok=True)


def _taken(path: Path, kind: int, reason: str) -> int:
    """A descriptor that has the lock. A file that was given back while it was waited for is a lock no more."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            _lock(descriptor, kind, path, reason)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, kind: int, path: Path, reason: str) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if kind & fcntl.LOCK_NB:
            raise
        told = Timer(PATIENCE, _tell_wait, (path, reason))
        told.daemon = True
        told.start()
        try:
            fcntl.flock(descriptor, kind)
        finally:
            told.cancel()


def _tell_wait(path: Path, reason: str) -> None:
    whom = ", ".join(holders(path)) or f"whoever holds {path}"
    say(f"  waiting: {reason}: {whom}")


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _write_holder(path: Path) -> None:
    """Write whose lock it is; where the disk is full it has no name, which harms nobody."""
    starter = _starter()
    holder = {
        "process": this_process(),
        "host": socket.gethostname(),
        "starter": starter.pid,
        "command": shlex.join(starter.cmdline())[:200],
    }
    with suppress(OSError):
        path.write_text(json.dumps(holder))


def _starter() -> psutil.Process:
    """The process that a person knows: the one that was started by a command, where this one does its work."""
    with suppress(psutil.NoSuchProcess):
        if parent := multiprocessing.parent_process():
            return psutil.Process(parent.pid)
    return psutil.Process()
