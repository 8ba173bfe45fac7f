"""Pictures of one run: what its ops lose, and what they take."""

from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from experiments.graph import FLOAT16_WEIGHTS
from experiments.measure.fidelity import OpNoise
from experiments.measure.profile import WITH_ITS_READER, Profile
from experiments.plots import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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

    longest = max((op.sqnr_db for op in noise if isfinite(op.sqnr_db)), default=0.0)
    longest = max(longest, 10.0)
    figure = Figure(figsize=(7.5, 1.8 + 0.32 * len(noise)), layout="constrained")
    axes = figure.add_subplot()
    for place, op in enumerate(noise):
        exact = op.sqnr_db == float("inf")
        length = longest if exact else max(op.sqnr_db, 0.0) if isfinite(op.sqnr_db) else 0.0
        axes.barh(place, length, color=_colour(op.types), hatch="//" if exact else None, edgecolor="white")
        axes.text(length + longest / 100, place, "exact" if exact else f"{op.sqnr_db:.1f}", va="center")
    axes.set_yticks(range(len(noise)), [f"{op.layer} ({op.op})" for op in noise])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.12)
    axes.set_xlabel("signal-to-quantization-noise ratio in dB: higher is better, 6 dB are one bit")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    _say_types(figure, (op.types for op in noise))
    figure.savefig(path, dpi=110)


def save_profile(path: Path, profile: Profile, title: str) -> None:
    """How long each op takes, from the input down to the output, as a PNG.

    Ops whose time is that of another are left out; others without a time say why they have none.
    """
    from matplotlib.figure import Figure

    ops = [op for op in profile.ops if op.remark != WITH_ITS_READER]
    longest = max((op.microseconds or 0.0 for op in ops), default=0.0) or 1.0
    decimals = 0 if longest >= 1000 else 1 if longest >= 10 else 2
    figure = Figure(figsize=(7.5, 1.9 + 0.32 * len(ops)), layout="constrained")
    axes = figure.add_subplot()
    for place, op in enumerate(ops):
        length = op.microseconds or 0.0
        label = f"{length:,.{decimals}f} us, {100 * op.share:.0f} %" if op.share is not None else shorten(op.remark, 65)
        axes.barh(place, length, color=_colour(op.types), edgecolor="white")
        axes.text(length + longest / 100, place, label, va="center", color="dimgrey" if op.remark else "black")
    axes.set_yticks(range(len(ops)), [f"{op.layer} ({op.op})" if op.layer else op.op for op in ops])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.25)
    axes.set_xlabel(
        "microseconds, and share of all ops\n"
        f"the ops and one call take {profile.sum_us:,.0f} us, the whole file takes {profile.whole_us:,.0f} us"
    )
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    _say_types(figure, (op.types for op in ops if op.microseconds is not None))
    figure.savefig(path, dpi=110)


def _colour(types: str) -> str:
    return COLOURS.get(types, PINK)


def _say_types(figure: "Figure", types: Iterable[str]) -> None:
    """A legend of what computes in which types."""
    from matplotlib.patches import Patch

    handles = [Patch(color=_colour(name), label=name) for name in dict.fromkeys(types)]
    figure.legend(
        handles=handles, loc="outside lower left", ncols=min(len(handles), 4) or 1, title="computes in", frameon=False
    )
