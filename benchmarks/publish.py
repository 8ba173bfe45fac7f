"""Publish a finished study: `python -m benchmarks.publish NAME`, in the folder where its sweeps were run.

Writes benchmarks/results/NAME/ (comparison.csv, comparison.md, seeds.csv over several seeds, the pictures, report.html,
stamp.json) from the store, and puts the table between its marks in README.md or a page of docs/. So no figure there is
typed by hand, and a test sees that the two agree. `--redraw` makes pictures and the answer of the report again where
the store is gone; `--pages` makes the tables of all pages again from what is published.
"""

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.harness import pages
from benchmarks.harness.benchmark import Study
from benchmarks.harness.results import sign
from benchmarks.registry import STUDIES, TABLES, tables_from
from experiments.comparison.choices import recommended
from experiments.comparison.columns import COLUMNS, WHOLE, frame, with_identity, with_scores
from experiments.comparison.compared import Comparison, compare_runs
from experiments.comparison.files import FORMS, write_comparison
from experiments.plots import save
from experiments.plots.comparison import Pictures, PlotData, comparison_pictures
from experiments.plots.export import draw_pictures
from experiments.record.identity import DIGESTS
from experiments.report.page import report, write_report
from experiments.system.errors import UserError, reporting_user_errors, suggestion
from experiments.system.progress import say
from experiments.system.stamp import stamp
from experiments.tracking import Row, Store, Tracking, open_existing

SCREENSHOTS = (
    "mlflow.png",
    "mlflow_runs.png",
    "report.png",
    "answer.png",
)  # made afterwards, by benchmarks.screenshots


def publish(name: str, uri: str) -> None:
    """Write the results of a study and renew the tables made from them."""
    study = study_of(name)
    store = open_existing(uri)
    table = runs_of(study, store)
    stamps = [store.stamp(run_id) for run_id in table["run_id"]]
    if any(stamp != stamps[0] for stamp in stamps):
        raise UserError(
            "The runs come from different machines, versions or commits. A study requires the same for all runs."
        )
    comparison = compare_runs(store, table, study.control)
    pictures = draw_pictures(store, comparison)
    folder = emptied(pages.RESULTS / name)
    write_comparison(comparison, folder)
    if study.rival:
        against = compare_runs(store, table, study.rival)
        FORMS["csv"].write(against.table, folder / f"against_{study.rival}.csv")
        FORMS["csv"].write(against.runs, folder / f"runs_against_{study.rival}.csv")
    for picture, figure in pictures.drawn.items():
        save(figure, folder / f"{picture}.png")
    write_report(store, comparison, pictures, study.typed, folder / "report.html")
    sign(folder, {**stamps[0], "command": " && ".join(study.typed)})
    pages.renew(tables_from(name))


def redraw(name: str) -> None:
    """Redraw the answer and the pictures of a published study that need only its tables.

    Its stamp says so. The predictions of the models are not published, so accuracies are compared by their intervals.
    """
    study_of(name)
    folder = pages.RESULTS / name
    runs, seeds = (_read(folder / file) for file in ("comparison.csv", "seeds.csv"))
    pooled = not seeds.empty
    comparison = Comparison(runs, seeds if pooled else runs, lambda _: None, over_seeds=pooled)
    pictures = comparison_pictures(PlotData(runs, seeds, {}, {}, recommended(comparison)))
    for picture, figure in pictures.drawn.items():
        save(figure, folder / f"{picture}.png")
        say(f"wrote {folder / picture}.png")
    page = folder / "report.html"
    page.write_text(with_present_answer(page.read_text(encoding="utf-8"), comparison, pictures), encoding="utf-8")
    say(f"wrote {page}")
    signed = json.loads((folder / "stamp.json").read_text())
    drawn_by = {"pictures": f"python -m benchmarks.publish {name} --redraw", "pictures_commit": stamp()["git_commit"]}
    sign(folder, {**signed, **drawn_by})


REMARK = (
    "This answer and the plots of accuracy were made again from the published tables. These have no predictions, so "
    "accuracies are compared by their intervals. Paired tests would distinguish more settings."
)


@dataclass(frozen=True)
class Published:
    """A store without artifacts, for a study of which only the tables are published."""

    ui_command = ""

    def content(self, run_id: str, artifact: str) -> bytes | None:
        """Return nothing: artifacts are not published."""
        return None

    def page(self, run_id: str) -> str:
        """Return no address."""
        return ""

    def stamp(self, run_id: str) -> Mapping[str, str]:
        """Return nothing: the published page has the stamp."""
        return {}


def with_present_answer(page: str, comparison: Comparison, pictures: Pictures) -> str:
    """Return a published report with the answer, the table and the pictures that the current version makes.

    Pictures that need more than the tables, and the details of the runs, stay as they were published.
    """
    store: Any = Published()
    new = report(store, comparison, Pictures(pictures.drawn, {}), (), REMARK)
    figures = re.findall(r'(<figure id="(\w+)".*?</figure>)', page, re.DOTALL)
    kept = [figure for figure, name in figures if name not in pictures.drawn]
    runs = '<h2 id="runs">'
    before = re.sub(r'<a href="#run-[^"]*">([^<]*)</a>', r"\1", new[: new.index(runs)])  # these details have no ids
    parts = [before, *kept, page[page.index(runs) : page.index("</main>")], new[new.index("</main>") :]]
    return "\n".join(parts)


def _read(file: Path) -> pd.DataFrame:
    """Return a published table; an empty one where there is none. One of an earlier version has fewer columns."""
    texts = dict.fromkeys((*DIGESTS, "tflite_sha256"), "string")
    found = pd.read_csv(file, dtype=texts) if file.exists() else pd.DataFrame(columns=list(COLUMNS))
    table = with_scores(with_identity(found.reindex(columns=list(dict.fromkeys([*COLUMNS, *found.columns])))))
    whole = [name for name in WHOLE if not (table[name] % 1 > 0).any()]
    return table.astype(dict.fromkeys(whole, "Int64")).copy()  # in few blocks


def emptied(folder: Path) -> Path:
    """Return the folder, emptied of an earlier publication except for its screenshots."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in SCREENSHOTS:
            path.unlink()
    return folder


def study_of(name: str) -> Study:
    """Return the study of this name.

    Raises:
        UserError: there is none.
    """
    if name not in STUDIES:
        raise UserError(f"{name}: no such study. {suggestion(name, STUDIES)}")
    return STUDIES[name]


def runs_of(study: Study, store: Store) -> pd.DataFrame:
    """Return the runs of the newest finished sweep of each of the study's commands.

    Raises:
        UserError: no sweep of a command has finished here.
    """
    rows: list[Row] = []
    for command in study.typed:
        sweep = store.newest_sweep(command)
        if not sweep:
            raise UserError(f"{store.address.shown} holds no finished sweep of this command; run it: {command}")
        rows += store.rows(sweep)
    return frame(rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "name",
        nargs="?",
        default="",
        help="one of the studies; its folder in benchmarks/results, and its mark in a page",
    )
    parser.add_argument("--uri", default=Tracking.uri, help="MLflow tracking address (default: %(default)s)")
    parser.add_argument(
        "--redraw", action="store_true", help="only draw those pictures again that need no more than the published CSV"
    )
    parser.add_argument(
        "--pages", action="store_true", help="only make the tables of all pages again, from the published CSVs"
    )
    options = parser.parse_args()
    with reporting_user_errors():
        if options.pages:
            pages.renew_all(TABLES)
        elif options.redraw:
            redraw(options.name)
        else:
            publish(options.name, options.uri)


if __name__ == "__main__":
    main()
