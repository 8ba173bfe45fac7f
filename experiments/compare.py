"""Compare recorded runs in tables: `python -m experiments.compare [OPTION ...]`.

Without options, it shows the latest sweep, and says below the table which file
to ship. Differences are to the float TFLite model of the same baseline, measured
in the same run. Runs that differ only in their seeds are pooled into one row,
with means and intervals. Examples (`tqb compare` is short for this command):

  tqb compare --save model.tflite --out report.html
  tqb compare --require "tflite_accuracy >= 0.98" --minimize tflite_bytes
  tqb compare --against baseline.csv --max-drop tflite_accuracy=0.005

No file is saved or registered if a requirement or a regression check fails.

Exit codes: 0 success; 2 invalid command, or nothing to compare; 3 no run meets
the requirements; 4 regressions were found; 130 interrupted.
"""

from experiments.system.startup import stop_without_traceback

if __name__ == "__main__":
    stop_without_traceback()  # the imports below take seconds

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.comparison.choices import answer_lines, headline
from experiments.comparison.columns import without_internal_columns
from experiments.comparison.compared import Comparison, compare_runs
from experiments.comparison.files import ENDINGS, FORMS, Form, form_of, records, write_summary, write_table
from experiments.comparison.gates import Decision, decide, decision_lines, requirement
from experiments.comparison.loading import load, load_sweep, show_comparison
from experiments.comparison.names import subjects_of
from experiments.comparison.pairs import show_pairs
from experiments.comparison.query import matrix, select_columns, select_rows, sort_rows
from experiments.comparison.recommendation import MARGIN, ORDER, margin_of_points, order_of
from experiments.comparison.regressions import allowance, read_earlier, regressions, remarks
from experiments.comparison.saving import Shipped, check_target, list_files, recommended_run, save
from experiments.comparison.tasks import tasks
from experiments.comparison.terminal import plain_table
from experiments.plots.export import draw_pictures, report_pictures, write_pictures
from experiments.report.page import MOST_RUNS, write_report
from experiments.system.errors import UserError, find_by_prefix, redact, reporting_user_errors
from experiments.system.escaping import markdown_text
from experiments.system.files import argument_path
from experiments.system.program import program
from experiments.system.progress import print_whole, say, say_wrapped
from experiments.system.result import HELP, CommandParser, result
from experiments.tracking import Store, Tracking, open_existing

# Formats with their own option; every format can be written with --out.
TEXT_FORMS = ("csv", "markdown", "html", "latex", "json")


__all__ = ["load", "main"]


def main() -> None:
    """Run the command line."""
    arguments = parser()
    options = arguments.parse_args()
    with reporting_user_errors(), result("compare", options.json == STANDARD_OUTPUT) as document:
        _check_used(arguments, options)
        _files(options)  # rejects formats that cannot be written before the store is read
        store = open_existing(options.uri, options.experiment)
        if options.pair:
            _compare_runs(store, options, document)
        elif options.pivot:
            _show_matrix(load_sweep(store, options.sweep), options, document)
        else:
            _compare_sweep(store, options, document)


# The options that have an effect together with each of these modes.
USED_WITH = {
    "pair": ("uri", "experiment"),
    "pivot": ("uri", "experiment", "sweep", "where", "sort", "out"),
}
STANDARD_OUTPUT = Path("-")  # of --json: the whole result instead of a file of rows


def _split_names(listed: str) -> list[str]:
    """Split a list of columns: a,b or a, b."""
    return [name.strip() for name in listed.split(",") if name.strip()]


def _is_result(name: str, value: object) -> bool:
    """Return whether an option asks for the result as one document, as --json without a file does."""
    return name == "json" and value == STANDARD_OUTPUT


