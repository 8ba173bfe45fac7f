"""What people see: tables and text on terminals of different widths."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios

import pytest

from tests.conftest import ENVIRONMENT, REPOSITORY

TABLE = """
from experiments.comparison.loading import show_rows
from experiments.system.progress import prose
from tests import rows

disturbed = {
    "arithmetic": "1 float32, 3 hybrid int8", "arena_bytes": 7840.0, "speed": "void", "latency_other_cores": 1.6,
    "latency_void": "other processes used 1.6 of 2 cores, but 1 must be free",
    "warnings": "at chance: not better than a constant",
}
show_rows([rows.row("none", **disturbed), rows.row("finetune_ptq_int8", epochs=4, finetune_epochs=4, **disturbed)])
prose("No winner: these 2 are tied: " + "finetune_ptq_int8, 4 epochs; " * 8)
"""


def on_terminal(code: str, width: int) -> list[str]:
    """The lines that a program shows on a terminal of this width, without colours."""
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in ("COLUMNS", "LINES")}
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        os.chdir(REPOSITORY)
        os.execve(sys.executable, [sys.executable, "-c", code], {**environment, "TERM": "xterm"})
    shown = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # the program has ended
            break
        if not part:
            break
        shown += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "").split("\n")


@pytest.fixture(scope="module", params=[80, 100, 160])
def shown(request: pytest.FixtureRequest) -> tuple[int, list[str]]:
    """The width of a terminal, and the lines on it."""
    return request.param, on_terminal(TABLE, request.param)


def test_a_table_fits_its_terminal_and_keeps_size_and_speed(shown: tuple[int, list[str]]) -> None:
    width, lines = shown
    assert max(map(len, lines)) <= width
    headings = " ".join(lines[: next(number for number, line in enumerate(lines) if "──" in line)])
    assert "ratio" in headings
    assert "speedup" in headings


def test_columns_that_do_not_fit_are_named(shown: tuple[int, list[str]]) -> None:
    width, lines = shown
    dropped = re.search(r"Not shown in (\d+) columns: (.*?)\. Widen", " ".join(lines))
    assert dropped is not None
    assert int(dropped[1]) == width
    assert ("Keras accuracy (%)" in dropped[2]) == (width < 160)


def test_captions_explain_shown_columns_only(shown: tuple[int, list[str]]) -> None:
    width, lines = shown
    text = " ".join(" ".join(lines).split())
    assert ("speed: equivalent means" in text) == (width == 160)


def test_prose_is_wrapped_between_words(shown: tuple[int, list[str]]) -> None:
    _, lines = shown
    start = next(number for number, line in enumerate(lines) if line.startswith("No winner"))
    words = {"No", "winner:", "these", "2", "are", "tied:", "finetune_ptq_int8,", "4", "epochs;"}
    assert {word for line in lines[start:] for word in line.split()} == words
