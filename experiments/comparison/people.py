"""The table for people: rounded, with units in the headings and uncertainty in the cells; and how it is printed."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from experiments.comparison.columns import COLUMNS, SETTINGS, several_machines
from experiments.progress import CONSOLE
from experiments.record import NOT_MEASURED

DISTURBED = 0.2  # cores that others kept busy: from there on a time is said to have been disturbed
# What a narrow terminal does without, the first first; every column is in the CSV.
OPTIONAL = (
    "micro arena, bytes", "agreement %", "Keras accuracy %", "latency p50 us", "smaller", "computes in", "speed",
    "faster",
)  # fmt: skip
TEXTS = ("strategy", "model", "dataset", "speed", "machine", "computes in", "remark", "status", "run", "against")


def for_people(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that answer the question, rounded, with units in the headings and uncertainty in the cells."""
    shown = pd.DataFrame({"strategy": table["strategy"]})
    for name in SETTINGS:
        if table[name].nunique(dropna=False) > 1:
            shown[name] = table[name].astype("string")
    for name in [name for name in table.columns if name not in COLUMNS]:
        shown[name] = table[name].fillna("").astype("string")
    shown["Keras accuracy %"] = _cells(table, lambda row: f"{100 * row.keras_accuracy:.2f}")
    shown["TFLite accuracy %"] = _cells(
        table,
        lambda row: percent(row.tflite_accuracy, row.tflite_accuracy_low, row.tflite_accuracy_high),
    )
    shown["change, points"] = _cells(
        table,
        lambda row: percent(row.accuracy_change, row.accuracy_change_low, row.accuracy_change_high, sign="+"),
    )
    shown["agreement %"] = _cells(table, lambda row: f"{100 * row.agreement:.2f}")
    shown["bytes"] = _cells(table, lambda row: f"{row.tflite_bytes:,}")
    shown["smaller"] = _cells(table, lambda row: f"{row.size_ratio:.2f}x")
    shown["latency p50 us"] = _cells(table, lambda row: three_digits(row.latency_p50_us))
    shown["faster"] = _cells(table, lambda row: f"{row.speedup:.2f}x [{row.speedup_low:.2f}, {row.speedup_high:.2f}]")
    if table["arena_bytes"].notna().any():
        arenas = zip(table["arena_bytes"], table["runs_on_micro"], strict=True)
        shown["micro arena, bytes"] = [_arena(*facts) for facts in arenas]
    if table["speed"].notna().any():  # tables of older runs have no such words
        shown["speed"] = table["speed"].fillna("")
    if several_machines(table):
        shown["machine"] = table["machine"].fillna("")
    shown["computes in"] = table["arithmetic"].fillna("")
    facts = zip(table["verified"], table["partial"], table["latency_other_cores"], strict=True)
    remarks = [_remark(*fact) for fact in facts]
    if any(remarks):
        shown["remark"] = remarks
    if (table["status"] != "FINISHED").any():
        shown["status"] = table["status"]
    return shown


def _arena(arena: Any, runs: Any) -> str:
    """What a microcontroller needs beside the file; `no` where its runtime refuses the file."""
    if pd.notna(arena):
        return f"{arena:,}"
    return "" if pd.isna(runs) else str(runs) if runs == NOT_MEASURED else "no"


NOTE = (
    "change, smaller and faster: against the float TFLite model of the same baseline, on the same images, timed in "
    "turns in the same process. [low, high]: 95 % interval, over the test images for accuracies and over replicates "
    "with fresh interpreters for times. A change whose interval holds 0 is no evidence of a difference."
)
SPEED = (
    "speed: equivalent is a ratio within 2 % of 1; unclear is an interval too wide to tell; void is a timing that was "
    "disturbed, or in which a file seemed to differ from its own copy."
)
MACHINES = "These rows come from different machines: compare latencies within one machine only."


def note(table: pd.DataFrame) -> str:
    """What stands below a table: how to read its columns."""
    said = {NOTE: True, SPEED: bool(table["speed"].notna().any()), MACHINES: several_machines(table)}
    return "\n".join([" ".join(text for text, holds in said.items() if holds), *_void(table)])


def _void(table: pd.DataFrame) -> list[str]:
    """Why the timings of runs mean nothing, for those that do not."""
    void = table[table["speed"] == "void"]
    return [f"Void: {run.strategy} (run {run.run_id}), {run.latency_void}." for run in void.itertuples()]


def show(table: pd.DataFrame) -> None:
    """Print a table and what its columns mean; the best accuracy, size and speed are marked."""
    shown = for_people(table)
    best = {
        "TFLite accuracy %": table["tflite_accuracy"].eq(table["tflite_accuracy"].max()).fillna(value=False),
        "bytes": table["tflite_bytes"].eq(table["tflite_bytes"].min()).fillna(value=False),
        "faster": fastest(table),
    }
    for dropped in ("", *OPTIONAL):
        shown = shown.drop(columns=dropped, errors="ignore")
        drawn = picture(shown, best)
        if Measurement.get(CONSOLE, CONSOLE.options.update(max_width=1000), drawn).maximum <= CONSOLE.width:
            break
    CONSOLE.print(drawn)
    CONSOLE.print(note(table), style="dim", markup=False, highlight=False)


def fastest(table: pd.DataFrame) -> pd.Series:
    """The highest speedup of those that mean something; none where the rows come from several machines."""
    valid = table["speedup"].where((table["speed"] != "void") & (not several_machines(table)))
    return valid.eq(valid.max()).fillna(value=False)


def picture(shown: pd.DataFrame, best: Mapping[str, pd.Series]) -> Table:
    """The table for a terminal: intervals stand below their values."""
    picture = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in shown.columns:
        left = name in TEXTS or "." in name
        picture.add_column(name.replace(" ", "\n"), justify="left" if left else "right", no_wrap=True)
    for i in range(len(shown)):
        picture.add_row(
            *(
                Text(
                    str(cell).replace(" [", "\n[").replace(", ", ",\n" if name == "computes in" else ", "),
                    style="bold green" if name in best and bool(best[name].iloc[i]) else "",
                )
                for name, cell in zip(shown.columns, shown.iloc[i], strict=True)
            )
        )
    return picture


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


def percent(value: Any, low: Any, high: Any, sign: str = "") -> str:
    """Hundredths with their interval; `sign="+"` for differences."""
    return f"{100 * value:{sign}.2f} [{100 * low:{sign}.2f}, {100 * high:{sign}.2f}]"


def percents(table: pd.DataFrame, value: str, low: str, high: str, sign: str = "") -> list[str]:
    """The same of each row, from these columns."""
    return [percent(*cells, sign) for cells in zip(table[value], table[low], table[high], strict=True)]


def three_digits(value: float) -> str:
    """Three digits that count, and never fewer than all before the point."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"


def _remark(verified: object, partial: object, other_cores: float) -> str:
    """Tags that read true or false, from a store; values that are, from a CSV; empty where the run has no result."""
    remarks = {
        "NOT VERIFIED": str(verified).lower() == "false",
        "partial": str(partial).lower() == "true",
        "timed while busy": other_cores > DISTURBED,
    }
    return ", ".join(remark for remark, holds in remarks.items() if holds)


def _cells(table: pd.DataFrame, text: Callable[..., str]) -> list[str]:
    """Text of each row, empty where the run has no measurements."""
    return [
        text(row) if measured else ""
        for row, measured in zip(table.itertuples(), table["tflite_bytes"].notna(), strict=True)
    ]
