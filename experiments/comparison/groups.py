"""Runs pooled into groups: over seeds where nothing else is asked for, with intervals that speak of new seeds too."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from experiments.artifacts import PREDICTIONS
from experiments.comparison.columns import CELL, GROUPED, WHOLE, cell_of, label, timed
from experiments.measure.latency import in_words
from experiments.record import Answers
from experiments.statistics import Estimate, difference_over_seeds, over_seeds, ratio_of_medians

Answered = Callable[[str], Answers | None]  # what a run's models say, by its id; None where that is lost
SPEEDUPS = ("speedup", "speedup_against")


def seeds_to_pool(table: pd.DataFrame) -> list[str]:
    """The columns by which runs that differ in their seeds only are alike; none where no two runs do."""
    finished = table[table["status"] == "FINISHED"]
    cells = cell_of(table)
    return cells if (finished.groupby(cells, dropna=False)["seed"].nunique() > 1).any() else []


def grouped(table: pd.DataFrame, by: Sequence[str], answers: Answered) -> pd.DataFrame:
    """One row for each group of runs with equal values in these columns; the columns are those of runs, and GROUPED.

    Numbers are means, speedups geometric ones; settings in which the runs differ are empty. Runs that differ in their
    seeds only have intervals for new seeds and new test images alike; groups that differ in more have none. `run_id`
    is that of the lowest seed. Times of several machines, and void timings, are not pooled. Failed runs count only
    where a group has no other.
    """
    groups = table.groupby(list(by), dropna=False, sort=False)
    rows = [_pooled(_counted(group, answers), answers) for _, group in groups]
    pooled = pd.DataFrame(rows).reindex(columns=[*table.columns, *GROUPED])
    whole = [name for name in (*WHOLE, *GROUPED) if not (pooled[name].astype("Float64") % 1 > 0).any()]
    return pooled.astype(dict.fromkeys(whole, "Int64"))


def left_out(table: pd.DataFrame, by: Sequence[str], answers: Answered) -> list[str]:
    """Why runs are not counted in the group that they belong to, a line for each."""
    lines = []
    for _, group in table.groupby(list(by), dropna=False, sort=False):
        counted = set(_counted(group, answers)["run_id"])
        lines += [
            f"{label(run)}: left out of its group, for {_reason(run, answers)}"
            for _, run in group.iterrows()
            if run["run_id"] not in counted
        ]
    return lines


def _reason(run: pd.Series, answers: Answered) -> str:
    if run["status"] != "FINISHED":
        return f"it is {run['status']}"
    if answers(run["run_id"]) is None:
        return f"it has no {PREDICTIONS}"
    return "its test images are not those of the others, or a newer run has its settings"


def _counted(group: pd.DataFrame, answers: Answered) -> pd.DataFrame:
    """The runs of a group that are pooled: the newest of those that are alike, tested on the same images."""
    finished = group[group["status"] == "FINISHED"].drop_duplicates([*cell_of(group), "seed"], keep="last")
    if len(finished) < 2:
        return finished if len(finished) else group.tail(1)
    if not _differ_in_seeds_only(finished):
        return finished
    known = {run_id: said for run_id in finished["run_id"] if (said := answers(run_id)) is not None}
    if not known:
        return finished
    truth = next(iter(known.values())).truth
    alike = [run_id for run_id, said in known.items() if np.array_equal(said.truth, truth)]
    return finished[finished["run_id"].isin(alike)]


def _differ_in_seeds_only(runs: pd.DataFrame) -> bool:
    return len(runs.drop_duplicates(cell_of(runs))) == 1


def _pooled(runs: pd.DataFrame, answers: Answered) -> dict[str, Any]:
    """The row of a group."""
    lowest = runs.sort_values("seed", kind="stable").iloc[0]
    first = dict(zip(runs.columns, lowest, strict=True))
    counts = {"runs": len(runs), "seeds": runs["seed"].nunique()}
    if len(runs) == 1:
        return {**first, **counts}
    seeds_only = _differ_in_seeds_only(runs)
    common = {name: runs[name].iloc[0] for name in runs.columns if runs[name].nunique(dropna=False) == 1}
    return {
        **common,
        **_means(runs),
        **_words(runs),
        **dict.fromkeys((name for name in runs.columns if _of_one_run(name)), np.nan),
        **_speedups(runs, seeds_only),
        **(_over_seeds(runs, answers) if seeds_only else {}),
        "run_id": first["run_id"],
        **counts,
    }


def _of_one_run(name: str) -> bool:
    """Whether a column says how sure one run is of its value, which the mean of several does not inherit."""
    return name.endswith(("_low", "_high", "_p"))


def _means(runs: pd.DataFrame) -> dict[str, Any]:
    """The mean of every column of numbers; of times, those that mean something."""
    valid = _timed(runs)
    numbers = [name for name in runs.select_dtypes("number").columns if name not in (*CELL, "seed")]
    return {name: float((valid if timed(name) else runs)[name].astype(float).mean()) for name in numbers}


def _timed(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs whose times can be pooled."""
    return runs[runs["speed"] != "void"] if runs["machine"].nunique() <= 1 else runs.iloc[:0]


