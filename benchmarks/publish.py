"""Publish a finished study: `python -m benchmarks.publish NAME`, in the folder where its sweeps were run.

Writes benchmarks/results/NAME/ (comparison.csv, comparison.md, seeds.csv over several seeds, the pictures, report.html,
stamp.json) from the store, and puts the table between its marks in README.md or a page of docs/. So no figure there is
typed by hand, and a test sees that the two agree. `--redraw` draws pictures again where the store is gone; `--pages`
makes the tables of all pages again from what is published.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import cast

import pandas as pd

from benchmarks.studies import RIVAL, STUDIES, Study
from benchmarks.tables import article, compression, front, planted, same_file, spread, strategies
from benchmarks.tables.markdown import markdown
from experiments.comparison.columns import COLUMNS, WHOLE, frame, identified
from experiments.comparison.compared import compared
from experiments.comparison.display import display_table, note
from experiments.comparison.files import FORMS, write_comparison
from experiments.plots import save
from experiments.plots.comparison import Evidence, comparison_pictures
from experiments.plots.export import drawn
from experiments.record.identity import DIGESTS
from experiments.report.page import write_report
from experiments.system.errors import UserError, reporting_user_errors, suggestion
from experiments.system.progress import say
from experiments.system.stamp import stamp
from experiments.tracking import Row, Store, Tracking, open_existing

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
MARK = re.compile(r"<!-- table (\w+) -->")
OPENING, CLOSING = "<!-- table {} -->", "<!-- end of table {} -->"
SHARED_HOST = "shared_host"  # in the results of a benchmark: what it found where others use the host, too
SCREENSHOTS = ("mlflow.png", "report.png", "answer.png")  # made afterwards, by benchmarks.screenshots


def publish(name: str, uri: str) -> None:
    """Write the results of a study and renew the tables made from them."""
    study = study_of(name)
    store = open_existing(uri)
    table = runs_of(study, store)
    stamps = [store.stamp(run_id) for run_id in table["run_id"]]
    if any(stamp != stamps[0] for stamp in stamps):
        raise UserError(
            "The runs were made on different machines, versions or commits; only like is published with like."
        )
    comparison = compared(store, table, study.control)
    pictures = drawn(store, comparison)
    folder = emptied(HERE / "results" / name)
    write_comparison(comparison, folder)
    if study.rival:
        against = compared(store, table, study.rival)
        FORMS["csv"].write(against.table, folder / f"against_{study.rival}.csv")
        FORMS["csv"].write(against.runs, folder / f"runs_against_{study.rival}.csv")
    for picture, figure in pictures.drawn.items():
        save(figure, folder / f"{picture}.png")
    write_report(store, comparison, pictures, study.commands, folder / "report.html")
    sign(folder, {**stamps[0], "command": " && ".join(study.commands)})
    renew_pages(name)


def redraw(name: str) -> None:
    """Draw those pictures of a published study again that need no more than its tables, and say so in its stamp."""
    study_of(name)
    folder = HERE / "results" / name
    runs, seeds = (_read(folder / file) for file in ("comparison.csv", "seeds.csv"))
    for picture, figure in comparison_pictures(Evidence(runs, seeds, {}, {})).drawn.items():
        save(figure, folder / f"{picture}.png")
        say(f"wrote {folder / picture}.png")
    signed = json.loads((folder / "stamp.json").read_text())
    drawn_by = {"pictures": f"python -m benchmarks.publish {name} --redraw", "pictures_commit": stamp()["git_commit"]}
    sign(folder, {**signed, **drawn_by})


def sign(folder: Path, signature: Mapping[str, str]) -> None:
    """Write the stamp beside results, with the command that made them."""
    (folder / "stamp.json").write_text(json.dumps(signature, indent=2) + "\n")


def _read(file: Path) -> pd.DataFrame:
    """A published table; an empty one where there is none."""
    texts = dict.fromkeys((*DIGESTS, "tflite_sha256"), "string")
    table = identified(pd.read_csv(file, dtype=texts) if file.exists() else pd.DataFrame(columns=list(COLUMNS)))
    return table.astype(dict.fromkeys((name for name in WHOLE if not (table[name] % 1 > 0).any()), "Int64"))


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
        raise UserError(f"{name}: no such study. {suggestion(name, STUDIES)}")
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


def pages() -> list[Path]:
    """The README and the pages behind it: all that shows published tables."""
    return [README, *sorted((README.parent / "docs").rglob("*.md"))]


def tables_of(name: str) -> list[str]:
    """The tables of the pages that are made from what was published under this name."""
    return list(dict.fromkeys((name, *(table for table, each in DERIVED.items() if name in each.sources))))


def renew_pages(name: str) -> None:
    """Put what was published under this name, and the tables derived from it, where the pages have a place for it."""
    for table in tables_of(name):
        places = [page for page in pages() if OPENING.format(table) in page.read_text()]
        for page in places:
            page.write_text(with_table(page, table))
        if not places:
            say(f"Neither README.md nor a page of docs/ has a place for a table {table}.")


def renew_all_pages() -> None:
    """Put every published table into the pages again, as its CSV and what makes tables of it are now."""
    for page in pages():
        for name in MARK.findall(page.read_text()):
            page.write_text(with_table(page, name))


def with_table(page: Path, name: str) -> str:
    """The page's text with the published table of this name between its marks."""
    opening, closing = f"{OPENING.format(name)}\n", CLOSING.format(name)
    before, _, rest = page.read_text().partition(opening)
    _, found, after = rest.partition(closing)
    if not found:
        raise UserError(f"{page.name}: the table {name} has no end; after {opening.strip()} there must be {closing}.")
    return f"{before}{opening}{published(name)}{closing}{after}"


