"""What a user is told: one message that names the value, the rule and the alternatives."""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

from experiments.escaping import visible


class UserError(Exception):
    """A mistake its reader can mend: shown as one message, never as a traceback."""


@contextmanager
def mistakes_told() -> Iterator[None]:
    """What a command does with a mistake of its user: one message, exit code 2, no traceback; with Ctrl-C, code 130."""
    try:
        yield
    except UserError as error:
        sys.stderr.write(f"{visible(str(error))}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("stopped.\n")
        sys.exit(130)


def redacted(text: str) -> str:
    """A text without the names and passwords that addresses carry: postgresql://***@host, ...?password=***."""
    text = re.sub(r"(?<=://)[^\s@]+@", "***@", text)
    return re.sub(r"([?&](?:password|passwd|pwd|token|odbc_connect)=)[^&\s]+", r"\1***", text, flags=re.IGNORECASE)


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def near(value: str, known: Iterable[str]) -> str:
    """The known names, the nearest ones first and marked, for the end of a message."""
    names = sorted(set(known))
    close = get_close_matches(value, names, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."


def by_beginning(given: str, ids: Sequence[str]) -> str:
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
