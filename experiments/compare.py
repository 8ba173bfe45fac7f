"""Runs as comparison tables: `python -m experiments.compare [--sweep latest|all|ID] [--csv FILE] ...`.

Every difference in a table is against the float TFLite model of the same baseline, measured in the same run. Where
runs differ in their seeds only, a second table says what holds over seeds. `--pair RUN RUN` compares any two runs.
`--require` and `--minimize` name the run to ship.
Exit codes: 0 well; 2 the command is wrong, or there is nothing to compare; 3 no run meets the requirements;
4 the sweep is worse than the earlier one.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError
from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from experiments.card import problems
from experiments.errors import UserError, by_beginning, near
from experiments.gates import Decision, decide, judged, requirement
from experiments.progress import CONSOLE, say
from experiments.query import in_order, matrix, only, where
from experiments.record import NOT_MEASURED, Answers
from experiments.regressions import allowance, earlier, regressions
from experiments.statistics import (
    difference_over_seeds,
    discordant,
    holm,
    mcnemar,
    over_seeds,
    paired_bootstrap,
    paired_difference,
)
from experiments.tracking import PREDICTIONS, Row, Store, Tracking

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
TEXTS = ("strategy", "model", "dataset", "speed", "machine", "computes in", "remark", "status", "run", "against")
# Columns that a table for people shows only where they differ between its rows.
SETTINGS = ("model", "dataset", "epochs", "seed")
# What a run is but for its seed, with the settings of the configuration that vary.
CELL = ("strategy", "model", "dataset", "epochs", "finetune_epochs")
OVER_SEEDS = (
    "seeds", "images", "tflite_accuracy", "tflite_accuracy_low", "tflite_accuracy_high",
    "accuracy_change", "accuracy_change_low", "accuracy_change_high",
)  # fmt: skip


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


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows of the store as a table; a run without a measurement has an empty cell there, never a zero."""
    everything = pd.DataFrame([dict(row) for row in rows])
    table = everything.reindex(columns=[*COLUMNS, *_varied(everything)])
    return table.astype(dict.fromkeys(WHOLE, "Int64"))


def _varied(table: pd.DataFrame) -> list[str]:
    """Settings of the configuration, such as strategy.layers, in which runs of one strategy differ."""
    settings = [name for name in table.columns if "." in name and not name.startswith(NOT_DECISIVE)]
    alike = ["strategy", *(name for name in SETTINGS if name != "seed")]
    values = table.groupby(alike, dropna=False)[settings].nunique(dropna=False)
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
        lambda row: _percent(row.tflite_accuracy, row.tflite_accuracy_low, row.tflite_accuracy_high),
    )
    shown["change, points"] = _cells(
        table,
        lambda row: _percent(row.accuracy_change, row.accuracy_change_low, row.accuracy_change_high, sign="+"),
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


def _arena(arena: Any, runs: Any) -> str:
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
    return "\n".join([" ".join(text for text, holds in said.items() if holds), *_void(table)])


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
        "faster": fastest(table),
    }
    for dropped in ("", *OPTIONAL):
        shown = shown.drop(columns=dropped, errors="ignore")
        picture = _picture(shown, best)
        if Measurement.get(CONSOLE, CONSOLE.options.update(max_width=1000), picture).maximum <= CONSOLE.width:
            break
    CONSOLE.print(picture)
    CONSOLE.print(note(table), style="dim", markup=False, highlight=False)


def fastest(table: pd.DataFrame) -> pd.Series:
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


def repeated(table: pd.DataFrame) -> pd.DataFrame:
    """The finished runs of settings that have several seeds; of runs that are alike, the newest."""
    finished = table[table["status"] == "FINISHED"].drop_duplicates([*_cell(table), "seed"], keep="last")
    return finished[finished.groupby(_cell(table), dropna=False)["seed"].transform("nunique") > 1]


def _cell(table: pd.DataFrame) -> list[str]:
    return [*CELL, *(name for name in table.columns if "." in name)]