def on_disk(file: str) -> str:
    """A file of the results, such as planted/planted.csv; empty where there is none."""
    path = HERE / "results" / file
    return path.read_text() if path.exists() else ""


def published(name: str, read: Callable[[str], str] = on_disk) -> str:
    """The published table as Markdown, made from its CSV alone; empty where `read` finds none."""
    if name not in STUDIES and name not in DERIVED:
        figures = read(f"{name}/{name}.csv")
        return own_table(name)(pd.read_csv(StringIO(figures), keep_default_na=False)) if figures else ""
    derived = DERIVED.get(name, Derived(sweep_table, (compared_in(name),)))
    tables = [next(filter(None, map(read, files)), "") for files in derived.files]
    return derived.make(*(pd.read_csv(StringIO(table)) for table in tables)) if all(tables) else ""


def sweep_table(table: pd.DataFrame) -> str:
    """What `python -m experiments.compare` shows of a sweep."""
    every = list(dict.fromkeys([*COLUMNS, *table.columns]))  # one of an earlier version has fewer
    table = identified(table.reindex(columns=every))
    return f"{markdown(display_table(table))}\n{note(table)}\n"


def own_table(name: str) -> Callable[[pd.DataFrame], str]:
    """What makes the table of a benchmark from its CSV: benchmarks/tables/NAME.py."""
    return cast("Callable[[pd.DataFrame], str]", import_module(f"benchmarks.tables.{name}").published_table)


@dataclass(frozen=True)
class Derived:
    """A table that is made from what was published: of each tuple of files in results/, the first that there is."""

    make: Callable[..., str]
    files: tuple[tuple[str, ...], ...]

    @property
    def sources(self) -> set[str]:
        """The studies and benchmarks whose results these are."""
        return {file.partition("/")[0] for files in self.files for file in files}


def runs_in(study: str) -> tuple[str, ...]:
    """The file that has the runs of a study."""
    return (f"{study}/comparison.csv",)


def compared_in(study: str) -> tuple[str, ...]:
    """The file that has what `compare` shows of a study: its means over seeds, or its runs."""
    return (f"{study}/seeds.csv", *runs_in(study))


def on_shared_host(benchmark: str) -> tuple[str, ...]:
    """The file that has what a benchmark found on a host that others use."""
    return (f"{benchmark}/{SHARED_HOST}/{benchmark}.csv",)


DERIVED: Mapping[str, Derived] = {
    "front": Derived(front.published_table, (runs_in("first_sweep"),)),
    "answer": Derived(article.answers, (compared_in("article"), (f"article/against_{RIVAL}.csv",))),
    "seeds": Derived(article.seed_by_seed, (runs_in("article"), (f"article/runs_against_{RIVAL}.csv",))),
    "compression": Derived(compression.published_table, (compared_in("compression"),)),
    "compression_seeds": Derived(compression.seed_by_seed, (runs_in("compression"), runs_in("compression_seeds"))),
    "epochs": Derived(article.by_epochs, (compared_in("epochs"),)),
    "architectures": Derived(
        article.by_model, (runs_in("architectures"), (f"architectures/runs_against_{RIVAL}.csv",))
    ),
    "strategies": Derived(strategies.published_table, (compared_in("once"),)),
    "same_file_shared_host": Derived(same_file.published_table, (on_shared_host("same_file"),)),
    "planted_shared_host": Derived(planted.published_table, (on_shared_host("planted"),)),
    "spread_shared_host": Derived(spread.published_table, (on_shared_host("spread"),)),
}


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
            renew_all_pages()
        elif options.redraw:
            redraw(options.name)
        else:
            publish(options.name, options.uri)


if __name__ == "__main__":
    main()
