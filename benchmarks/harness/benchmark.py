"""Benchmarks: a claim, the commands that test it, and the tables of the results."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import Table, compared_in, on_disk
from experiments.comparison.columns import COLUMNS, with_identity, with_scores
from experiments.comparison.display import display_table, note

HOUR = 60  # minutes
RUN = ("-m", "experiments.run")
CONTROL = "finetune"  # as many further epochs, in float
RIVAL = "finetune_ptq_int8"  # the same, then int8 after training


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A claim, and the module that tests it."""

    name: str  # of the module and its folder in results/
    title: str
    minutes: int  # approximate duration on two cores
    tables: tuple[Table, ...]  # the first is that of its results
    former_name: str = ""  # name in the stamps of its published results

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """The commands that repeat it, in order."""
        return ((sys.executable, "-m", f"benchmarks.{self.name}"),)

    @property
    def published(self) -> bool:
        """Whether its results are in the repository."""
        return bool(on_disk(f"{self.name}/stamp.json"))

    @property
    def duration(self) -> str:
        """The duration for display."""
        return f"{self.minutes} min" if self.minutes < HOUR else f"{self.minutes / HOUR:g} h"


@dataclass(frozen=True, kw_only=True)
class Study(Benchmark):
    """Sweeps of the real command line, and their publication."""

    sweeps: tuple[tuple[str, ...], ...]  # arguments of `python -m experiments.run`
    data: tuple[str, ...] = ()  # the script that makes its data, and the folder where they are
    control: str | None = None  # the strategy that the others are compared with, image by image
    rival: str | None = None  # another one, published as against_RIVAL.csv and runs_against_RIVAL.csv
    removed: str = ""  # a setting that it requires and that was removed: it can be repeated only at its commit

    @property
    def typed(self) -> list[str]:
        """The commands as typed, which each sweep records."""
        return [shlex.join(["python", *RUN, *overrides]) for overrides in self.sweeps]

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """The script that makes the data unless they are there, the sweeps, then their publication."""
        made = ((sys.executable, *self.data),) if self.data and not Path(self.data[-1]).exists() else ()
        runs = tuple((sys.executable, *RUN, *overrides) for overrides in self.sweeps)
        return (*made, *runs, (sys.executable, "-m", "benchmarks.publish", self.name))

    @property
    def duration(self) -> str:
        """The duration for display."""
        return "archived" if self.removed else super().duration


def swept(study: str) -> Table:
    """Return the table of a study as `python -m experiments.compare` shows it."""
    return Table(study, sweep_table, (compared_in(study),))


def sweep_table(table: pd.DataFrame) -> str:
    """Return the table of a sweep as `python -m experiments.compare` shows it."""
    every = list(dict.fromkeys([*COLUMNS, *table.columns]))  # earlier versions have fewer columns
    table = with_scores(with_identity(table.reindex(columns=every)))
    return f"{markdown(display_table(table))}\n{note(table)}\n"
