"""Plot the rounds of timing: when they were, the state of the machine, and the speedup in each."""

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.comparison.names import subjects_of
from experiments.measure.rounds import Rounds
from experiments.plots import GREY, NoPictureError, say_around, settle, sheet, short
from experiments.plots.bars import with_timings
from experiments.plots.strategies import mark

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST_ROUNDS = 3
MINUTE, HOUR = 60.0, 3600.0  # seconds
SLOW = "tab:red"  # the slower state


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
    first = min(found.valid[0].started for found in timed.values())
    last = max(found.valid[-1].started for found in timed.values())
    unit, name = (MINUTE, "minutes") if last - first < 3 * HOUR else (HOUR, "hours")
    figure, (above, below) = sheet(2, (8.2, 2.2), columns=1, sharex=True)
    started = (np.array([each.started for each in most.valid]) - first) / unit
    reference = np.array([each.reference.p50_us for each in most.valid])
    slow = most.states == 1
    above.plot(started[~slow], reference[~slow], "o", color=GREY, label="the faster state" if slow.any() else None)
    if slow.any():
        above.plot(started[slow], reference[slow], "o", color=SLOW, label="the slower state")
        above.legend(fontsize=8)
    above.set_ylabel("float file (µs)")
    labels = dict(zip(runs["run_id"], zip(runs["_label"], runs["strategy"], strict=True), strict=True))
    for run_id, found in timed.items():
        label, strategy = labels[run_id]
        if found.own == found.reference:
            continue  # the float file itself
        logs = np.array([each.log_speedup for each in found.valid])
        place = (np.array([each.started for each in found.valid]) - first) / unit
        below.plot(
            place, 100 * np.expm1(logs - logs.mean()), "o", ms=4, color=mark(strategy).colour, label=short(label)
        )
    below.axhline(0, color=GREY, lw=0.8)
    below.set_ylabel("speedup, % from its mean")
    below.set_xlabel(f"{name} after {datetime.fromtimestamp(first, timezone.utc):%Y-%m-%d %H:%M} UTC")
    if below.get_legend_handles_labels()[0]:
        below.legend(fontsize=7, ncols=2)
    caption = [
        "A point is a round: all files of a sweep, timed together in one process. The float file shows the state of "
        "the machine. If the speedups change with it, the interval requires rounds in all states.",
        *(_by_state(most) if slow.any() else []),
    ]
    say_around(figure, f"Rounds of timing: {subjects_of(runs)}", " ".join(caption))
    settle(figure)
    return figure


def _by_state(found: Rounds) -> list[str]:
    speedups = found.by_state()
    return [f"Two machine states: {speedups[0]:.2f}x in the faster and {speedups[1]:.2f}x in the slower one."]
