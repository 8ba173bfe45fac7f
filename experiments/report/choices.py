"""Which setting to ship under which priority, with the evidence; settings that cannot be told from it are named."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.comparison.columns import (
    TASK,
    VOID,
    cell_of,
    ends,
    is_group,
    key_of,
    of_one_float_file,
    same_file,
    several_machines,
    sound,
)
from experiments.comparison.compared import MARGIN
from experiments.comparison.groups import ReadPredictions
from experiments.comparison.names import names, task_titles
from experiments.measure.latency import verdict_of
from experiments.statistics.estimates import (
    SIGNIFICANT,
    Estimate,
    difference_over_seeds,
    difference_p,
    examples_needed,
    holm,
    pairs_among,
    ratio_of_speedups,
)
from experiments.statistics.rounding import percent, points, three_digits, times, whole

WORTH_A_CARD = 0.9  # of the download of the smallest file
LIKE_FLOAT = 1.01  # times smaller than the float file: up to there nothing is gained in size
UNDECIDED = "Undecided"  # instead of a name, where no file can be named for want of test examples
MEASURE_ANEW = "The command of the sweep with resume=false, while nothing else runs, measures anew."
MOST_NEEDED = 10_000_000  # test examples; where more are, the difference is the margin itself


@dataclass(frozen=True)
class Choice:
    """The row to ship for one priority, its evidence, and which others may be as good, or are if they lose no more.

    `same` are rows with the very same file. Where too few test examples can show that a better file loses no more than
    the margin, and only the float file is left, no row is named: `run_id` is empty, and `advice` says what would do.
    """

    priority: str
    name: str
    run_id: str
    evidence: str
    same: tuple[str, ...] = ()
    equals: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    advice: str = ""


@dataclass(frozen=True)
class Task:
    """The rows of one model on one set of test examples; only they compete."""

    title: str
    rows: pd.DataFrame
    runs: pd.DataFrame
    answers: ReadPredictions
    margin: float  # share of the test examples that is given up for size or speed, at most

    def difference(self, row: pd.Series, other: pd.Series) -> Estimate | None:
        """Accuracy of one row less that of another, over the seeds and images that both have; None without any."""
        right = self._right(row, other)
        return None if right is None else difference_over_seeds(*right)

    def p_value(self, row: pd.Series, other: pd.Series) -> float | None:
        """That both are equally accurate, over the seeds and images that both have; None without any."""
        right = self._right(row, other)
        return None if right is None else difference_p(*right)

    def examples_needed(self, row: pd.Series, other: pd.Series) -> int | None:
        """How many test examples would tell whether a row loses more than the margin; None without any answers."""
        right = self._right(row, other)
        if right is None:
            return None
        after, before = right
        return examples_needed(float((after & ~before).mean()), float((before & ~after).mean()), self.margin)

    def _right(self, row: pd.Series, other: pd.Series) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None:
        """Which images both have right: two arrays (seeds, images)."""
        one, two = self._by_seed(row), self._by_seed(other)
        seeds = sorted(one.keys() & two.keys())
        pairs = [(self.answers(one[seed]), self.answers(two[seed])) for seed in seeds]
        known = [(after, before) for after, before in pairs if after is not None and before is not None]
        same = [
            (a, b) for a, b in known if np.array_equal(a.truth, known[0][0].truth) and np.array_equal(a.truth, b.truth)
        ]
        if not same:
            return None
        right, other_right = (np.stack([each[i].tflite == each[i].truth for each in same]) for i in (0, 1))
        return right, other_right

    def _by_seed(self, row: pd.Series) -> dict[int, str]:
        """The runs that a row stands for: their ids by seed."""
        if not is_group(row):
            return {int(row["seed"]): row["run_id"]}
        return self._seeds.get(key_of(row[cell_of(self.runs)]), {})

    @cached_property
    def _seeds(self) -> dict[tuple[Any, ...], dict[int, str]]:
        """The newest finished run of each seed, by the setting."""
        runs = self.runs[self.runs["status"] == "FINISHED"]
        return {
            key_of(key): dict(zip(map(int, group["seed"]), group["run_id"], strict=True))
            for key, group in runs.groupby(cell_of(runs), dropna=False)
        }

    def named(self, row: pd.Series) -> str:
        """A row by its strategy, and by the settings in which rows of this task differ."""
        return self._names[row["run_id"]]

    @cached_property
    def _names(self) -> dict[str, str]:
        return dict(zip(self.rows["run_id"], names(self.rows), strict=True))


def tasks(table: pd.DataFrame, runs: pd.DataFrame, answers: ReadPredictions, margin: float = MARGIN) -> list[Task]:
    """One for each model and test set, with the rows that may be shipped: finished, and verified."""
    good = table[sound(table) & table["tflite_accuracy"].notna() & table["tflite_bytes"].notna()]
    titles = task_titles(good)
    return [Task(titles[rows.index[0]], rows, runs, answers, margin) for _, rows in good.groupby(TASK, sort=False)]


def choices(task: Task) -> list[Choice]:
    """What to ship if accuracy, size, speed, or a microcontroller's memory comes first."""
    best = task.rows.sort_values("tflite_accuracy", ascending=False, kind="stable").iloc[0]
    standing = pd.Series([_standing(task, row, best) for _, row in task.rows.iterrows()], index=task.rows.index)
    suggestion, unsure = task.rows[standing == "near"], task.rows[standing == "unsure"]
    found = [
        _most_accurate(task, best),
        _smallest(task, suggestion, unsure, best),
        _smallest_download(task, suggestion, unsure, best),
        _fastest(task, suggestion, unsure, best),
        _on_micro(task, suggestion, unsure, best),
    ]
    return [choice for choice in found if choice]


