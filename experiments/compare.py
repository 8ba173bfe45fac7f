"""Runs as comparison tables: `python -m experiments.compare [--sweep latest|all|ID] [--csv FILE] ...`.

Every difference in a table is against the float TFLite model of the same baseline, measured in the same run, or with
`--baseline finetune` against the run of that strategy. Runs that differ in their seeds only are one row, with means and
intervals; `--group-by run_id` shows each run. `--pair RUN RUN` compares any two runs.
`--require` and `--minimize` name the run to ship; `--against FILE.csv` says what has become worse since then.
`--register NAME` puts the model of the run to ship into MLflow's model registry, if neither says no.
Exit codes: 0 well; 2 the command is wrong, or there is nothing to compare; 3 no run meets the requirements;
4 the sweep is worse than the earlier one; 130 stopped.
"""

from experiments.system.startup import stop_without_traceback

if __name__ == "__main__":
    stop_without_traceback()  # what follows takes seconds

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd

from experiments.comparison.compared import MARGIN, Comparison, compared
from experiments.comparison.files import ENDINGS, FORMS, Form, form_of, written
from experiments.comparison.gates import Decision, decide, requirement, told
from experiments.comparison.loading import load, loaded, show_comparison
from experiments.comparison.pairs import show_pairs
from experiments.comparison.query import in_order, matrix, only, where
from experiments.comparison.regressions import allowance, earlier, regressions, remarks
from experiments.comparison.terminal import plain
from experiments.plots.export import drawn, tell, write_pictures
from experiments.report.page import MOST_RUNS, write_report
from experiments.system.errors import UserError, by_prefix, redacted, reporting_user_errors
from experiments.system.escaping import markdown_text
from experiments.system.files import argument_path
from experiments.system.program import program
from experiments.system.progress import print_whole, say
from experiments.tracking import Store, Tracking, existing

# Forms with an option of their own; every form has --out.
TEXT_FORMS = ("csv", "markdown", "html", "latex", "json")


__all__ = ["load", "main"]


def main() -> None:
    """The command line."""
    arguments = parser()
    options = arguments.parse_args()
    with reporting_user_errors():
        _refuse_idle(arguments, options)
        _files(options)  # a form that cannot be written is refused before the store is read
        store = existing(options.uri, options.experiment)
        if options.pair:
            _compare_runs(store, options)
        elif options.pivot:
            _show_matrix(loaded(store, options.sweep), options)
        else:
            _compare_sweep(store, options)


# What each of these does with the other options: whatever is not named here would have no effect.
USED_WITH = {
    "pair": ("uri", "experiment"),
    "pivot": ("uri", "experiment", "sweep", "where", "sort", "out"),
}


def _names(listed: str) -> list[str]:
    """Columns as they are listed: a,b or a, b."""
    return [name.strip() for name in listed.split(",") if name.strip()]