def _check_used(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Reject options that would have no effect."""
    for name, value in vars(options).items():
        if isinstance(value, str) and not value.strip(" ,"):
            raise UserError(f"--{name.replace('_', '-')}: requires a value. Give one, or omit the option.")
    given = [
        name
        for name, value in vars(options).items()
        if value != parser.get_default(name) and not _is_result(name, value)
    ]
    for kind, used in USED_WITH.items():
        unused = [name for name in given if kind in given and name not in (kind, *used)]
        if unused:
            raise UserError(f"--{unused[0].replace('_', '-')}: has no effect with --{kind}. Use only one of them.")
    for bound in ("max_drop", "max_growth"):
        if bound in given and not options.against:
            raise UserError(f"--{bound.replace('_', '-')}: requires an earlier comparison. Add --against FILE.csv.")
    if options.overwrite and not (options.save or options.save_all):
        raise UserError("--overwrite: requires a model file to write. Add --save FILE.tflite or --save-all DIR.")
    if options.no_metadata and not (options.save or options.save_all):
        raise UserError("--no-metadata: requires a model file to write. Add --save FILE.tflite or --save-all DIR.")
    if options.by_name and not options.against:
        raise UserError("--by-name: requires an earlier comparison. Add --against FILE.csv.")


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = CommandParser(
        prog=program("compare"),
        usage="%(prog)s [OPTION ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_selection(parser.add_argument_group("which runs"))
    _add_table(parser.add_argument_group("the table"))
    _add_choice(parser.add_argument_group("which file to ship"))
    _add_regressions(parser.add_argument_group("what became worse"))
    _add_files(parser.add_argument_group("files to write"))
    return parser


def _add_selection(runs: "argparse._ArgumentGroup") -> None:
    runs.add_argument("--uri", default=Tracking.uri, help="MLflow tracking address (default: %(default)s)")
    runs.add_argument("--experiment", default=Tracking.experiment, help="MLflow experiment (default: %(default)s)")
    runs.add_argument(
        "--sweep", default="latest", help="latest, all, or the id of a sweep's parent run (default: latest)"
    )
    runs.add_argument(
        "--where", metavar="CONDITION", help="keep matching runs only: \"strategy == 'qat' and epochs >= 5\""
    )


def _add_table(table: "argparse._ArgumentGroup") -> None:
    table.add_argument("--sort", metavar="COLUMN,...", help="sort by these columns; --sort=-COLUMN sorts descending")
    table.add_argument(
        "--baseline", metavar="STRATEGY",
        help="compare with the run of this strategy, such as finetune, that has the same model, data and seed",
    )  # fmt: skip
    table.add_argument(
        "--group-by", metavar="COLUMN,...",
        help="pool runs with equal values here (default: runs that differ only in the seed); run_id pools none",
    )  # fmt: skip
    table.add_argument("--columns", metavar="COLUMN,...", help="print only these columns, unformatted")
    table.add_argument(
        "--pivot", nargs=3, metavar=("ROWS", "COLUMNS", "VALUE"),
        help="print a matrix instead, such as: strategy finetune_epochs tflite_accuracy; --out writes it",
    )  # fmt: skip
    table.add_argument(
        "--pair", nargs="+", metavar="RUN",
        help="compare these runs on the same examples instead: two or more run ids, or prefixes of them",
    )  # fmt: skip


def _add_choice(choice: "argparse._ArgumentGroup") -> None:
    choice.add_argument(
        "--require", action="append", default=[], metavar="REQUIREMENT",
        help='requirement of the run to ship; repeatable: "tflite_accuracy >= 0.98"',
    )  # fmt: skip
    objective = choice.add_mutually_exclusive_group()
    objective.add_argument("--minimize", metavar="COLUMN", help="ship the run with the lowest value here")
    objective.add_argument("--maximize", metavar="COLUMN", help="ship the run with the highest value here")
    choice.add_argument(
        "--margin", type=float, default=100 * MARGIN, metavar="POINTS",
        help="loss of score that is allowed for size or speed: in points for accuracy and other shares, in percent of "
        "the best value for errors such as MAE (default: %(default)g)",
    )  # fmt: skip
    choice.add_argument(
        "--prefer", default=",".join(ORDER), metavar="CRITERION,...",
        help="order in which one of several tied settings is chosen (default: %(default)s)",
    )  # fmt: skip
    choice.add_argument(
        "--save", type=argument_path, metavar="FILE.tflite",
        help="write the file to ship, and FILE.json beside it: interface, labels, measurements, reasons, how to repeat",
    )  # fmt: skip
    choice.add_argument(
        "--save-all", type=argument_path, metavar="DIR", help="write the file of every run, each with its JSON file"
    )
    choice.add_argument(
        "--no-metadata", action="store_true", help="let --save and --save-all write the files without TFLite metadata"
    )
    choice.add_argument("--overwrite", action="store_true", help="let --save and --save-all replace existing files")
    choice.add_argument(
        "--register", metavar="NAME", help="register the model of the run to ship as NAME in MLflow's model registry"
    )


def _add_regressions(worse: "argparse._ArgumentGroup") -> None:
    worse.add_argument(
        "--against", type=argument_path, metavar="FILE.csv",
        help="earlier comparison to check for regressions with --max-drop and --max-growth",
    )  # fmt: skip
    worse.add_argument(
        "--by-name", action="store_true",
        help="match earlier runs by the names of model and data (default: by the digests of their content)",
    )  # fmt: skip
    for direction, example in (("drop", "speedup=10%%"), ("growth", "tflite_bytes=1_000")):
        worse.add_argument(
            f"--max-{direction}", action="append", default=[], metavar="COLUMN=AMOUNT",
            help=f"largest allowed {direction} since the earlier comparison; repeatable: {example}",
        )  # fmt: skip


def _add_files(files: "argparse._ArgumentGroup") -> None:
    files.add_argument(
        "--out", type=argument_path, action="append", default=[], metavar="FILE",
        help=f"write a file in the format of its suffix, {', '.join(ENDINGS)}; repeatable; .html is the report",
    )  # fmt: skip
    titles = {"csv": "CSV", "markdown": "Markdown", "html": "HTML", "latex": "LaTeX", "json": "JSON"}
    for name in TEXT_FORMS:
        holds = "all columns in full precision" if FORMS[name].every_column else "the formatted table"
        if name == "json":
            holds += f"; without FILE, {HELP}"
        optional: dict[str, Any] = {"nargs": "?", "const": STANDARD_OUTPUT} if name == "json" else {}
        files.add_argument(
            f"--{name}", type=argument_path, metavar="FILE", help=f"write {titles[name]}: {holds}", **optional
        )
    files.add_argument(
        "--summary", type=argument_path, metavar="FILE.md",
        help="write the decision and the table as Markdown, for the page of a CI job: $GITHUB_STEP_SUMMARY",
    )  # fmt: skip
    files.add_argument("--plots", type=argument_path, metavar="DIR", help="write plots, each as PNG and SVG")
    files.add_argument("--seeds-csv", type=argument_path, metavar="FILE", help="write the table over seeds as CSV")


def _compare_sweep(store: Store, options: argparse.Namespace, document: dict[str, Any]) -> None:
    files = _files(options)
    by = _split_names(options.group_by) if options.group_by else None
    comparison = compare_runs(store, load_sweep(store, options.sweep), options.baseline, options.where, by)
    comparison = replace(comparison, margin=margin_of_points(options.margin), order=order_of(options.prefer))
    if options.sort:
        comparison = comparison.in_order(_split_names(options.sort))
    if options.seeds_csv and not comparison.pooled:
        raise UserError(f"--seeds-csv {options.seeds_csv}: requires runs that differ only in their seeds.")
    columns = _split_names(options.columns) if options.columns else []
    select_columns(comparison.table, columns)  # rejects unknown columns
    decision = _decide(comparison, options)
    saved = _to_save(comparison, decision, options)
    _check_apart(saved, options)
    worse, verdict = _find_regressions(comparison.runs, options) if options.against else (False, [])
    # All arguments are checked; from here on there is output.
    show_comparison(comparison, columns)
    answers = [] if decision else answer_lines(comparison) or [line for each in saved for line in each.reasons]
    for line in [] if columns else answers:
        say_wrapped(line)
    if others := store.count_others():
        say(f"Omitted {others} runs of other programs in experiment {store.address.experiment}.")
    for path, form in files:
        write_table(comparison.runs if form.every_column and not by else comparison.table, path, form)
    if options.seeds_csv:
        write_table(comparison.table, options.seeds_csv, FORMS["csv"])
    _illustrate(store, comparison, options)
    decided = decision_lines(decision, *_objective(options)) if decision else []
    unsaved = _unsaved(saved, options)
    for line in [*decided, *verdict, *([] if decision else unsaved)]:
        say_wrapped(line)
    document |= {
        "rows": records(without_internal_columns(comparison.runs if not by else comparison.table)),
        "answer": answers or decided,
        "shipped_run_id": _shipped(comparison, decision),
        "regressions": verdict if worse else [],
        "remarks": list(comparison.remarks),
        "saved": [],
    }
    if options.summary:
        title = f"Which quantization to ship: {subjects_of(comparison.runs)}"
        stopped = [f"Nothing is shipped: runs became worse than {options.against.name} allows."] if worse else []
        lines = [*stopped, *verdict, *answers, *reversed(decided)]
        write_summary(title, lines, comparison.table, options.summary)
    if (decision and decision.chosen is None) or unsaved:
        sys.exit(3)
    if worse:
        sys.exit(4)
    commands = _commands(store, comparison) if saved else []
    for shipped in saved:
        save(store, comparison, shipped, commands, not options.no_metadata)
        document["saved"].append(shipped.path)
    if decision and options.register is not None:
        _register(store, decision, options)


def _shipped(comparison: Comparison, decision: Decision | None) -> str | None:
    """Return the run that the gates chose or, without gates, that is recommended; None if there is no single one."""
    if decision:
        return None if decision.chosen is None else str(decision.chosen["run_id"])
    found = tasks(comparison)
    first = headline(found[0]) if len(found) == 1 else None
    return first.run_id if first and first.may_be_shipped else None


def _to_save(comparison: Comparison, decision: Decision | None, options: argparse.Namespace) -> list[Shipped]:
    """Return the files to write: the one that the gates chose or, without gates, the recommended one; and all."""
    found = list_files(comparison, options.save_all, options.overwrite) if options.save_all else []
    if not options.save:
        return found
    check_target("--save", options.save, options.overwrite)
    if not decision:
        remedy = "Choose one with --where, or write all files with --save-all DIR."
        first = recommended_run(comparison, f"--save {options.save}", remedy)
        named = [Shipped(first.run_id, options.save, (first.text,))] if first and first.may_be_shipped else []
        return [*named, *found]
    if decision.chosen is None:
        return []
    lines = [*(f"required: {text}" for text in options.require), *decision_lines(decision, *_objective(options))]
    return [Shipped(str(decision.chosen["run_id"]), options.save, tuple(lines)), *found]


def _check_apart(saved: Sequence[Shipped], options: argparse.Namespace) -> None:
    """Check that no two options write the same file."""
    named = [*(path for path, _ in _files(options)), *options.out, options.summary, options.seeds_csv]
    tables = {path.absolute() for path in named if path}
    models = [path.absolute() for shipped in saved for path in (shipped.path, shipped.beside)]
    twice = [path for path in models if path in tables or models.count(path) > 1]
    if twice:
        raise UserError(
            f"{twice[0].name}: two options write this file. Give each another name; --save FILE.tflite writes "
            "FILE.json as well."
        )


def _unsaved(saved: Sequence[Shipped], options: argparse.Namespace) -> list[str]:
    """Return a line for --save and for --save-all if nothing is written there."""
    written = {place for shipped in saved for place in (shipped.path, shipped.path.parent)}
    missing = [path for path in (options.save, options.save_all) if path and path not in written]
    advice = " To write a file anyway, type which: --minimize tflite_bytes." if options.save in missing else ""
    return [f"{path} is not written: no run can be shipped yet, for the reasons above.{advice}" for path in missing]


def _files(options: argparse.Namespace) -> list[tuple[Path, Form]]:
    """Return the tables to write; reports are handled separately."""
    paths = {name: getattr(options, name) for name in TEXT_FORMS}
    named = [(path, FORMS[name]) for name, path in paths.items() if path and not _is_result(name, path)]
    return named + [(path, form_of(path)) for path in options.out if path.suffix != ".html"]


def _illustrate(store: Store, comparison: Comparison, options: argparse.Namespace) -> None:
    """Write the requested plots and reports."""
    reports = [path for path in options.out if path.suffix == ".html"]
    if not (options.plots or reports):
        return
    pictures = draw_pictures(store, comparison)
    if options.plots:
        write_pictures(pictures, options.plots)
        report_pictures(pictures, options.plots)
    for path in reports:
        write_report(store, comparison, pictures, _commands(store, comparison), path)
        say(f"wrote {path}")


def _commands(store: Store, comparison: Comparison) -> list[str]:
    """Return the commands that made the runs and this report."""
    return [
        *store.commands(comparison.runs["run_id"].head(MOST_RUNS)),
        shlex.join([*program("compare").split(), *sys.argv[1:]]),
    ]


def _find_regressions(table: pd.DataFrame, options: argparse.Namespace) -> tuple[bool, list[str]]:
    """Return whether there are regressions since an earlier comparison, and lines about them."""
    allowances = [
        *(allowance(text, "drop", table) for text in options.max_drop),
        *(allowance(text, "growth", table) for text in options.max_growth),
    ]
    if not allowances:
        raise UserError("--against: requires --max-drop COLUMN=AMOUNT or --max-growth COLUMN=AMOUNT.")
    before = read_earlier(options.against)
    worse = regressions(before, table, allowances, options.by_name)
    lines = worse or [f"No regressions since {options.against} beyond the allowed amounts."]
    return bool(worse), [*lines, *remarks(before, table, allowances, options.by_name)]


def _show_matrix(table: pd.DataFrame, options: argparse.Namespace, document: dict[str, Any]) -> None:
    """Print a value by two settings, and write the requested files."""
    files = [(path, form_of(path)) for path in options.out]
    for path, form in files:
        if not form.every_column:
            endings = ", ".join(each.ending for each in FORMS.values() if each.every_column)
            raise UserError(f"--out {path}: a matrix requires one of the suffixes {endings}.")
    if options.where:
        table = select_rows(table, options.where)
    if options.sort:
        table = sort_rows(table, _split_names(options.sort))
    rows, columns, value = options.pivot
    cells = matrix(table, rows, columns, value)
    headed = cells.rename(columns=lambda name: f"{columns}={name}").reset_index()
    say(f"{value} (mean, if several runs share a cell)")
    print_whole(plain_table(headed))
    document["matrix"] = records(headed)
    for path, form in files:
        write_table(headed, path, form)


def _decide(comparison: Comparison, options: argparse.Namespace) -> Decision | None:
    """Return the decision about the run to ship; None if none is requested."""
    table = comparison.table
    if not (options.require or options.minimize or options.maximize or options.register is not None):
        return None
    requirements = [requirement(text, table) for text in options.require]
    return decide(table, requirements, *_objective(options), comparison)


def _objective(options: argparse.Namespace) -> tuple[str, bool]:
    """Return the column that decides among acceptable runs, and whether lower is better."""
    return options.maximize or options.minimize or "tflite_bytes", not options.maximize


def _register(store: Store, decision: Decision, options: argparse.Namespace) -> None:
    """Register the model of the run to ship, with the reasons in its description, and print how to load it."""
    assert decision.chosen is not None
    lines = [*(f"required: {text}" for text in options.require), *decision_lines(decision, *_objective(options))]
    version = store.register(
        decision.chosen["run_id"], options.register, "\n".join(f"- {markdown_text(line)}" for line in lines)
    )
    how = "registered as" if version.new else "already registered as"
    say(f"Model {how} {version.name}, version {version.version}.")
    say(f"Load it with mlflow.pyfunc.load_model({version.uri!r}), or serve it (neither requires TensorFlow):")
    address = shlex.quote(redact(store.client.tracking_uri))
    say(f"MLFLOW_TRACKING_URI={address} mlflow models serve -m {shlex.quote(version.uri)} --env-manager local")


def _compare_runs(store: Store, options: argparse.Namespace, document: dict[str, Any]) -> None:
    rows = {row["run_id"]: row for row in store.rows("all")}
    run_ids = list(dict.fromkeys(find_by_prefix(given, list(rows)) for given in options.pair))
    if len(run_ids) < 2:
        raise UserError(f"--pair {' '.join(options.pair)}: requires two or more different runs.")
    document["pairs"] = records(show_pairs(store, [rows[run_id] for run_id in run_ids]))


if __name__ == "__main__":
    main()
