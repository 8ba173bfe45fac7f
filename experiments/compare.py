"""Runs as comparison tables: `python -m experiments.compare [--sweep latest|all|ID] [--csv FILE] ...`.

Every difference in a table is against the float TFLite model of the same baseline, measured in the same run. Where
runs differ in their seeds only, a second table says what holds over seeds. `--pair RUN RUN` compares any two runs.
`--require` and `--minimize` name the run to ship.
Exit codes: 0 well; 2 the command is wrong, or there is nothing to compare; 3 no run meets the requirements;
4 the sweep is worse than the earlier one.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from experiments.card import problems
from experiments.comparison.columns import frame
from experiments.comparison.files import ENDINGS, FOR_PEOPLE, WRITERS, Writer, as_csv, writer, written
from experiments.comparison.gates import decide, requirement, told
from experiments.comparison.pairs import show_pairs
from experiments.comparison.people import plain, show
from experiments.comparison.query import in_order, matrix, only, where
from experiments.comparison.regressions import allowance, earlier, regressions
from experiments.comparison.seeds import show_seeds
from experiments.errors import UserError, by_beginning
from experiments.progress import CONSOLE, say
from experiments.tracking import Row, Store, Tracking


def load(uri: str = Tracking.uri, experiment: str = Tracking.experiment, sweep: str = "latest") -> pd.DataFrame:
    """The runs of a sweep (`latest`, `all`, or its id), one a row, with the columns of COLUMNS.

    Raises:
        UserError: there is no such store, experiment or sweep, or no run in it.
    """
    return _loaded(_store(uri, experiment), sweep)


def _store(uri: str, experiment: str) -> Store:
    try:
        return Tracking(uri=uri, experiment=experiment).connect(create=False)
    except ValidationError as error:
        raise UserError(problems("tracking", error)) from error


def _loaded(store: Store, sweep: str) -> pd.DataFrame:
    rows = store.rows(sweep)
    if not rows:
        raise UserError(f"--sweep {sweep}: no run in {store.address.uri}, experiment {store.address.experiment}.")
    return frame(rows)


def show_rows(rows: Sequence[Row]) -> None:
    """Print the table for people."""
    show(frame(rows))


def show_and_write(store: Store, rows: Sequence[Row], folder: Path) -> None:
    """Print the comparison of a sweep, and write comparison.csv with all columns, comparison.md, perhaps seeds.csv."""
    table = frame(rows)
    show(table)
    of_seeds = show_seeds(store, table)
    WRITERS["csv"](table, folder / "comparison.csv")
    WRITERS["markdown"](table, folder / "comparison.md")
    if len(of_seeds):
        WRITERS["csv"](of_seeds, folder / "seeds.csv")


def main() -> None:
    """The command line."""
    options = _parser().parse_args()
    try:
        store = _store(options.uri, options.experiment)
        if options.pair:
            _compare_runs(store, options)
        else:
            _compare_sweep(store, options)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare",
        description="Compare recorded runs: prints a table, and writes it as files.",
    )
    parser.add_argument("--uri", default=Tracking.uri, help="MLflow tracking address (default: %(default)s)")
    parser.add_argument("--experiment", default=Tracking.experiment, help="experiment there (default: %(default)s)")
    parser.add_argument(
        "--sweep", default="latest", help="latest, all, or the id of a sweep's parent run (default: latest)"
    )
    parser.add_argument(
        "--where", metavar="CONDITION", help="only runs like these: \"strategy == 'qat' and epochs >= 5\""
    )
    parser.add_argument("--sort", metavar="COLUMN,...", help="in this order; --sort=-COLUMN is from the highest down")
    parser.add_argument("--columns", metavar="COLUMN,...", help="print these columns as they are, and no others")
    parser.add_argument(
        "--pivot", nargs=3, metavar=("ROWS", "COLUMNS", "VALUE"),
        help="print a matrix instead, such as strategy finetune_epochs tflite_accuracy; --out writes it",
    )  # fmt: skip
    parser.add_argument(
        "--require", action="append", default=[], metavar="REQUIREMENT",
        help='what the run to ship has to meet, as often as needed: "tflite_accuracy >= 0.98"',
    )  # fmt: skip
    parser.add_argument("--against", type=Path, metavar="FILE.csv", help="an earlier comparison, for the two below")
    for direction in ("drop", "growth"):
        parser.add_argument(
            f"--max-{direction}", action="append", default=[], metavar="COLUMN=AMOUNT",
            help=f"the {direction} since then that is allowed, as often as needed: latency_p50_us=10%%",
        )  # fmt: skip
    objective = parser.add_mutually_exclusive_group()
    objective.add_argument("--minimize", metavar="COLUMN", help="what is to be lowest in the run to ship")
    objective.add_argument("--maximize", metavar="COLUMN", help="what is to be highest in it")
    for form in WRITERS:
        holds = "every column in full precision" if form in ("csv", "json") else "the table for people"
        parser.add_argument(f"--{form}", type=Path, metavar="FILE", help=f"write {form}: {holds}")
    parser.add_argument(
        "--out", type=Path, action="append", default=[], metavar="FILE",
        help=f"write the form that the ending names, as often as needed: {', '.join(ENDINGS)}",
    )  # fmt: skip
    parser.add_argument("--seeds-csv", type=Path, metavar="FILE", help="write the table over seeds as csv")
    parser.add_argument(
        "--pair", nargs="+", metavar="RUN",
        help="compare these runs with each other on the same images instead: two or more run ids, or their beginnings",
    )  # fmt: skip
    return parser


def _compare_sweep(store: Store, options: argparse.Namespace) -> None:
    outs = [(path, writer(path)) for path in options.out]
    table = _asked_for(_loaded(store, options.sweep), options)
    if options.pivot:
        _show_matrix(table, options, outs)
        return
    if options.columns:
        CONSOLE.print(plain(only(table, options.columns.split(","))))
    else:
        show(table)
    of_seeds = show_seeds(store, table)
    for form, write in WRITERS.items():
        if path := getattr(options, form):
            written(table, path, write)
    for path, write in outs:
        written(table, path, write)
    if options.seeds_csv:
        if of_seeds.empty:
            raise UserError(f"--seeds-csv {options.seeds_csv}: no two runs here differ in their seeds only.")
        written(of_seeds, options.seeds_csv, as_csv)
    if options.require or options.minimize or options.maximize:
        _ship(table, options)
    if options.against:
        _hold_against(table, options)


def _hold_against(table: pd.DataFrame, options: argparse.Namespace) -> None:
    """Say what has become worse since an earlier comparison, and end with 4 if anything has."""
    allowances = [
        *(allowance(text, "drop", table) for text in options.max_drop),
        *(allowance(text, "growth", table) for text in options.max_growth),
    ]
    if not allowances:
        raise UserError("--against: say what may not become worse, with --max-drop or --max-growth COLUMN=AMOUNT.")
    worse = regressions(earlier(options.against), table, allowances)
    say("\n".join(worse) if worse else f"Nothing is worse than in {options.against} by more than is allowed.")
    if worse:
        sys.exit(4)


def _show_matrix(table: pd.DataFrame, options: argparse.Namespace, outs: Sequence[tuple[Path, Writer]]) -> None:
    """Print a value by two settings, and write it where that is asked for."""
    rows, columns, value = options.pivot
    cells = matrix(table, rows, columns, value)
    headed = cells.rename(columns=lambda name: f"{columns}={name}").reset_index()
    say(f"{value}, the mean where several runs share a cell")
    CONSOLE.print(plain(headed))
    for path, _ in outs:
        if path.suffix in FOR_PEOPLE:
            raise UserError(f"--out {path}: a matrix is written as {', '.join(set(ENDINGS) - FOR_PEOPLE)}.")
    for path, write in outs:
        written(headed, path, write)


def _asked_for(table: pd.DataFrame, options: argparse.Namespace) -> pd.DataFrame:
    if options.where:
        table = where(table, options.where)
        if table.empty:
            raise UserError(f"--where {options.where!r}: this holds for no run.")
    return in_order(table, options.sort.split(",")) if options.sort else table


def _ship(table: pd.DataFrame, options: argparse.Namespace) -> None:
    """Name the run to ship, or end with 3."""
    requirements = [requirement(text, table) for text in options.require]
    objective, lowest = options.maximize or options.minimize or "tflite_bytes", not options.maximize
    decision = decide(table, requirements, objective, lowest)
    for line in told(decision, objective, lowest):
        say(line)
    if decision.chosen is None:
        sys.exit(3)


def _compare_runs(store: Store, options: argparse.Namespace) -> None:
    files = [f"--{form}" for form in WRITERS if getattr(options, form)]
    files += ["--seeds-csv"] * bool(options.seeds_csv) + ["--out"] * bool(options.out)
    if files:
        raise UserError(f"{files[0]}: writes the table of a sweep, and --pair makes none. Give one of the two.")
    rows = {row["run_id"]: row for row in store.rows("all")}
    run_ids = list(dict.fromkeys(by_beginning(given, list(rows)) for given in options.pair))
    if len(run_ids) < 2:
        raise UserError(f"--pair {' '.join(options.pair)}: give two or more different runs.")
    show_pairs(store, [rows[run_id] for run_id in run_ids])


if __name__ == "__main__":
    main()
