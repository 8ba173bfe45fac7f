"""Locks between processes: released by the operating system when the holder dies, and named while others wait.

A lock is a file that its holder has locked with flock. The file contains the name of the holder and is removed when the
lock is released. Several processes can share a lock; each then writes its name to its own file beside the lock.
"""

import errno
import fcntl
import json
import multiprocessing
import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Timer

import psutil

from experiments.system.processes import Origin, is_running, this_origin, this_process
from experiments.system.progress import say

PATIENCE = 5.0  # seconds after which a wait is reported
RETRIES = 100  # of making a folder that other processes remove
SHARED_BY = ".shared-by-"  # separates the name of a lock and that of a process that shares it
_NUMBERS = count()


@contextmanager
def file_lock(path: Path, reason: str, shared: bool = False) -> Iterator[None]:
    """Hold the lock at this path, exclusive or shared; a long wait is reported as `waiting: REASON: HOLDER`.

    Raises:
        OSError: the file cannot be created or locked.
    """
    descriptor = _acquire(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, reason)
    own = path.with_name(f"{path.name}{SHARED_BY}{this_process()}-{next(_NUMBERS)}") if shared else path
    try:
        _write_holder(own)
        yield
    finally:
        with suppress(FileNotFoundError, PermissionError):  # in another user's folder it cannot be removed
            own.unlink()
        os.close(descriptor)


@contextmanager
def file_lock_if_free(path: Path) -> Iterator[bool]:
    """Hold a lock while the block runs if it is free; yields False if another process holds it."""
    try:
        descriptor = _acquire(path, fcntl.LOCK_EX | fcntl.LOCK_NB, "")
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def open_in_use(path: Path) -> int:
    """Return a descriptor to read a file; while any process has it open, `unused_files` shows the file as in use.

    Raises:
        FileNotFoundError: there is no such file, or another process has just removed it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    with suppress(OSError):  # some file systems have no locks; there, the open file is still readable
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    if _is_same_file(path, descriptor):
        return descriptor
    os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, "removed by another process", str(path))


@contextmanager
def unused_files(paths: Iterable[Path]) -> Iterator[bool]:
    """Yield whether no process has these files open with `open_in_use`; while the block runs, none can open them."""
    with ExitStack() as stack:
        free = True
        try:
            for path in paths:
                descriptor = os.open(path, os.O_RDWR)  # NFS locks only writable files
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError, FileNotFoundError):  # in use, of another user, or just removed
            free = False
        yield free


def holders(path: Path) -> list[str]:
    """Return the running processes that hold a lock: pid, command, and the host if it is not seen from here."""
    found = []
    for file in (path, *sorted(path.parent.glob(f"{path.name}{SHARED_BY}*"))):
        with suppress(
            OSError, ValueError, TypeError, KeyError, AttributeError
        ):  # released in the meantime, or not written yet
            holder = json.loads(file.read_text(errors="replace"))
            if (state := Origin.of(holder).state(None)) != "ended":
                place = f" on {holder['host']}" if state == "unknown" else ""
                found.append(f"process {holder['starter']}{place} ({holder['command']})")
    return found


def remove_dead_names(folder: Path) -> None:
    """Remove the name files that killed processes left beside shared locks."""
    for file in folder.glob(f"*{SHARED_BY}*"):
        if not is_running(file.name.partition(SHARED_BY)[2].rpartition("-")[0]):
            file.unlink(missing_ok=True)


def _acquire(path: Path, kind: int, reason: str) -> int:
    """Return a descriptor that has the lock; retries if the file or its folder was removed meanwhile."""
    tries = RETRIES
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except (FileNotFoundError, FileExistsError):  # another process may have just removed the folder
            if not tries:
                raise
            tries -= 1
            continue
        try:
            _lock(descriptor, kind, path, reason)
            if _is_same_file(path, descriptor):
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
        timer = Timer(PATIENCE, _report_wait, (path, reason))
        timer.daemon = True
        timer.start()
        try:
            fcntl.flock(descriptor, kind)
        finally:
            timer.cancel()


def _report_wait(path: Path, reason: str) -> None:
    names = ", ".join(holders(path)) or f"an unknown holder of {path}"
    say(f"  waiting: {reason}: {names}")


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _write_holder(path: Path) -> None:
    """Write the name of the holder; without it, as on a full disk, only the message of waiting processes is vaguer."""
    starter = _starter()
    holder = {
        **this_origin().tags(),
        "starter": starter.pid,
        "command": shlex.join(starter.cmdline())[:200],
    }
    with suppress(OSError):
        path.write_text(json.dumps(holder))


def _starter() -> psutil.Process:
    """Return the process that the user started, if this one is its child."""
    with suppress(psutil.NoSuchProcess):
        if parent := multiprocessing.parent_process():
            return psutil.Process(parent.pid)
    return psutil.Process()
