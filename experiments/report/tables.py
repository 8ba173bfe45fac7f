"""The tables of the report: cells of text with an interval, a look, and a link to the details of the row's run."""

import re
from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from experiments.comparison.choices import Separation, Tie, two_digits
from experiments.comparison.compared import Comparison
from experiments.comparison.display import display_table, note
from experiments.comparison.terminal import TEXTS, style_cells
from experiments.statistics.estimates import Estimate
from experiments.statistics.power import MOST_EXAMPLES

MOST_ROWS = 500
CLASSES = {"bold green": "best", "dim": "chance"}  # CSS classes by terminal style


@dataclass(frozen=True)
class Table:
    """A table of the page: headings, and cells of text with an interval and a class."""

    heading: tuple[str, ...]
    rows: tuple[tuple["Cell", ...], ...]
    note: str = ""
    rest: int = 0  # rows that are not shown
    remarks: tuple[str, ...] = ()
    anchors: tuple[str, ...] = ()  # where the details of each row are; empty if there are none


@dataclass(frozen=True)
class Cell:
    """The text of a cell, the interval below it, and its CSS classes."""

    text: str
    interval: str = ""
    look: str = ""


def table_of(comparison: Comparison, details: Collection[str] = ()) -> Table:
    """Return the formatted table of a comparison, with its note and remarks; rows of `details` link to these."""
    table = comparison.table
    shown, looks = display_table(table), style_cells(table, comparison)
    rows = tuple(
        tuple(
            _cell(str(value), _look(str(name), looks[name][i] if name in looks else ""))
            for name, value in zip(shown.columns, shown.iloc[i], strict=True)
        )
        for i in range(min(len(shown), MOST_ROWS))
    )
    anchors = tuple(anchor(run_id) if run_id in details else "" for run_id in table["run_id"])
    rest = max(0, len(shown) - MOST_ROWS)
    return Table(tuple(shown.columns), rows, note(table), rest, comparison.remarks, anchors)


def anchor(run_id: str) -> str:
    """Return the place of a run's details in the page."""
    return f"run-{run_id[:12]}"


def plain_table(table: pd.DataFrame) -> Table:
    """Return a table of text; columns without numbers are aligned as text."""
    texts = [not any(map(_is_number, map(str, table[name]))) for name in table.columns]
    rows = (
        tuple(_cell(str(value), "text" if text else "") for value, text in zip(row, texts, strict=True))
        for row in table.to_numpy()
    )
    return Table(tuple(map(str, table.columns)), tuple(rows))


def _is_number(text: str) -> bool:
    return bool(re.match(r"[-+]?\d[\d,.]*( |$)", text))


def separation_table(found: Tie) -> Table:
    """Return how many examples or seeds would separate each tied row from the most accurate one."""
    heading = ("tied setting", f"difference{found.metric.unit_of_change}", "test examples needed", "seeds needed")
    columns = len(heading) if found.seeds > 1 else len(heading) - 1  # one seed does not show how much seeds vary
    return Table(heading[:columns], tuple(_separation(each, found)[:columns] for each in found.separations))


def _shown(gain: Estimate, found: Tie) -> str:
    value = found.metric.gain(gain)
    return found.metric.shown_change(value.value, value.low, value.high)


def _separation(each: Separation, found: Tie) -> tuple[Cell, ...]:
    difference = _cell(_shown(each.difference, found)) if each.difference else Cell("unknown")
    if each.same_file:
        return Cell(each.name, look="text"), difference, Cell("the same file", look="text"), Cell("")
    if each.needed is None:
        return (
            Cell(each.name, look="text"),
            difference,
            Cell(f"unknown: {found.metric.evidence} are missing", look="text"),
            Cell(""),
        )
    if each.difference and not each.difference.value and found.seeds == 1:
        return (
            Cell(each.name, look="text"),
            difference,
            Cell("no number: no difference was seen", look="text"),
            Cell(""),
        )
    none = f"more than {MOST_EXAMPLES:,}" if found.seeds == 1 else "more seeds are needed"
    examples = two_digits(each.needed.examples) if each.needed.examples else none
    seeds = str(each.needed.seeds or "more examples are needed")
    return Cell(each.name, look="text"), difference, Cell(examples), Cell(seeds)


def _look(name: str, style: str) -> str:
    return " ".join(filter(None, ("text" if name in TEXTS else "", CLASSES.get(style, ""))))


def _cell(text: str, look: str = "") -> Cell:
    value, _, interval = text.partition(" [")
    return Cell(value, f"[{interval}" if interval else "", look)