def _standing(task: Task, row: pd.Series, best: pd.Series) -> Literal["near", "unsure", "far"]:
    """Whether a row gives up at most the margin at the bad end of the interval, at its good end only, or more.

    One whose answers are lost cannot be compared, so nobody can be sure of it.
    """
    if row["run_id"] == best["run_id"] or same_file(row, best):
        return "near"
    difference = task.difference(row, best)
    if difference is None:
        return "unsure"
    if difference.high < -task.margin:
        return "far"
    return "near" if difference.low >= -task.margin else "unsure"


def _most_accurate(task: Task, best: pd.Series) -> Choice:
    others = [row for _, row in task.rows.iterrows() if row["run_id"] != best["run_id"] and not same_file(row, best)]
    found = [(row, p) for row in others if (p := task.p_value(row, best)) is not None]
    adjusted = holm(np.array([p for _, p in found]), pairs_among(len(found) + 1))
    equals = tuple(task.named(row) for (row, _), p in zip(found, adjusted, strict=True) if p >= SIGNIFICANT)
    accuracy = percent(*ends(best, "tflite_accuracy"))
    evidence = f"{accuracy} % of the test images right"
    return Choice("Accuracy first", task.named(best), best["run_id"], evidence, _same(task, best), equals)


def _smallest(task: Task, suggestion: pd.DataFrame, unsure: pd.DataFrame, best: pd.Series) -> Choice:
    row = _by_size(suggestion).iloc[0]
    evidence = (
        f"{whole(row['tflite_bytes'])} bytes, {times(row['size_ratio'])} smaller than float; {_cost(task, row, best)}"
    )
    size = row["tflite_bytes"]
    chosen = _chosen(
        task, "Size first", row, evidence, suggestion, unsure, lambda other: bool(other["tflite_bytes"] <= size)
    )
    return _if_more_than_float(task, chosen, unsure, best, "smaller", _is_smaller)


def _by_size(rows: pd.DataFrame) -> pd.DataFrame:
    """The smallest first, and of those the most accurate."""
    return rows.sort_values(["tflite_bytes", "tflite_accuracy"], ascending=[True, False], kind="stable")