def table_over_seeds(runs: pd.DataFrame, answers: Mapping[str, Answers]) -> pd.DataFrame:
    """One row for each setting: accuracy, and change against the float reference, over the seeds of its runs.

    `runs` are those of `repeated`, `answers` what their models say, by run id; what `left_out` names is not counted.
    """
    rows = []
    for setting, group in runs.groupby(_cell(runs), dropna=False, sort=False):
        counted = [answers[run_id] for run_id in _counted(group, answers)]
        if len(counted) > 1:
            rows.append([*setting, len(counted), len(counted[0].truth), *_estimates_over_seeds(counted)])
    return pd.DataFrame(rows, columns=[*_cell(runs), *OVER_SEEDS])


def _counted(group: pd.DataFrame, answers: Mapping[str, Answers]) -> list[str]:
    """Runs of one setting that were tested on the same images: those of the first whose answers there are."""
    known = [run_id for run_id in group["run_id"] if run_id in answers]
    return [run_id for run_id in known if np.array_equal(answers[run_id].truth, answers[known[0]].truth)]


def left_out(runs: pd.DataFrame, answers: Mapping[str, Answers]) -> list[str]:
    """Why runs of several seeds do not stand in the table over seeds, a line for each."""
    counted = {run_id for _, group in runs.groupby(_cell(runs), dropna=False) for run_id in _counted(group, answers)}
    return [
        f"{label(row)}: left out over seeds, for "
        + ("its test images are not those of the others" if row["run_id"] in answers else f"it has no {PREDICTIONS}")
        for _, row in runs.iterrows()
        if row["run_id"] not in counted
    ]


def _estimates_over_seeds(counted: Sequence[Answers]) -> list[float]:
    right = np.stack([answers.tflite == answers.truth for answers in counted])
    reference = np.stack([answers.reference == answers.truth for answers in counted])
    accuracy, change = over_seeds(right), difference_over_seeds(right, reference)
    return [*asdict(accuracy).values(), *asdict(change).values()]


def over_seeds_for_people(table: pd.DataFrame) -> pd.DataFrame:
    """The strategy, the settings that vary, and means with their intervals."""
    shown = pd.DataFrame({"strategy": table["strategy"]})
    for name in (name for name in _cell(table) if name in SETTINGS or "." in name):
        if table[name].nunique(dropna=False) > 1:
            shown[name] = table[name].astype("string").fillna("")
    shown["seeds"] = table["seeds"]
    shown["TFLite accuracy %"] = _percents(table, "tflite_accuracy", "tflite_accuracy_low", "tflite_accuracy_high")
    change = ("accuracy_change", "accuracy_change_low", "accuracy_change_high")
    shown["change, points"] = _percents(table, *change, sign="+")
    return shown


OVER_SEEDS_NOTE = (
    "Over seeds: means over models trained from several seeds; change: against the float TFLite model of the same "
    "baseline, on the same images. [low, high]: 95 % interval for new seeds and new test images alike. From two seeds "
    "it is a rough one (91 to 97 %); take three or more."
)


def show_over_seeds(table: pd.DataFrame) -> None:
    """Print the table over seeds, and what it means."""
    CONSOLE.print(_picture(over_seeds_for_people(table), {}))
    CONSOLE.print(OVER_SEEDS_NOTE, style="dim", markup=False, highlight=False)


@dataclass(frozen=True)
class Examined:
    """What a run's file says of the test images."""

    label: str
    dataset: str
    answers: Answers


def table_of_pairs(runs: Sequence[Examined]) -> pd.DataFrame:
    """Each two runs on the same images, one a row: the later named against the earlier.

    Raises:
        UserError: two runs were tested on different images.
    """
    for run in runs[1:]:
        _check_images(runs[0], run)
    table = pd.DataFrame([_compared(run, against) for against, run in combinations(runs, 2)])
    return table.assign(holm_p=holm(table["mcnemar_p"].to_numpy()))


