"""What a person sees of long work: bars with the time left on a terminal, plain lines elsewhere."""

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_STANDARD = Console()
# A log file has no width of its own; tables are not squeezed there.
CONSOLE = _STANDARD if _STANDARD.is_terminal else Console(width=160)
# A terminal shows one live display at a time, and the bars of a sweep, its jobs and their steps share it.
_BARS = Progress(
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("left"),
    TimeRemainingColumn(),
    console=CONSOLE,
    transient=True,
    disable=not CONSOLE.is_terminal,
)

Advance = Callable[[int], None]


@contextmanager
def bar(description: str, total: int) -> Iterator[Advance]:
    """A progress bar while the block runs; what it yields moves the bar forward by so many steps."""
    alone = not _BARS.live.is_started
    if alone:
        _BARS.start()
    task = _BARS.add_task(description, total=total)
    try:
        yield lambda steps: _BARS.advance(task, steps)
    finally:
        _BARS.remove_task(task)
        if alone:
            _BARS.stop()


def end_bars() -> None:
    """Take every bar off the screen and give the cursor back, however the program ends."""
    if _BARS.live.is_started:
        _BARS.stop()


atexit.register(end_bars)


def say(message: str) -> None:
    """One line that stays on the screen, above the bars."""
    CONSOLE.print(message, highlight=False, markup=False, soft_wrap=True)
