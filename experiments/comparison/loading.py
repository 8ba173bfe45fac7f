"""The runs of a sweep as a table: read from a store, shown, and written."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.comparison.choices import answer_lines
from experiments.comparison.columns import frame, public
from experiments.comparison.compared import Comparison, compared
from experiments.comparison.files import write_comparison
from experiments.comparison.query import only
from experiments.comparison.terminal import plain, show
from experiments.system.errors import UserError
from experiments.system.progress import print_whole, say
from experiments.tracking import REUSED, Row, Store, Tracking, open_existing


def load(uri: str = Tracking.uri, experiment: str = Tracking.experiment, sweep: str = "latest") -> pd.DataFrame:
    """The runs of a sweep (`latest`, `all`, or its id), one a row, with the columns of COLUMNS.

    Raises:
        UserError: there is no such store, experiment or sweep, or no run in it.
    """
    return public(frame(newest(_rows(open_existing(uri, experiment), sweep))))


def loaded(store: Store, sweep: str) -> pd.DataFrame:
    """The runs of a sweep with the columns that commands use besides those of `load`; says which are left out.

    Raises:
        UserError: there is no such sweep, or no run in it.
    """
    rows = _rows(store, sweep)
    kept = newest(rows)
    if made_anew := len(rows) - len(kept):
        say(
            f"Left out, for the same runs were made anew since: {made_anew:,} finished runs. --sweep ID shows those of "
            "a sweep."
        )
    return frame(kept)


def _rows(store: Store, sweep: str) -> list[Row]:
    rows = store.rows(sweep)
    if not rows:
        raise UserError(f"--sweep {sweep}: no run in {store.address.shown}, experiment {store.address.experiment}.")
    return rows


def newest(rows: Sequence[Row]) -> list[Row]:
    """Of all runs, oldest first, those that count: of finished ones with one key, the last.

    A key stands for all that decides a result, seed, code and machine among it. Runs of a sweep are what was asked for.
    """
    finished = [row for row in rows if row["status"] == "FINISHED" and row.get("run_key") and REUSED not in row]
    last = {row["run_key"]: row["run_id"] for row in finished}
    replaced = {row["run_id"] for row in finished if last[row["run_key"]] != row["run_id"]}
    return [row for row in rows if row["run_id"] not in replaced]


def show_rows(rows: Sequence[Row]) -> None:
    """Print the table for people."""
    show(frame(rows))


def show_comparison(comparison: Comparison, columns: Sequence[str] = ()) -> None:
    """Print the table for people, or these columns as they are; and what has to be said of it."""
    if columns:
        print_whole(plain(only(comparison.table, columns)))
    else:
        show(comparison.table, comparison)
    for remark in comparison.remarks:
        say(remark)


def show_and_write(store: Store, rows: Sequence[Row], folder: Path) -> Comparison:
    """Print the comparison of a sweep, and write its tables into the folder."""
    comparison = compared(store, frame(rows))
    show_comparison(comparison)
    for line in answer_lines(comparison):
        say(line)
    write_comparison(comparison, folder)
    return comparison
