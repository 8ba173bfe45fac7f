"""Plot training curves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.comparison.columns import TASK, further_epochs
from experiments.comparison.names import epochs_text, names, task_titles
from experiments.plots import FewPointsError, NoPictureError, add_texts, lay_out, sheet, show_values
from experiments.plots.points import setting_of
from experiments.plots.strategies import mark
from experiments.record.metric import RecordedMetric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = Mapping[str, Sequence[float]]  # baseline/accuracy, finetune/val_accuracy, ...: one value per epoch
MOST_PANELS = 12
MOST_SEEDS = 10  # lines of a panel
COLUMNS = 4
LINES = {"val_": "-", "": ":"}  # by the beginning of the name
LINES_OF = {"val_": "validation", "": "training"}
STAGES = ("baseline", "finetune")


@dataclass(frozen=True)
class Trainings:
    """The trainings of a panel: one setting, with a run per seed."""

    name: str
    strategy: str
    run_ids: tuple[str, ...]


def trainings(table: pd.DataFrame) -> list[Trainings]:
    """Return the trainings to show: the longest of the baseline, and of each strategy that trains further."""
    runs = table[table["status"] == "FINISHED"]
    runs = runs.assign(finetune_epochs=further_epochs(runs))
    titles = task_titles(runs)
    several = titles.nunique() > 1
    found = []
    for _, model in runs.groupby(TASK, sort=False):
        trains = model["finetune_epochs"].fillna(0) > 0
        baseline, further = model[~trains], model[trains]
        named = further.assign(_label=names(further, ["epochs", "finetune_epochs", "seed"]))
        for strategy, group in [("baseline", baseline), *named.groupby("_label", sort=False)]:
            if len(group):
                found.append(
                    _longest(", ".join([str(strategy), *([titles[group.index[0]]] if several else ())]), group)
                )
    return found[:MOST_PANELS]


def _longest(name: str, group: pd.DataFrame) -> Trainings:
    length = ["epochs", "finetune_epochs"]
    most = group.sort_values(length, kind="stable").iloc[-1]
    alike = group[(group[length] == most[length]).all(axis=1)].drop_duplicates("seed").head(MOST_SEEDS)
    own = f"+{most['finetune_epochs']}" if most["finetune_epochs"] else ""
    strategy = str(most["strategy"]) if most["finetune_epochs"] else "none"  # the baseline itself
    return Trainings(f"{name}: {epochs_text(str(most['epochs']) + own)}", strategy, tuple(alike["run_id"]))


def training_histories(table: pd.DataFrame, histories: Mapping[str, Curves], fewest: int = 1) -> "Figure":
    """Plot the metric on training and validation examples, of the baseline and further training; a panel per strategy.

    `histories` are the curves of the runs of `trainings`, by run id.

    Raises:
        NoPictureError: none of these runs has a history.
        FewPointsError: none of these runs has trained for at least `fewest` epochs.
    """
    from matplotlib.ticker import MaxNLocator

    shown = [(each, list(_known(each, histories))) for each in trainings(table)]
    shown = [(each, curves) for each, curves in shown if curves]
    if not shown:
        raise NoPictureError("no finished run has a training history")
    metrics = {_metric(run) for _, curves in shown for run in curves}
    most = max(_epochs(run) for _, curves in shown for run in curves)
    if most < fewest:
        raise FewPointsError(f"a plot would have only {most} epoch{'s' if most > 1 else ''}", _as_rows(shown))
    columns = min(len(shown), COLUMNS)
    figure, sheets = sheet(len(shown), (3.2, 2.5) if columns > 2 else (5.6, 3.6), columns, sharey=True)
    for place, (axes, (each, curves)) in enumerate(zip(sheets, shown, strict=True)):
        axes.set_title(each.name, fontsize=9)
        for run in curves:
            _draw(axes, run, mark(each.strategy).colour, alpha=1.0 if len(curves) == 1 else 0.6)
            show_values(axes, list(_validated(run)))
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        axes.grid(visible=True)
        axes.set_xlabel("epoch")
        if place % columns == 0:
            axes.set_ylabel(_label(*metrics) if len(metrics) == 1 else "metric")
    kept = any(name.endswith("/kept_epoch") for _, runs in shown for curves in runs for name in curves)
    several = max(len(curves) for _, curves in shown) > 1
    caption = (
        "Solid: validation examples; dotted: training examples, averaged during the epoch. Up to the vertical line, in "
        "grey: the baseline; after it: further training by the strategy."
        + (" Each line is a seed." if several else "")
        + (" Dashed: the epoch whose weights were kept." if kept else "")
        + (" The longest training of each is shown." if table["epochs"].nunique() > 1 else "")
    )
    add_texts(figure, f"Training curves: {setting_of(table)}", caption)
    lay_out(figure)
    return figure


def _metric(curves: Curves) -> str:
    """Return the metric of a training: accuracy, that of another task, or the loss if there is none."""
    names = [name.partition("/")[2] for name in curves]
    return next((name for name in names if not name.startswith(("val_", "loss", "kept_epoch"))), "loss")


def _label(metric: str) -> str:
    return f"{RecordedMetric(metric).title}{RecordedMetric(metric).unit}"


def _scale(metric: str) -> float:
    return 100.0 if RecordedMetric(metric).is_share else 1.0


def _epochs(curves: Curves) -> int:
    return sum(len(curves.get(f"{stage}/{_metric(curves)}", ())) for stage in STAGES)


def _as_rows(shown: Sequence[tuple[Trainings, Sequence[Curves]]]) -> list[dict[str, str]]:
    """Return the metric after each epoch as the rows of a table: ranges, if there are several seeds."""
    rows = []
    for each, curves in shown:
        row = {"training": each.name}
        metric = _metric(curves[0])
        for start, of in LINES_OF.items():
            joined = [[each for stage in STAGES for each in run.get(f"{stage}/{start}{metric}", ())] for run in curves]
            values = [[_scale(metric) * each for each in of_epoch] for of_epoch in zip(*joined, strict=False)]
            row[f"{of}: {_label(metric)} by epoch"] = ", ".join(map(_range, values))
        rows.append(row)
    return rows


def _range(values: Sequence[float]) -> str:
    low, high = (f"{end:.4g}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _known(each: Trainings, histories: Mapping[str, Curves]) -> Iterator[Curves]:
    yield from (histories[run_id] for run_id in each.run_ids if histories.get(run_id))


def _validated(curves: Curves) -> Iterator[tuple[float, float, dict[str, str]]]:
    """Yield the metric on the validation examples after each epoch, and what it is."""
    metric = _metric(curves)
    stages = [(stage, value) for stage in STAGES for value in curves.get(f"{stage}/val_{metric}", ())]
    for epoch, (stage, value) in enumerate(stages, start=1):
        shown = _scale(metric) * value
        named = {"training": stage, "epoch": str(epoch), f"validation {_label(metric)}": f"{shown:.4g}"}
        yield epoch, shown, named


def _draw(axes: "Axes", curves: Curves, colour: str, alpha: float) -> None:
    """Draw the baseline and, from its last epoch on, further training."""
    metric = _metric(curves)
    before = len(curves.get(f"baseline/{metric}", ()))
    for start, line in LINES.items():
        baseline, own = (
            [_scale(metric) * value for value in curves.get(f"{stage}/{start}{metric}", ())] for stage in STAGES
        )
        style: Any = {"ls": line, "marker": "o", "ms": 2.5 if len(baseline) + len(own) < 15 else 0, "lw": 1.2}
        axes.plot(np.arange(1, len(baseline) + 1), baseline, color=mark("none").colour, alpha=alpha, **style)
        if own:
            joined = [*baseline[-1:], *own]
            epochs = np.arange(before + len(own) - len(joined) + 1, before + len(own) + 1)
            axes.plot(epochs, joined, color=colour, alpha=alpha, **style)
    for stage, first, kept_colour in (("baseline", 0, mark("none").colour), ("finetune", before, colour)):
        for kept in curves.get(f"{stage}/kept_epoch", ()):
            axes.axvline(first + kept, color=kept_colour, lw=0.8, ls="--", zorder=1)
    if curves.get(f"finetune/{metric}") and before:
        axes.axvline(before, color=mark("none").colour, lw=0.8, zorder=1)
