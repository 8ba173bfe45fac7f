"""Tables on the terminal: as wide as it is, the best marked, what may be chance dimmed."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from experiments.comparison.columns import TASK, VOID, several_machines, sound, timed
from experiments.comparison.display import Differences, display_table, note
from experiments.measure.latency import SAME_FILE
from experiments.record.run_record import is_setting
from experiments.system.progress import CONSOLE, print_whole, say
from experiments.tracking.schema import SCHEMA, heading

# What a narrow terminal does without, the first first; every column is in the CSV.
OPTIONAL = (
    "arena_bytes", "agreement", "keras_accuracy", "latency_p50_us", "size_ratio", "arithmetic", "speed", "speedup",
)  # fmt: skip
AGAINST = {"size_ratio": "size_against", "speedup": "speedup_against"}  # in whose place these stand
MOST_ROWS = 1000  # on a terminal
EDGE = 1  # characters of a picture's width that belong to no column
MARKED = ("keras_accuracy", "tflite_accuracy", "agreement", "tflite_bytes", "latency_p50_us", "arena_bytes")
# Headings of columns of words; the first three are in no file.
TEXTS = ("remark", "run", "against", *(each.heading for each in SCHEMA.values() if not each.numeric and each.heading))


def show(table: pd.DataFrame) -> None:
    """Print a table and what its columns mean: the best of each column and task marked, what may be chance dimmed."""
    every = display_table(table)
    shown = narrowed(every, CONSOLE.width, Differences.of(table))
    looks = {name: each[:MOST_ROWS] for name, each in styled(table).items()}
    print_whole(picture(shown.head(MOST_ROWS), looks), CONSOLE)
    if len(shown) > MOST_ROWS:
        say(f"{len(shown) - MOST_ROWS:,} further rows are not shown. --csv FILE writes all; --where chooses.")
    if left_out := [name for name in every.columns if name not in shown.columns]:
        hint = f"Not shown in {CONSOLE.width} columns: {', '.join(left_out)}. Widen the terminal, or give --csv FILE."
        CONSOLE.print(hint, markup=False, highlight=False)
    CONSOLE.print(note(table, list(shown.columns)), style="dim", markup=False, highlight=False)


def narrowed(shown: pd.DataFrame, width: int, differences: Differences) -> pd.DataFrame:
    """The table without as many of the OPTIONAL columns as have to go for its picture to fit; never without others."""
    widths = {name: _width(name, shown[name]) for name in shown.columns}
    for dropped in OPTIONAL:
        if sum(widths.values()) + EDGE <= width:
            break
        name = AGAINST.get(dropped, dropped) if differences.other else dropped
        widths.pop(differences.heading(name), None)
    return shown[list(widths)]


def _width(name: str, cells: pd.Series) -> int:
    """How many characters a column of the picture takes: its longest line, a space, and one between columns."""
    texts = [_heading(name), *(_on_lines(name, cell) for cell in cells.unique())]
    return max(cell_len(line) for text in texts for line in text.split("\n")) + 2


def styled(table: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    """How the cells of a column look: the best ones marked, differences that cannot be told from none dimmed."""
    differences = Differences.of(table)
    never = pd.Series(False, index=table.index)
    like_float = table["speed"].isin(["equivalent", "unclear", SAME_FILE, VOID]) & (differences.speedup == "speedup")
    chance = {
        differences.heading(differences.accuracy): _holds(table, differences.accuracy, 0),
        differences.heading(differences.speedup): _holds(table, differences.speedup, 1) | like_float,
    }
    best = {differences.heading(name): _best(table, name) for name in (*MARKED, differences.size, differences.speedup)}
    return {name: _styles(best.get(name, never), chance.get(name, never)) for name in {**best, **chance}}


def _best(table: pd.DataFrame, column: str) -> pd.Series:
    """The best value of each task, among verified files.

    Of times, only of those that mean something, on one machine.
    """
    values = table[column].where(sound(table))
    if timed(column):
        values = values.where((table["speed"] != VOID) & (not several_machines(table)))
    best = values.groupby([table[name] for name in TASK], dropna=False).transform(
        "max" if SCHEMA[column].better == "higher" else "min"
    )
    found = values.eq(best).fillna(value=False).astype(bool)
    files = table["tflite_sha256"]  # what is the same file is as good, whatever its timings
    return found | (files.notna() & files.isin(files[found]) & values.notna())


def _holds(table: pd.DataFrame, column: str, nothing: float) -> pd.Series:
    """Whether the interval of a difference holds the value that means none; no interval shows that it does not."""
    low, high = table[f"{column}_low"], table[f"{column}_high"]
    return ((low <= nothing) & (high >= nothing)) | low.isna() | high.isna()


def _styles(best: pd.Series, chance: pd.Series) -> list[str]:
    """Chance comes first: what cannot be told from no difference is not marked as the best."""
    cells = zip(best, chance, strict=True)
    return ["dim" if may_be_chance else "bold green" if is_best else "" for is_best, may_be_chance in cells]


def picture(shown: pd.DataFrame, styles: Mapping[str, Sequence[str]]) -> Table:
    """The table for a terminal: intervals stand below their values."""
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
    return str(cell).replace(" [", "\n[").replace(", ", ",\n" if name == heading("arithmetic") else ", ")


def plain(table: pd.DataFrame) -> Table:
    """Any table for a terminal; numbers with six digits that count."""
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