def _smallest_download(task: Task, suggestion: pd.DataFrame, unsure: pd.DataFrame, best: pd.Series) -> Choice | None:
    """Only where it is not nearly that of the smallest file already, as it is unless something is compressed."""
    known, perhaps = (rows[rows["tflite_gzip_bytes"].notna()] for rows in (suggestion, unsure))
    if known.empty:
        return None
    row = known.sort_values(["tflite_gzip_bytes", "tflite_accuracy"], ascending=[True, False], kind="stable").iloc[0]
    size = float(row["tflite_gzip_bytes"])
    if size >= WORTH_A_CARD * _by_size(suggestion).iloc[0]["tflite_gzip_bytes"]:
        return None
    evidence = f"{whole(size)} bytes after gzip, of {whole(row['tflite_bytes'])}; {_cost(task, row, best)}"
    chosen = _chosen(
        task, "Download first", row, evidence, known, perhaps, lambda other: bool(other["tflite_gzip_bytes"] <= size)
    )
    return _if_more_than_float(task, chosen, perhaps, best, "smaller", lambda _: True)


def _fastest(task: Task, suggestion: pd.DataFrame, unsure: pd.DataFrame, best: pd.Series) -> Choice | None:
    """By the ratio to the float file; where rows have float files that differ, by time, and none is called an equal."""
    valid, perhaps = (rows[(rows["speed"] != VOID) & rows["speedup"].notna()] for rows in (suggestion, unsure))
    if valid.empty or several_machines(valid):
        return None
    ranked = of_one_float_file(valid)
    order = ["speedup" if ranked else "latency_p50_us", "tflite_accuracy"]
    row = valid.sort_values(order, ascending=[not ranked, False], kind="stable").iloc[0]
    ratio = times(*ends(row, "speedup"))
    latency = three_digits(row["latency_p50_us"])
    evidence = f"{ratio} as fast as float, {latency} µs an inference here; {_cost(task, row, best)}"
    both = pd.concat([valid, perhaps])
    if several_machines(both) or not of_one_float_file(both):
        perhaps = perhaps.iloc[:0]
    chosen = _chosen(task, "Speed first", row, evidence, valid, perhaps, lambda other: ranked and _as_fast(other, row))
    chosen = _if_more_than_float(task, chosen, perhaps, best, "faster", _is_faster)
    void = pd.concat([suggestion, unsure]).loc[lambda rows: rows["speed"] == VOID]
    rivals = tuple(task.named(each) for _, each in void.iterrows() if _is_smaller(each) or each["speedup"] > 1)
    if not rivals or chosen.run_id != row["run_id"] or _is_faster(row):
        return chosen
    evidence = "No file with a timing that counts is faster than float, and the timings of others are invalid"
    undecided = tuple(dict.fromkeys((*chosen.undecided, *rivals)))
    return Choice("Speed first", UNDECIDED, "", evidence, undecided=undecided, advice=MEASURE_ANEW)


def _as_fast(row: pd.Series, fastest: pd.Series) -> bool:
    if same_file(row, fastest):
        return True
    both = [Estimate(*ends(each, "speedup")) for each in (row, fastest)]
    if any(np.isnan(speedup.low) for speedup in both):
        return False
    return verdict_of(ratio_of_speedups(*both)) != "slower"


def _on_micro(task: Task, suggestion: pd.DataFrame, unsure: pd.DataFrame, best: pd.Series) -> Choice | None:
    able, perhaps = (
        rows[(rows["runs_on_micro"] == "yes") & rows["arena_bytes"].notna()] for rows in (suggestion, unsure)
    )
    if able.empty:
        return None
    row = able.loc[able.apply(_needs, axis=1).sort_values(kind="stable").index[0]]
    evidence = f"{whole(row['arena_bytes'])} bytes of arena beside the file's {whole(row['tflite_bytes'])}"
    priority = "For a microcontroller"
    chosen = _chosen(task, priority, row, evidence, able, perhaps, lambda other: _needs(other) <= _needs(row))
    return _if_more_than_float(task, chosen, perhaps, best, "smaller", _is_smaller)


