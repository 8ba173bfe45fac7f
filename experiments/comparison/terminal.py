"""Tables on the terminal: fitted to its width, best values marked, insignificant differences dimmed."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from experiments.comparison.choices import MOST_ROWS as MOST_TESTED
from experiments.comparison.choices import best_of
from experiments.comparison.columns import SUBJECTS, VOID
from experiments.comparison.compared import Comparison
from experiments.comparison.display import Differences, display_table, note
from experiments.measure.latency import SAME_FILE
from experiments.record.run_record import is_setting
from experiments.system.progress import CONSOLE, print_whole, say
from experiments.tracking.schema import SCHEMA, heading

# Columns to omit on a narrow terminal, in this order; the CSV has every column. Size ratio, speedup and Δ accuracy are
# always shown.
OPTIONAL = (
    "arena_bytes", "agreement", "output_sqnr_db", "keras_score", "latency_p50_us", "arithmetic", "speed",
    "tflite_bytes", "tflite_score",
)  # fmt: skip
MOST_ROWS = 1000  # on a terminal
REMARK_WIDTH = 12  # characters of a line; rows with intervals have two lines anyway
NAME_WIDTH = 18  # of a name or a setting, which is then continued below
EDGE = 1  # characters of a table's width that belong to no column
MARKS = "Green: the best value, and values tied with it; dim: a difference that may be due to chance."
# Headings of text columns; the first three are not in the schema.
TEXTS = ("remark", "run", "against", *(each.heading for each in SCHEMA.values() if not each.numeric and each.heading))


def show(table: pd.DataFrame, comparison: Comparison | None = None) -> None:
    """Print a table and its note: the best values per task are marked, insignificant differences dimmed."""
    every = display_table(table)
    shown = fit_columns(every, CONSOLE.width, Differences.of(table))
    looks = {name: each[:MOST_ROWS] for name, each in style_cells(table, comparison).items()}
    print_whole(terminal_table(shown.head(MOST_ROWS), looks), CONSOLE)
    if len(shown) > MOST_ROWS:
        say(f"{len(shown) - MOST_ROWS:,} more rows are not shown. --csv FILE writes all, --where selects some.")
    if left_out := [name for name in every.columns if name not in shown.columns]:
        remedy = "Widen the terminal, or give --csv FILE." if CONSOLE.is_terminal else "--csv FILE writes all."
        hint = f"Not shown in {CONSOLE.width} columns: {', '.join(left_out)}. {remedy}"
        CONSOLE.print(hint, markup=False, highlight=False)
    marks = f"{MARKS} " if CONSOLE.is_terminal and not CONSOLE.no_color else ""
    CONSOLE.print(f"{marks}{note(table, list(shown.columns))}", style="dim", markup=False, highlight=False)


def fit_columns(shown: pd.DataFrame, width: int, differences: Differences | None = None) -> pd.DataFrame:
    """Remove as few OPTIONAL columns as necessary to fit the width."""
    headings = differences or Differences.of(shown)
    widths = {name: _width(name, shown[name]) for name in shown.columns}
    optional = [heading for name in reversed(OPTIONAL) if (heading := headings.heading(name)) in widths]
    left = width - EDGE - sum(each for name, each in widths.items() if name not in optional)
    kept = set(widths) - set(optional)
    for name in optional:  # the most important first
        if widths[name] <= left:
            kept.add(name)
            left -= widths[name]
    return shown[[name for name in shown.columns if name in kept]]


def _width(name: str, cells: pd.Series) -> int:
    """Return the width of a printed column: its longest line, a space, and one between columns."""
    texts = [_heading(name), *(_on_lines(name, cell) for cell in cells.unique())]
    return max(cell_len(line) for text in texts for line in text.split("\n")) + 2


def style_cells(table: pd.DataFrame, comparison: Comparison | None = None) -> Mapping[str, Sequence[str]]:
    """Return the style of each cell: best values and ties are marked, insignificant differences dimmed.

    Ties are determined from the predictions of the comparison; without one, or for many rows, from the intervals.
    """
    differences = Differences.of(table)
    never = pd.Series(False, index=table.index)
    like_float = table["speed"].isin(["equivalent", "unclear", SAME_FILE, VOID]) & (differences.speedup == "speedup")
    chance = {
        differences.heading(differences.score): _holds(table, differences.score, 0),
        differences.heading(differences.speedup): _holds(table, differences.speedup, 1) | like_float,
    }
    tested = comparison if comparison and len(table) <= MOST_TESTED else Comparison(table, table, lambda _: None)
    found = best_of(tested)
    in_place = {"tflite_bytes": ("tflite_bytes", differences.size), "speedup": (differences.speedup,)}
    best = {
        differences.heading(name): table["run_id"].isin(run_ids)
        for column, run_ids in found.items()
        for name in in_place.get(column, (column,))
    }
    return {name: _styles(best.get(name, never), chance.get(name, never)) for name in {**best, **chance}}


def _holds(table: pd.DataFrame, column: str, nothing: float) -> pd.Series:
    """Whether the interval of a difference includes the value of no difference; true without an interval."""
    low, high = table[f"{column}_low"], table[f"{column}_high"]
    return ((low <= nothing) & (high >= nothing)) | low.isna() | high.isna()


def _styles(best: pd.Series, chance: pd.Series) -> list[str]:
    """Return the styles; an insignificant difference is never marked as the best."""
    cells = zip(best, chance, strict=True)
    return ["dim" if may_be_chance else "bold green" if is_best else "" for is_best, may_be_chance in cells]


def terminal_table(shown: pd.DataFrame, styles: Mapping[str, Sequence[str]]) -> Table:
    """Return a table for a terminal, with intervals below their values."""
    picture = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in shown.columns:
        left = name in TEXTS or is_setting(name)
        picture.add_column(_heading(name), justify="left" if left else "right", no_wrap=True)
    columns = [
        [
            Text(_on_lines(name, cell), style=style)
            for cell, style in zip(shown[name], styles.get(name, [""] * len(shown)), strict=True)
        ]
        for name in shown.columns
    ]
    for row in zip(*columns, strict=True):
        picture.add_row(*row)
    return picture


def _heading(name: str) -> str:
    return name.replace(" ", "\n")


def _on_lines(name: str, cell: object) -> str:
    if name == "remark":
        parts = str(cell).replace(", ", ",\n").splitlines()
        return "\n".join(line for part in parts for line in wrap(part, REMARK_WIDTH, break_long_words=False))
    if name in ("strategy", *SUBJECTS) or is_setting(name):
        return "\n".join(wrap(str(cell), NAME_WIDTH))
    return str(cell).replace(" [", "\n[").replace(", ", ",\n" if name == heading("arithmetic") else ", ")


def plain_table(table: pd.DataFrame) -> Table:
    """Return any table for a terminal; numbers have six significant digits."""
    picture = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in table.columns:
        numbers = pd.api.types.is_numeric_dtype(table[name])
        picture.add_column(str(name), justify="right" if numbers else "left", no_wrap=True)
    for _, row in table.iterrows():
        picture.add_row(*(_text(value) for value in row))
    return picture


def _text(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
