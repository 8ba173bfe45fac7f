"""Gates: requirements, judged at the worse end of intervals, and an objective to minimize or maximize."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, log

import numpy as np
import pandas as pd

from experiments.comparison.choices import deciding_criteria, suspect
from experiments.comparison.columns import (
    JUDGED_BY,
    TEST,
    VOID,
    check_comparable,
    has_verdict,
    is_group,
    may_be_shipped,
    same_file,
    timed,
)
from experiments.comparison.compared import Comparison
from experiments.comparison.metric import common_metric
from experiments.comparison.names import display_names, labels
from experiments.comparison.query import require_column
from experiments.comparison.recommendation import Candidate, fastest, most_accurate, recommend, smallest
from experiments.comparison.tasks import Task, margin_of
from experiments.record.metric import metric_of_row
from experiments.statistics.estimates import (
    SIGNIFICANT,
    Estimate,
    holm,
    interval_p,
    share_p,
    unpaired_difference,
    unpaired_p,
)
from experiments.statistics.rounds import PRIOR_FREEDOM
from experiments.system.errors import OPTION, UserError
from experiments.tracking.schema import names

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
ENDS = ("", "_low", "_high")
SHARES = names(kinds=("share",), interval=True)
RATIOS = names(kinds=("speedup", "ratio"), interval=True)
TOGETHER = " (met by itself, but not at 95 % after Holm's correction for all {} rows)"
ROUNDING = 1e-9  # of a p-value
MOST_NAMES = 20  # of excluded runs in a line
FORM = re.compile(r"\s*(?P<column>[\w.]+)\s*(?P<operator>>=|<=|>|<)\s*(?P<bound>[-+\d_.eE]+)\s*")


@dataclass(frozen=True)
class Requirement:
    """A requirement: a column of the comparison, and a bound."""

    column: str
    operator: str
    bound: float
    text: str

    @property
    def at_least(self) -> bool:
        """Whether it is a lower bound."""
        return self.operator in (">", ">=")

    def met_by(self, run: pd.Series) -> bool:
        """Whether a run meets the bound at the worse end of its interval; a run without a value does not."""
        value = run[worse_end_of(run, self.column, self.at_least)]
        return (
            bool(pd.notna(value)) and OPERATORS[self.operator](float(value), self.bound) and _is_valid(run, self.column)
        )

    def p_value(self, run: pd.Series) -> float | None:
        """Return the two-sided p-value that a run does not meet the bound; 0.05 if its worse interval end is the bound.

        None if it has no interval, and is judged by its value.
        """
        value, low, high = (run.get(f"{self.column}{end}") for end in ("", "_low", "_high"))
        if pd.isna(value) or pd.isna(low) or pd.isna(high) or not low <= value <= high:
            return None
        if not OPERATORS[self.operator](value, self.bound):
            return 1.0
        freedom = int(run["seeds"]) - 1 if is_group(run) else None
        if self.column in RATIOS:
            if not freedom and pd.notna(run.get("latency_rounds")):
                freedom = int(run["latency_rounds"]) - 1 + PRIOR_FREEDOM
            elif not freedom and pd.notna(run["latency_replicates"]):  # of an earlier version
                freedom = int(run["latency_replicates"]) - 1
            if min(low, self.bound) <= 0:
                return None
            return interval_p(log(low), log(high), log(self.bound), freedom or None)
        share = self.column in SHARES or (self.column == "tflite_score" and metric_of_row(run).is_accuracy)
        if share and not freedom:
            return share_p(value, low if self.at_least else high, self.bound)
        return interval_p(low, high, self.bound, freedom or None)


@dataclass(frozen=True)
class Decision:
    """The run to ship, if any, and the runs that each requirement excluded."""

    chosen: pd.Series | None
    excluded: Mapping[str, tuple[str, ...]]
    called: str = ""  # label of the run to ship
    same: tuple[str, ...] = ()  # other remaining runs with the same file
    best: pd.Series | None = None  # the run with the lowest (or highest) value
    tied: tuple[str, ...] = ()  # other remaining runs that do not differ significantly from the best
    why: str = ""  # why this one among the tied runs


def requirement(text: str, table: pd.DataFrame, prefix: str = OPTION) -> Requirement:
    """Parse a requirement: tflite_accuracy >= 0.98, tflite_bytes <= 200_000; `prefix` is that of names in messages.

    Raises:
        UserError: it does not have this form, or names no numeric column.
    """
    found = FORM.fullmatch(text)
    try:
        bound = float(found["bound"]) if found else None
    except ValueError:
        bound = None
    if found is None or bound is None or not isfinite(bound):
        raise UserError(
            f'{prefix}require "{text}": requires a column, one of {" ".join(OPERATORS)}, and a number, as in '
            '"tflite_accuracy >= 0.98" or "tflite_bytes <= 200_000".'
        )
    return Requirement(of_numbers(table, found["column"], f"{prefix}require"), found["operator"], bound, text.strip())


def worse_end_of(run: pd.Series, column: str, at_least: bool) -> str:
    """Return the column with the worse end of the interval, if the run has one."""
    worse_end = f"{column}_{'low' if at_least else 'high'}"
    return worse_end if pd.notna(run.get(worse_end)) else column


def decide(
    table: pd.DataFrame,
    requirements: Sequence[Requirement],
    objective: str,
    lowest: bool,
    comparison: Comparison | None = None,
    prefix: str = OPTION,
) -> Decision:
    """Return the run that meets every requirement and has the lowest (or highest) value of the objective.

    If other runs do not differ significantly from it, it is the simplest of them
    (`experiments.comparison.recommendation`). The evidence are the predictions of the `comparison`; without one, the
    intervals. `prefix` is that of names in messages.

    Only finished runs with a verified file count. Requirements on columns with an interval are judged for all these
    runs together, so that the confidence of 95 % holds for the whole comparison (Holm).

    Raises:
        UserError: the objective is not numeric, latencies of different machines would decide, or the runs have several
            sets of test examples.
    """
    option = f"{prefix}{'minimize' if lowest else 'maximize'}"
    of_numbers(table, objective, option)
    for named, column in [*((f"{prefix}require", each.column) for each in requirements), (option, objective)]:
        check_comparable(table, column, named, prefix)
    _check_one_task(table, prefix)
    _check_direction(table, objective, lowest, prefix)
    excluded: dict[str, tuple[str, ...]] = {}
    left, compared, called = table, table[may_be_shipped(table)], dict(zip(table.index, labels(table), strict=True))
    conditions: dict[str, Callable[[pd.Series], bool]] = {
        "finished": lambda run: bool(run["status"] == "FINISHED"),
        "verified": lambda run: not has_verdict(run["verified"], "false"),
        **{each.text: _met_together(each, compared) for each in requirements},
        f"with a valid {objective}": lambda run: bool(pd.notna(run[objective])) and _is_valid(run, objective),
    }
    for text, meets in conditions.items():
        meeting = left[[meets(run) for _, run in left.iterrows()]]
        gone = left.drop(index=meeting.index)
        alone = next((each.met_by for each in requirements if each.text == text), None)
        excluded[text] = tuple(
            called[place] + (TOGETHER.format(len(compared)) if alone and alone(run) else "")
            for place, run in gone.iterrows()
        )
        left = meeting
    if left.empty:
        return Decision(None, excluded)
    given = comparison or Comparison(table, table, lambda _: None)
    task = Task("", left, given.runs, given.read_evidence, margin_of(left, given.margin), given.order, given.timings)
    found = recommend(*_best(task, objective, lowest), given.order)
    chosen = task.row(found.chosen.key)
    same = [row for _, row in left.iterrows() if row.name != chosen.name and same_file(row, chosen)]
    tied = [row for each in found.tied if not same_file(row := task.row(each.key), chosen) and row.name != chosen.name]
    return Decision(
        chosen,
        excluded,
        called[chosen.name],
        tuple(called[row.name] for row in same),
        task.row(found.best.key),
        tuple(called[row.name] for row in tied),
        deciding_criteria(found),
    )


def _best(task: Task, objective: str, lowest: bool) -> tuple[Candidate, list[Candidate]]:
    """Return the run with the lowest (or highest) value, and those that do not differ significantly."""
    rows = task.rows.sort_values(objective, ascending=lowest, kind="stable")
    candidates, sign = task.candidates(rows), 1 if lowest else -1
    better = metric_of_row(rows.iloc[0]).better
    if objective in ("tflite_accuracy", "tflite_score") and lowest == (better == "lower"):
        return most_accurate(candidates, task, task.margin)
    if all(each.speedup for each in candidates) and (objective, lowest) in (
        ("speedup", False),
        ("latency_p50_us", True),
    ):
        return fastest(candidates, candidates[0])
    values = {
        row["run_id"]: Estimate(*(float(row.get(f"{objective}{end}", np.nan)) for end in ENDS))
        for _, row in rows.iterrows()
    }
    if all(each.low <= each.value <= each.high for each in values.values()):
        ranked = [replace(each, accuracy=-sign * values[each.key].value) for each in candidates]
        return most_accurate(ranked, _Intervals(values), inf)
    return smallest(candidates, lambda each: sign * values[each.key].value)


@dataclass(frozen=True)
class _Intervals:
    """Differences between runs, from the intervals of a column."""

    values: Mapping[str, Estimate]

    def p_value(self, one: str, other: str) -> float:
        """Return the p-value that both values are equal."""
        return unpaired_p(self.values[one], self.values[other])

    def difference(self, one: str, other: str) -> Estimate:
        """Return one value minus the other."""
        return unpaired_difference(self.values[one], self.values[other])


def _met_together(each: Requirement, compared: pd.DataFrame) -> Callable[[pd.Series], bool]:
    """Return whether a run meets a requirement, after correction for all compared runs."""
    found = {place: p for place, run in compared.iterrows() if (p := each.p_value(run)) is not None}
    adjusted = dict(zip(found, holm(np.array(list(found.values()))), strict=True))
    barely = SIGNIFICANT * (1 + ROUNDING)

    def meets(run: pd.Series) -> bool:
        p = adjusted.get(run.name)
        return each.met_by(run) if p is None else p <= barely and _is_valid(run, each.column)

    return meets


def _check_one_task(table: pd.DataFrame, prefix: str) -> None:
    """Check that a single file can be shipped: for one set of test examples, and not a mean over several files."""
    finished = table[table["status"] == "FINISHED"]
    if finished[TEST].nunique() > 1:
        sets = finished.assign(_title=display_names(finished, "dataset")).drop_duplicates(TEST)
        listed = ", ".join(sets["_title"].where(sets["test_digest"].notna(), sets[TEST]))
        column = "test_digest" if sets["test_digest"].notna().all() else "dataset"
        raise UserError(
            f"Which run to ship: requires runs of one data set, not of several ({listed}). Select one with "
            f"{prefix}where \"{column} == '{sets[column].iloc[0]}'\"."
        )
    if finished[JUDGED_BY].nunique() > 1:
        ways = finished[JUDGED_BY].unique()
        raise UserError(
            f"Which run to ship: requires one setting of the task, not several settings of the task "
            f"({'; '.join(ways)}). Select one with {prefix}where '{_only(ways[0])}'."
        )
    mixed = labels(table)[[is_group(run) and _is_mixture(run) for _, run in table.iterrows()]]
    if len(mixed):
        raise UserError(
            f"Which run to ship: requires rows of a single run, or of runs that differ only in their seeds; "
            f"{mixed.iloc[0]} differs in more. Omit {prefix}group-by."
        )


def _only(judged_by: str) -> str:
    """Return the condition that selects the runs with these settings of the task."""
    settings = (each.partition("=") for each in judged_by.split(", "))
    values = ((name, value if _is_number(value) else f'"{value}"') for name, _, value in settings)
    return " and ".join(f"`task.{name}` == {value}" for name, value in values)


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


def _check_direction(table: pd.DataFrame, objective: str, lowest: bool, prefix: str) -> None:
    """Check that the objective is not the worst value of the metric."""
    metric = common_metric(table)
    if objective == "tflite_score" and metric and lowest != (metric.better == "lower"):
        wrong, right = ("minimize", "maximize") if lowest else ("maximize", "minimize")
        raise UserError(
            f"{prefix}{wrong} tflite_score: the score of these runs is {metric.title}, and {metric.better} values are "
            f"better. Type {prefix}{right} tflite_score."
        )


def _is_mixture(group: pd.Series) -> bool:
    """Whether a row combines runs of several settings, or several runs with the same seed."""
    return bool(group["strategy"] == "several" or pd.isna(group["settings"]) or group["runs"] != group["seeds"])


def decision_lines(decision: Decision, objective: str, lowest: bool) -> list[str]:
    """Describe a decision: the runs that each requirement excluded, and the run to ship with its evidence."""
    lines = [f"not {text}: {_listed(runs)}" for text, runs in decision.excluded.items() if runs]
    run = decision.chosen
    if run is None:
        return [*lines, "No run meets all requirements."]
    bad_end = worse_end_of(run, objective, at_least=not lowest)
    interval = f" (at worst {run[bad_end]:,.6g})" if bad_end != objective else ""
    how = f"the {'lowest' if lowest else 'highest'} of the remaining runs"
    best = decision.best
    if best is not None and best[objective] != run[objective]:
        how = f"not significantly different from {how} ({best['strategy']}, {best[objective]:,.6g})"
    shipped = f"Ship {decision.called}: {objective} {run[objective]:,.6g}{interval} is {how}."
    if decision.tied:
        shipped += f" No winner: it is tied with {_listed(decision.tied)}, and the simplest of them ({decision.why})."
    if is_group(run):  # choosing among seeds by test accuracy would be biased
        shipped += f" The file is that of the lowest seed, run {run['run_id'][:8]}."
    if doubts := suspect(run):
        shipped += f" Warning: {'; '.join(doubts)}. Check it before you ship this file."
    if decision.same:
        shipped += f" The same file, byte for byte: {_listed(decision.same)}."
    return [*lines, shipped]


def _listed(runs: Sequence[str]) -> str:
    """List the first runs, and the number of others."""
    more = len(runs) - MOST_NAMES
    return ", ".join(runs[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _is_valid(run: pd.Series, column: str) -> bool:
    """Whether a value is valid; values of an invalid timing are not."""
    return not (timed(column) and run["speed"] == VOID)


def of_numbers(table: pd.DataFrame, column: str, option: str) -> str:
    """Check that a column exists and is numeric; returns its name.

    Raises:
        UserError: it does not exist, or has text.
    """
    if not pd.api.types.is_numeric_dtype(table[require_column(table, column, option)]):
        raise UserError(f"{option} {column}: requires a numeric column; this one has text.")
    return column
