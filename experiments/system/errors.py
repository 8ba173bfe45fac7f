"""Errors that users can fix: one message with the value, the rule and the alternatives."""

import errno
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import TextIO

from experiments.system.escaping import escape_control

LAST_STREAM = 2  # the descriptor of standard error
OUTPUT_ERRORS = (errno.ENOSPC, errno.EIO, errno.EBADF)  # a full disk, a closed terminal
# Prefix of names in messages: of the options of a command, or of arguments in Python.
OPTION, ARGUMENT = "--", ""


class UserError(Exception):
    """An error that the user can fix: shown as one message, never as a traceback."""


class Ended(SystemExit):
    """The end of a command because of an error that was reported: its exit code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code)
        self.message = message


@contextmanager
def reporting_user_errors() -> Iterator[None]:
    """Turn a UserError into one message and exit code 2, without a traceback, and Ctrl-C into exit code 130."""
    robust_streams()
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        print_error(escape_control(str(error)))
        sys.exit(2)
    except OSError as error:
        if error.filename is not None or error.errno not in OUTPUT_ERRORS:
            raise
        print_error(f"The output cannot be written ({error.strerror}).")
        sys.exit(1)
    except KeyboardInterrupt:
        print_error("interrupted.")
        sys.exit(130)


def robust_streams() -> None:
    """Replace closed standard streams, and escape characters that their encoding does not have.

    Otherwise the next file to be opened would get the descriptor of a closed stream, and receive the output.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST_STREAM:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")


def print_error(message: str) -> None:
    """Print one line on standard error; if that fails, only the exit code reports the error."""
    with suppress(OSError):
        sys.stderr.write(f"{message}\n")
    for stream in (sys.stdout, sys.stderr):
        _discard_unwritable(stream)


def _discard_unwritable(stream: TextIO) -> None:
    """Discard output that a stream cannot write: Python would try again at exit, and end with its own exit code."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):  # ValueError: the stream is not a file
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def redact(text: str) -> str:
    """Remove user names and passwords from addresses: postgresql://***@host, ...?password=***."""
    text = re.sub(r"(?<=://)[^\s@]+@", "***@", text)
    return re.sub(r"([?&](?:password|passwd|pwd|token|odbc_connect)=)[^&\s]+", r"\1***", text, flags=re.IGNORECASE)


def format_value(value: object) -> str:
    """Format a value as it is typed on the command line: null, true, [a,1]."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{','.join(map(format_value, value))}]"
        case dict():
            return f"{{{','.join(f'{format_value(key)}:{format_value(each)}' for key, each in value.items())}}}"
        case _:
            return str(value)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def first_cause(error: BaseException) -> BaseException:
    """Return the first error of a chain: libraries wrap it in errors with their own advice."""
    while before := error.__cause__ or error.__context__:
        error = before
    return error


def suggestion(value: str, valid: Iterable[str]) -> str:
    """Return 'Did you mean ...? Known: ...' for the end of a message."""
    names = sorted(set(valid))
    lower = {name.lower(): name for name in names}
    close = get_close_matches(value, names, n=3, cutoff=0.6) or [
        lower[name] for name in get_close_matches(value.lower(), lower, n=3, cutoff=0.6)
    ]
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."


def find_by_prefix(prefix: str, ids: Sequence[str], kind: str = "") -> str:
    """Return the run id that equals `prefix`, or the only one that starts with it; `ids` is sorted, oldest first.

    `kind` says for a message which runs these are.

    Raises:
        UserError: no id has this prefix, or several have it.
    """
    found = [run_id for run_id in ids if run_id.startswith(prefix)]
    if prefix in found or len(found) == 1:
        return prefix if prefix in found else found[0]
    if found:
        raise UserError(f"{prefix}: {len(found)} run ids have this prefix. Give a longer one: {', '.join(found[:5])}.")
    prefixes = {run_id[: len(prefix)]: run_id for run_id in ids}
    close = get_close_matches(prefix, prefixes, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(prefixes[each] for each in close)}? " if close else ""
    raise UserError(
        f"{prefix}: no {f'{kind} ' if kind else ''}run has this id. {hint}Newest: {', '.join(ids[-5:]) or 'none'}."
    )
