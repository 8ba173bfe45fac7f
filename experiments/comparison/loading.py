"""Load the runs of a sweep as a table, show it, and write it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.comparison.choices import answer_lines
from experiments.comparison.columns import frame, without_internal_columns
from experiments.comparison.compared import Comparison, compare_runs
from experiments.comparison.files import write_comparison
from experiments.comparison.query import select_columns
from experiments.comparison.terminal import plain_table, show
from experiments.system.errors import UserError
from experiments.system.progress import print_whole, say, say_wrapped
from experiments.tracking import REUSED, Row, Store, Tracking, open_existing


def load(uri: str = Tracking.uri, experiment: str = Tracking.experiment, sweep: str = "latest") -> pd.DataFrame:
    """Return the runs of a sweep (`latest`, `all`, or its id), one per row, with the columns COLUMNS.

    Raises:
        UserError: there is no such store, experiment or sweep, or no run in it.
    """
    return without_internal_columns(frame(newest(_rows(open_existing(uri, experiment), sweep))))


def load_sweep(store: Store, sweep: str) -> pd.DataFrame:
    """Return the runs of a sweep, with further internal columns; reports omitted runs.

    Raises:
        UserError: there is no such sweep, or no run in it.
    """
    rows = _rows(store, sweep)
    kept = newest(rows)
    if repeated := len(rows) - len(kept):
        say(f"Omitted {repeated:,} finished runs that were repeated later. --sweep ID shows those of one sweep.")
    return frame(kept)


def _rows(store: Store, sweep: str) -> list[Row]:
    rows = store.rows(sweep)
    if not rows:
        raise UserError(f"--sweep {sweep}: no run in {store.address.shown}, experiment {store.address.experiment}.")
    return rows


def newest(rows: Sequence[Row]) -> list[Row]:
    """Return the runs, oldest first, without finished runs that were repeated: those with the same key.

    The key covers everything that decides a result, including seed, code and machine. Runs of a single sweep are all
    kept.
    """
    finished = [row for row in rows if row["status"] == "FINISHED" and row.get("run_key") and REUSED not in row]
    last = {row["run_key"]: row["run_id"] for row in finished}
    replaced = {row["run_id"] for row in finished if last[row["run_key"]] != row["run_id"]}
    return [row for row in rows if row["run_id"] not in replaced]


def show_rows(rows: Sequence[Row]) -> None:
    """Print the formatted table."""
    show(frame(rows))


def show_comparison(comparison: Comparison, columns: Sequence[str] = ()) -> None:
    """Print the formatted table, or only these columns, unformatted; and the remarks."""
    if columns:
        print_whole(plain_table(select_columns(comparison.table, columns)))
    else:
        show(comparison.table, comparison)
    for remark in comparison.remarks:
        say(remark)


def show_and_write(store: Store, rows: Sequence[Row], folder: Path) -> Comparison:
    """Print the comparison of a sweep, and write its tables to the folder."""
    comparison = compare_runs(store, frame(rows))
    show_comparison(comparison)
    for line in answer_lines(comparison):
        say_wrapped(line)
    write_comparison(comparison, folder)
    return comparison
