"""Explanations of operating system errors: which disk is full, which limit is reached."""

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from experiments.system.errors import first_line

RESERVED = 2**18  # bytes; SQLite needs a tenth of it to record the end of a run
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# File systems that only one machine has mounted.
LOCAL = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs", "zfs"})
# What to do when a limit of the system is reached.
LIMITS = {
    errno.EMFILE: "too many open files in this process: raise the limit with `ulimit -n 4096`",
    errno.ENFILE: "too many open files on this machine: end other programs",
    errno.EAGAIN: "too many processes: raise the limit with `ulimit -u`, or end other programs",
    errno.EFBIG: "the limit on the size of a file is reached: raise it with `ulimit -f unlimited`",
    errno.ENOMEM: "out of memory: end other programs, or run fewer jobs at once",
}


def explain_os_error(error: OSError, *places: Path) -> str:
    """Describe an error, with the limit that was reached, or which disks are full: of its file or of `places`."""
    if error.errno in LIMITS:
        return f"{LIMITS[error.errno]} ({error.strerror})"
    text = f"[Errno {error.errno}] {error.strerror}" if error.errno else first_line(error)
    text = f"{text}: {error.filename}" if error.filename else text
    if error.errno not in NO_SPACE:
        return text
    named = [Path(str(error.filename))] if isinstance(error.filename, str) else []
    disks = {mount_point(place): place for place in reversed([*named, *places])}
    full = (
        [describe_space(mount) for mount in disks]
        if len(disks) == 1
        else [describe_space(m) for m in disks if is_full(m)]
    )
    return f"{text}; {'; '.join(full)}" if full else text


def check_writable(folder: Path) -> None:
    """Check that files can be written into a folder; a missing folder is created for the check and removed again.

    Raises:
        OSError: the folder is not writable.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    finally:
        for path in missing:
            with suppress(OSError):  # it was not created, or another process uses it now
                path.rmdir()


def describe_space(mount: Path) -> str:
    """Describe the free space of a disk."""
    status = os.statvfs(mount)
    space = f"{status.f_bavail * status.f_frsize // 1024:,} KiB"
    files = f" and {status.f_favail:,} inodes" if status.f_files else ""  # some file systems have no limit
    return f"the disk at {mount} has {space}{files} free"


def is_full(mount: Path) -> bool:
    """Whether a disk has no space for a small file."""
    status = os.statvfs(mount)
    return status.f_bavail * status.f_frsize < 2**20 or (status.f_files > 0 and status.f_favail == 0)


def reserve(path: Path) -> None:
    """Reserve disk space at a path; freeing it lets the end of a run be recorded even if the disk is full."""
    with suppress(OSError):  # if the disk is full already, the next write reports it
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVED)
        finally:
            os.close(descriptor)


def is_local(path: Path) -> bool:
    """Whether a file is on a disk that only this machine can have mounted; false for a file system not known as such.

    File systems of networks, and those that a host shares with its virtual machines, are not.
    """
    mount = str(mount_point(path.resolve()))
    kinds = [part.fstype for part in psutil.disk_partitions(all=True) if part.mountpoint == mount]
    return bool(kinds) and kinds[-1] in LOCAL


def mount_point(path: Path) -> Path:
    """Return the mount point of a path, which need not exist."""
    path = path.absolute()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path
