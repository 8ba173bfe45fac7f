"""A user's own folder among everybody's temporary files: machine-wide locks, and what goes away with its process.

What processes that were killed have left there is removed by the next process that needs the folder.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from multiprocessing.util import Finalize
from pathlib import Path

from experiments.system.disk import explained
from experiments.system.errors import UserError
from experiments.system.processes import alive, this_process

NAME = "quantbench"  # all names are short, since a socket's path has room for about 100 characters
TEMPORARY = re.compile(r"[a-z]+-(\d+@\d+)-\d+")  # what it is for, the process, and which one of that process
AT_EXIT = -1  # of what Python does at the end of a process: it joins its own processes before
_NUMBERS = count()


@cache
def own_folder() -> Path:
    """The folder, which nobody else can write to or read; it stays where it is when TMPDIR changes.

    Raises:
        UserError: it cannot be made, or somebody else has made it.
    """
    try:
        path = Path(tempfile.gettempdir()) / f"{NAME}-{os.getuid()}"
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise UserError(
                f"{path}: is not a folder of this user, so it is not used for locks and temporary files. Have it "
                "removed, or set TMPDIR to a folder of your own."
            )
        if status.st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise UserError(f"No temporary files can be made: {explained(error)}. Make room, or set TMPDIR.") from error
    remove_leftovers(path)
    return path


@contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """A folder for as long as the block runs; in the process of a run it lies in the folder of that run.

    Raises:
        UserError: it cannot be made.
    """
    own, chosen = own_folder(), Path(tempfile.gettempdir())
    place = chosen if own in chosen.parents else own
    folder = place / f"{what}-{this_process()}-{next(_NUMBERS)}"
    # A signal may stop this function at any place, also within what removes the folder.
    removal = Finalize(None, shutil.rmtree, (folder, True), exitpriority=AT_EXIT)
    try:
        folder.mkdir(mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        removal()
        raise UserError(
            f"No temporary files can be made in {place}: {explained(error, place)}. Make room, or set TMPDIR."
        ) from error
    try:
        # Held as long as the process lives, also for processes elsewhere that see this folder and not this process.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        removal.cancel()
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders of processes that are gone."""
    for path in folder.iterdir():
        found = TEMPORARY.fullmatch(path.name)
        if found and not path.is_symlink() and path.is_dir() and not alive(found[1]) and not _is_locked(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_locked(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # gone meanwhile
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