def _refuse_idle(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """An option that would have no effect is a mistake."""
    for name, value in vars(options).items():
        if isinstance(value, str) and not value.strip(" ,"):
            raise UserError(f"--{name.replace('_', '-')}: nothing is given for it. Name something, or leave it out.")
    given = [name for name, value in vars(options).items() if value != parser.get_default(name)]
    for kind, used in USED_WITH.items():
        idle = [name for name in given if kind in given and name not in (kind, *used)]
        if idle:
            raise UserError(f"--{idle[0].replace('_', '-')}: has no effect with --{kind}. Give one of the two.")
    for bound in ("max_drop", "max_growth"):
        if bound in given and not options.against:
            raise UserError(f"--{bound.replace('_', '-')}: since when? Give --against FILE.csv as well.")
    if "margin" in given and not any(path.suffix == ".html" for path in options.out):
        raise UserError("--margin: decides in the report alone. Give --out FILE.html as well.")
    if options.by_name and not options.against:
        raise UserError("--by-name: says how runs are matched with earlier ones. Give --against FILE.csv as well.")


def parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = argparse.ArgumentParser(
        prog=program("compare"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    parser.add_argument(
        "--baseline", metavar="STRATEGY",
        help="differences and ratios to the run of this strategy, such as finetune, with the same model, data and seed",
    )  # fmt: skip
    parser.add_argument(
        "--group-by", metavar="COLUMN,...",
        help="pool runs that are alike in these (default: over seeds, where there are several); run_id: each by itself",
    )  # fmt: skip
    parser.add_argument("--columns", metavar="COLUMN,...", help="print these columns as they are, and no others")
    parser.add_argument(
        "--pivot", nargs=3, metavar=("ROWS", "COLUMNS", "VALUE"),
        help="print a matrix instead, such as strategy finetune_epochs tflite_accuracy; --out writes it",
    )  # fmt: skip
    parser.add_argument(
        "--require", action="append", default=[], metavar="REQUIREMENT",
        help='what the run to ship has to meet, as often as needed: "tflite_accuracy >= 0.98"',
    )  # fmt: skip
    parser.add_argument(
        "--against", type=argument_path, metavar="FILE.csv", help="an earlier comparison, for the two below"
    )
    parser.add_argument(
        "--by-name", action="store_true",
        help="match earlier runs by the names of model and data, whatever these held (default: by their content)",
    )  # fmt: skip
    for direction, example in (("drop", "speedup=10%%"), ("growth", "tflite_bytes=1_000")):
        parser.add_argument(
            f"--max-{direction}", action="append", default=[], metavar="COLUMN=AMOUNT",
            help=f"the {direction} since then that is allowed, as often as needed: {example}",
        )  # fmt: skip
    objective = parser.add_mutually_exclusive_group()
    objective.add_argument("--minimize", metavar="COLUMN", help="what is to be lowest in the run to ship")
    objective.add_argument("--maximize", metavar="COLUMN", help="what is to be highest in it")
    parser.add_argument(
        "--register", metavar="NAME", help="make the model of the run to ship a version of NAME in MLflow's registry"
    )
    for name in TEXT_FORMS:
        holds = "every column in full precision" if FORMS[name].every_column else "the table for people"
        parser.add_argument(f"--{name}", type=argument_path, metavar="FILE", help=f"write {name}: {holds}")
    parser.add_argument(
        "--out", type=argument_path, action="append", default=[], metavar="FILE",
        help=f"write the form that the ending names, as often as needed: {', '.join(ENDINGS)}; .html is the report",
    )  # fmt: skip
    parser.add_argument(
        "--margin", type=float, default=100 * MARGIN, metavar="POINTS",
        help="of accuracy, that the report's answer gives up for size or speed at most (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--plots", type=argument_path, metavar="DIR", help="write pictures there, each as PNG and as SVG"
    )
    parser.add_argument("--seeds-csv", type=argument_path, metavar="FILE", help="write the table over seeds as csv")
    parser.add_argument(
        "--pair", nargs="+", metavar="RUN",
        help="compare these runs with each other on the same images instead: two or more run ids, or their beginnings",
    )  # fmt: skip
    return parser


def _compare_sweep(store: Store, options: argparse.Namespace) -> None:
    files = _files(options)
    by = _names(options.group_by) if options.group_by else None
    comparison = compared(store, loaded(store, options.sweep), options.baseline, options.where, by)
    comparison = replace(comparison, margin=_margin(options))
    if options.sort:
        comparison = comparison.in_order(_names(options.sort))
    if options.seeds_csv and not comparison.pooled:
        raise UserError(f"--seeds-csv {options.seeds_csv}: no two runs here differ in their seeds only.")
    columns = _names(options.columns) if options.columns else []
    only(comparison.table, columns)  # refuses a column that there is not
    decision = _decided(comparison.table, options)
    worse, verdict = _became_worse(comparison.runs, options) if options.against else (False, [])
    # What was asked for is right by now: from here on it is done.
    show_comparison(comparison, columns)
    if others := store.others():
        say(f"Left out, for other programs recorded them in experiment {store.address.experiment}: {others} runs.")
    for path, form in files:
        written(comparison.runs if form.every_column and not by else comparison.table, path, form)
    if options.seeds_csv:
        written(comparison.table, options.seeds_csv, FORMS["csv"])
    _illustrate(store, comparison, options)
    for line in [*(told(decision, *_objective(options)) if decision else []), *verdict]:
        say(line)
    if decision and decision.chosen is None:
        sys.exit(3)
    if worse:
        sys.exit(4)
    if decision and options.register is not None:
        _register(store, decision, options)


def _margin(options: argparse.Namespace) -> float:
    """What may be lost for size or speed, as a share of the test examples."""
    if not 0 < options.margin < 100:
        raise UserError(f"--margin {options.margin:g}: give points of accuracy, more than 0 and fewer than 100: 0.5.")
    return float(options.margin) / 100


def _files(options: argparse.Namespace) -> list[tuple[Path, Form]]:
    """The tables to be written; a report is not one of them."""
    named = [(path, FORMS[name]) for name in TEXT_FORMS if (path := getattr(options, name))]
    return named + [(path, form_of(path)) for path in options.out if path.suffix != ".html"]


def _illustrate(store: Store, comparison: Comparison, options: argparse.Namespace) -> None:
    """Write the pictures and the reports that are asked for."""
    reports = [path for path in options.out if path.suffix == ".html"]
    if not (options.plots or reports):
        return
    pictures = drawn(store, comparison)
    if options.plots:
        write_pictures(pictures, options.plots)
        tell(pictures, options.plots)
    for path in reports:
        write_report(store, comparison, pictures, _commands(store, comparison), path)
        say(f"wrote {path}")


def _commands(store: Store, comparison: Comparison) -> list[str]:
    """What was typed for the runs shown, and for this report."""
    return [
        *store.commands(comparison.runs["run_id"].head(MOST_RUNS)),
        shlex.join([*program("compare").split(), *sys.argv[1:]]),
    ]


def _became_worse(table: pd.DataFrame, options: argparse.Namespace) -> tuple[bool, list[str]]:
    """Whether anything has become worse since an earlier comparison, and what, in lines."""
    allowances = [
        *(allowance(text, "drop", table) for text in options.max_drop),
        *(allowance(text, "growth", table) for text in options.max_growth),
    ]
    if not allowances:
        raise UserError("--against: say what may not become worse, with --max-drop or --max-growth COLUMN=AMOUNT.")
    before = earlier(options.against)
    worse = regressions(before, table, allowances, options.by_name)
    said = worse or [f"Nothing is worse than in {options.against} by more than is allowed."]
    return bool(worse), [*said, *remarks(before, table, allowances, options.by_name)]


def _show_matrix(table: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print a value by two settings, and write it where that is asked for."""
    files = [(path, form_of(path)) for path in options.out]
    for path, form in files:
        if not form.every_column:
            able = ", ".join(each.ending for each in FORMS.values() if each.every_column)
            raise UserError(f"--out {path}: a matrix is written as one of {able}.")
    if options.where:
        table = where(table, options.where)
    if options.sort:
        table = in_order(table, _names(options.sort))
    rows, columns, value = options.pivot
    cells = matrix(table, rows, columns, value)
    headed = cells.rename(columns=lambda name: f"{columns}={name}").reset_index()
    say(f"{value}, the mean where several runs share a cell")
    print_whole(plain(headed))
    for path, form in files:
        written(headed, path, form)


def _decided(table: pd.DataFrame, options: argparse.Namespace) -> Decision | None:
    """The run to ship, where that is asked for."""
    if not (options.require or options.minimize or options.maximize or options.register is not None):
        return None
    requirements = [requirement(text, table) for text in options.require]
    return decide(table, requirements, *_objective(options))


def _objective(options: argparse.Namespace) -> tuple[str, bool]:
    """What decides among the runs left, and whether the lowest is best."""
    return options.maximize or options.minimize or "tflite_bytes", not options.maximize


def _register(store: Store, decision: Decision, options: argparse.Namespace) -> None:
    """Register the model of the run to ship, with the reasons in its description, and say how to load it."""
    assert decision.chosen is not None
    lines = [*(f"required: {text}" for text in options.require), *told(decision, *_objective(options))]
    version = store.register(
        decision.chosen["run_id"], options.register, "\n".join(f"- {markdown_text(line)}" for line in lines)
    )
    how = "registered as" if version.new else "was registered already, as"
    say(f"Its model {how} {version.name}, version {version.version}.")
    say(f"Load it with mlflow.pyfunc.load_model({version.uri!r}), or serve it, both without TensorFlow:")
    address = shlex.quote(redacted(store.client.tracking_uri))
    say(f"MLFLOW_TRACKING_URI={address} mlflow models serve -m {shlex.quote(version.uri)} --env-manager local")


def _compare_runs(store: Store, options: argparse.Namespace) -> None:
    rows = {row["run_id"]: row for row in store.rows("all")}
    run_ids = list(dict.fromkeys(by_prefix(given, list(rows)) for given in options.pair))
    if len(run_ids) < 2:
        raise UserError(f"--pair {' '.join(options.pair)}: give two or more different runs.")
    show_pairs(store, [rows[run_id] for run_id in run_ids])


if __name__ == "__main__":
    main()
