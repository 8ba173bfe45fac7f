"""Plots of one run: noise and latency of its ops."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from math import isfinite
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, TypeVar

from experiments.measure.fidelity import OpNoise
from experiments.measure.op_profile import WITH_ITS_READER, OpTime, Profile
from experiments.plots import BLUE, GREEN, GREY, INK, ORANGE, PINK, RED, SKY, in_one_style, save
from experiments.tflite.graph import FLOAT16_WEIGHTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Op = TypeVar("Op", OpNoise, OpTime)
MOST_OPS = 40  # as many bars as a person can look through

# Types have the same colours in all plots, so that the plots of a sweep can be compared.
COLOURS = {
    "float32": GREY,
    FLOAT16_WEIGHTS: SKY,
    "hybrid int8": ORANGE,
    "hybrid int4": RED,
    "int8": BLUE,
    "int16x8": GREEN,
}


@dataclass(frozen=True)
class Bar:
    """The bar of an op: its length, the text beside it, and its types; hatched if the length is infinite."""

    op: str
    length: float
    beside: str
    types: str
    hatched: bool = False
    ink: str = INK


def save_pictures(folder: Path, noise: Sequence[OpNoise], profile: Profile, title: str) -> None:
    """Write both plots of a run to the folder."""
    save_noise(folder / "signal_to_noise.png", noise, title)
    save_profile(folder / "profile.png", profile, title)


def save_noise(path: Path, noise: Sequence[OpNoise], title: str) -> None:
    """Plot the signal-to-quantization-noise ratio of each op, from input to output, as PNG.

    Of many ops, those with the most noise are shown.
    """
    shown = most_of(noise, lambda op: -op.sqnr_db)
    longest = max((op.sqnr_db for op in shown if isfinite(op.sqnr_db)), default=0.0)
    longest = max(longest, 10.0)
    below = "signal-to-quantization-noise ratio in dB: higher is better, 6 dB are one bit"
    if len(shown) < len(noise):
        below += f"\nthe {len(shown)} ops with the most noise, of {len(noise):,}: signal_to_noise.csv has all"
    with in_one_style():
        figure = _bars([_noise_bar(op, longest) for op in shown], 1.12 * longest, title, below)
        _add_legend(figure, [op.types for op in shown])
        save(figure, path)


def _noise_bar(op: OpNoise, longest: float) -> Bar:
    """Return the bar of an op; without noise, its ratio is infinite, and its bar has the maximum length."""
    exact = op.sqnr_db == float("inf")
    length = longest if exact else max(op.sqnr_db, 0.0) if isfinite(op.sqnr_db) else 0.0
    return Bar(f"{op.layer} ({op.op})", length, "exact" if exact else f"{op.sqnr_db:.1f}", op.types, hatched=exact)


def save_profile(path: Path, profile: Profile, title: str) -> None:
    """Plot the latency of each op, from input to output, as PNG.

    Ops that are part of another one are omitted; others without a latency have the reason. Of many ops, those that take
    longest are shown.
    """
    separate = [op for op in profile.ops if op.remark != WITH_ITS_READER]
    ops = most_of(separate, lambda op: op.microseconds or 0.0)
    longest = max((op.microseconds or 0.0 for op in ops), default=0.0) or 1.0
    decimals = 0 if longest >= 1000 else 1 if longest >= 10 else 2
    below = (
        "microseconds, and share of all ops\n"
        f"the ops and one call take {profile.sum_us:,.0f} µs, the whole file takes {profile.whole_us:,.0f} µs"
    )
    if len(ops) < len(separate):
        below += f"\nthe {len(ops)} ops that take longest, of {len(separate):,}: profile.csv has all"
    with in_one_style():
        figure = _bars([_time_bar(op, decimals) for op in ops], 1.25 * longest, title, below)
        _add_legend(figure, [op.types for op in ops if op.microseconds is not None])
        save(figure, path)


def _time_bar(op: OpTime, decimals: int) -> Bar:
    length, name = op.microseconds or 0.0, f"{op.layer} ({op.op})" if op.layer else op.op
    beside = f"{length:,.{decimals}f} µs, {100 * op.share:.0f} %" if op.share is not None else shorten(op.remark, 65)
    return Bar(name, length, beside, op.types, ink="dimgrey" if op.remark else INK)


def most_of(ops: Sequence[Op], size: Callable[[Op], float]) -> list[Op]:
    """Return the MOST_OPS largest ops, in their order from input to output."""
    largest = set(nlargest(MOST_OPS, range(len(ops)), lambda place: size(ops[place])))
    return [op for place, op in enumerate(ops) if place in largest]


def _bars(bars: Sequence[Bar], right_end: float, title: str, below: str) -> "Figure":
    """Draw horizontal bars, with room for the texts beside them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 1.9 + 0.32 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    for place, bar in enumerate(bars):
        hatch = "//" if bar.hatched else None
        axes.barh(place, bar.length, color=_colour(bar.types), hatch=hatch, edgecolor="white")
        axes.text(bar.length + right_end / 110, place, bar.beside, va="center", color=bar.ink)
    axes.set_yticks(range(len(bars)), [bar.op for bar in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, right_end)
    axes.set_xlabel(below)
    axes.set_title(title)
    return figure


def _colour(types: str) -> str:
    return COLOURS.get(types, PINK)


def _add_legend(figure: "Figure", types: Sequence[str]) -> None:
    """A legend of what computes in which types."""
    from matplotlib.patches import Patch

    handles = [Patch(color=_colour(name), label=name) for name in dict.fromkeys(types)]
    figure.legend(
        handles=handles, loc="outside lower left", ncols=min(len(handles), 4) or 1, title="compute dtype", frameon=False
    )
