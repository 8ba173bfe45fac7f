"""Progress output: bars with the remaining time on a terminal; elsewhere lines, at least one every 30 seconds.

A terminal can show the bars of only one process. So the process that the user started shows its own bars and, within
`shown_here`, those of its child processes, which send them over a socket.
"""

import atexit
import os
import secrets
import socket
import sys
import tempfile
import time
from collections import ChainMap
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
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from experiments.system.disk import explain_os_error
from experiments.system.errors import UserError, first_line
from experiments.system.escaping import escape_control
from experiments.system.temporary import temporary_folder

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


class _Visible:
    """A renderable with control characters escaped: names may come from untrusted files."""

    def __init__(self, shown: RenderableType) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for text, style, control in console.render(self._shown, options):
            yield Segment(text if control else escape_control(text), style, control)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._shown)


class _OnlyVisible(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [each if isinstance(each, Control) else _Visible(each) for each in renderables]


# In a notebook or a CI job, these say that colours are understood. Nothing overwrites lines there, as a terminal does:
# bars would fill the page.
_NOT_FORCED: dict[str, Any] = {"FORCE_COLOR": None, "TTY_COMPATIBLE": ""}


def _console(**settings: Any) -> Console:
    """Return a console without markup, so that brackets in text are shown literally."""
    console = Console(markup=False, emoji=False, _environ=ChainMap(_NOT_FORCED, os.environ), **settings)
    console.push_render_hook(_OnlyVisible())
    return console


_STANDARD = _console()
WIDEST = 10_000  # characters
# A log file has no width; a wide console keeps tables from being squeezed.
CONSOLE = _STANDARD if _STANDARD.is_terminal else _console(width=160)


def print_whole(table: Table, console: Console = CONSOLE) -> None:
    """Print a table in its full width, even if the terminal wraps it: truncated numbers would be unreadable."""
    needed = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    if needed > console.width:
        terminal, colourless = console.is_terminal, console.no_color
        console = _console(width=needed, file=console.file, force_terminal=terminal, no_color=colourless)
    console.print(table)


def format_duration(seconds: float) -> str:
    """Format a duration for display: 8 s, 3 min 20 s, 2 h 5 min."""
    hours, minutes = int(seconds // 3600), int(seconds // 60 % 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60:.0f} s" if minutes else f"{seconds:.0f} s"


Left = Callable[[], float | None]  # seconds that are left; None if unknown
LEFT = "left"  # the field of a task with this function


class _TimeLeft(TimeRemainingColumn):
    """The time that is left: from the function of the bar if it has one, otherwise extrapolated from its steps."""

    def render(self, task: Task) -> Text:
        if LEFT not in task.fields:
            return super().render(task)
        seconds = task.fields[LEFT]()
        return Text("-:--:--" if seconds is None else format_duration(seconds), style="progress.remaining")


class _Steps(MofNCompleteColumn):
    """The number of steps done and of all steps; empty if the total is unknown."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


# A terminal shows one live display at a time, so the bars of a sweep, its jobs and their steps share it.
_BARS = Progress(
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    _Steps(),
    TimeElapsedColumn(),
    TextColumn("left"),
    _TimeLeft(),
    console=CONSOLE,
    transient=True,
    disable=not CONSOLE.is_terminal,
)
# Environment variable for child processes: the pid of the process with the display, its socket and the socket's key.
ADDRESS = "QUANTIZATION_PROGRESS"
SILENCE = 30.0  # seconds; elsewhere than on a terminal, a line is printed after so long without one

Advance = Callable[[int], None]


def use_standard_error() -> None:
    """Print everything on standard error from now on, so that standard output holds only a command's result."""
    CONSOLE.file = sys.stderr
    _BARS.disable = not CONSOLE.is_terminal


class _Display(Protocol):
    """Receives lines and bars; each bar has a unique name."""

    def say(self, message: str) -> None: ...
    def say_once(self, message: str) -> None: ...
    def warn(self, message: str) -> None: ...
    def begin(self, bar: str, description: str, total: int | None) -> None: ...
    def advance(self, bar: str, steps: int) -> None: ...
    def end(self, bar: str) -> None: ...
    def report(self, subject: str, *details: object) -> None: ...
    def flush(self) -> None: ...


class _Screen:
    """The terminal, or the log file, of this process."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskID] = {}
        self._shown: set[str] = set()
        self._lock = Lock()
        self._printed_at = time.monotonic()
        self._idle = Event()  # set while there is no bar
        self._listeners: dict[str, Callable[..., None]] = {}

    def say(self, message: str) -> None:
        self._printed_at = time.monotonic()
        with suppress(OSError):  # a full disk or a closed pipe must not stop the work
            CONSOLE.print(message, highlight=False, markup=False, soft_wrap=True)

    def say_once(self, message: str) -> None:
        with self._lock:
            if message in self._shown:
                return
            self._shown.add(message)
        self.say(message)

    def warn(self, message: str) -> None:
        with suppress(OSError):
            sys.stderr.write(f"{escape_control(message)}\n")

    def begin(self, bar: str, description: str, total: int | None) -> None:
        with self._lock:
            if not self._tasks:
                _BARS.start()
                if not CONSOLE.is_terminal:
                    self._idle = Event()
                    Thread(target=self._break_silence, args=(self._idle,), daemon=True).start()
            self._tasks[bar] = _BARS.add_task(description, total=total)

    def expect(self, bar: str, left: Left) -> None:
        """Show the time that is left of a bar according to this function."""
        fields: dict[str, Any] = {LEFT: left}
        _BARS.update(self._tasks[bar], **fields)

    def _break_silence(self, idle: Event) -> None:
        """Print what is being done whenever nothing was printed for SILENCE, until no bar is left."""
        while not idle.wait(max(0.0, self._printed_at + SILENCE - time.monotonic())):
            if time.monotonic() >= self._printed_at + SILENCE:
                self.say("; ".join(_status(task) for task in _BARS.tasks))

    def advance(self, bar: str, steps: int) -> None:
        if bar in self._tasks:  # a sweep's bar is on the machine that started the sweep
            _BARS.advance(self._tasks[bar], steps)

    def end(self, bar: str) -> None:
        with self._lock:
            _BARS.remove_task(self._tasks.pop(bar))
            if not self._tasks:
                self._idle.set()
                _stop_bars()

    def listen(self, subject: str, listener: Callable[..., None]) -> None:
        """Call this function with the reports of all processes on a subject."""
        self._listeners[subject] = listener

    def report(self, subject: str, *details: object) -> None:
        if subject in self._listeners:  # that of a sweep is on the machine that started the sweep
            self._listeners[subject](*details)

    def flush(self) -> None:
        """Do nothing: output here is immediate."""


def _status(task: Task) -> str:
    """Return one line about a bar."""
    steps = "" if task.total is None else f" {task.completed:.0f}/{task.total:.0f}"
    seconds = task.fields[LEFT]() if LEFT in task.fields else task.time_remaining
    return f"{task.description}{steps}{time_left(seconds)}"


def time_left(seconds: float | None) -> str:
    """Return the time that is left, for the end of a line; empty if it is unknown or 0."""
    return f", about {format_duration(seconds)} left" if seconds else ""


class _Messenger:
    """Sends everything to the screen of another process over a socket."""

    def __init__(self, connection: "Connection[tuple[object, ...], bool]") -> None:
        self._connection = connection
        self._lock = Lock()

    def say(self, message: str) -> None:
        self._send("say", message)

    def say_once(self, message: str) -> None:
        self._send("say_once", message)

    def warn(self, message: str) -> None:
        self._send("warn", message)

    def begin(self, bar: str, description: str, total: int | None) -> None:
        self._send("begin", bar, description, total)

    def advance(self, bar: str, steps: int) -> None:
        self._send("advance", bar, steps)

    def end(self, bar: str) -> None:
        self._send("end", bar)

    def report(self, subject: str, *details: object) -> None:
        self._send("report", subject, *details)

    def flush(self) -> None:
        with self._lock, suppress(OSError, EOFError):  # the other process has ended
            self._connection.send(("flush",))
            self._connection.recv()

    def _send(self, *message: object) -> None:
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
    """Connect to the process with the display; use this process's own screen if that one is on another machine."""
    path, _, key = address.partition(" ")
    if not Path(path).exists():
        return _SCREEN
    return _Messenger(Client(path, "AF_UNIX", authkey=bytes.fromhex(key)))


@contextmanager
def shown_here() -> Iterator[None]:
    """Show the output of child processes too, unless another process already does."""
    if ADDRESS in os.environ:
        yield
        return
    key = secrets.token_bytes(32)
    with temporary_folder("progress") as folder:
        path = f"{folder}/socket"
        with _listener(path, key) as listener:
            ended = Event()
            listening = Thread(target=_listen, args=(listener, ended), daemon=True)
            listening.start()
            os.environ[ADDRESS] = f"{os.getpid()} {path} {key.hex()}"
            try:
                yield
            finally:
                del os.environ[ADDRESS]
                ended.set()
                _wake(path)
                listening.join(timeout=10)  # a process that was stopped while it connects may hold it


def _wake(path: str) -> None:
    """Connect, so that a thread that waits for a connection sees that it has to end.

    If the socket were closed before, the thread could accept the connections of the next one, which may have the same
    number, and refuse them for their other key.
    """
    with suppress(OSError), socket.socket(socket.AF_UNIX) as end:
        end.connect(path)


def _listener(path: str, key: bytes) -> Listener:
    try:
        return Listener(path, "AF_UNIX", backlog=64, authkey=key)
    except OSError as error:
        if error.errno:
            raise UserError(f"The socket {path} cannot be created: {explain_os_error(error, Path(path))}.") from error
        raise UserError(  # the system limits a socket's path to about 100 characters
            f"TMPDIR={tempfile.gettempdir()}: a socket requires a shorter path ({first_line(error)}: {path}). Use "
            "another folder, such as TMPDIR=/tmp."
        ) from error


def _listen(listener: Listener, ended: Event) -> None:
    while not ended.is_set():
        try:
            connection = listener.accept()
        except (OSError, EOFError, AuthenticationError):  # closed, or a process died while connecting
            continue
        Thread(target=_receive, args=(connection,), daemon=True).start()


def _receive(connection: "Connection[bool, tuple[str, ...]]") -> None:
    """Show the messages of one process until it ends, then remove the bars that it left."""
    bars: set[str] = set()
    while True:
        try:
            kind, *details = connection.recv()
            if kind == "flush":
                connection.send(True)
                continue
        except (EOFError, OSError):  # it has ended, perhaps within a message
            break
        _show(kind, *details)
        if kind == "begin":
            bars.add(details[0])
        elif kind == "end":
            bars.discard(details[0])
    for bar in bars:
        _show("end", bar)


def _show(kind: str, *details: str) -> None:
    """Show a message of a process; on a write error the line is lost, but the waiting process continues.

    The disk of a log file may be full, or its pipe closed, for which rich raises SystemExit.
    """
    with suppress(OSError, SystemExit):
        getattr(_SCREEN, kind)(*details)


@contextmanager
def bar(description: str, total: int | None, name: str = "") -> Iterator[Advance]:
    """Show a progress bar while the block runs; yields a function that advances it by a number of steps.

    Other processes can advance it by its name. With a total of None the number of steps is unknown.
    """
    display, name = _display(), name or f"{os.getpid()}-{next(_NUMBERS)}"
    display.begin(name, description, total)
    try:
        yield lambda steps: display.advance(name, steps)
    finally:
        display.end(name)


def advance(name: str, steps: int) -> None:
    """Advance a bar of any process."""
    _display().advance(name, steps)


def expect(name: str, left: Left) -> None:
    """Show the time that is left according to this function, for a bar of this process."""
    _SCREEN.expect(name, left)


def listen(subject: str, listener: Callable[..., None]) -> None:
    """Call a function in this process, which has the display, with the reports of all processes on a subject."""
    _SCREEN.listen(subject, listener)


def report(subject: str, *details: object) -> None:
    """Send a report on a subject to the process with the display, which passes it to its listener."""
    _display().report(subject, *details)


def say(message: str) -> None:
    """Print one line above the bars."""
    _display().say(message)


def say_wrapped(text: str) -> None:
    """Print a long line of this process, which a terminal wraps between words."""
    if CONSOLE.is_terminal:
        CONSOLE.print(text, highlight=False)
    else:
        say(text)


def say_once(message: str) -> None:
    """Print a line once, even if several jobs of a sweep send it."""
    _display().say_once(message)


def warn(message: str) -> None:
    """Print one line on standard error, above the bars."""
    _display().warn(message)


@cache
def warn_once(message: str) -> None:
    """Print a line on standard error once per process."""
    warn(message)


def flush() -> None:
    """Wait until all output of this process is shown."""
    _display().flush()


def end_bars() -> None:
    """Remove all bars from the screen and restore the cursor."""
    if _BARS.live.is_started:
        _stop_bars()


def _stop_bars() -> None:
    with suppress(OSError):  # the terminal was closed
        _BARS.stop()


atexit.register(end_bars)
