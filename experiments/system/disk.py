"""What an error of the operating system means for its reader: which disk is full, which limit is reached."""

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from experiments.system.errors import first_line

RESERVED = 2**18  # bytes; SQLite needs a tenth of it to say that a run has ended
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# What to do about what a process may not have more of.
LIMITS = {
    errno.EMFILE: "too many files are open in this process: raise the limit with `ulimit -n 4096`",
    errno.ENFILE: "too many files are open on this machine: end other programs",
    errno.EAGAIN: "no more processes may be started: raise the limit with `ulimit -u`, or end other programs",
    errno.ENOMEM: "there is no memory left: end other programs, or run fewer jobs at once",
}


def explained(error: OSError, *places: Path) -> str:
    """What an error says, with the full disks among those of its file and of `places`, or the limit reached."""
    if error.errno in LIMITS:
        return f"{LIMITS[error.errno]} ({error.strerror})"
    said = f"[Errno {error.errno}] {error.strerror}" if error.errno else first_line(error)
    said = f"{said}: {error.filename}" if error.filename else said
    if error.errno not in NO_ROOM:
        return said
    named = [Path(str(error.filename))] if isinstance(error.filename, str) else []
    disks = {mount_point(place): place for place in reversed([*named, *places])}
    told = [state_of(mount) for mount in disks] if len(disks) == 1 else [state_of(m) for m in disks if is_full(m)]
    return f"{said}; {'; '.join(told)}" if told else said


def check_writable(folder: Path) -> None:
    """Whether files can be written into a folder, which is made for that, and removed where it was not there.

    Raises:
        OSError: they cannot.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    finally:
        for path in missing:
            with suppress(OSError):  # it was not made, or somebody has put something into it
                path.rmdir()


def state_of(mount: Path) -> str:
    """How much room a disk has."""
    status = os.statvfs(mount)
    room = f"{status.f_bavail * status.f_frsize // 1024:,} KiB"
    files = f", room for {status.f_favail:,} files" if status.f_files else ""  # some file systems have no limit
    return f"the disk at {mount} has {room} free{files}"


def is_full(mount: Path) -> bool:
    """Whether a disk has no room for a small file."""
    status = os.statvfs(mount)
    return status.f_bavail * status.f_frsize < 2**20 or (status.f_files > 0 and status.f_favail == 0)


def reserve(path: Path) -> None:
    """Take some room on the disk of a path, to be given back when the last thing has to be written on a full disk."""
    with suppress(OSError):  # a disk that has no room for it is met soon enough
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVED)
        finally:
            os.close(descriptor)


def mount_point(path: Path) -> Path:
    """Where the disk of a path is mounted, also of one that is not there yet."""
    path = path.absolute()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path
