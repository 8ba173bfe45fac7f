"""A comparison as it is shown: runs held against a strategy, and pooled."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.comparison.baseline import against, trained_less, unmatched
from experiments.comparison.columns import MODEL, TASK, TEST, TRAINING, without_digests
from experiments.comparison.groups import ReadPredictions, grouped, seeds_to_pool
from experiments.comparison.query import in_order, known, where
from experiments.comparison.recommendation import MARGIN, ORDER, Criterion
from experiments.record.artifacts import or_none
from experiments.record.run_record import Predictions
from experiments.tracking import Store


@dataclass(frozen=True)
class Comparison:
    """Runs, one a row; the table that is shown, whose rows may be groups of them; and what it leaves out, in words."""

    runs: pd.DataFrame
    table: pd.DataFrame
    answers: ReadPredictions
    over_seeds: bool = False  # the rows are groups of runs that differ in their seeds only
    remarks: tuple[str, ...] = ()
    margin: float = MARGIN  # share of the test examples that a file to ship may lose against the most accurate
    order: tuple[Criterion, ...] = ORDER  # of the criteria by which one of those that are tied is chosen

    @property
    def pooled(self) -> bool:
        """Whether the rows shown are groups of runs."""
        return "runs" in self.table.columns

    def in_order(self, keys: Sequence[str]) -> "Comparison":
        """The same, its rows by these columns.

        Raises:
            UserError: there is no such column.
        """
        table = in_order(self.table, keys)
        return replace(self, table=table, runs=in_order(self.runs, [key for key in keys if _is_of(key, self.runs)]))

    @property
    def of_seeds(self) -> pd.DataFrame:
        """The table, where it holds means over seeds; an empty one otherwise."""
        return self.table if self.over_seeds else self.table.iloc[:0]


def compared(
    store: Store,
    runs: pd.DataFrame,
    baseline: str | None = None,
    condition: str | None = None,
    by: Sequence[str] | None = None,
) -> Comparison:
    """Runs held against a strategy; of them, those that a condition chooses, pooled by these columns.

    Without columns they are pooled over seeds, where there are several.

    Raises:
        UserError: no run has this strategy, the condition holds for none, or there is no such column.
    """
    answers = _remembered(lambda run_id: or_none(partial(store.predictions, run_id)))
    every = against(runs, baseline, answers) if baseline else runs
    runs = where(every, condition) if condition else every
    remarks = _known_by_names(runs)
    remarks += [*unmatched(runs, baseline), *trained_less(runs, every, baseline)] if baseline else []
    groups = seeds_to_pool(runs) if by is None else _asked(runs, by)
    if not groups:
        return Comparison(runs, runs, answers, remarks=tuple(remarks))
    found = grouped(runs, groups, answers)
    mixed = _several_tasks(found.table)
    return Comparison(runs, found.table, answers, by is None, (*remarks, *mixed, *found.left_out))


def _asked(runs: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """The columns to group by: runs of one model or data set are those of one content, whatever its name."""
    contents = {"model": [MODEL, "model_name"], "dataset": [TRAINING, TEST, "dataset_name"]}
    names = [known(runs, name, "--group-by") for name in by]
    return [column for name in names for column in (name, *contents.get(name.removesuffix("_name"), ()))]


def _several_tasks(groups: pd.DataFrame) -> list[str]:
    """Which rows are means over several models or data sets, in a line; none where no row is."""
    mixed = groups[groups["runs"].gt(1) & groups[TASK].isna().any(axis=1)]
    names = ", ".join(mixed["strategy"].unique())
    line = f"{len(mixed)} rows are means over runs of several models or data sets ({names}): they rank nothing."
    return [line] if len(mixed) else []


def _known_by_names(runs: pd.DataFrame) -> list[str]:
    """That runs of an earlier version are matched by names, in a line; none where all have digests."""
    count = without_digests(runs)
    line = (
        f"{count} of {len(runs)} runs were recorded without digests of their model and data, by an earlier version: "
        "they are matched by the names of these, whatever the files held."
    )
    return [line] if count else []


def _is_of(key: str, table: pd.DataFrame) -> bool:
    """Whether a table has the column of a key; `runs` is one of groups alone."""
    return key.removeprefix("-") in table.columns


def _remembered(read: ReadPredictions) -> ReadPredictions:
    """What runs say, read when it is needed and once; kept in few bytes, for of thousands of runs it is gigabytes."""

    @cache
    def kept(run_id: str) -> Predictions | None:
        said = read(run_id)
        return said and Predictions(*(_small(getattr(said, each.name)) for each in fields(said)))

    def widened(run_id: str) -> Predictions | None:
        said = kept(run_id)
        return said and Predictions(*(getattr(said, each.name).astype(np.int64) for each in fields(said)))

    return widened


def _small(labels: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    ends = (np.min_scalar_type(labels.min(initial=0)), np.min_scalar_type(labels.max(initial=0)))
    return labels.astype(np.promote_types(*ends))
