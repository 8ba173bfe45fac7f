"""Plot accuracy over epochs, by strategy."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.comparison.columns import TASK, further_epochs
from experiments.comparison.names import names, task_titles, varies_by_itself
from experiments.plots import NoPictureError, add_texts, lay_out, sheet, shorten, show_values
from experiments.plots.labels import Label, place, spread
from experiments.plots.points import (
    SCORE,
    left_out,
    measured,
    metric_of,
    panels,
    panels_left_out,
    scale_of,
    score_label,
    score_title,
    setting_of,
)
from experiments.plots.strategies import KEY, mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

MOST_LINES = 30  # labeled lines of a panel
FILLS = ("full", "none", "left", "right")  # of the markers of lines of one strategy, in turn
LINE_GAP = 11.0  # points from one label to the next


def accuracy_epochs(table: pd.DataFrame) -> "Figure":
    """Plot the accuracy of the TFLite files over epochs, with a line per strategy and a band over seeds.

    Raises:
        NoPictureError: epochs do not vary.
    """
    runs = measured(table, SCORE)
    runs = runs.assign(finetune_epochs=further_epochs(runs))
    over = next((name for name in ("epochs", "finetune_epochs") if _varies(runs, name)), None)
    if over is None:
        raise NoPictureError("epochs do not vary")
    shown, titles = panels(runs, TASK), task_titles(runs)
    figure, sheets = sheet(len(shown), (7.5, 4.6) if len(shown) == 1 else (6.2, 4.4))
    ends = []
    for axes, (_, group) in zip(sheets, shown, strict=True):
        if len(shown) > 1:
            axes.set_title(titles[group.index[0]])
        ends.append(_lines(axes, group, over))
    seeds = runs["seed"].nunique()
    caption = [
        "Lines: means over seeds; bands: range over seeds." if seeds > 1 else _one_seed(runs),
        KEY,
        "Lines without markers: strategies that do not train." if over == "finetune_epochs" and _stays(runs) else "",
        *left_out(table, runs),
        *panels_left_out(runs, TASK),
        f"Only {MOST_LINES} lines are labeled." if any(len(names) > MOST_LINES for names in ends) else "",
    ]
    add_texts(figure, f"{score_title(runs)} over epochs: {setting_of(runs)}", " ".join(filter(None, caption)))
    _name(sheets, [names[:MOST_LINES] for names in ends])
    return figure


def _one_seed(runs: pd.DataFrame) -> str:
    """Describe the intervals in the caption, since bars would clutter the plot."""
    metric, widest = metric_of(runs), (runs[f"{SCORE}_high"] - runs[f"{SCORE}_low"]).max() / 2
    text = f"{100 * widest:.2f} points" if metric.is_share else metric.shown(widest)
    return f"One seed. Not drawn: 95 % intervals over the test examples, up to +-{text}."


def _varies(runs: pd.DataFrame, over: str) -> bool:
    """Whether runs with the same strategy and model differ in it."""
    return bool((runs.groupby([*TASK, "strategy"])[over].nunique() > 1).any())


def _stays(runs: pd.DataFrame) -> bool:
    """Whether there are strategies that do not train, whose accuracy does not depend on epochs."""
    return bool((runs.groupby("strategy")["finetune_epochs"].max() == 0).any())


def _lines(axes: "Axes", runs: pd.DataFrame, over: str) -> list[Label]:
    """Draw the lines of a panel; returns their labels, at the ends of the lines."""
    columns = [over] if over == "epochs" and varies_by_itself(runs) else ["epochs", "finetune_epochs"]
    named = runs.assign(_label=names(runs, [*columns, "seed"]))
    values = sorted(int(value) for value in named[over].unique() if value or over == "epochs")
    ends: list[Label] = []
    drawn: Counter[str] = Counter()
    for label, group in named.groupby("_label", sort=False):
        strategy = str(group["strategy"].iloc[0])
        look, fill = mark(strategy), FILLS[drawn[strategy] % len(FILLS)]
        drawn[strategy] += 1
        score = (scale_of(runs) * group[SCORE]).groupby(group[over].astype(int)).agg(["mean", "min", "max"])
        if over == "finetune_epochs" and not score.index.any():  # it does not train
            axes.axhline(score["mean"].iloc[0], color=look.colour, lw=1.2, ls=":")
            end = max(values, default=1)
        else:
            axes.fill_between(score.index, score["min"], score["max"], color=look.colour, alpha=0.15, lw=0)
            style: Any = {"color": look.colour, "ls": look.line, "marker": look.marker, "ms": 5, "fillstyle": fill}
            axes.plot(score.index, score["mean"], **style)
            show_values(
                axes,
                [
                    (epochs, mean, {"strategy": str(label), "epochs": str(epochs), score_label(runs): _range(*values)})
                    for epochs, mean, *values in score[["mean", "mean", "min", "max"]].itertuples()
                ],
            )
            end = int(score.index[-1])
        ends.append(Label(str(label), end, float(score["mean"].iloc[-1]), look.colour))
    if len(values) <= 10:
        axes.set_xticks(values)
    axes.set_xlabel(_epochs_axis(named, over))
    axes.set_ylabel(score_label(runs))
    axes.grid(visible=True)
    return ends


def _range(mean: float, least: float, most: float) -> str:
    """Return a mean with its range, which is no interval; only the value of a single run."""
    return f"{mean:.4g}" if least == most else f"{mean:.4g} (seeds: {least:.4g} to {most:.4g})"


def _epochs_axis(runs: pd.DataFrame, over: str) -> str:
    if over == "finetune_epochs":
        return "epochs after the baseline"
    trained = runs[runs["finetune_epochs"] > 0]
    as_many = len(trained) > 0 and bool((trained["finetune_epochs"] == trained["epochs"]).all())
    return "epochs of the baseline" + (", and as many further ones if the strategy trains" if as_many else "")


def _name(sheets: Sequence["Axes"], ends: Sequence[Sequence[Label]]) -> None:
    """Place labels: right of the panel for lines that end there, else near their last points."""
    furthest = [max(label.x for label in names) for names in ends]
    outside = [
        [_outside(axes, label) for label in names if label.x == last]
        for axes, names, last in zip(sheets, ends, furthest, strict=True)
    ]
    figure = sheets[0].get_figure(root=True)
    assert figure is not None
    lay_out(figure)
    for axes, own, last, written in zip(sheets, ends, furthest, outside, strict=True):
        place(axes, [label for label in own if label.x < last], np.zeros((0, 4)))
        on_screen = [float(axes.transData.transform((0, text.get_position()[1]))[1]) for text in written]
        moved = spread(on_screen, LINE_GAP * figure.dpi / 72, axes.bbox.y0, axes.bbox.y1)
        for text, y in zip(written, moved, strict=True):
            text.set_y(axes.transData.inverted().transform((0, y))[1])


def _outside(axes: "Axes", label: Label) -> "Annotation":
    """Add a label right of the panel, with a leader line."""
    line = {"arrowstyle": "-", "color": label.colour, "lw": 0.7, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 4}
    return axes.annotate(
        shorten(label.text), (label.x, label.y), (1.04, label.y), textcoords=axes.get_yaxis_transform(),
        va="center", annotation_clip=False, arrowprops=line, fontsize=8,
    )  # fmt: skip
