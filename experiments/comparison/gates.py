"""Which run to ship: requirements, judged on the bad end of a run's intervals, and what should be lowest or highest."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, log

import numpy as np
import pandas as pd

from experiments.comparison.choices import Task, why
from experiments.comparison.columns import TEST, VOID, check_comparable, is_group, same_file, says, sound, timed
from experiments.comparison.compared import Comparison
from experiments.comparison.names import labels, titled
from experiments.comparison.query import known
from experiments.comparison.recommendation import Candidate, fastest, most_accurate, recommend, smallest
from experiments.statistics.estimates import (
    SIGNIFICANT,
    Estimate,
    holm,
    interval_p,
    share_p,
    unpaired_difference,
    unpaired_p,
)
from experiments.system.errors import UserError
from experiments.tracking.schema import names

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
ENDS = ("", "_low", "_high")
SHARES = names(kinds=("share",), interval=True)
RATIOS = names(kinds=("speedup", "ratio"), interval=True)
TOGETHER = " (met alone, and not at 95 % for all {} rows together, by Holm)"
ROUNDING = 1e-9  # of a p-value
MOST_NAMES = 20  # in a line of what was excluded
FORM = re.compile(r"\s*(?P<column>[\w.]+)\s*(?P<operator>>=|<=|>|<)\s*(?P<bound>[-+\d_.eE]+)\s*")


@dataclass(frozen=True)
class Requirement:
    """What a run has to be like: a column of the comparison, and a bound."""

    column: str
    operator: str
    bound: float
    text: str

    @property
    def at_least(self) -> bool:
        """Whether the bound is one from below."""
        return self.operator in (">", ">=")

    def met_by(self, run: pd.Series) -> bool:
        """Whether a run keeps the bound also at the bad end of its interval; one without a value does not."""
        value = run[judged(run, self.column, self.at_least)]
        return (
            bool(pd.notna(value)) and OPERATORS[self.operator](float(value), self.bound) and _is_valid(run, self.column)
        )

    def p_value(self, run: pd.Series) -> float | None:
        """Two-sided p-value that a run does not keep the bound; 0.05 where the bad end of its interval is the bound.

        None where it has no interval, and is judged by its value.
        """
        value, low, high = (run.get(f"{self.column}{end}") for end in ("", "_low", "_high"))
        if pd.isna(value) or pd.isna(low) or pd.isna(high) or not low <= value <= high:
            return None
        if not OPERATORS[self.operator](value, self.bound):
            return 1.0
        freedom = int(run["seeds"]) - 1 if is_group(run) else None
        if self.column in RATIOS:
            if not freedom and pd.notna(run["latency_replicates"]):
                freedom = int(run["latency_replicates"]) - 1
            if min(low, self.bound) <= 0:
                return None
            return interval_p(log(low), log(high), log(self.bound), freedom or None)
        if self.column in SHARES and not freedom:
            return share_p(value, low if self.at_least else high, self.bound)
        return interval_p(low, high, self.bound, freedom or None)


@dataclass(frozen=True)
class Decision:
    """The run to ship, if there is one, and which runs each requirement has excluded."""

    chosen: pd.Series | None
    excluded: Mapping[str, tuple[str, ...]]
    called: str = ""  # what the run to ship is called among the others
    same: tuple[str, ...] = ()  # other runs that are left, whose file is the same
    best: pd.Series | None = None  # the run with the lowest (or highest) value
    tied: tuple[str, ...] = ()  # other runs that are left, and that no test tells from the best
    why: str = ""  # of those that are tied, the one to ship


def requirement(text: str, table: pd.DataFrame) -> Requirement:
    """A requirement as it is written: tflite_accuracy >= 0.98, tflite_bytes <= 200_000.

    Raises:
        UserError: it is not of this form, or names no column of numbers.
    """
    found = FORM.fullmatch(text)
    try:
        bound = float(found["bound"]) if found else None
    except ValueError:
        bound = None
    if found is None or bound is None or not isfinite(bound):
        raise UserError(
            f'--require "{text}": a requirement is a column, one of {" ".join(OPERATORS)}, and a number, as in '
            '"tflite_accuracy >= 0.98" or "tflite_bytes <= 200_000".'
        )
    return Requirement(of_numbers(table, found["column"], "--require"), found["operator"], bound, text.strip())


def judged(run: pd.Series, column: str, at_least: bool) -> str:
    """The column with the bad end of the interval, where the run has one."""
    bad_end = f"{column}_{'low' if at_least else 'high'}"
    return bad_end if pd.notna(run.get(bad_end)) else column


def decide(
    table: pd.DataFrame,
    requirements: Sequence[Requirement],
    objective: str,
    lowest: bool,
    comparison: Comparison | None = None,
) -> Decision:
    """The run that meets every requirement and has the lowest (or highest) value of the objective.

    Of several that no test tells from that run, it is the simplest (`experiments.comparison.recommendation`). What the
    runs of the `comparison` answered is the evidence; without one, their intervals are.

    A run counts only if it is finished and its file is verified. Requirements on what has an interval
    are judged for all such runs together, so that 95 % stand for the whole comparison (Holm).

    Raises:
        UserError: the objective is no column of numbers, times of different machines would decide, or no one file can
            do what these are for.
    """
    option = "--minimize" if lowest else "--maximize"
    of_numbers(table, objective, option)
    for named, column in [*(("--require", each.column) for each in requirements), (option, objective)]:
        check_comparable(table, column, named)
    _check_one_task(table)
    excluded: dict[str, tuple[str, ...]] = {}
    left, compared, called = table, table[sound(table)], dict(zip(table.index, labels(table), strict=True))
    conditions: dict[str, Callable[[pd.Series], bool]] = {
        "finished": lambda run: bool(run["status"] == "FINISHED"),
        "verified": lambda run: not says(run["verified"], "false"),
        **{each.text: _met_together(each, compared) for each in requirements},
        f"{objective} is known": lambda run: bool(pd.notna(run[objective])) and _is_valid(run, objective),
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
    task = Task("", left, given.runs, given.answers, given.margin, given.order)
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
        why(found),
    )


def _best(task: Task, objective: str, lowest: bool) -> tuple[Candidate, list[Candidate]]:
    """The run with the lowest (or highest) value, and those that no test tells from it."""
    rows = task.rows.sort_values(objective, ascending=lowest, kind="stable")
    candidates, sign = task.candidates(rows), 1 if lowest else -1
    if objective == "tflite_accuracy" and not lowest:
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
    """What the intervals of a column say of each two runs."""

    values: Mapping[str, Estimate]

    def p_value(self, one: str, other: str) -> float:
        """That both values are equal."""
        return unpaired_p(self.values[one], self.values[other])

    def difference(self, one: str, other: str) -> Estimate:
        """One value less the other."""
        return unpaired_difference(self.values[one], self.values[other])


def _met_together(each: Requirement, compared: pd.DataFrame) -> Callable[[pd.Series], bool]:
    """Whether a run meets a requirement, judged together with all that are compared."""
    found = {place: p for place, run in compared.iterrows() if (p := each.p_value(run)) is not None}
    adjusted = dict(zip(found, holm(np.array(list(found.values()))), strict=True))
    barely = SIGNIFICANT * (1 + ROUNDING)

    def meets(run: pd.Series) -> bool:
        p = adjusted.get(run.name)
        return each.met_by(run) if p is None else p <= barely and _is_valid(run, each.column)

    return meets


def _check_one_task(table: pd.DataFrame) -> None:
    """One file is shipped: for one set of test examples, and the mean of several files is none of them."""
    finished = table[table["status"] == "FINISHED"]
    if finished[TEST].nunique() > 1:
        sets = finished.assign(_title=titled(finished, "dataset")).drop_duplicates(TEST)
        listed = ", ".join(sets["_title"].where(sets["test_digest"].notna(), sets[TEST]))
        column = "test_digest" if sets["test_digest"].notna().all() else "dataset"
        raise UserError(
            f"Which run to ship: these are for several data sets ({listed}), and a file is for one. Choose it with "
            f"--where \"{column} == '{sets[column].iloc[0]}'\"."
        )
    mixed = labels(table)[[is_group(run) and _is_mixture(run) for _, run in table.iterrows()]]
    if len(mixed):
        raise UserError(
            f"Which run to ship: {mixed.iloc[0]} stands for runs that differ in more than their seeds, and the "
            "mean of several files is none that could be shipped. Leave --group-by out."
        )


def _is_mixture(group: pd.Series) -> bool:
    """Whether a row is made of runs of several settings, or of several of one seed."""
    return bool(group["strategy"] == "several" or pd.isna(group["settings"]) or group["runs"] != group["seeds"])


def decision_lines(decision: Decision, objective: str, lowest: bool) -> list[str]:
    """A decision in words: what each requirement excluded, and the run to ship with its evidence."""
    lines = [f"not {text}: {_listed(runs)}" for text, runs in decision.excluded.items() if runs]
    run = decision.chosen
    if run is None:
        return [*lines, "No run meets all requirements."]
    bad_end = judged(run, objective, at_least=not lowest)
    interval = f" (at worst {run[bad_end]:,.6g})" if bad_end != objective else ""
    how = f"the {'lowest' if lowest else 'highest'} of those left"
    best = decision.best
    if best is not None and best[objective] != run[objective]:
        how = f"not told from {how} ({best['strategy']}, {best[objective]:,.6g})"
    shipped = f"Ship {decision.called}: {objective} {run[objective]:,.6g}{interval} is {how}."
    if decision.tied:
        shipped += f" No winner: it is tied with {_listed(decision.tied)}, and the simplest of them ({decision.why})."
    if is_group(run):  # to choose among the seeds by test accuracy would flatter the file
        shipped += f" The file is that of the lowest seed, run {run['run_id'][:8]}."
    if decision.same:
        shipped += f" The same file, byte for byte: {_listed(decision.same)}."
    return [*lines, shipped]


def _listed(runs: Sequence[str]) -> str:
    """The first runs by name, and how many more there are."""
    more = len(runs) - MOST_NAMES
    return ", ".join(runs[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _is_valid(run: pd.Series, column: str) -> bool:
    """Times of an invalid timing say nothing."""
    return not (timed(column) and run["speed"] == VOID)


def of_numbers(table: pd.DataFrame, column: str, option: str) -> str:
    """The name of a column that there is, and that holds numbers.

    Raises:
        UserError: there is none of this name, or it holds words.
    """
    if not pd.api.types.is_numeric_dtype(table[known(table, column, option)]):
        raise UserError(f"{option} {column}: this column holds words, and a number is needed.")
    return column
