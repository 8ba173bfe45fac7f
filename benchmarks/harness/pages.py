"""Published tables: made only from CSV files, and placed between marks in README.md or pages of docs/."""

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
SHARED_HOST = "shared_host"  # subfolder for results on a host that is shared with others


def on_disk(file: str) -> str:
    """Return a file of the results, such as once/once.csv; empty if there is none."""
    path = RESULTS / file
    return path.read_text() if path.exists() else ""


@dataclass(frozen=True)
class Table:
    """A published table: its name in the marks, the function that makes it, and its CSV files."""

    name: str
    make: Callable[..., str]  # returns Markdown from a data frame per file
    files: tuple[tuple[str, ...], ...]  # in results/; the first existing file of each tuple

    @property
    def sources(self) -> set[str]:
        """The benchmarks with these results."""
        return {file.partition("/")[0] for files in self.files for file in files}

    def published(self, read: Callable[[str], str] = on_disk) -> str:
        """Return the table as Markdown; empty if a file does not exist."""
        tables = [next(filter(None, map(read, files)), "") for files in self.files]
        return self.make(*(pd.read_csv(StringIO(table)) for table in tables)) if all(tables) else ""


def own(benchmark: str, make: Callable[[pd.DataFrame], str]) -> Table:
    """Return the table of a benchmark's own results."""
    return Table(benchmark, make, ((f"{benchmark}/{benchmark}.csv",),))


def on_shared_host(benchmark: str, make: Callable[[pd.DataFrame], str]) -> Table:
    """Return the same table for results on a shared host."""
    return Table(f"{benchmark}_{SHARED_HOST}", make, ((f"{benchmark}/{SHARED_HOST}/{benchmark}.csv",),))


def runs_in(study: str) -> tuple[str, ...]:
    """Return the file with the runs of a study."""
    return (f"{study}/comparison.csv",)


def compared_in(study: str) -> tuple[str, ...]:
    """Return the file with the rows that `compare` shows: means over seeds, or runs."""
    return (f"{study}/seeds.csv", *runs_in(study))


def pages() -> list[Path]:
    """Return the README and all pages, which may have published tables."""
    return [README, *sorted((README.parent / "docs").rglob("*.md"))]


def renew(tables: Iterable[Table]) -> None:
    """Update published tables in the pages."""
    for table in tables:
        places = [page for page in pages() if OPENING.format(table.name) in page.read_text()]
        for page in places:
            page.write_text(with_table(page, table))
        if not places:
            say(f"Neither README.md nor a page of docs/ has marks for the table {table.name}.")


def renew_all(tables: Mapping[str, Table]) -> None:
    """Update every published table in the pages."""
    for page in pages():
        for name in MARK.findall(page.read_text()):
            page.write_text(with_table(page, tables[name]))


def with_table(page: Path, table: Table) -> str:
    """Return the page with the published table between its marks."""
    opening, closing = f"{OPENING.format(table.name)}\n", CLOSING.format(table.name)
    before, _, rest = page.read_text().partition(opening)
    _, found, after = rest.partition(closing)
    if not found:
        raise UserError(f"{page.name}: the table {table.name} requires {closing} after {opening.strip()}.")
    return f"{before}{opening}{table.published()}{closing}{after}"
