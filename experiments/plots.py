"""Pictures of one run, and of what the layers of a model bear."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path

from experiments.graph import FLOAT16_WEIGHTS
from experiments.measure.fidelity import OpNoise

# Okabe and Ito's colours, which colour-blind people tell apart.
BLUE, SKY, GREEN, ORANGE, RED, PINK, GREY = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#999999"
# Types keep their colour from picture to picture, since those of a sweep are looked at side by side.
COLOURS = {
    "float32": GREY,
    FLOAT16_WEIGHTS: SKY,
    "hybrid int8": ORANGE,
    "hybrid int4": RED,
    "int8": BLUE,
    "int16x8": GREEN,
}


def save_noise(path: Path, noise: Sequence[OpNoise], title: str) -> None:
    """The signal-to-quantization-noise ratio of each op, from the input down to the output, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    longest = max((op.sqnr_db for op in noise if isfinite(op.sqnr_db)), default=0.0)
    longest = max(longest, 10.0)
    colours = {op.types: COLOURS.get(op.types, PINK) for op in noise}
    figure = Figure(figsize=(7.5, 1.8 + 0.32 * len(noise)), layout="constrained")
    axes = figure.add_subplot()
    for place, op in enumerate(noise):
        exact = op.sqnr_db == float("inf")
        length = longest if exact else max(op.sqnr_db, 0.0) if isfinite(op.sqnr_db) else 0.0
        axes.barh(place, length, color=colours[op.types], hatch="//" if exact else None, edgecolor="white")
        axes.text(length + longest / 100, place, "exact" if exact else f"{op.sqnr_db:.1f}", va="center")
    axes.set_yticks(range(len(noise)), [f"{op.layer} ({op.op})" for op in noise])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.12)
    axes.set_xlabel("signal-to-quantization-noise ratio in dB: higher is better, 6 dB are one bit")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=colour, label=types) for types, colour in colours.items()]
    figure.legend(
        handles=handles, loc="outside lower left", ncols=min(len(handles), 4), title="computes in", frameon=False
    )
    figure.savefig(path, dpi=110)


def save_sensitivity(path: Path, cost: Mapping[str, float], gain: Mapping[str, float]) -> None:
    """Logit error by layer, from the input down: caused by it alone in int8, and regained by it alone in float."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.6 + 0.36 * len(cost)), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    sides = (
        (left, cost, BLUE, "caused by this layer alone in int8"),
        (right, gain, GREEN, "regained by it alone in float"),
    )
    for axes, values, colour, title in sides:
        axes.barh(range(len(values)), list(values.values()), color=colour)
        for place, value in enumerate(values.values()):
            axes.annotate(f"{value:.4f}", (max(value, 0.0), place), (3, 0), textcoords="offset points", va="center")
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(title, loc="left", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    both = (*cost.values(), *gain.values())
    left.set_xlim(min(0.0, *both), 1.25 * max(both) or 1.0)  # room for the longest bar's label
    left.set_yticks(range(len(cost)), list(cost))
    left.invert_yaxis()
    figure.supxlabel("RMS logit error on validation images: the longer, the more sensitive the layer", fontsize=10)
    figure.savefig(path, dpi=110)
