"""Benchmarks of all claims in README.md and docs/: `python -m benchmarks [NAME ...]`.

Without a name, the command lists them.

A benchmark writes benchmarks/results/NAME/ with its stamp and renews its table there; a study is a sweep, run in
this folder (so that it goes on where it stopped) and published. Then its tables are shown, now and as committed.
Exit codes: 0 all figures are reached; 1 one is not, or a command failed; 2 no such benchmark.
"""

from experiments.system.startup import stop_without_traceback

if __name__ == "__main__":
    stop_without_traceback()  # what follows takes seconds

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence

from rich import box
from rich.table import Table

from benchmarks.harness.benchmark import Benchmark, Study
from benchmarks.harness.pages import RESULTS, on_disk
from benchmarks.registry import BENCHMARKS, tables_from
from experiments.system.errors import UserError, reporting_user_errors, suggestion
from experiments.system.progress import CONSOLE, say


def listed(every: Sequence[Benchmark]) -> Table:
    """Return the benchmarks as a table for the terminal."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("name", "shows", "takes", "published"):
        table.add_column(heading, overflow="fold")
    for benchmark in every:
        table.add_row(benchmark.name, benchmark.title, benchmark.duration, "yes" if benchmark.published else "")
    return table


def committed(file: str) -> str:
    """Return the committed version of a file of the results; empty if there is none."""
    show = ["git", "-C", str(RESULTS), "show", f"HEAD:./{file}"]
    done = subprocess.run(show, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def repeated(benchmark: Benchmark) -> bool:
    """Run a benchmark, show its tables beside the committed ones, and return whether it succeeded."""
    before = {table.name: (table, table.published(committed)) for table in tables_from(benchmark.name)}
    say(f"{benchmark.name}: {benchmark.title} ({benchmark.duration})")
    for command in benchmark.commands:
        if subprocess.run(command, check=False).returncode != 0:
            say(f"{benchmark.name}: not as it should be")
            return False
    for name, (table, was) in before.items():
        say(beside(name, table.published(), was))
    return True


def beside(table: str, now: str, was: str) -> str:
    """Return the current table, and the committed one if it differs; empty if no page has the table."""
    match (now == was, bool(was)):
        case (True, _):
            return f"table {table}: as committed.\n{now}"
        case (_, False):
            return f"table {table}, never committed:\n{now}"
        case _:
            return f"table {table}, now:\n{now}\ncommitted before:\n{was}"


def chosen(names: Sequence[str], every: dict[str, Benchmark]) -> list[Benchmark]:
    """Return the benchmarks of these names; `all` are all that this version can repeat.

    Raises:
        UserError: there is none of a name, or this version cannot repeat it.
    """
    for name in names:
        if name not in every and name != "all":
            raise UserError(f"{name}: no such benchmark. {suggestion(name, every)}")
        if name != "all" and (setting := _removed(every[name])):
            commit = json.loads(on_disk(f"{name}/stamp.json"))["git_commit"]
            raise UserError(
                f"{name}: this study is archived, since it requires {setting}, which was removed. Repeat it with the "
                f"commit that it was measured with: git checkout {commit}"
            )
    repeatable = [each for each in every.values() if not _removed(each)]
    return repeatable if "all" in names else [every[name] for name in dict.fromkeys(names)]


def _removed(benchmark: Benchmark) -> str:
    """Return the option that a benchmark needs and that was removed from this version."""
    return benchmark.removed if isinstance(benchmark, Study) else ""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to repeat; `all` for all; none lists them")
    options = parser.parse_args()
    with reporting_user_errors():
        every = BENCHMARKS
        if not options.names:
            CONSOLE.print(listed(list(every.values())))
            return
        outcomes = [repeated(benchmark) for benchmark in chosen(options.names, every)]
    sys.exit(0 if all(outcomes) else 1)


if __name__ == "__main__":
    main()
