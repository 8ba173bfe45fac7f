"""What holds over seeds, where runs differ in their seeds only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from experiments.artifacts import PREDICTIONS
from experiments.comparison.columns import SETTINGS, cell_of, label
from experiments.comparison.people import percents, picture
from experiments.progress import CONSOLE, bar, say
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


def table_over_seeds(runs: pd.DataFrame, read: Callable[[str], Answers | None]) -> tuple[pd.DataFrame, list[str]]:
    """One row for each setting: accuracy, and change against the float reference, over the seeds of its runs.

    `runs` are those of `repeated`; `read` gives what the models of a run say, by its id, or None. It is asked for the
    runs of one setting at a time, whose answers are then let go. Beside the table: which runs are not counted, and why.
    """
    rows: list[list[object]] = []
    reasons: dict[str, str] = {}
    for setting, group in runs.groupby(cell_of(runs), dropna=False, sort=False):
        answers = {run_id: said for run_id in group["run_id"] if (said := read(run_id)) is not None}
        counted = _counted(group, answers)
        if len(counted) > 1:
            rows.append([*setting, *_estimates_over_seeds([answers[run_id] for run_id in counted])])
        reasons |= {run_id: _reason(run_id in answers) for run_id in group["run_id"] if run_id not in counted}
    left_out = [
        f"{label(row)}: left out over seeds, for {reasons[row['run_id']]}"
        for _, row in runs.iterrows()
        if row["run_id"] in reasons
    ]
    return pd.DataFrame(rows, columns=[*cell_of(runs), *OVER_SEEDS]), left_out


def _reason(answered: bool) -> str:
    return "its test images are not those of the others" if answered else f"it has no {PREDICTIONS}"


def _counted(group: pd.DataFrame, answers: Mapping[str, Answers]) -> list[str]:
    """Runs of one setting that were tested on the same images: those of the first whose answers there are."""
    known = [run_id for run_id in group["run_id"] if run_id in answers]
    return [run_id for run_id in known if np.array_equal(answers[run_id].truth, answers[known[0]].truth)]


def _estimates_over_seeds(counted: Sequence[Answers]) -> list[float]:
    """What OVER_SEEDS names."""
    right = np.stack([answers.tflite == answers.truth for answers in counted])
    reference = np.stack([answers.reference == answers.truth for answers in counted])
    accuracy, change = over_seeds(right), difference_over_seeds(right, reference)
    return [*right.shape, *asdict(accuracy).values(), *asdict(change).values()]


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
    with bar("reading predictions", len(runs)) as advance:
        folders = store.folders() if len(runs) else {}

        def read(run_id: str) -> Answers | None:
            advance(1)
            return store.predictions(run_id, folders.get(run_id))

        of_seeds, left_out = table_over_seeds(runs, read)
    if len(of_seeds):
        show_over_seeds(of_seeds)
    for line in left_out:
        say(line)
    return of_seeds
