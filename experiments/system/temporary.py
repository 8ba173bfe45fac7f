"""A private folder of the user in the temporary directory: machine-wide locks, and files of running processes.

Files of killed processes are removed by the next process that needs the folder.
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

from experiments.system.disk import explain_os_error
from experiments.system.errors import UserError
from experiments.system.processes import is_running, this_process
from experiments.system.program import PROGRAM

TEMPORARY = re.compile(r"[a-z]+-(\d+@\d+)-\d+")  # purpose, process, and number within the process
AT_EXIT = -1  # exit priority: after Python has joined its processes
_NUMBERS = count()


@cache
def user_folder() -> Path:
    """Return the folder, which only this user can read and write; a later change of TMPDIR does not move it.

    Raises:
        UserError: the folder cannot be created, or belongs to another user.
    """
    try:
        # A short name, since the path of a socket is limited to about 100 characters.
        path = Path(tempfile.gettempdir()) / f"{PROGRAM}-{os.getuid()}"
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise UserError(
                f"{path}: locks and temporary files require a folder that belongs to you. Remove this one, or set "
                "TMPDIR to your own folder."
            )
        if status.st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise UserError(
            f"Temporary files cannot be created: {explain_os_error(error)}. Free space there, or set TMPDIR."
        ) from error
    remove_leftovers(path)
    return path


@contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """Yield a folder that exists while the block runs; within a run's process it is in the folder of that run.

    Raises:
        UserError: the folder cannot be created.
    """
    own, chosen = user_folder(), Path(tempfile.gettempdir())
    place = chosen if own in chosen.parents else own
    folder = place / f"{what}-{this_process()}-{next(_NUMBERS)}"
    # A signal may interrupt this function at any point, even while the folder is removed.
    removal = Finalize(None, shutil.rmtree, (folder, True), exitpriority=AT_EXIT)
    try:
        folder.mkdir(mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        removal()
        raise UserError(
            f"Temporary files cannot be created in {place}: {explain_os_error(error, place)}. Free space there, or "
            "set TMPDIR."
        ) from error
    try:
        # Held as long as the process lives; on other hosts that share this folder, it shows that the process runs.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        removal.cancel()
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders of processes that have ended."""
    for path in folder.iterdir():
        found = TEMPORARY.fullmatch(path.name)
        if found and not path.is_symlink() and path.is_dir() and not is_running(found[1]) and not _is_locked(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_locked(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # removed in the meantime
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or on a file system that locks no folders
        return True
    finally:
        os.close(descriptor)
    return False
