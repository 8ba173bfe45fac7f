"""What a user is told: one message that names the value, the rule and the alternatives."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake its reader can mend: shown as one message, never as a traceback."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def near(value: str, known: Iterable[str]) -> str:
    """The known names, the nearest ones first and marked, for the end of a message."""
    names = sorted(set(known))
    close = get_close_matches(value, names, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."
