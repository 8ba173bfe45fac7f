"""Plot the rounds of timing: when they were, the state of the machine, and the speedup in each."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.comparison.names import subjects_of
from experiments.measure.rounds import Round, Rounds
from experiments.plots import GREY, NoPictureError, add_texts, lay_out, sheet, shorten, show_values
from experiments.plots.bars import with_timings
from experiments.plots.strategies import mark
from experiments.statistics.rounding import three_digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST_ROUNDS = 3
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0  # seconds
PAUSE = 10  # times the median gap between rounds, from which on a gap is drawn shorter
PAUSE_WIDTH = 0.15  # of a pause, as a share of the time without pauses
LABELS_APART = 0.16  # share of the axis between two labels
SLOW = "tab:red"  # the slower state
ASIDE = 0.008  # share of the span by which the points of a round are moved
FILLS: tuple[Literal["full", "none", "left", "right"], ...] = ("full", "none", "left", "right")
BESIDE: Mapping[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1), "borderaxespad": 0.3}  # for legends


def latency_rounds(table: pd.DataFrame, rounds: Mapping[str, Rounds]) -> "Figure":
    """Plot the rounds of runs by the time at which they started.

    Above: the latency of the float file of the run with most rounds, which shows the state of the machine. Below: the
    speedup of each run in each round, relative to its mean over rounds.

    Raises:
        NoPictureError: no run has three rounds.
    """
    runs = with_timings(table)
    timed = {run_id: rounds[run_id] for run_id in runs["run_id"] if run_id in rounds}
    timed = {run_id: found for run_id, found in timed.items() if len(found.valid) >= FEWEST_ROUNDS}
    if not timed:
        raise NoPictureError(f"no run has valid timings in {FEWEST_ROUNDS} rounds or more")
    most = max(timed.values(), key=lambda found: len(found.valid))
    times = TimeAxis.of(each.started for found in timed.values() for each in found.valid)
    figure, (above, below) = sheet(2, (8.2, 2.2), columns=1, sharex=True)
    started = times.places_of(most.valid)
    reference = np.array([each.reference.p50_us for each in most.valid])
    slow = most.states == 1
    above.plot(started[~slow], reference[~slow], "o", color=GREY, label="the faster state" if slow.any() else None)
    if slow.any():
        above.plot(started[slow], reference[slow], "o", color=SLOW, label="the slower state")
        above.legend(fontsize=8, **BESIDE)
    above.set_ylabel("float file (µs)")
    latencies = [{"float file": f"{three_digits(each)} µs"} for each in reference]
    show_values(above, list(zip(started, reference, latencies, strict=True)))
    labels = dict(zip(runs["run_id"], zip(runs["_label"], runs["strategy"], strict=True), strict=True))
    others = {run_id: found for run_id, found in timed.items() if found.own != found.reference}
    drawn: Counter[str] = Counter()  # runs by strategy; those of the same strategy differ in their fill
    aside = np.linspace(-ASIDE, ASIDE, len(others)) * np.ptp(times.places)  # so that points of a round stay visible
    for number, (run_id, found) in enumerate(others.items()):
        label, strategy = labels[run_id]
        own, fill = mark(strategy), FILLS[drawn[strategy] % len(FILLS)]
        drawn[strategy] += 1
        logs = np.array([each.log_speedup for each in found.valid])
        place = times.places_of(found.valid)
        percent = 100 * np.expm1(logs - logs.mean())
        style: dict[str, Any] = {"ms": 5, "color": own.colour, "fillstyle": fill, "label": shorten(label)}
        below.plot(place + aside[number], percent, own.marker, **style)
        speedups = [{"strategy": label, "speedup": f"{speedup:.3f}x"} for speedup in np.exp(logs)]
        show_values(below, list(zip(place + aside[number], percent, speedups, strict=True)))
    below.axhline(0, color=GREY, lw=0.8)
    below.set_ylabel("speedup, % from its mean")
    times.label(below)
    for axes in (above, below):
        for pause in times.pauses:
            axes.axvline(pause, color=GREY, lw=0.8, ls=":")
    if below.get_legend_handles_labels()[0]:
        below.legend(fontsize=7, **BESIDE)
    taken = len({each.id for found in timed.values() for each in found.valid if each.source})
    caption = [
        "A point is a round: all files of a sweep, timed together in one process. The float file shows the state of "
        "the machine. If the speedups change with it, the interval requires rounds in all states.",
        *([f"{taken} rounds were measured for earlier runs of the same files."] if taken else []),
        *([_by_state({labels[run_id][0]: found for run_id, found in others.items()})] if slow.any() else []),
    ]
    add_texts(figure, f"Rounds of timing: {subjects_of(runs)}", " ".join(caption))
    lay_out(figure)
    return figure


@dataclass(frozen=True)
class TimeAxis:
    """When rounds started, in seconds since 1970, and their places on an axis on which long pauses are shorter."""

    moments: npt.NDArray[np.float64]  # in order, each once
    places: npt.NDArray[np.float64]  # minutes or hours without pauses
    after_pause: npt.NDArray[np.bool_]  # whether a pause comes before a moment
    unit: str

    @staticmethod
    def of(started: Iterable[float]) -> "TimeAxis":
        """Return the axis for these moments."""
        moments = np.unique(list(started))
        gaps = np.diff(moments)
        paused = gaps > PAUSE * np.median(gaps) if len(gaps) else np.zeros(0, bool)
        working = float(gaps[~paused].sum())
        steps = np.where(paused, PAUSE_WIDTH * working, gaps)
        seconds, unit = (MINUTE, "minutes") if steps.sum() < 3 * HOUR else (HOUR, "hours")
        places = np.concatenate([[0.0], np.cumsum(steps)]) / seconds
        return TimeAxis(moments, places, np.concatenate([[False], paused]), unit)

    def places_of(self, rounds: Iterable[Round]) -> npt.NDArray[np.float64]:
        """Return the places of rounds."""
        return self.places[np.searchsorted(self.moments, [each.started for each in rounds])]

    @property
    def pauses(self) -> npt.NDArray[np.float64]:
        """The places in the middle of the pauses."""
        after = np.flatnonzero(self.after_pause)
        return np.asarray((self.places[after - 1] + self.places[after]) / 2)

    def label(self, axes: "Axes") -> None:
        """Label the horizontal axis: with pauses, by the time of the first round after each."""
        first = datetime.fromtimestamp(self.moments[0], timezone.utc)
        if not self.after_pause.any():
            axes.set_xlabel(f"{self.unit} after {first:%Y-%m-%d %H:%M} UTC")
            return
        shown = [0]
        for start in np.flatnonzero(self.after_pause):
            if self.places[start] - self.places[shown[-1]] > LABELS_APART * np.ptp(self.places):
                shown.append(int(start))
        form = "%H:%M" if np.ptp(self.moments) < DAY / 2 else "%m-%d %H:%M"
        times = [datetime.fromtimestamp(self.moments[start], timezone.utc).strftime(form) for start in shown]
        axes.set_xticks(self.places[shown], times, fontsize=8)
        axes.set_xlabel(f"time of rounds (UTC), from {first:%Y-%m-%d} on; long pauses are drawn shorter")


def _by_state(timed: Mapping[str, Rounds]) -> str:
    """Return the speedups in both states of the run in which they differ most."""
    found = {label: rounds.by_state() for label, rounds in timed.items()}
    both = {label: speedups for label, speedups in found.items() if len(speedups) > 1}
    if not both:
        return "Two machine states."
    most = max(both, key=lambda label: abs(np.log(both[label][1] / both[label][0])))
    return (
        f"Two machine states: {most} has {both[most][0]:.2f}x in the faster and {both[most][1]:.2f}x in the slower one."
    )
