"""What a person sees of long work: bars with the time left on a terminal, plain lines elsewhere.

A terminal can show the bars of one process only. So the process that a person started shows its own and, while
`shown_here` lasts, those of its child processes, which tell it over a socket what there is to show.
"""

import atexit
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.control import Control
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table

from experiments.system.disk import explained
from experiments.system.errors import UserError, first_line
from experiments.system.escaping import visible
from experiments.system.temporary import temporary_folder

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


class _Visible:
    """What is printed, with the control characters in its text written out: names may be a stranger's."""

    def __init__(self, shown: RenderableType) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for text, style, control in console.render(self._shown, options):
            yield Segment(text if control else visible(text), style, control)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._shown)


class _OnlyVisible(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [each if isinstance(each, Control) else _Visible(each) for each in renderables]


def _console(**settings: Any) -> Console:
    """A console that shows texts as they are; markup is asked for where it is meant (markup=True)."""
    console = Console(markup=False, emoji=False, **settings)
    console.push_render_hook(_OnlyVisible())
    return console


_STANDARD = _console()
WIDEST = 10_000  # characters
# A log file has no width of its own; tables are not squeezed there.
CONSOLE = _STANDARD if _STANDARD.is_terminal else _console(width=160)


def print_whole(table: Table, console: Console = CONSOLE) -> None:
    """Print a table, wider than the terminal where it does not fit: lines that fold can be read, cut numbers cannot."""
    needed = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    if needed > console.width:
        terminal, colourless = console.is_terminal, console.no_color
        console = _console(width=needed, file=console.file, force_terminal=terminal, no_color=colourless)
    console.print(table)


# A terminal shows one live display at a time, and the bars of a sweep, its jobs and their steps share it.
_BARS = Progress(
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("left"),
    TimeRemainingColumn(),
    console=CONSOLE,
    transient=True,
    disable=not CONSOLE.is_terminal,
)
# In the environment of child processes: who shows things, the socket that leads there, and the key that opens it.
ADDRESS = "QUANTIZATION_PROGRESS"

Advance = Callable[[int], None]


class _Display(Protocol):
    """Where lines and bars go; a bar is known by a name that no other bar has."""

    def say(self, message: str) -> None: ...
    def say_once(self, message: str) -> None: ...
    def warn(self, message: str) -> None: ...
    def begin(self, bar: str, description: str, total: int | None) -> None: ...
    def advance(self, bar: str, steps: int) -> None: ...
    def end(self, bar: str) -> None: ...
    def flush(self) -> None: ...


class _Screen:
    """The terminal, or the log file, of this process."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskID] = {}
        self._said: set[str] = set()
        self._lock = Lock()

    def say(self, message: str) -> None:
        with suppress(OSError):  # a full disk, a reader that is gone: no reason to stop the work
            CONSOLE.print(message, highlight=False, markup=False, soft_wrap=True)

    def say_once(self, message: str) -> None:
        with self._lock:
            if message in self._said:
                return
            self._said.add(message)
        self.say(message)

    def warn(self, message: str) -> None:
        with suppress(OSError):
            sys.stderr.write(f"{visible(message)}\n")

    def begin(self, bar: str, description: str, total: int | None) -> None:
        with self._lock:
            if not self._tasks:
                _BARS.start()
            self._tasks[bar] = _BARS.add_task(description, total=total)

    def advance(self, bar: str, steps: int) -> None:
        if bar in self._tasks:  # that of a sweep is on the screen of the machine that started it
            _BARS.advance(self._tasks[bar], steps)

    def end(self, bar: str) -> None:
        with self._lock:
            _BARS.remove_task(self._tasks.pop(bar))
            if not self._tasks:
                _BARS.stop()

    def flush(self) -> None:
        """Everything is shown at once here."""


class _Messenger:
    """The screen of another process, which hears of everything over a socket."""

    def __init__(self, connection: "Connection[tuple[object, ...], bool]") -> None:
        self._connection = connection
        self._lock = Lock()

    def say(self, message: str) -> None:
        self._tell("say", message)

    def say_once(self, message: str) -> None:
        self._tell("say_once", message)

    def warn(self, message: str) -> None:
        self._tell("warn", message)

    def begin(self, bar: str, description: str, total: int | None) -> None:
        self._tell("begin", bar, description, total)

    def advance(self, bar: str, steps: int) -> None:
        self._tell("advance", bar, steps)

    def end(self, bar: str) -> None:
        self._tell("end", bar)

    def flush(self) -> None:
        with self._lock, suppress(OSError, EOFError):  # nobody shows anything any more
            self._connection.send(("flush",))
            self._connection.recv()

    def _tell(self, *message: object) -> None:
        with self._lock, suppress(OSError):
            self._connection.send(message)


_SCREEN = _Screen()
_NUMBERS = count()


def _display() -> _Display:
    shown_by, _, rest = os.environ.get(ADDRESS, "").partition(" ")
    this_process = str(os.getpid())
    return _connected(rest, this_process) if shown_by not in ("", this_process) else _SCREEN


@cache
def _connected(address: str, _process: str) -> _Display:
    """The way to the process that shows things; this one's own screen where that one runs on another machine."""
    path, _, key = address.partition(" ")
    if not Path(path).exists():
        return _SCREEN
    return _Messenger(Client(path, "AF_UNIX", authkey=bytes.fromhex(key)))


@contextmanager
def shown_here() -> Iterator[None]:
    """Show what child processes have to show, too, unless another process does so already."""
    if ADDRESS in os.environ:
        yield
        return
    key = secrets.token_bytes(32)
    with temporary_folder("progress") as folder:
        path = f"{folder}/socket"
        with _listener(path, key) as listener:
            over = Event()
            Thread(target=_listen, args=(listener, over), daemon=True).start()
            os.environ[ADDRESS] = f"{os.getpid()} {path} {key.hex()}"
            try:
                yield
            finally:
                over.set()
                del os.environ[ADDRESS]


def _listener(path: str, key: bytes) -> Listener:
    try:
        return Listener(path, "AF_UNIX", backlog=64, authkey=key)
    except OSError as error:
        if error.errno:
            raise UserError(f"No socket can be made as {path}: {explained(error, Path(path))}.") from error
        raise UserError(  # a path that is too long: the system allows about 100 characters
            f"TMPDIR={tempfile.gettempdir()}: no socket can be made there ({first_line(error)}: {path}). Give "
            "another folder, with a short name, such as TMPDIR=/tmp."
        ) from error


def _listen(listener: Listener, over: Event) -> None:
    while not over.is_set():
        try:
            connection = listener.accept()
        except (OSError, EOFError, AuthenticationError):  # closed; or a process has died while it introduced itself
            continue
        Thread(target=_hear, args=(connection,), daemon=True).start()


def _hear(connection: "Connection[bool, tuple[str, ...]]") -> None:
    """Show what one process tells until it ends, and take away the bars that it leaves behind."""
    bars: set[str] = set()
    while True:
        try:
            what, *details = connection.recv()
            if what == "flush":
                connection.send(True)
                continue
        except (EOFError, OSError):  # it has ended, perhaps in the middle of a word
            break
        _show(what, *details)
        if what == "begin":
            bars.add(details[0])
        elif what == "end":
            bars.discard(details[0])
    for bar in bars:
        _show("end", bar)


def _show(what: str, *details: str) -> None:
    """Show what a process tells; where that cannot be written, the line is lost, and not the run that waits for us.

    The disk of a log file may be full, or its reader gone, which rich answers with SystemExit.
    """
    with suppress(OSError, SystemExit):
        getattr(_SCREEN, what)(*details)


@contextmanager
def bar(description: str, total: int | None, name: str = "") -> Iterator[Advance]:
    """A progress bar while the block runs; what it yields moves the bar forward by so many steps.

    Other processes can move it by its name. A total of None is one that is not known before the end.
    """
    display, name = _display(), name or f"{os.getpid()}-{next(_NUMBERS)}"
    display.begin(name, description, total)
    try:
        yield lambda steps: display.advance(name, steps)
    finally:
        display.end(name)


def advance(name: str, steps: int) -> None:
    """Move a bar of any process forward."""
    _display().advance(name, steps)


def say(message: str) -> None:
    """One line that stays on the screen, above the bars."""
    _display().say(message)


def say_once(message: str) -> None:
    """A line that several jobs of a sweep may have to say, and that is shown for the first of them."""
    _display().say_once(message)


def warn(message: str) -> None:
    """One line on standard error, above the bars."""
    _display().warn(message)


@cache
def warn_once(message: str) -> None:
    """One line on standard error, however often the same is found."""
    warn(message)


def flush() -> None:
    """Wait until all that this process had to show is shown, wherever that is."""
    _display().flush()


def end_bars() -> None:
    """Take every bar off the screen and give the cursor back, however the program ends."""
    if _BARS.live.is_started:
        _BARS.stop()


atexit.register(end_bars)
