"""The results of a benchmark in results/NAME/: raw figures and the stamp with the command; and its table in a page."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from benchmarks.harness import pages
from benchmarks.harness.benchmark import Benchmark
from experiments.system.progress import say
from experiments.system.stamp import stamp


def options(benchmark: Benchmark, description: str | None) -> argparse.ArgumentParser:
    """Add the options of every long benchmark."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark.name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a small piece, to see that it works; writes nothing")
    return parser


def timing_options(benchmark: Benchmark, description: str | None) -> argparse.ArgumentParser:
    """Add the options of benchmarks whose figures differ on a shared host."""
    parser = options(benchmark, description)
    parser.add_argument(
        "--shared-host",
        action="store_true",
        help="keep the results beside those of a quiet machine, for this host is shared",
    )
    return parser


OTHER_ROWS = "git_commits_of_other_rows"  # in a stamp, of rows that were not renewed


def sign(folder: Path, signature: Mapping[str, str]) -> None:
    """Write the stamp beside results, with the command that made them."""
    (folder / "stamp.json").write_text(json.dumps(signature, indent=2) + "\n")


@dataclass(frozen=True)
class Results:
    """The folder of a benchmark's results; created at the start, as the stamp must describe the code that runs."""

    benchmark: Benchmark
    shared_host: bool = False
    stamp: Mapping[str, str] = field(default_factory=stamp)

    @property
    def folder(self) -> Path:
        """benchmarks/results/NAME, or its subfolder for a shared host; created if it is missing."""
        folder = pages.RESULTS / self.benchmark.name / (pages.SHARED_HOST if self.shared_host else "")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write(self, table: pd.DataFrame, sweep: str = "", more: Mapping[str, pd.DataFrame] | None = None) -> None:
        """Write the figures of the published table, and `more` tables by file name; `sweep` is the command measured."""
        for name, figures in {f"{self.benchmark.name}.csv": table, **(more or {})}.items():
            figures.to_csv(self.folder / name, index=False, lineterminator="\n")
        self.sign(sweep)

    def sign(self, sweep: str = "") -> None:
        """Write the stamp beside existing figures, and update the published tables."""
        command = shlex.join(["python", "-m", f"benchmarks.{self.benchmark.name}", *sys.argv[1:]])
        sign(self.folder, {**self.stamp, "command": command, **({"sweep": sweep} if sweep else {})})
        pages.renew(self.benchmark.tables)

    def finish(
        self,
        table: pd.DataFrame,
        quick: bool,
        failures: Sequence[str],
        sweep: str = "",
        more: Mapping[str, pd.DataFrame] | None = None,
    ) -> None:
        """Print the published table, write it unless the run was quick, and print whether the targets are met."""
        say(self.benchmark.tables[0].make(table))
        if not quick:
            self.write(table, sweep, more)
        verdict(failures)


def of_some_rows(benchmark: Benchmark) -> Results:
    """Return the results of a benchmark that renews only some rows: the stamp names the commits of all others."""
    new = stamp()
    earlier = json.loads((pages.RESULTS / benchmark.name / "stamp.json").read_text())
    others = {*earlier.get(OTHER_ROWS, "").split(), earlier["git_commit"]} - {new["git_commit"]}
    return Results(benchmark, stamp={**new, OTHER_ROWS: " ".join(sorted(others))})


def verdict(failures: Sequence[str]) -> None:
    """Print whether the targets are met, and exit with 1 if not."""
    if failures:
        say("NOT REACHED: " + "; ".join(failures))
        sys.exit(1)
    say("All figures are reached.")
