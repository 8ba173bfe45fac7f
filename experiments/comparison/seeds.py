"""What holds over seeds, where runs differ in their seeds only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from experiments.artifacts import PREDICTIONS
from experiments.comparison.columns import SETTINGS, cell_of, label
from experiments.comparison.people import percents, picture
from experiments.progress import CONSOLE, say
from experiments.record import Answers
from experiments.statistics import difference_over_seeds, over_seeds
from experiments.tracking import Store

OVER_SEEDS = (
    "seeds", "images", "tflite_accuracy", "tflite_accuracy_low", "tflite_accuracy_high",
    "accuracy_change", "accuracy_change_low", "accuracy_change_high",
)  # fmt: skip
OVER_SEEDS_NOTE = (
    "Over seeds: means over models trained from several seeds; change: against the float TFLite model of the same "
    "baseline, on the same images. [low, high]: 95 % interval for new seeds and new test images alike. From two seeds "
    "it is a rough one (91 to 97 %); take three or more."
)


def repeated(table: pd.DataFrame) -> pd.DataFrame:
    """The finished runs of settings that have several seeds; of runs that are alike, the newest."""
    finished = table[table["status"] == "FINISHED"].drop_duplicates([*cell_of(table), "seed"], keep="last")
    return finished[finished.groupby(cell_of(table), dropna=False)["seed"].transform("nunique") > 1]


def table_over_seeds(runs: pd.DataFrame, answers: Mapping[str, Answers]) -> pd.DataFrame:
    """One row for each setting: accuracy, and change against the float reference, over the seeds of its runs.

    `runs` are those of `repeated`, `answers` what their models say, by run id; what `left_out` names is not counted.
    """
    rows = []
    for setting, group in runs.groupby(cell_of(runs), dropna=False, sort=False):
        counted = [answers[run_id] for run_id in _counted(group, answers)]
        if len(counted) > 1:
            rows.append([*setting, len(counted), len(counted[0].truth), *_estimates_over_seeds(counted)])
    return pd.DataFrame(rows, columns=[*cell_of(runs), *OVER_SEEDS])


def _counted(group: pd.DataFrame, answers: Mapping[str, Answers]) -> list[str]:
    """Runs of one setting that were tested on the same images: those of the first whose answers there are."""
    known = [run_id for run_id in group["run_id"] if run_id in answers]
    return [run_id for run_id in known if np.array_equal(answers[run_id].truth, answers[known[0]].truth)]


def left_out(runs: pd.DataFrame, answers: Mapping[str, Answers]) -> list[str]:
    """Why runs of several seeds do not stand in the table over seeds, a line for each."""
    counted = {run_id for _, group in runs.groupby(cell_of(runs), dropna=False) for run_id in _counted(group, answers)}
    return [
        f"{label(row)}: left out over seeds, for "
        + ("its test images are not those of the others" if row["run_id"] in answers else f"it has no {PREDICTIONS}")
        for _, row in runs.iterrows()
        if row["run_id"] not in counted
    ]


def _estimates_over_seeds(counted: Sequence[Answers]) -> list[float]:
    right = np.stack([answers.tflite == answers.truth for answers in counted])
    reference = np.stack([answers.reference == answers.truth for answers in counted])
    accuracy, change = over_seeds(right), difference_over_seeds(right, reference)
    return [*asdict(accuracy).values(), *asdict(change).values()]


def over_seeds_for_people(table: pd.DataFrame) -> pd.DataFrame:
    """The strategy, the settings that vary, and means with their intervals."""
    shown = pd.DataFrame({"strategy": table["strategy"]})
    for name in (name for name in cell_of(table) if name in SETTINGS or "." in name):
        if table[name].nunique(dropna=False) > 1:
            shown[name] = table[name].astype("string").fillna("")
    shown["seeds"] = table["seeds"]
    shown["TFLite accuracy %"] = percents(table, "tflite_accuracy", "tflite_accuracy_low", "tflite_accuracy_high")
    change = ("accuracy_change", "accuracy_change_low", "accuracy_change_high")
    shown["change, points"] = percents(table, *change, sign="+")
    return shown


def show_over_seeds(table: pd.DataFrame) -> None:
    """Print the table over seeds, and what it means."""
    CONSOLE.print(picture(over_seeds_for_people(table), {}))
    CONSOLE.print(OVER_SEEDS_NOTE, style="dim", markup=False, highlight=False)


def show_seeds(store: Store, table: pd.DataFrame) -> pd.DataFrame:
    """Print what holds over seeds, and return it: an empty table where no two runs differ in their seeds only."""
    runs = repeated(table)
    found = {run_id: store.predictions(run_id) for run_id in runs["run_id"]}
    answers = {run_id: answer for run_id, answer in found.items() if answer is not None}
    of_seeds = table_over_seeds(runs, answers)
    if len(of_seeds):
        show_over_seeds(of_seeds)
    for line in left_out(runs, answers):
        say(line)
    return of_seeds