def _check_images(first: Examined, other: Examined) -> None:
    if first.dataset == other.dataset and np.array_equal(first.answers.truth, other.answers.truth):
        return
    raise UserError(
        f"--pair: {first.label} and {other.label} were tested on different images ({_images(first)}; "
        f"{_images(other)}). Answers are paired image by image: give runs of one dataset and dataset.test_samples."
    )


def _images(run: Examined) -> str:
    return f"{len(run.answers.truth):,} of {run.dataset}"


def _compared(run: Examined, against: Examined) -> dict[str, object]:
    after, before = (each.answers.tflite == each.answers.truth for each in (run, against))
    gained, lost = discordant(after, before)
    formula, bootstrap = paired_difference(after, before), paired_bootstrap(after, before)
    return {
        "run": run.label, "against": against.label, "images": len(after), "gained": gained, "lost": lost,
        "difference": formula.value, "low": formula.low, "high": formula.high,
        "bootstrap_low": bootstrap.low, "bootstrap_high": bootstrap.high, "mcnemar_p": mcnemar(after, before),
    }  # fmt: skip


def pairs_for_people(table: pd.DataFrame) -> pd.DataFrame:
    """Differences in points, with both intervals; p-values are corrected where there are several."""
    narrow = {column: table[column].str.replace(" (", "\n(", regex=False) for column in ("run", "against")}
    shown = table[["run", "against", "images", "gained", "lost"]].assign(**narrow)
    shown["difference, points"] = _percents(table, "difference", "low", "high", sign="+")
    shown["bootstrap, points"] = _percents(table, "difference", "bootstrap_low", "bootstrap_high", sign="+")
    shown["McNemar p"] = [f"{p:.2g}" for p in table["mcnemar_p"]]
    if len(table) > 1:
        shown["Holm p"] = [f"{p:.2g}" for p in table["holm_p"]]
    return shown


PAIRS_NOTE = (
    "gained and lost: images that the run's TFLite file has right and the other's wrong, and the reverse. "
    "[low, high]: 95 % intervals over the test images, by Bonett and Price's formula and by resampling images as "
    "pairs. McNemar p: exact, that both err equally often; Holm p: corrected for so many comparisons."
)


def label(run: Mapping[str, object] | pd.Series) -> str:
    """A run in a few words, and the beginning of its id."""
    return f"{run['strategy']} epochs={run['epochs']} seed={run['seed']} ({str(run['run_id'])[:8]})"


def show_seeds(store: Store, table: pd.DataFrame) -> pd.DataFrame:
    """Print what holds over seeds, and return it: an empty table where no two runs differ in their seeds only."""
    runs = repeated(table)
    found = {run_id: store.predictions(run_id) for run_id in runs["run_id"]}
    answers = {run_id: answer for run_id, answer in found.items() if answer is not None}
    of_seeds = table_over_seeds(runs, answers)
    if len(of_seeds):
        show_over_seeds(of_seeds)
    for line in left_out(runs, answers):
        say(line)
    return of_seeds


def show_and_write(store: Store, rows: Sequence[Row], folder: Path) -> None:
    """Print the comparison of a sweep, and write comparison.csv with all columns, comparison.md, perhaps seeds.csv."""
    table = frame(rows)
    show(table)
    of_seeds = show_seeds(store, table)
    WRITERS["csv"](table, folder / "comparison.csv")
    WRITERS["markdown"](table, folder / "comparison.md")
    if len(of_seeds):
        WRITERS["csv"](of_seeds, folder / "seeds.csv")


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


def _excel(table: pd.DataFrame, path: Path) -> None:
    table.to_excel(path, index=False, sheet_name="comparison", freeze_panes=(1, 1))


def _parquet(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False)


Writer = Callable[[pd.DataFrame, Path], None]
WRITERS: Mapping[str, Writer] = {
    "csv": _csv,
    "markdown": _markdown,
    "html": _html,
    "latex": _latex,
    "json": _json,
}
# What --out writes, by the ending of the file's name.
ENDINGS: Mapping[str, Writer] = {
    ".csv": _csv, ".md": _markdown, ".html": _html, ".tex": _latex, ".json": _json, ".xlsx": _excel,
    ".parquet": _parquet,
}  # fmt: skip


