"""Which setting to ship under which priority, with the evidence; settings that cannot be told from it are named."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from experiments.comparison.columns import (
    TASK,
    VOID,
    cell_of,
    ends,
    is_group,
    key_of,
    of_one_float_file,
    several_machines,
    sound,
)
from experiments.comparison.groups import Answered
from experiments.comparison.names import names, task_titles
from experiments.measure.latency import in_words
from experiments.rounding import percent, points, three_digits, times, whole
from experiments.statistics import Estimate, difference_over_seeds, ratio_of_speedups

WORTH_A_CARD = 0.9  # of the download of the smallest file
MARGIN = 0.005  # half a point of accuracy: what is given up for size or speed, at most


@dataclass(frozen=True)
class Choice:
    """The row to ship for one priority, its evidence, and which others may be as good, or are if they lose no more."""

    priority: str
    name: str
    run_id: str
    evidence: str
    equals: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """The rows of one model on one set of test examples; only they compete."""

    title: str
    rows: pd.DataFrame
    runs: pd.DataFrame
    answers: Answered

    def difference(self, row: pd.Series, other: pd.Series) -> Estimate | None:
        """Accuracy of one row less that of another, over the seeds and images that both have; None without any."""
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
        return difference_over_seeds(right, other_right)

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


def tasks(table: pd.DataFrame, runs: pd.DataFrame, answers: Answered) -> list[Task]:
    """One for each model and test set, with the rows that may be shipped: finished, and as their strategy promises."""
    good = table[sound(table) & table["tflite_accuracy"].notna() & table["tflite_bytes"].notna()]
    titles = task_titles(good)
    return [Task(titles[rows.index[0]], rows, runs, answers) for _, rows in good.groupby(TASK, sort=False)]


def choices(task: Task) -> list[Choice]:
    """What to ship if accuracy, size, speed, or a microcontroller's memory comes first."""
    best = task.rows.sort_values("tflite_accuracy", ascending=False, kind="stable").iloc[0]
    standing = pd.Series([_standing(task, row, best) for _, row in task.rows.iterrows()], index=task.rows.index)
    near, unsure = task.rows[standing == "near"], task.rows[standing == "unsure"]
    found = [
        _most_accurate(task, best),
        smallest := _smallest(task, near, unsure, best),
        _smallest_download(task, near, unsure, best, than=smallest),
        _fastest(task, near, unsure, best),
        _on_micro(task, near, unsure),
    ]
    return [choice for choice in found if choice]


def _standing(task: Task, row: pd.Series, best: pd.Series) -> Literal["near", "unsure", "far"]:
    """Whether a row gives up at most MARGIN at the bad end of the interval, at its good end only, or more.

    One whose answers are lost cannot be compared, so nobody can be sure of it.
    """
    if row["run_id"] == best["run_id"]:
        return "near"
    difference = task.difference(row, best)
    if difference is None:
        return "unsure"
    if difference.high < -MARGIN:
        return "far"
    return "near" if difference.low >= -MARGIN else "unsure"


def _most_accurate(task: Task, best: pd.Series) -> Choice:
    equals = _others(
        task, task.rows, best, lambda row: (found := task.difference(row, best)) is not None and found.high >= 0
    )
    accuracy = percent(*ends(best, "tflite_accuracy"))
    return Choice("Accuracy first", task.named(best), best["run_id"], f"{accuracy} % of the test images right", equals)


def _smallest(task: Task, near: pd.DataFrame, unsure: pd.DataFrame, best: pd.Series) -> Choice:
    row = near.sort_values(["tflite_bytes", "tflite_accuracy"], ascending=[True, False], kind="stable").iloc[0]
    evidence = (
        f"{whole(row['tflite_bytes'])} bytes, {times(row['size_ratio'])} smaller than float; {_cost(task, row, best)}"
    )
    size = row["tflite_bytes"]
    return _chosen(task, "Size first", row, evidence, near, unsure, lambda other: bool(other["tflite_bytes"] <= size))


