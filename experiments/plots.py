"""Pictures of one run."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from experiments.measure.fidelity import OpNoise

# Okabe and Ito's colours, which colour-blind people tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"


def save_noise(path: Path, noise: Sequence[OpNoise], title: str) -> None:
    """The signal-to-quantization-noise ratio of each op, from the input down to the output, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    longest = max((op.sqnr_db for op in noise if isfinite(op.sqnr_db)), default=0.0)
    longest = max(longest, 10.0)
    colours = dict(zip(dict.fromkeys(op.types for op in noise), (BLUE, ORANGE, GREEN, GREY), strict=False))
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
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), title="computes in", frameon=False)
    figure.savefig(path, dpi=110)