FOR_PEOPLE = frozenset({".md", ".html", ".tex"})


def writer(path: Path) -> Writer:
    """What writes a file of this name.

    Raises:
        UserError: no form has this ending.
    """
    if path.suffix not in ENDINGS:
        raise UserError(f"--out {path}: the ending says the form, and is one of these. {near(path.suffix, ENDINGS)}")
    return ENDINGS[path.suffix]


def _percent(value: Any, low: Any, high: Any, sign: str = "") -> str:
    """Hundredths with their interval; `sign="+"` for differences."""
    return f"{100 * value:{sign}.2f} [{100 * low:{sign}.2f}, {100 * high:{sign}.2f}]"


def _percents(table: pd.DataFrame, value: str, low: str, high: str, sign: str = "") -> list[str]:
    """The same of each row, from these columns."""
    return [_percent(*cells, sign) for cells in zip(table[value], table[low], table[high], strict=True)]


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
        CONSOLE.print(_plain(only(table, options.columns.split(","))))
    else:
        show(table)
    of_seeds = show_seeds(store, table)
    for form, write in WRITERS.items():
        if path := getattr(options, form):
            _written(table, path, write)
    for path, write in outs:
        _written(table, path, write)
    if options.seeds_csv:
        if of_seeds.empty:
            raise UserError(f"--seeds-csv {options.seeds_csv}: no two runs here differ in their seeds only.")
        _written(of_seeds, options.seeds_csv, _csv)
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
    CONSOLE.print(_plain(headed))
    for path, _ in outs:
        if path.suffix in FOR_PEOPLE:
            raise UserError(f"--out {path}: a matrix is written as {', '.join(set(ENDINGS) - FOR_PEOPLE)}.")
    for path, write in outs:
        _written(headed, path, write)


def _plain(table: pd.DataFrame) -> Table:
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


def told(decision: Decision, objective: str, lowest: bool) -> list[str]:
    """A decision in words: what each requirement excluded, and the run to ship with its evidence."""
    lines = [f"not {text}: {', '.join(runs)}" for text, runs in decision.excluded.items() if runs]
    run = decision.chosen
    if run is None:
        return [*lines, "No run meets all requirements."]
    bad_end = judged(run.index, objective, at_least=not lowest)
    interval = f" (at worst {run[bad_end]:,.6g})" if bad_end != objective else ""
    how = "lowest" if lowest else "highest"
    return [*lines, f"Ship {label(run)}: {objective} {run[objective]:,.6g}{interval} is the {how} of those left."]


def _compare_runs(store: Store, options: argparse.Namespace) -> None:
    files = [f"--{form}" for form in WRITERS if getattr(options, form)]
    files += ["--seeds-csv"] * bool(options.seeds_csv) + ["--out"] * bool(options.out)
    if files:
        raise UserError(f"{files[0]}: writes the table of a sweep, and --pair makes none. Give one of the two.")
    rows = {row["run_id"]: row for row in store.rows("all")}
    run_ids = list(dict.fromkeys(by_beginning(given, list(rows)) for given in options.pair))
    if len(run_ids) < 2:
        raise UserError(f"--pair {' '.join(options.pair)}: give two or more different runs.")
    shown = pairs_for_people(table_of_pairs([_examined(store, rows[run_id]) for run_id in run_ids]))
    CONSOLE.print(_picture(shown, {}))
    CONSOLE.print(PAIRS_NOTE, style="dim", markup=False, highlight=False)


def _examined(store: Store, row: Row) -> Examined:
    answers = store.predictions(row["run_id"])
    if answers is None:
        raise UserError(f"--pair {row['run_id']}: this run has no {PREDICTIONS} (status {row['status']}).")
    return Examined(label(row), row["dataset"], answers)


def _written(table: pd.DataFrame, path: Path, write: Callable[[pd.DataFrame, Path], None]) -> None:
    try:
        write(table, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}).") from error
    say(f"wrote {path}")


if __name__ == "__main__":
    main()
