"""Plot the error that each layer of a model adds in int8."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.plots import BLUE, GREEN, GREY, INK, in_one_style, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_sensitivity(
    path: Path, cost: Mapping[str, float], gain: Mapping[str, float], rounding: float, error: str
) -> None:
    """Plot the error of the outputs that each layer adds as the only one in int8, and removes as the only one in float.

    `rounding` is the error of rounding only the outputs to int8, `error` what it is called, such as logit error.
    """
    with in_one_style():
        save(_figure(cost, gain, rounding, error), path)


def _figure(cost: Mapping[str, float], gain: Mapping[str, float], rounding: float, error: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.6 + 0.36 * len(cost)), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    sides = (
        (left, cost, BLUE, "added with only this layer in int8"),
        (right, gain, GREEN, "removed with only this layer in float"),
    )
    for axes, values, colour, title in sides:
        axes.barh(range(len(values)), list(values.values()), color=colour)
        for place, value in enumerate(values.values()):
            axes.annotate(
                f"{round(value, 4) + 0.0:.4f}" if error == "logit error" else f"{value:.3g}",
                (max(value, 0.0), place),
                (3, 0),
                textcoords="offset points",
                va="center",
            )
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_title(title)
    left.axvline(rounding, color=GREY, linewidth=1, linestyle=":")
    both = (*cost.values(), *gain.values(), rounding)
    left.set_xlim(min(0.0, *both), 1.25 * max(both) or 1.0)  # room for the longest bar's label
    left.set_yticks(range(len(cost)), list(cost))
    left.invert_yaxis()
    outputs = f"{error.partition(' ')[0]}s"
    caption = f"RMS {error} on validation examples; dotted: rounding only the float {outputs} to int8, {rounding:.4g}"
    figure.supxlabel(caption, fontsize=9)
    return figure
