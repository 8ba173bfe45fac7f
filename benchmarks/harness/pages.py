"""Published tables: each is made from CSV files alone, and stands between its marks in README.md or a page of docs/."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas as pd

from experiments.system.errors import UserError
from experiments.system.progress import say

RESULTS = Path(__file__).parent.parent / "results"
README = RESULTS.parent.parent / "README.md"
MARK = re.compile(r"<!-- table (\w+) -->")
OPENING, CLOSING = "<!-- table {} -->", "<!-- end of table {} -->"
SHARED_HOST = "shared_host"  # in the results of a benchmark: what it found where others use the host, too


def on_disk(file: str) -> str:
    """A file of the results, such as once/once.csv; empty where there is none."""
    path = RESULTS / file
    return path.read_text() if path.exists() else ""


@dataclass(frozen=True)
class Table:
    """A published table: its name in the marks of pages, what makes it, and the CSV files that it is made from."""

    name: str
    make: Callable[..., str]  # Markdown, from a data frame for each of the files
    files: tuple[tuple[str, ...], ...]  # in results/; of each tuple the first that there is

    @property
    def sources(self) -> set[str]:
        """The benchmarks whose results these are."""
        return {file.partition("/")[0] for files in self.files for file in files}

    def published(self, read: Callable[[str], str] = on_disk) -> str:
        """The table as Markdown; empty where `read` finds no file."""
        tables = [next(filter(None, map(read, files)), "") for files in self.files]
        return self.make(*(pd.read_csv(StringIO(table)) for table in tables)) if all(tables) else ""


def own(benchmark: str, make: Callable[[pd.DataFrame], str]) -> Table:
    """The table of a benchmark, from the figures that it writes."""
    return Table(benchmark, make, ((f"{benchmark}/{benchmark}.csv",),))


def on_shared_host(benchmark: str, make: Callable[[pd.DataFrame], str]) -> Table:
    """The same table, of what the benchmark found on a host that others use."""
    return Table(f"{benchmark}_{SHARED_HOST}", make, ((f"{benchmark}/{SHARED_HOST}/{benchmark}.csv",),))


def runs_in(study: str) -> tuple[str, ...]:
    """The file that has the runs of a study."""
    return (f"{study}/comparison.csv",)


def compared_in(study: str) -> tuple[str, ...]:
    """The file that has what `compare` shows of a study: its means over seeds, or its runs."""
    return (f"{study}/seeds.csv", *runs_in(study))


def pages() -> list[Path]:
    """The README and the pages behind it: all that shows published tables."""
    return [README, *sorted((README.parent / "docs").rglob("*.md"))]


def renew(tables: Iterable[Table]) -> None:
    """Put published tables where the pages have a place for them."""
    for table in tables:
        places = [page for page in pages() if OPENING.format(table.name) in page.read_text()]
        for page in places:
            page.write_text(with_table(page, table))
        if not places:
            say(f"Neither README.md nor a page of docs/ has a place for a table {table.name}.")


def renew_all(tables: Mapping[str, Table]) -> None:
    """Put every published table into the pages again, as its CSV and what makes tables of it are now."""
    for page in pages():
        for name in MARK.findall(page.read_text()):
            page.write_text(with_table(page, tables[name]))


def with_table(page: Path, table: Table) -> str:
    """The page's text with a published table between its marks."""
    opening, closing = f"{OPENING.format(table.name)}\n", CLOSING.format(table.name)
    before, _, rest = page.read_text().partition(opening)
    _, found, after = rest.partition(closing)
    if not found:
        raise UserError(
            f"{page.name}: the table {table.name} has no end; after {opening.strip()} there must be {closing}."
        )
    return f"{before}{opening}{table.published()}{closing}{after}"
