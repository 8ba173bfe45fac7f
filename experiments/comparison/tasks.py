"""The tasks of a comparison: the rows of one model on one set of test examples, which compete, and their evidence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import ceil, inf
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.comparison.columns import (
    TASK,
    VOID,
    cell_of,
    further_epochs,
    key_of,
    may_be_shipped,
    of_one_float_file,
)
from experiments.comparison.compared import Comparison
from experiments.comparison.groups import ReadEvidence, group_runs, seeds_to_pool
from experiments.comparison.metric import common_metric
from experiments.comparison.names import names, task_titles
from experiments.comparison.recommendation import MARGIN, ORDER, Candidate
from experiments.measure.rounds import ReadRounds, no_rounds
from experiments.record.evidence import Evidence, Predictions, difference_of, same_examples
from experiments.record.metric import RecordedMetric
from experiments.statistics.estimates import (
    Estimate,
    examples_needed,
    pairs_among,
    unpaired_difference,
    unpaired_p,
)
from experiments.statistics.power import Needed, needed, needed_by_interval

LIKE_FLOAT = 1.01  # size ratios up to this are no gain


@dataclass(frozen=True)
class Task:
    """The rows of one model on one set of test examples; only they compete."""

    title: str
    rows: pd.DataFrame
    runs: pd.DataFrame
    read_evidence: ReadEvidence
    margin: float = MARGIN  # share of the test examples that may be lost for size or speed
    order: Sequence[str] = ORDER  # of the criteria that choose among tied rows
    timings: ReadRounds = no_rounds

    def difference(self, one: str, other: str) -> Estimate | None:
        """Return the accuracy of one row minus that of another, over the seeds and images that both have.

        If predictions are missing, it is computed from the intervals of both; None if these are missing too.
        """
        return self._compared(one, other)[0]

    def p_value(self, one: str, other: str) -> float | None:
        """Return the p-value that both are equally accurate, from the evidence of `difference`; None without any."""
        return self._compared(one, other)[1]

    @cached_property
    def metric(self) -> RecordedMetric:
        """The metric by which rows are compared; differences and margin are gains in it, the higher the better."""
        return common_metric(self.rows) or RecordedMetric()

    def _compared(self, one: str, other: str) -> tuple[Estimate | None, float | None]:
        if (one, other) not in self._known:
            found: tuple[Estimate | None, float | None] = (None, None)
            if pairs := self._pairs(one, other):
                difference, p = difference_of(*map(list, zip(*pairs, strict=True)))
                found = self.metric.gain(difference), p
            elif both := self._intervals(one, other):
                found = unpaired_difference(*both), unpaired_p(*both)
            self._known[one, other] = found
        return self._known[one, other]

    @cached_property
    def _known(self) -> dict[tuple[str, str], tuple[Estimate | None, float | None]]:
        return {}

    def examples_needed(self, one: str, other: str) -> int | None:
        """Return the number of test examples that would show whether a row loses more than the margin, if known."""
        right = self._right(one, other)
        if right is None:
            return self._examples_for_margin(one, other)
        after, before = right
        return examples_needed(float((after & ~before).mean()), float((before & ~after).mean()), self.margin)

    def _examples_for_margin(self, one: str, other: str) -> int | None:
        """See examples_needed, for a metric of any kind: intervals narrow with the square root of the examples."""
        if not (pairs := self._pairs(one, other)) or (difference := self.difference(one, other)) is None:
            return None
        half, distance = (difference.high - difference.low) / 2, abs(difference.value + self.margin)
        return ceil(pairs[0][0].examples * (half / max(distance, self.margin / 10)) ** 2)

    def needed_to_separate(self, one: str, other: str) -> Needed | None:
        """Return how many test examples or seeds would separate two rows of this task; None without predictions.

        The significance level is that of Holm's correction for all pairs of rows.
        """
        right = self._right(one, other)
        if right is None:
            pairs, difference = self._pairs(one, other), self.difference(one, other)
            if not pairs or difference is None:
                return None
            return needed_by_interval(difference, pairs[0][0].examples, pairs_among(len(self.rows)))
        after, before = right
        return needed(after.astype(float) - before.astype(float), pairs_among(len(self.rows)))

    def seeds_of(self, run_id: str) -> int:
        """Return the number of seeds of a row."""
        return len(self._by_seed[run_id])

    def candidates(self, rows: pd.DataFrame) -> list[Candidate]:
        """Convert rows of the task to candidates of the rule."""
        timed = rows[(rows["speed"] != VOID) & rows["speedup"].notna()]
        ranked = set(timed["run_id"]) if len(timed) and of_one_float_file(timed) else set()
        further = further_epochs(rows).fillna(0).astype(float)
        # Computed by columns: row by row, thousands of rows would take seconds.
        columns = (
            rows["run_id"],
            rows["tflite_score"].astype(float) * (1 if self.metric.better == "higher" else -1),
            rows["size_ratio"].astype(float) > LIKE_FLOAT,
            further > 0,
            rows["tflite_bytes"].astype(float),
            map(Estimate, *(rows[f"speedup{end}"].astype(float) for end in ("", "_low", "_high"))),
            rows["speed"].eq("slower").fillna(value=False),
            rows["coverage_ops"].astype(float).fillna(0.0),
            rows["epochs"].fillna(0).astype(float) + further,
            rows["tflite_sha256"].astype(object).where(rows["tflite_sha256"].notna(), ""),
        )
        found = (Candidate(*facts) for facts in zip(*columns, strict=True))
        together = set() if "runs" in rows.columns else set(rows.loc[rows["latency_rounds"].gt(1), "run_id"])
        return [
            replace(each, rounds=partial(self.timings, each.key))
            if each.key in ranked & together
            else each
            if each.key in ranked
            else replace(each, speedup=None)
            for each in found
        ]

    def row(self, run_id: str) -> pd.Series:
        """Return the row of a run id."""
        return self.rows.iloc[self._places[run_id]]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {run_id: place for place, run_id in enumerate(self.rows["run_id"])}

    @cached_property
    def _accuracies(self) -> dict[str, Estimate]:
        """The scores of the rows that have an interval, as gains, by run id."""
        intervals = (self.rows[f"tflite_score{end}"].astype(float) for end in ("", "_low", "_high"))
        found = zip(self.rows["run_id"], map(Estimate, *intervals), strict=True)
        lowest, highest = (0, 1) if self.metric.is_share else (-inf, inf)
        return {
            run_id: self.metric.gain(each)
            for run_id, each in found
            if lowest <= each.low <= each.value <= each.high <= highest
        }

    def _intervals(self, one: str, other: str) -> tuple[Estimate, Estimate] | None:
        """Return the accuracies of two rows; None if one has no interval."""
        known = self._accuracies
        return (known[one], known[other]) if one in known and other in known else None

    def _pairs(self, one: str, other: str) -> list[tuple[Evidence, Evidence]]:
        """Return what both rows achieved on the same examples, for each seed that both have."""
        runs, others = self._by_seed[one], self._by_seed[other]
        seeds = sorted(runs.keys() & others.keys())
        pairs = [(self.read_evidence(runs[seed]), self.read_evidence(others[seed])) for seed in seeds]
        known = [(after, before) for after, before in pairs if after is not None and before is not None]
        return [(a, b) for a, b in known if same_examples(a, known[0][0]) and same_examples(a, b)]

    def _right(self, one: str, other: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None:
        """Return which images each row classifies correctly: two arrays (seeds, images)."""
        pairs = [
            (a.tflite == a.truth, b.tflite == b.truth)
            for a, b in self._pairs(one, other)
            if isinstance(a, Predictions) and isinstance(b, Predictions)
        ]
        if not pairs:
            return None
        right, other_right = (np.stack(each) for each in zip(*pairs, strict=True))
        return right, other_right

    @cached_property
    def _by_seed(self) -> dict[str, dict[int, str]]:
        """The runs that each row stands for: their ids by seed, by the row's run id."""
        groups = self.rows["runs"].gt(1).fillna(value=False) if "runs" in self.rows else self.rows["run_id"].isna()
        alone = self.rows[~groups & self.rows["seed"].notna()]
        found = {run_id: {int(seed): run_id} for run_id, seed in zip(alone["run_id"], alone["seed"], strict=True)}
        cells = cell_of(self.runs)
        for _, row in self.rows[groups].iterrows():
            found[row["run_id"]] = self._seeds.get(key_of(row[cells]), {})
        return {run_id: found.get(run_id, {}) for run_id in self.rows["run_id"]}

    @cached_property
    def _seeds(self) -> dict[tuple[Any, ...], dict[int, str]]:
        """The newest finished run of each seed, by the setting."""
        runs = self.runs[(self.runs["status"] == "FINISHED") & self.runs["seed"].notna()]
        return {
            key_of(key): dict(zip(map(int, group["seed"]), group["run_id"], strict=True))
            for key, group in runs.groupby(cell_of(runs), dropna=False)
        }

    def name_of_row(self, row: pd.Series) -> str:
        """Return the name of a row: its strategy, and the settings in which rows of this task differ."""
        return self.name_of(row["run_id"])

    def name_of(self, run_id: str) -> str:
        """Return the name of the row with this run id."""
        return self._names[run_id]

    @cached_property
    def _names(self) -> dict[str, str]:
        return dict(zip(self.rows["run_id"], names(self.rows), strict=True))


