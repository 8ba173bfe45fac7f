"""What a benchmark leaves in results/NAME/: raw figures, the stamp with the command; and its table in a page."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from benchmarks.publish import HERE, SHARED_HOST, own_table, renew_pages, sign
from experiments.system.progress import say
from experiments.system.stamp import stamp


def options(module: str, description: str | None) -> argparse.ArgumentParser:
    """What every long benchmark can be asked."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small piece, to see that it works; writes nothing")
    return parser


def timing_options(module: str, description: str | None) -> argparse.ArgumentParser:
    """What a benchmark can be asked whose figures tell something else on a host that others use."""
    parser = options(module, description)
    parser.add_argument(
        "--shared-host",
        action="store_true",
        help="keep the results beside those of a quiet machine, for this host is shared",
    )
    return parser


@dataclass(frozen=True)
class Results:
    """Where a benchmark leaves what it found; made when it begins, since the stamp is that of the code that runs."""

    name: str
    shared_host: bool = False
    stamp: Mapping[str, str] = field(default_factory=stamp)

    @property
    def folder(self) -> Path:
        """benchmarks/results/NAME, or its part for a shared host, made if it is missing."""
        folder = HERE / "results" / self.name / (SHARED_HOST if self.shared_host else "")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write(self, table: pd.DataFrame, sweep: str = "", more: Mapping[str, pd.DataFrame] | None = None) -> None:
        """Write the figures of the published table, and `more` tables by file name; `sweep` is the command measured."""
        for name, figures in {f"{self.name}.csv": table, **(more or {})}.items():
            figures.to_csv(self.folder / name, index=False, lineterminator="\n")
        self.sign(sweep)

    def sign(self, sweep: str = "") -> None:
        """Write the stamp beside figures that are there already, and renew the published table."""
        own = shlex.join(["python", "-m", f"benchmarks.{self.name}", *sys.argv[1:]])
        commands = {"command": own, **({"sweep": sweep} if sweep else {})}
        sign(self.folder, {**self.stamp, **commands})
        renew_pages(self.name)

    def finish(
        self,
        table: pd.DataFrame,
        quick: bool,
        failures: Sequence[str],
        sweep: str = "",
        more: Mapping[str, pd.DataFrame] | None = None,
    ) -> None:
        """Print the published table, write it unless it was but a quick look, and say if the figures are reached."""
        say(own_table(self.name)(table))
        if not quick:
            self.write(table, sweep, more)
        verdict(failures)


def verdict(failures: Sequence[str]) -> None:
    """Say whether the figures are reached, and end with 1 where they are not."""
    if failures:
        say("NOT REACHED: " + "; ".join(failures))
        sys.exit(1)
    say("All figures are reached.")
