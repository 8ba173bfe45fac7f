"""What a user is told: one message that names the value, the rule and the alternatives."""

import errno
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches

from experiments.system.escaping import visible

LAST_STREAM = 2  # the number of standard error
OF_OUTPUT = (errno.ENOSPC, errno.EIO, errno.EBADF)  # of a disk that is full, a terminal that is gone


class UserError(Exception):
    """A mistake its reader can mend: shown as one message, never as a traceback."""


@contextmanager
def reporting_user_errors() -> Iterator[None]:
    """What a command does with a mistake of its user: one message, exit code 2, no traceback; with Ctrl-C, code 130."""
    robust_streams()
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        tell(visible(str(error)))
        sys.exit(2)
    except OSError as error:
        if error.filename is not None or error.errno not in OF_OUTPUT:
            raise
        tell(f"The output cannot be written ({error.strerror}).")
        sys.exit(1)
    except KeyboardInterrupt:
        tell("stopped.")
        sys.exit(130)


def robust_streams() -> None:
    """Give a command the streams that it was started without, and let them show what their encoding cannot.

    The next file that is opened would take the number of a stream that is closed, and have in it what is shown.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST_STREAM:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")


def tell(message: str) -> None:
    """One line on standard error; where that cannot be written, the exit code alone says it."""
    with suppress(OSError):
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()


def redacted(text: str) -> str:
    """A text without the names and passwords that addresses carry: postgresql://***@host, ...?password=***."""
    text = re.sub(r"(?<=://)[^\s@]+@", "***@", text)
    return re.sub(r"([?&](?:password|passwd|pwd|token|odbc_connect)=)[^&\s]+", r"\1***", text, flags=re.IGNORECASE)


def spelled(value: object) -> str:
    """A value as it is typed: null, true, [a,1]."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{','.join(map(spelled, value))}]"
        case dict():
            return f"{{{','.join(f'{spelled(key)}:{spelled(each)}' for key, each in value.items())}}}"
        case _:
            return str(value)


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def first_cause(error: BaseException) -> BaseException:
    """The error that others were raised for: libraries put their own advice around it."""
    while before := error.__cause__ or error.__context__:
        error = before
    return error


def suggestion(value: str, known: Iterable[str]) -> str:
    """The known names, the nearest ones first and marked, for the end of a message."""
    names = sorted(set(known))
    lower = {name.lower(): name for name in names}
    close = get_close_matches(value, names, n=3, cutoff=0.6) or [
        lower[name] for name in get_close_matches(value.lower(), lower, n=3, cutoff=0.6)
    ]
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."


def by_prefix(given: str, ids: Sequence[str]) -> str:
    """The run id that is meant: it, or the only one that begins so; `ids` are those there are, oldest first.

    Raises:
        UserError: no id begins so, or several do.
    """
    found = [run_id for run_id in ids if run_id.startswith(given)]
    if given in found or len(found) == 1:
        return given if given in found else found[0]
    if found:
        raise UserError(f"{given}: {len(found)} run ids begin so. Give more of it: {', '.join(found[:5])}.")
    beginnings = {run_id[: len(given)]: run_id for run_id in ids}
    close = get_close_matches(given, beginnings, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(beginnings[each] for each in close)}? " if close else ""
    raise UserError(f"{given}: no run has this id. {hint}The newest: {', '.join(ids[-5:]) or 'none'}.")