def tasks(comparison: Comparison) -> list[Task]:
    """Return a task for each model, test set and way of judging, with its finished and verified rows.

    Rows are runs, or means over seeds; other groups cannot be shipped.
    """
    if comparison.over_seeds or not comparison.pooled:
        return tasks_of(comparison.table, comparison)
    runs = comparison.runs
    groups = seeds_to_pool(runs)
    return tasks_of(group_runs(runs, groups, comparison.read_evidence).table if groups else runs, comparison)


def tasks_of(table: pd.DataFrame, comparison: Comparison) -> list[Task]:
    """Return the tasks of a table of the comparison, whose rows may be groups of any kind."""
    good = table[may_be_shipped(table) & table["tflite_score"].notna() & table["tflite_bytes"].notna()]
    titles = task_titles(good)
    return [
        Task(
            titles[rows.index[0]],
            rows,
            comparison.runs,
            comparison.read_evidence,
            margin_of(rows, comparison.margin),
            comparison.order,
            comparison.timings,
        )
        for _, rows in good.groupby(TASK, sort=False)
    ]


def margin_of(rows: pd.DataFrame, share: float) -> float:
    """Return the loss that a file to ship may have against the best, in the metric of the rows."""
    metric = common_metric(rows) or RecordedMetric()
    best = rows["tflite_score"].max() if metric.better == "higher" else rows["tflite_score"].min()
    return metric.margin(share, float(best))
