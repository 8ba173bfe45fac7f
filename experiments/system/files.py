"""Files that users name: `~` is the home folder, and only regular files of a size that memory can hold are read."""

import stat
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Annotated, Any

import psutil
from pydantic import BeforeValidator

from experiments.system.errors import UserError, redacted

PACKAGE = Path(__file__).parents[1]  # the folder of `experiments`
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def expanded(path: Any) -> Path:
    """A path as it was typed, with `~` expanded.

    Raises:
        ValueError: it is empty, or names the home folder of a user that there is not.
    """
    match path:
        case Path():
            named = path
        case str() if path.strip():
            named = Path(path)
        case _:
            raise ValueError("the name of a file or folder is needed")
    try:
        return named.expanduser()
    except RuntimeError as error:
        raise ValueError("there is no such home folder; give the whole path") from error


# A field of an option that names a file or folder.
UserPath = Annotated[Path, BeforeValidator(expanded)]


def argument_path(text: str) -> Path:
    """The type of an option of a command that names a file or folder."""
    try:
        return expanded(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r}: {error}") from error


def check_regular(path: Path, name: str) -> None:
    """Whether there is a file to be read; `name` is what the message begins with, such as model.path=my.keras.

    Raises:
        UserError: there is none, it is no regular file (a pipe or device may never end), or it is larger than memory.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{redacted(name)}: cannot be read ({reason}).") from error
    if not stat.S_ISREG(found.st_mode):
        kind = next((words for test, words in KINDS.items() if test(found.st_mode)), "something else")
        raise UserError(f"{redacted(name)}: cannot be read, for it is {kind}. Give a file.")
    if found.st_size > (memory := psutil.virtual_memory().total):
        raise UserError(
            f"{redacted(name)}: holds {found.st_size / 2**30:,.0f} GiB, and this machine has {memory / 2**30:.0f} GiB "
            "of memory."
        )
