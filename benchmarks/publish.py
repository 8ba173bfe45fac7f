"""Publish a finished sweep: `python -m benchmarks.publish NAME`, in the folder where the sweep was run.

Writes benchmarks/results/NAME/ (comparison.csv, comparison.md, seeds.csv over several seeds, the pictures, report.html,
stamp.json) from the store, and puts the table into the README between its marks. So no figure there is typed by hand,
and a test sees that the two agree.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path

import pandas as pd

from benchmarks.answer import answer_table
from benchmarks.studies import STUDIES
from benchmarks.tables import (
    epoch_table,
    evaluation_table,
    fresh_store_table,
    killed_table,
    memory_table,
    once_table,
    overhead_table,
    planted_table,
    precision_table,
    profile_table,
    reading_table,
    same_file_table,
    sizes_table,
    spread_table,
)
from experiments.compare import load
from experiments.comparison.columns import COLUMNS
from experiments.comparison.compared import compared
from experiments.comparison.files import FORMS
from experiments.comparison.people import for_people, note
from experiments.comparison.pictures import drawn
from experiments.errors import UserError, mistakes_told
from experiments.plots import save
from experiments.report.page import write_report
from experiments.rounding import points
from experiments.sensitivity import advice
from experiments.statistics import Estimate
from experiments.tracking import Tracking

HERE = Path(__file__).parent
README = HERE.parent / "README.md"


def publish(name: str, uri: str, sweep: str) -> None:
    """Write the results of a sweep and renew the README's table."""
    table = load(uri, sweep=sweep)
    failed = table[table["status"] != "FINISHED"]
    if not failed.empty:
        raise UserError(f"Only finished runs are published; these are not: {', '.join(failed['run_id'])}.")
    store = Tracking(uri=uri).connect(create=False)
    stamps = [store.stamp(run_id) for run_id in table["run_id"]]
    if any(stamp != stamps[0] for stamp in stamps):
        raise UserError(
            "The runs were made on different machines, versions or commits; only like is published with like."
        )
    folder = HERE / "results" / name
    folder.mkdir(parents=True, exist_ok=True)
    comparison = compared(store, table, STUDIES[name].control if name in STUDIES else None)
    commands = store.commands(table["run_id"])
    if not commands:
        raise UserError(f"--sweep {sweep}: these runs belong to no sweep, so no command would stand beside them.")
    FORMS["csv"].write(comparison.runs, folder / "comparison.csv")
    FORMS["markdown"].write(comparison.table, folder / "comparison.md")
    if comparison.pooled:
        FORMS["csv"].write(comparison.table, folder / "seeds.csv")
    pictures = drawn(store, comparison)
    for picture, figure in pictures.drawn.items():
        save(figure, folder / f"{picture}.png")
    write_report(store, comparison, pictures, commands, folder / "report.html")
    (folder / "stamp.json").write_text(json.dumps({**stamps[0], "command": commands[-1]}, indent=2) + "\n")
    for shown in (name, *(derived for derived, (source, _) in DERIVED.items() if source == name)):
        README.write_text(with_table(README.read_text(), shown))


def with_table(readme: str, name: str) -> str:
    """The README's text with the published table of this name between its marks."""
    opening, closing = f"<!-- table {name} -->\n", f"<!-- end of table {name} -->"
    before, _, rest = readme.partition(opening)
    _, found, after = rest.partition(closing)
    if not found:
        raise UserError(
            f"README.md has no place for a table {name}: it needs the lines {opening.strip()} and {closing}."
        )
    return f"{before}{opening}{published(name)}{closing}{after}"


def on_disk(file: str) -> str:
    """A file of the results, such as planted/planted.csv; empty where there is none."""
    path = HERE / "results" / file
    return path.read_text() if path.exists() else ""


def published(name: str, read: Callable[[str], str] = on_disk) -> str:
    """The published table as Markdown, made from its CSV alone; empty where `read` finds none."""
    if name in TABLES:
        figures = read(f"{name}/{name}.csv")
        return TABLES[name](pd.read_csv(StringIO(figures), keep_default_na=False)) if figures else ""
    source, made = DERIVED.get(name, (name, sweep_table))
    figures = read(f"{source}/seeds.csv") or read(f"{source}/comparison.csv")
    return made(pd.read_csv(StringIO(figures))) if figures else ""


def sweep_table(table: pd.DataFrame) -> str:
    """What `python -m experiments.compare` shows of a sweep."""
    every = list(dict.fromkeys([*COLUMNS, *table.columns]))  # one of an earlier version has fewer
    table = table.reindex(columns=every)
    return f"{for_people(table).to_markdown(index=False, disable_numparse=True)}\n\n{note(table)}\n"


def exactness_table(table: pd.DataFrame) -> str:
    """What benchmarks.exactness found, for people."""
    shown = table.rename(columns=lambda name: name.replace("_", " ")).astype({"chosen": "string"})
    for name in ("bytes usual way", "bytes here"):
        shown[name] = [f"{size:,}" for size in shown[name]]
    return f"{shown.to_markdown(index=False, disable_numparse=True)}\n"


def sensitivity_table(table: pd.DataFrame) -> str:
    """What benchmarks.sensitivity found, for people."""
    *files, proposal = table.to_dict("records")
    shown = pd.DataFrame(
        {
            "in int8": [IN_INT8[file["what"]].format(file["layer"]) for file in files],
            "accuracy change, points": [
                points(Estimate(file["accuracy_change"], file["low"], file["high"])) for file in files
            ],
            "logit error, RMS": [f"{file['rms_logit_error']:.4f}" for file in files],
            "bytes": [f"{file['bytes']:,}" for file in files],
        }
    )
    cost = {file["layer"]: file["rms_logit_error"] for file in files if file["what"] == "alone in int8"}
    (rounding,) = [file["rms_logit_error"] for file in files if file["what"] == "rounded to int8"]
    return (
        f"{shown.to_markdown(index=False, disable_numparse=True)}\n\n{advice(cost, rounding)}\n"
        f"{proposal['what'].capitalize()}: `strategy.layers=[{proposal['layer']}]`, {proposal['bytes']:,} bytes.\n"
    )


IN_INT8 = {
    "alone in int8": "{} alone",
    "alone in float": "all but {}",
    "in int8": "everything",
    "in float": "nothing",
    "rounded to int8": "nothing, and the {} rounded",
}
# Tables that come from a CSV of their own; the others come from sweeps.
TABLES: Mapping[str, Callable[[pd.DataFrame], str]] = {
    "exactness": exactness_table,
    "sensitivity": sensitivity_table,
    "once": once_table,
    "killed": killed_table,
    "fresh_store": fresh_store_table,
    "overhead": overhead_table,
    "memory": memory_table,
    "evaluation": evaluation_table,
    "same_file": same_file_table,
    "planted": planted_table,
    "spread": spread_table,
    "profile": profile_table,
    "reading": reading_table,
    "epoch": epoch_table,
    "precision": precision_table,
    "sizes": sizes_table,
}
# Further tables that are made from the CSV of a sweep.
DERIVED: Mapping[str, tuple[str, Callable[[pd.DataFrame], str]]] = {"answer": ("article", answer_table)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="folder in benchmarks/results, and mark in the README")
    parser.add_argument("--uri", default=Tracking.uri, help="MLflow tracking address (default: %(default)s)")
    parser.add_argument("--sweep", default="latest", help="latest, or the id of a sweep's parent run (default: latest)")
    options = parser.parse_args()
    with mistakes_told():
        publish(options.name, options.uri, options.sweep)


if __name__ == "__main__":
    main()