def _needs(row: pd.Series) -> float:
    """Bytes on a microcontroller: the file and its arena."""
    return float(row["arena_bytes"] + row["tflite_bytes"])


def _chosen(
    task: Task,
    priority: str,
    row: pd.Series,
    evidence: str,
    suggestion: pd.DataFrame,
    unsure: pd.DataFrame,
    as_good: Callable[[pd.Series], bool],
) -> Choice:
    """The choice of a row, beside those at least as good: near ones equal it, of unsure ones it is undecided."""
    equals, undecided = (_others(task, rows, row, as_good) for rows in (suggestion, unsure))
    return Choice(priority, task.named(row), row["run_id"], evidence, _same(task, row), equals, undecided)


def _if_more_than_float(
    task: Task, choice: Choice, unsure: pd.DataFrame, best: pd.Series, gain: str, gains: Callable[[pd.Series], bool]
) -> Choice:
    """The choice, unless it gains nothing over float, and rows that do are undecided: then none, and what would do."""
    rows = [row for _, row in unsure.iterrows() if task.named(row) in choice.undecided]
    if not rows:
        return choice
    advice = _advice(task, rows, best)
    chosen = task.rows[task.rows["run_id"] == choice.run_id].iloc[0]
    if gains(chosen) or not any(map(gains, rows)):
        return replace(choice, advice=advice)
    evidence = (
        f"No file that is {gain} than float is shown to lose at most {100 * task.margin:g} points, for want of test "
        "examples, which is no reason to ship the float file"
    )
    undecided = tuple(task.named(row) for row in rows if gains(row))
    return Choice(choice.priority, UNDECIDED, "", evidence, undecided=undecided, advice=advice)


def _is_smaller(row: pd.Series) -> bool:
    return bool(row["size_ratio"] > LIKE_FLOAT)


def _is_faster(row: pd.Series) -> bool:
    return bool(row["speed"] == "faster")


def _advice(task: Task, unsure: Sequence[pd.Series], best: pd.Series) -> str:
    """How many test examples would tell the undecided rows from the margin."""
    needed = [each for row in unsure if (each := task.examples_needed(row, best)) is not None]
    said = task.answers(best["run_id"])
    if not needed or said is None:
        return "Their answers are lost: run them again to compare them."
    points_lost = f"{100 * task.margin:g} points"
    there = f"Whether it loses more than {points_lost} cannot be told from {len(said.truth):,} test examples"
    within = [each for each in needed if each <= MOST_NEEDED]
    if not within:
        return f"{there}, nor from many more, for it seems to lose just that: give compare --margin POINTS."
    least, most = (two_digits(each) for each in (min(within), max(within)))
    needed_in_all = f"about {least}" if least == most else f"about {least} for one of them, {most} for each"
    return f"{there}: it takes {needed_in_all}, if answers go on to differ as often, or more seeds."


def two_digits(count: int) -> str:
    """A count that is not known exactly, in two digits rounded up: 3,400."""
    step = 10 ** max(len(str(count)) - 2, 0)
    return f"{-(-count // step) * step:,}"


def _same(task: Task, chosen: pd.Series) -> tuple[str, ...]:
    """Other rows with the very file of the chosen one."""
    rows = (row for _, row in task.rows.iterrows() if row["run_id"] != chosen["run_id"] and same_file(row, chosen))
    return tuple(map(task.named, rows))


def _others(task: Task, rows: pd.DataFrame, chosen: pd.Series, alike: Callable[[pd.Series], bool]) -> tuple[str, ...]:
    return tuple(
        task.named(row)
        for _, row in rows.iterrows()
        if row["run_id"] != chosen["run_id"] and not same_file(row, chosen) and alike(row)
    )


def _cost(task: Task, row: pd.Series, best: pd.Series) -> str:
    """What a row gives up in accuracy."""
    difference = task.difference(row, best) if row["run_id"] != best["run_id"] else None
    if difference is None:
        return "no other is more accurate"
    return f"{points(difference)} points against the most accurate"
