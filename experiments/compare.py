"""Runs as comparison tables: `python -m experiments.compare [--sweep latest|all|ID] [--csv FILE] ...`.

Every difference in a table is against the float TFLite model of the same baseline, measured in the same run.
Exit codes: 0 well; 2 the command is wrong, or there is nothing to compare.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from pydantic import ValidationError
from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from experiments.card import problems
from experiments.errors import UserError
from experiments.progress import CONSOLE, say
from experiments.record import NOT_MEASURED
from experiments.tracking import Row, Tracking

# What a file holds, in this order; what a store holds beyond it is left out.
COLUMNS = (
    "strategy", "model", "dataset", "epochs", "finetune_epochs", "seed",
    "keras_accuracy", "tflite_accuracy", "tflite_accuracy_low", "tflite_accuracy_high",
    "accuracy_change", "accuracy_change_low", "accuracy_change_high", "accuracy_change_p", "agreement",
    "tflite_bytes", "tflite_gzip_bytes", "size_ratio",
    "latency_p50_us", "latency_p90_us", "latency_p99_us", "latency_min_us", "latency_first_us", "latency_load_us",
    "speedup", "speedup_low", "speedup_high", "speed", "sentinel", "sentinel_low", "sentinel_high", "latency_void",
    "latency_replicates", "latency_other_cores", "latency_steal_cores", "load_before", "load_after",
    "memory_peak_kib", "memory_model_kib", "arena_bytes", "runs_on_micro",
    "arithmetic", "verified", "broken_promise", "partial", "left_float",
    "coverage_ops", "coverage_weights", "coverage_macs", "xnnpack_ops", "logit_rmse", "sqnr_min_db",
    "train_seconds", "train_seconds_reused", "epochs_trained", "epochs_reused",
    "conversion_seconds", "evaluation_seconds", "latency_seconds", "profile_seconds", "memory_seconds",
    "machine", "cpu", "git_commit", "run_id", "status", "error",
)  # fmt: skip
# Settings that say where a run is kept, not what it is.
NOT_DECISIVE = ("tracking.", "cache.")
WHOLE = (
    "epochs",
    "finetune_epochs",
    "seed",
    "tflite_bytes",
    "tflite_gzip_bytes",
    "arena_bytes",
    "epochs_trained",
    "epochs_reused",
)
DISTURBED = 0.2  # cores that others kept busy: from there on a time is said to have been disturbed
# What a narrow terminal does without, the first first; every column is in the CSV.
OPTIONAL = (
    "micro arena, bytes", "agreement %", "Keras accuracy %", "latency p50 us", "smaller", "computes in", "speed",
    "faster",
)  # fmt: skip
TEXTS = ("strategy", "model", "dataset", "speed", "machine", "computes in", "remark", "status")
# Columns that a table for people shows only where they differ between its rows.
SETTINGS = ("model", "dataset", "epochs", "seed")


def load(uri: str = Tracking.uri, experiment: str = Tracking.experiment, sweep: str = "latest") -> pd.DataFrame:
    """The runs of a sweep (`latest`, `all`, or its id), one a row, with the columns of COLUMNS.

    Raises:
        UserError: there is no such store, experiment or sweep, or no run in it.
    """
    try:
        tracking = Tracking(uri=uri, experiment=experiment)
    except ValidationError as error:
        raise UserError(problems("tracking", error)) from error
    rows = tracking.connect(create=False).rows(sweep)
    if not rows:
        raise UserError(f"--sweep {sweep}: no run in {uri}, experiment {experiment}.")
    return frame(rows)


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows of the store as a table; a run without a measurement has an empty cell there, never a zero."""
    everything = pd.DataFrame([dict(row) for row in rows])
    table = everything.reindex(columns=[*COLUMNS, *_varied(everything)])
    return table.astype(dict.fromkeys(WHOLE, "Int64"))


def _varied(table: pd.DataFrame) -> list[str]:
    """Settings of the configuration, such as strategy.layers, in which runs of one strategy differ."""
    settings = [name for name in table.columns if "." in name and not name.startswith(NOT_DECISIVE)]
    values = table.groupby(["strategy", *SETTINGS], dropna=False)[settings].nunique(dropna=False)
    return [name for name in settings if (values[name] > 1).any()]


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
        lambda row: (
            f"{100 * row.tflite_accuracy:.2f} "
            f"[{100 * row.tflite_accuracy_low:.2f}, {100 * row.tflite_accuracy_high:.2f}]"
        ),
    )
    shown["change, points"] = _cells(
        table,
        lambda row: (
            f"{100 * row.accuracy_change:+.2f} "
            f"[{100 * row.accuracy_change_low:+.2f}, {100 * row.accuracy_change_high:+.2f}]"
        ),
    )
    shown["agreement %"] = _cells(table, lambda row: f"{100 * row.agreement:.2f}")
    shown["bytes"] = _cells(table, lambda row: f"{row.tflite_bytes:,}")
    shown["smaller"] = _cells(table, lambda row: f"{row.size_ratio:.2f}x")
    shown["latency p50 us"] = _cells(table, lambda row: _three_digits(row.latency_p50_us))
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


