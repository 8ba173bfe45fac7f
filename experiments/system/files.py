"""Files that users name: `~` is expanded, only regular files that fit into memory are read, and changes are seen.

Files that others may read meanwhile are replaced as a whole.
"""

import lzma
import stat
import zlib
from argparse import ArgumentTypeError
from pathlib import Path
from shutil import copyfile
from tokenize import TokenError
from typing import Annotated, Any
from zipfile import BadZipFile

import psutil
from pydantic import BeforeValidator

from experiments.system.errors import UserError, redact

# What reading a damaged zip archive raises, or an array in it: zipfile, the decompressors, NumPy's parser of headers.
ARCHIVE_DAMAGE = (
    BadZipFile, EOFError, KeyError, MemoryError, OSError, OverflowError, RuntimeError, SyntaxError, TokenError,
    TypeError, ValueError, lzma.LZMAError, zlib.error,
)  # fmt: skip
PACKAGE = Path(__file__).parents[1]  # the folder of `experiments`
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def expand_path(path: Any) -> Path:
    """Expand `~` in a typed path, unless it is the name of a file, as in ./~name.

    Raises:
        ValueError: the path is empty, or names the home folder of an unknown user.
    """
    match path:
        case Path():
            named = path
        case str() if path.strip():
            named = Path(path)
            if named.parts[:1] and named.parts[0].startswith("~") and not path.startswith("~"):
                return named.absolute()
        case _:
            raise ValueError("requires the name of a file or folder")
    try:
        return named.expanduser()
    except RuntimeError as error:
        if named.exists():
            return named.absolute()
        raise ValueError("unknown home folder; give the full path") from error


# A field of an option that names a file or folder.
UserPath = Annotated[Path, BeforeValidator(expand_path)]


def argument_path(text: str) -> Path:
    """Convert a command-line argument to a path; for use as argparse's `type`."""
    try:
        return expand_path(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r}: {error}") from error


def check_regular(path: Path, name: str) -> None:
    """Check that a file can be read; `name` is the start of the message, such as model.path=my.keras.

    Raises:
        UserError: the file does not exist, is not regular (reading a pipe or device may never end), or exceeds memory.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{redact(name)}: cannot be read ({reason}).") from error
    if not stat.S_ISREG(found.st_mode):
        kind = next((words for test, words in KINDS.items() if test(found.st_mode)), "something else")
        raise UserError(f"{redact(name)}: requires a file, not {kind}.")
    if found.st_size > (memory := psutil.virtual_memory().total):
        raise UserError(
            f"{redact(name)}: the file has {found.st_size / 2**30:,.0f} GiB, but this machine has only "
            f"{memory / 2**30:.0f} GiB of memory."
        )


def state_of(path: Path) -> tuple[int, int, int]:
    """Return the size of a file and its times of modification and of status change in ns; a changed file has others.

    Files from one archive often have equal sizes and times of modification, which they keep when they are exchanged to
    correct two labels. The system sets the time of status change, also when a file is renamed.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def copy_whole_files(source: Path, target: Path) -> None:
    """Copy the files of a folder; each gets its name only when it is complete.

    So a reader, and a process that is killed or finds the disk full, leaves either the old file or the new one. A link
    of that name is replaced, never followed.

    Raises:
        OSError: a file cannot be written.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        place = target / path.name
        if path.is_dir():
            copy_whole_files(path, place)
            continue
        partial = place.with_name(f"{place.name}.partial")  # what a killed process left is replaced by the next
        partial.unlink(missing_ok=True)
        try:
            copyfile(path, partial)
            partial.replace(place)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