def _smallest_download(
    task: Task, near: pd.DataFrame, unsure: pd.DataFrame, best: pd.Series, than: Choice
) -> Choice | None:
    """Only where it is not nearly that of the smallest file already, as it is unless something is compressed."""
    known, perhaps = (rows[rows["tflite_gzip_bytes"].notna()] for rows in (near, unsure))
    if known.empty:
        return None
    row = known.sort_values(["tflite_gzip_bytes", "tflite_accuracy"], ascending=[True, False], kind="stable").iloc[0]
    size = float(row["tflite_gzip_bytes"])
    if size >= WORTH_A_CARD * known.loc[known["run_id"] == than.run_id, "tflite_gzip_bytes"].min():
        return None
    evidence = f"{whole(size)} bytes after gzip, of {whole(row['tflite_bytes'])}; {_cost(task, row, best)}"
    return _chosen(
        task, "Download first", row, evidence, known, perhaps, lambda other: bool(other["tflite_gzip_bytes"] <= size)
    )


def _fastest(task: Task, near: pd.DataFrame, unsure: pd.DataFrame, best: pd.Series) -> Choice | None:
    """By the ratio to the float file; where rows have float files that differ, by time, and none is called an equal."""
    valid, perhaps = (rows[(rows["speed"] != VOID) & rows["speedup"].notna()] for rows in (near, unsure))
    if valid.empty or several_machines(valid):
        return None
    ranked = of_one_float_file(valid)
    order = ["speedup" if ranked else "latency_p50_us", "tflite_accuracy"]
    row = valid.sort_values(order, ascending=[not ranked, False], kind="stable").iloc[0]
    ratio = times(*ends(row, "speedup"))
    latency = three_digits(row["latency_p50_us"])
    evidence = f"{ratio} as fast as float, {latency} us an inference here; {_cost(task, row, best)}"
    both = pd.concat([valid, perhaps])
    if several_machines(both) or not of_one_float_file(both):
        perhaps = perhaps.iloc[:0]
    return _chosen(task, "Speed first", row, evidence, valid, perhaps, lambda other: ranked and _as_fast(other, row))


def _as_fast(row: pd.Series, fastest: pd.Series) -> bool:
    both = [Estimate(*ends(each, "speedup")) for each in (row, fastest)]
    if any(np.isnan(speedup.low) for speedup in both):
        return False
    return in_words(ratio_of_speedups(*both)) != "slower"


def _on_micro(task: Task, near: pd.DataFrame, unsure: pd.DataFrame) -> Choice | None:
    able, perhaps = (rows[(rows["runs_on_micro"] == "yes") & rows["arena_bytes"].notna()] for rows in (near, unsure))
    if able.empty:
        return None
    row = able.loc[able.apply(_needs, axis=1).sort_values(kind="stable").index[0]]
    evidence = f"{whole(row['arena_bytes'])} bytes of arena beside the file's {whole(row['tflite_bytes'])}"
    priority = "For a microcontroller"
    return _chosen(task, priority, row, evidence, able, perhaps, lambda other: _needs(other) <= _needs(row))


def _needs(row: pd.Series) -> float:
    """Bytes on a microcontroller: the file and its arena."""
    return float(row["arena_bytes"] + row["tflite_bytes"])


def _chosen(
    task: Task,
    priority: str,
    row: pd.Series,
    evidence: str,
    near: pd.DataFrame,
    unsure: pd.DataFrame,
    as_good: Callable[[pd.Series], bool],
) -> Choice:
    """The choice of a row, beside those at least as good: near ones equal it, of unsure ones it is undecided."""
    equals, undecided = (_others(task, rows, row, as_good) for rows in (near, unsure))
    return Choice(priority, task.named(row), row["run_id"], evidence, equals, undecided)


def _others(task: Task, rows: pd.DataFrame, chosen: pd.Series, alike: Callable[[pd.Series], bool]) -> tuple[str, ...]:
    return tuple(task.named(row) for _, row in rows.iterrows() if row["run_id"] != chosen["run_id"] and alike(row))


def _cost(task: Task, row: pd.Series, best: pd.Series) -> str:
    """What a row gives up in accuracy."""
    difference = task.difference(row, best) if row["run_id"] != best["run_id"] else None
    if difference is None:
        return "no other is more accurate"
    return f"{points(difference)} points against the most accurate"
