"""What people see: tables and text on terminals of different widths."""

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
from typing import Any

import pytest
from rich.console import Console

from experiments.comparison.columns import frame
from experiments.comparison.display import Differences, display_table
from experiments.comparison.groups import group_runs, seeds_to_pool
from experiments.comparison.terminal import NAME_WIDTH, fit_columns, style_cells, terminal_table
from experiments.system.progress import print_whole
from tests import rows
from tests.conftest import ENVIRONMENT, REPOSITORY

TABLE = """
from experiments.comparison.loading import show_rows
from experiments.system.progress import say_wrapped
from tests import rows

disturbed = {
    "arithmetic": "1 float32, 3 hybrid int8", "arena_bytes": 7840.0, "speed": "void", "latency_other_cores": 1.6,
    "latency_void": "other processes used 1.6 of 2 cores, but 1 must be free",
    "warnings": "at chance: not better than a constant",
}
show_rows([rows.row("none", **disturbed), rows.row("finetune_ptq_int8", epochs=4, finetune_epochs=4, **disturbed)])
say_wrapped("No winner: these 2 are tied: " + "finetune_ptq_int8, 4 epochs; " * 8)
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


LONG = "annotate_the_last_two_layers_of_mine"
CASES: dict[str, list[dict[str, Any]]] = {
    "strategies": [rows.row(f"strategy_number_{number}", run_id=str(number)) for number in range(15)],
    "names": [rows.row("none"), rows.row(LONG, warnings="at chance: not better", partial="true")],
    "settings": [
        rows.row("annotate", run_id=layers, **{"strategy.layers": layers})
        for layers in ("['conv2d_1', 'conv2d_2', 'dense_1']", "['dense']")
    ],
    "models": [rows.row("none"), rows.row("none", model_name="a_model_with_a_long_name_of_mine", run_id="other")],
    "one": [rows.row("none")],
    "invalid": [rows.row(each, speed="void", latency_void="disturbed") for each in ("none", "ptq_int8")],
    "partial": [rows.row(each, partial="true", arithmetic="3 float32, 1 int8") for each in ("annotate", "qat")],
    "failed": [*rows.ROWS, rows.FAILED],
    "metrics": [rows.row("none"), rows.row("qat", metric="mae", metric_better="lower", tflite_score=12.5)],
    "seeds": [*rows.seeds("none", 3), *rows.seeds("finetune_ptq_int8", 3)],
}


@pytest.mark.parametrize("case", CASES)
def test_any_table_fits_80_columns_with_its_names_in_full(case: str) -> None:
    runs = frame(CASES[case])
    groups = seeds_to_pool(runs)
    table = group_runs(runs, groups, lambda _: None).table if groups else runs
    console = Console(width=80, file=io.StringIO(), markup=False)
    shown = fit_columns(display_table(table), 80, Differences.of(table))
    print_whole(terminal_table(shown, style_cells(table)), console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    first = "".join(line[1 : 1 + NAME_WIDTH].strip() for line in lines)
    for strategy in {each["strategy"] for each in CASES[case]}:
        assert strategy in first


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
