"""What a benchmark is: a claim, the commands that test it, and the tables that show what was found."""

import shlex
import sys
from dataclasses import dataclass

import pandas as pd

from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import Table, compared_in, on_disk
from experiments.comparison.columns import COLUMNS, identified
from experiments.comparison.display import display_table, note

HOUR = 60  # minutes
RUN = ("-m", "experiments.run")
CONTROL = "finetune"  # as many further epochs, in float
RIVAL = "finetune_ptq_int8"  # the same, then int8 after training


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A claim that a module of its own tests."""

    name: str  # of the module, and of its folder in results/
    title: str
    minutes: int  # about, on two cores
    tables: tuple[Table, ...]  # the first is that of the figures that it writes
    former_name: str = ""  # by which the stamps of its published results know it

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """What repeats it, one after another."""
        return ((sys.executable, "-m", f"benchmarks.{self.name}"),)

    @property
    def published(self) -> bool:
        """Whether the repository holds its results."""
        return bool(on_disk(f"{self.name}/stamp.json"))

    @property
    def duration(self) -> str:
        """How long it takes, in words."""
        return f"{self.minutes} min" if self.minutes < HOUR else f"{self.minutes / HOUR:g} h"


@dataclass(frozen=True, kw_only=True)
class Study(Benchmark):
    """Sweeps of the real command line, and their publication."""

    sweeps: tuple[tuple[str, ...], ...]  # what follows `python -m experiments.run`
    control: str | None = None  # the strategy that the others are compared with, image by image
    rival: str | None = None  # another one; kept as against_RIVAL.csv and runs_against_RIVAL.csv
    removed: str = ""  # the setting that it needs and this version no longer has: it can be repeated at its commit only

    @property
    def typed(self) -> list[str]:
        """What a person types, as each sweep records it."""
        return [shlex.join(["python", *RUN, *overrides]) for overrides in self.sweeps]

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """The sweeps, then their publication."""
        runs = tuple((sys.executable, *RUN, *overrides) for overrides in self.sweeps)
        return (*runs, (sys.executable, "-m", "benchmarks.publish", self.name))

    @property
    def duration(self) -> str:
        """How long it takes, in words."""
        return "archived" if self.removed else super().duration


def swept(study: str) -> Table:
    """The table of a study as `python -m experiments.compare` shows it."""
    return Table(study, sweep_table, (compared_in(study),))


def sweep_table(table: pd.DataFrame) -> str:
    """What `python -m experiments.compare` shows of a sweep."""
    every = list(dict.fromkeys([*COLUMNS, *table.columns]))  # one of an earlier version has fewer
    table = identified(table.reindex(columns=every))
    return f"{markdown(display_table(table))}\n{note(table)}\n"
