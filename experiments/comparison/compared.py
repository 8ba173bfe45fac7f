"""A comparison: runs, differences from a strategy, and groups of runs."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.comparison.baseline import trained_less, unmatched, with_baseline
from experiments.comparison.columns import MODEL, TASK, TEST, TRAINING, without_digests
from experiments.comparison.groups import ReadEvidence, group_runs, seeds_to_pool
from experiments.comparison.query import require_column, select_rows, sort_rows
from experiments.comparison.recommendation import MARGIN, ORDER, Criterion
from experiments.measure.rounds import ReadRounds, no_rounds
from experiments.record.artifacts import ROUNDS, read_artifact, read_or_none, read_rounds
from experiments.record.evidence import Evidence, Predictions
from experiments.tracking import Store


@dataclass(frozen=True)
class Comparison:
    """Runs, one per row; the table to show, whose rows may be groups of runs; and remarks on what is omitted."""

    runs: pd.DataFrame
    table: pd.DataFrame
    read_evidence: ReadEvidence
    over_seeds: bool = False  # the rows are groups of runs that differ only in their seeds
    remarks: tuple[str, ...] = ()
    margin: float = MARGIN  # share of the test examples that a file to ship may lose against the most accurate
    timings: ReadRounds = no_rounds
    order: tuple[Criterion, ...] = ORDER  # of the criteria by which one of those that are tied is chosen

    @property
    def pooled(self) -> bool:
        """Whether the rows of the table are groups of runs."""
        return "runs" in self.table.columns

    def in_order(self, keys: Sequence[str]) -> "Comparison":
        """Return the comparison sorted by these columns.

        Raises:
            UserError: there is no such column.
        """
        table = sort_rows(self.table, keys)
        return replace(self, table=table, runs=sort_rows(self.runs, [key for key in keys if _is_of(key, self.runs)]))

    @property
    def of_seeds(self) -> pd.DataFrame:
        """The table if its rows are means over seeds; otherwise an empty one."""
        return self.table if self.over_seeds else self.table.iloc[:0]


def compare_runs(
    store: Store,
    runs: pd.DataFrame,
    baseline: str | None = None,
    condition: str | None = None,
    by: Sequence[str] | None = None,
) -> Comparison:
    """Compare runs with a strategy, select those that meet a condition, and pool them by these columns.

    Without columns, they are pooled over seeds if there are several.

    Raises:
        UserError: no run has this strategy or meets the condition, or a column does not exist.
    """
    read_evidence = _cache_compactly(lambda run_id: read_or_none(partial(store.read_evidence, run_id)))
    timings = cache(lambda run_id: read_artifact(store, run_id, ROUNDS, read_rounds))
    every = with_baseline(runs, baseline, read_evidence, timings) if baseline else runs
    runs = select_rows(every, condition) if condition else every
    remarks = _known_by_names(runs)
    remarks += [*unmatched(runs, baseline), *trained_less(runs, every, baseline)] if baseline else []
    groups = seeds_to_pool(runs) if by is None else _expand_group_columns(runs, by)
    if not groups:
        return Comparison(runs, runs, read_evidence, remarks=tuple(remarks), timings=timings)
    found = group_runs(runs, groups, read_evidence)
    remarks += [*_several_tasks(found.table), *found.left_out]
    return Comparison(runs, found.table, read_evidence, by is None, tuple(remarks), timings=timings)


def _expand_group_columns(runs: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """Return the columns to group by; models and data sets are grouped by content, not only by name."""
    contents = {"model": [MODEL, "model_name"], "dataset": [TRAINING, TEST, "dataset_name"]}
    names = [require_column(runs, name, "--group-by") for name in by]
    return [column for name in names for column in (name, *contents.get(name.removesuffix("_name"), ()))]


def _several_tasks(groups: pd.DataFrame) -> list[str]:
    """Return a line about rows that are means over several models or data sets, or no line."""
    mixed = groups[groups["runs"].gt(1) & groups[TASK].isna().any(axis=1)]
    names = ", ".join(mixed["strategy"].unique())
    line = f"{len(mixed)} rows are means over several models, data sets or tasks ({names}) and are not ranked."
    return [line] if len(mixed) else []


def _known_by_names(runs: pd.DataFrame) -> list[str]:
    """Return a line about runs of earlier versions, which are matched by name, or no line."""
    count = without_digests(runs)
    line = (
        f"{count} of {len(runs)} runs were recorded by an earlier version without digests of model and data: they are "
        "matched by the names of model and data, whatever the content of their files."
    )
    return [line] if count else []


def _is_of(key: str, table: pd.DataFrame) -> bool:
    """Whether a table has the column of a sort key; only groups have `runs`."""
    return key.removeprefix("-") in table.columns


def _cache_compactly(read: ReadEvidence) -> ReadEvidence:
    """Return a function that reads predictions once, and caches them compactly: thousands of runs are gigabytes."""

    @cache
    def kept(run_id: str) -> Evidence | None:
        evidence = read(run_id)
        if isinstance(evidence, Predictions):
            return Predictions(*(_small(getattr(evidence, each.name)) for each in fields(evidence)))
        return evidence

    def widened(run_id: str) -> Evidence | None:
        evidence = kept(run_id)
        if isinstance(evidence, Predictions):
            return Predictions(*(getattr(evidence, each.name).astype(np.int64) for each in fields(evidence)))
        return evidence

    return widened


def _small(labels: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    ends = (np.min_scalar_type(labels.min(initial=0)), np.min_scalar_type(labels.max(initial=0)))
    return labels.astype(np.promote_types(*ends))
