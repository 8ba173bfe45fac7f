"""Bar plots of integer shares, and box plots of timings; one row per strategy."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.comparison.columns import VOID
from experiments.comparison.names import names, subjects_of
from experiments.plots import GREY, NoPictureError, add_texts, lay_out, sheet, shorten, show_values
from experiments.plots.points import left_out, measured, void_left_out
from experiments.plots.strategies import mark
from experiments.statistics.rounding import three_digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Nanoseconds = npt.NDArray[np.int64]
Timed = Mapping[str, Nanoseconds]  # by file: model, reference
MOST_ROWS = 30
MOST_TIMED = 24  # rows
ROW = 0.3  # inches
WIDE = 1000  # ratio of times from which on only powers of ten have room on the axis
COVERAGES = {
    "coverage_ops": "computing ops",
    "coverage_weights": "weights, as stored",
    "coverage_macs": "multiply-accumulates",
}


def coverage(table: pd.DataFrame) -> "Figure":
    """Plot the shares of ops and multiply-accumulates computed in integers, and of weights stored as integers.

    Integer weights do not imply integer computation: hybrid ops, such as those of ptq_dynamic, compute in float.

    Raises:
        NoPictureError: no finished run has these shares.
    """
    runs = measured(table, *COVERAGES)
    named = runs.assign(_label=names(runs, ["epochs", "finetune_epochs", "seed"]))
    rows = named.groupby("_label", sort=False).agg({"strategy": "first", **dict.fromkeys(COVERAGES, "mean")})
    shown = rows.head(MOST_ROWS)
    figure, sheets = sheet(3, (3.1, ROW * len(shown) + 0.5), columns=3, sharex=True, sharey=True)
    colours = [mark(strategy).colour for strategy in shown["strategy"]]
    for axes, (column, name) in zip(sheets, COVERAGES.items(), strict=True):
        shares = 100 * shown[column].astype(float)
        axes.barh(range(len(shown)), shares, color=colours, height=0.7)
        for place, share in enumerate(shares):
            axes.annotate(f"{share:.3g} %", (share, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_title(name)
        axes.set_xlim(0, 124)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.set_xlabel("% in integers")
    sheets[0].set_yticks(range(len(shown)), list(map(shorten, shown.index)))
    sheets[0].set_ylim(len(shown) - 0.4, -0.6)
    averaged = len(named) > len(rows)
    caption = [
        *(["Means over runs."] if averaged else []),
        *left_out(table, runs),
        *([f"{len(rows) - MOST_ROWS} more settings are not shown."] if len(rows) > MOST_ROWS else []),
    ]
    add_texts(figure, f"Shares of the files in integers: {subjects_of(runs)}", " ".join(caption))
    lay_out(figure)
    return figure


def with_timings(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs whose timings are shown, with labels in `_label`: the first valid one of each setting."""
    runs = table[(table["status"] == "FINISHED") & table["latency_p50_us"].notna() & (table["speed"] != VOID)]
    named = runs.assign(_label=names(runs, ["epochs", "finetune_epochs", "seed"]))
    return named.drop_duplicates(["_label", "machine"]).head(MOST_TIMED)


def latency_distributions(table: pd.DataFrame, timings: Mapping[str, Timed]) -> "Figure":
    """Plot the distribution of latencies of each file and of its float file; one panel per machine.

    `timings` are the raw timings of the runs of `with_timings`, by run id.

    Raises:
        NoPictureError: there are no timings.
    """
    runs = with_timings(table)
    runs = runs[runs["run_id"].isin([run_id for run_id, timed in timings.items() if "model" in timed])]
    if runs.empty:
        raise NoPictureError("no finished run has valid raw timings")
    machines = [group for _, group in runs.groupby("machine", dropna=False, sort=False)]
    most = max(map(len, machines))
    figure, sheets = sheet(len(machines), (8.2, 1.5 * ROW * most + 0.6), columns=1)
    for axes, group in zip(sheets, machines, strict=True):
        if len(machines) > 1:
            axes.set_title(f"{group['cpu'].iloc[0]} (machine {group['machine'].iloc[0]})")
        _distributions(axes, group, timings)
    timed = table[table["latency_p50_us"].notna()]
    caption = [
        "Boxes: middle half of all timed inferences, with the median; lines: 1st to 99th percentile; dots: slowest.",
        "In colour: the file of the run; in grey: the float file timed together with it.",
        *(["One run of each setting."] if len(runs) < (timed["speed"] != VOID).sum() else []),
        *void_left_out(timed),
    ]
    add_texts(figure, f"Latency of an inference: {subjects_of(runs)}", " ".join(caption))
    lay_out(figure)
    return figure


def _distributions(axes: "Axes", runs: pd.DataFrame, timings: Mapping[str, Timed]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    for place, run in enumerate(runs.to_dict("records")):
        timed = timings[run["run_id"]]
        _box(axes, timed["model"], place - 0.18, mark(run["strategy"]).colour, run["_label"])
        if "reference" in timed:
            _box(axes, timed["reference"], place + 0.2, GREY, f"float file beside {run['_label']}")
        median = float(np.median(timed["model"])) / 1000
        text = f"{three_digits(median)} µs"
        axes.annotate(text, (1.01, place - 0.18), xycoords=axes.get_yaxis_transform(), va="center")
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1,) if high / low > WIDE else (1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("one inference (µs)")
    axes.set_yticks(range(len(runs)), list(map(shorten, runs["_label"])))
    axes.set_ylim(len(runs) - 0.4, -0.6)
    axes.grid(visible=True, axis="x")
    axes.set_axisbelow(True)


def _box(axes: "Axes", nanoseconds: Nanoseconds, place: float, colour: str, name: str) -> None:
    low, quarter, median, three, high = np.percentile(nanoseconds, (1, 25, 50, 75, 99)) / 1000
    values = {
        "file": name,
        "median": f"{three_digits(median)} µs",
        "1st to 99th percentile": f"{three_digits(low)} to {three_digits(high)} µs",
        "slowest": f"{three_digits(nanoseconds.max() / 1000)} µs",
    }
    show_values(axes, [(median, place, values)])
    axes.plot([low, high], [place, place], color=colour, lw=1.2)
    axes.plot([quarter, three], [place, place], color=colour, lw=6, solid_capstyle="butt")
    axes.plot([median], [place], color=colour, marker="|", ms=9, mew=2)
    axes.plot([nanoseconds.max() / 1000], [place], color=colour, marker=".", ms=4)