def _arena(arena: object, runs: object) -> str:
    """What a microcontroller needs beside the file; `no` where its runtime refuses the file."""
    if pd.notna(arena):
        return f"{arena:,}"
    return "" if pd.isna(runs) else str(runs) if runs == NOT_MEASURED else "no"


def several_machines(table: pd.DataFrame) -> bool:
    """Whether the rows were measured on machines that differ in what decides latencies."""
    return bool(table["machine"].nunique() > 1)


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
    return " ".join([*(text for text, holds in said.items() if holds), *_void(table)])


def _void(table: pd.DataFrame) -> list[str]:
    """Why the timings of runs mean nothing, for those that do not."""
    void = table[table["speed"] == "void"]
    return [f"Void: {run.strategy} (run {run.run_id}), {run.latency_void}." for run in void.itertuples()]


def show_rows(rows: Sequence[Row]) -> None:
    """Print the table for people."""
    show(frame(rows))


def show(table: pd.DataFrame) -> None:
    """Print a table and what its columns mean; the best accuracy, size and speed are marked."""
    shown = for_people(table)
    best = {
        "TFLite accuracy %": table["tflite_accuracy"].eq(table["tflite_accuracy"].max()).fillna(value=False),
        "bytes": table["tflite_bytes"].eq(table["tflite_bytes"].min()).fillna(value=False),
        "faster": _fastest(table),
    }
    for dropped in ("", *OPTIONAL):
        shown = shown.drop(columns=dropped, errors="ignore")
        picture = _picture(shown, best)
        if Measurement.get(CONSOLE, CONSOLE.options.update(max_width=1000), picture).maximum <= CONSOLE.width:
            break
    CONSOLE.print(picture)
    CONSOLE.print(note(table), style="dim", markup=False, highlight=False)


def _fastest(table: pd.DataFrame) -> pd.Series:
    """The highest speedup of those that mean something; none where the rows come from several machines."""
    valid = table["speedup"].where((table["speed"] != "void") & (not several_machines(table)))
    return valid.eq(valid.max()).fillna(value=False)


def _picture(shown: pd.DataFrame, best: Mapping[str, pd.Series]) -> Table:
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


def write_tables(rows: Sequence[Row], folder: Path) -> None:
    """The comparison of a sweep as files: comparison.csv with all columns, comparison.md for people."""
    table = frame(rows)
    WRITERS["csv"](table, folder / "comparison.csv")
    WRITERS["markdown"](table, folder / "comparison.md")


def _csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False)


def _markdown(table: pd.DataFrame, path: Path) -> None:
    path.write_text(f"{for_people(table).to_markdown(index=False, disable_numparse=True)}\n\n{note(table)}\n")


def _html(table: pd.DataFrame, path: Path) -> None:
    head = "<!doctype html><meta charset=utf-8><title>Comparison</title>"
    path.write_text(f"{head}\n{for_people(table).to_html(index=False)}\n<p>{note(table)}</p>\n")


def _latex(table: pd.DataFrame, path: Path) -> None:
    path.write_text(for_people(table).to_latex(index=False, escape=True))


def _json(table: pd.DataFrame, path: Path) -> None:
    table.to_json(path, orient="records", indent=2)


WRITERS: Mapping[str, Callable[[pd.DataFrame, Path], None]] = {
    "csv": _csv,
    "markdown": _markdown,
    "html": _html,
    "latex": _latex,
    "json": _json,
}


def _three_digits(value: float) -> str:
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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare",
        description="Compare recorded runs: prints a table, and writes it as files.",
    )
    parser.add_argument("--uri", default=Tracking.uri, help="MLflow tracking address (default: %(default)s)")
    parser.add_argument("--experiment", default=Tracking.experiment, help="experiment there (default: %(default)s)")
    parser.add_argument(
        "--sweep", default="latest", help="latest, all, or the id of a sweep's parent run (default: latest)"
    )
    for form in WRITERS:
        holds = "every column in full precision" if form in ("csv", "json") else "the table for people"
        parser.add_argument(f"--{form}", type=Path, metavar="FILE", help=f"write {form}: {holds}")
    options = parser.parse_args()
    try:
        table = load(options.uri, options.experiment, options.sweep)
        show(table)
        for form, write in WRITERS.items():
            if path := getattr(options, form):
                _written(table, path, write)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


def _written(table: pd.DataFrame, path: Path, write: Callable[[pd.DataFrame, Path], None]) -> None:
    try:
        write(table, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}).") from error
    say(f"wrote {path}")


if __name__ == "__main__":
    main()