def _words(runs: pd.DataFrame) -> dict[str, Any]:
    """What is said of every run is said of the group; a fault of one is a fault of the group."""
    differing = {name: "differs" for name in ("arithmetic", "runs_on_micro") if runs[name].nunique() > 1}
    faults = {"verified": "false", "partial": "true"}
    faulty = {name: word for name, word in faults.items() if (runs[name].astype(str).str.lower() == word).any()}
    said = {name: "; ".join(runs[name].dropna().unique()) for name in ("broken_promise", "left_float", "latency_void")}
    return {**differing, **faulty, **said}


def _speedups(runs: pd.DataFrame, seeds_only: bool) -> dict[str, Any]:
    """Geometric means; over seeds with t-intervals, and with what the speedup over float means."""
    valid = _timed(runs)
    if valid.empty:
        return {"speed": "void"} if (runs["speed"] == "void").all() else {}
    found: dict[str, Any] = {}
    for name in (name for name in SPEEDUPS if name in valid.columns):
        ratios = valid[name].dropna().to_numpy(float)
        if len(ratios) > 1:
            mean = ratio_of_medians(ratios, np.ones(len(ratios)))
            found |= _estimate(name, mean) if seeds_only else {name: mean.value}
    if seeds_only and "speedup" in found:
        found["speed"] = in_words(Estimate(*(found[f"speedup{end}"] for end in ("", "_low", "_high"))))
    return found


def _over_seeds(runs: pd.DataFrame, answers: Answered) -> dict[str, Any]:
    """Accuracy and its differences over the seeds, from what each model says of each image."""
    said = [answers(run_id) for run_id in runs["run_id"]]
    known = [each for each in said if each is not None]
    if len(known) < len(runs):
        return {}
    right = np.stack([each.tflite == each.truth for each in known])
    reference = np.stack([each.reference == each.truth for each in known])
    found = {
        "images": right.shape[1],
        **_estimate("tflite_accuracy", over_seeds(right)),
        **_estimate("accuracy_change", difference_over_seeds(right, reference)),
    }
    if "against_run_id" not in runs.columns or runs["against_run_id"].isna().any():
        return found
    before = [answers(run_id) for run_id in runs["against_run_id"]]
    if any(each is None for each in before):
        return found
    other = np.stack([each.tflite == each.truth for each in before if each is not None])
    return found | _estimate("accuracy_difference", difference_over_seeds(right, other))


def _estimate(name: str, estimate: Estimate) -> dict[str, Any]:
    value, low, high = asdict(estimate).values()
    return {name: value, f"{name}_low": low, f"{name}_high": high}
