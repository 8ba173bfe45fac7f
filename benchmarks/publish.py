"""Publish a finished study: `python -m benchmarks.publish NAME`, in the folder where its sweeps were run.

Writes benchmarks/results/NAME/ (comparison.csv, comparison.md, seeds.csv over several seeds, the pictures, report.html,
stamp.json) from the store, and puts the table into the README between its marks. So no figure there is typed by hand,
and a test sees that the two agree.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas as pd

from benchmarks.studies import RIVAL, STUDIES, Study
from benchmarks.tables import (
    article,
    compression,
    epoch,
    evaluation,
    exactness,
    fresh_store,
    killed,
    memory,
    once,
    overhead,
    planted,
    precision,
    profile,
    reading,
    same_file,
    sensitivity,
    sizes,
    spread,
    strategies,
)
from benchmarks.tables.markdown import markdown
from experiments.comparison.columns import COLUMNS, frame
from experiments.comparison.compared import compared
from experiments.comparison.files import FORMS
from experiments.comparison.people import for_people, note
from experiments.comparison.pictures import drawn
from experiments.errors import UserError, mistakes_told, near
from experiments.plots import save
from experiments.progress import say
from experiments.report.page import write_report
from experiments.tracking import Row, Store, Tracking, existing

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
OPENING = "<!-- table {} -->"
RUNS = ("comparison.csv",)
SHOWN = ("seeds.csv", *RUNS)  # what `compare` shows of a sweep: its means over seeds, or its runs
SCREENSHOTS = ("mlflow.png", "report.png")  # made afterwards, by benchmarks.screenshots


def publish(name: str, uri: str) -> None:
    """Write the results of a study and renew the README's table."""
    study = study_of(name)
    store = existing(uri)
    table = runs_of(study, store)
    stamps = [store.stamp(run_id) for run_id in table["run_id"]]
    if any(stamp != stamps[0] for stamp in stamps):
        raise UserError(
            "The runs were made on different machines, versions or commits; only like is published with like."
        )
    folder = emptied(HERE / "results" / name)
    comparison = compared(store, table, study.control)
    FORMS["csv"].write(comparison.runs, folder / "comparison.csv")
    FORMS["markdown"].write(comparison.table, folder / "comparison.md")
    if comparison.pooled:
        FORMS["csv"].write(comparison.table, folder / "seeds.csv")
    if study.rival:
        against = compared(store, table, study.rival)
        FORMS["csv"].write(against.table, folder / f"against_{study.rival}.csv")
        FORMS["csv"].write(against.runs, folder / f"runs_against_{study.rival}.csv")
    pictures = drawn(store, comparison)
    for picture, figure in pictures.drawn.items():
        save(figure, folder / f"{picture}.png")
    write_report(store, comparison, pictures, study.commands, folder / "report.html")
    stamp = {**stamps[0], "command": " && ".join(study.commands)}
    (folder / "stamp.json").write_text(json.dumps(stamp, indent=2) + "\n")
    renew_readme(name)


def emptied(folder: Path) -> Path:
    """The folder, with nothing left in it of an earlier publication but the screenshots."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in SCREENSHOTS:
            path.unlink()
    return folder


def study_of(name: str) -> Study:
    """The study of this name.

    Raises:
        UserError: there is none.
    """
    if name not in STUDIES:
        raise UserError(f"{name}: no such study. {near(name, STUDIES)}")
    return STUDIES[name]


def runs_of(study: Study, store: Store) -> pd.DataFrame:
    """The runs of the newest finished sweep of each of the study's commands.

    Raises:
        UserError: no sweep of a command has finished here.
    """
    rows: list[Row] = []
    for command in study.commands:
        sweep = store.newest_sweep(command)
        if not sweep:
            raise UserError(f"{store.address.shown} holds no finished sweep of this command; run it: {command}")
        rows += store.rows(sweep)
    return frame(rows)


def renew_readme(name: str) -> None:
    """Put what was published under this name into the README, with the tables derived from it, where it has a place."""
    readme = README.read_text()
    derived = (table for table, each in DERIVED.items() if each.source == name)
    for table in dict.fromkeys((name, *derived)):
        if OPENING.format(table) in readme:
            readme = with_table(readme, table)
        else:
            say(f"README.md has no place for a table {table}; it is left as it is.")
    README.write_text(readme)


def with_table(readme: str, name: str) -> str:
    """The README's text with the published table of this name between its marks."""
    opening, closing = f"{OPENING.format(name)}\n", f"<!-- end of table {name} -->"
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
    derived = DERIVED.get(name, Derived(name, sweep_table))
    tables = [next(filter(None, (read(f"{derived.source}/{file}") for file in files)), "") for files in derived.files]
    return derived.make(*(pd.read_csv(StringIO(table)) for table in tables)) if all(tables) else ""


def sweep_table(table: pd.DataFrame) -> str:
    """What `python -m experiments.compare` shows of a sweep."""
    every = list(dict.fromkeys([*COLUMNS, *table.columns]))  # one of an earlier version has fewer
    table = table.reindex(columns=every)
    return f"{markdown(for_people(table))}\n{note(table)}\n"


# Tables that come from a CSV of their own; the others come from sweeps.
TABLES: Mapping[str, Callable[[pd.DataFrame], str]] = {
    "epoch": epoch.readme_table,
    "evaluation": evaluation.readme_table,
    "exactness": exactness.readme_table,
    "fresh_store": fresh_store.readme_table,
    "killed": killed.readme_table,
    "memory": memory.readme_table,
    "once": once.readme_table,
    "overhead": overhead.readme_table,
    "planted": planted.readme_table,
    "precision": precision.readme_table,
    "profile": profile.readme_table,
    "reading": reading.readme_table,
    "same_file": same_file.readme_table,
    "sensitivity": sensitivity.readme_table,
    "sizes": sizes.readme_table,
    "spread": spread.readme_table,
}


@dataclass(frozen=True)
class Derived:
    """A table that is made from what another command has published: of each tuple of files, the first that there is."""

    source: str
    make: Callable[..., str]
    files: tuple[tuple[str, ...], ...] = (SHOWN,)


DERIVED: Mapping[str, Derived] = {
    "answer": Derived("article", article.answers, (SHOWN, (f"against_{RIVAL}.csv",))),
    "seeds": Derived("article", article.seed_by_seed, (RUNS,)),
    "compression": Derived("compression", compression.readme_table),
    "epochs": Derived("epochs", article.by_epochs),
    "architectures": Derived("architectures", article.by_model, (RUNS, (f"runs_against_{RIVAL}.csv",))),
    "strategies": Derived("once", strategies.readme_table),
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="one of the studies, a folder in benchmarks/results, and a mark in the README")
    parser.add_argument("--uri", default=Tracking.uri, help="MLflow tracking address (default: %(default)s)")
    options = parser.parse_args()
    with mistakes_told():
        publish(options.name, options.uri)


if __name__ == "__main__":
    main()
