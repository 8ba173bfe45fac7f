"""Plot accuracy against size and latency."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.comparison.columns import TASK, VOID, of_one_float_file
from experiments.comparison.names import task_titles
from experiments.plots import (
    FAINT,
    GREY,
    INK,
    MOST_SHAPES,
    FewPointsError,
    NoPictureError,
    add_texts,
    lay_out,
    sheet,
    show_values,
)
from experiments.plots.labels import Boxes, Label, place
from experiments.plots.points import (
    SCORE,
    Point,
    frontier,
    left_out,
    measured,
    metric_of,
    panels,
    panels_left_out,
    points,
    score_label,
    score_title,
    setting_of,
    void_left_out,
)
from experiments.plots.strategies import COMPRESSING, mark
from experiments.record.metric import RecordedMetric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LABELS = 24  # points of a panel to label; of more points, only those on the frontier are labeled
ROOMY = 10  # labels; a single panel with more is larger
RELATIVE = "latency_relative"  # to its own float file, in %
OF_RATIOS = "95 % intervals over rounds of timing"
OF_TIMES = "95 % intervals from those of the speedups"
LARGE_RANGE = 10.0  # ratio from which on an axis is logarithmic
READ = (
    "Dashed: the Pareto frontier, whose points no other file beats by being at least as {} and {}. It "
    "ignores the intervals; overlapping bars are no evidence of a difference."
)
SHIP = "Circled, with a bold label: the file to ship, the simplest of those tied with the best."


def accuracy_size(
    table: pd.DataFrame, of_seeds: pd.DataFrame, recommended: Collection[str] = (), fewest: int = 1
) -> "Figure":
    """Plot the accuracy of the TFLite files against their size, with a panel per model and data set.

    Panels with less than `fewest` points are tables.

    Raises:
        NoPictureError: no run has both.
        FewPointsError: every panel has less than `fewest` points.
    """
    return _by_size(table, of_seeds, recommended, fewest, "tflite_bytes", "size", "file size")


def accuracy_download(
    table: pd.DataFrame, of_seeds: pd.DataFrame, recommended: Collection[str] = (), fewest: int = 1
) -> "Figure":
    """Plot the accuracy of the TFLite files against their size after gzip, which pruning and clustering reduce.

    Raises:
        NoPictureError: no run has both, or none is pruned or clustered.
        FewPointsError: every panel has less than `fewest` points.
    """
    if not any(mark(str(strategy)).marker == COMPRESSING for strategy in table["strategy"].unique()):
        raise NoPictureError("nothing is pruned or clustered")
    return _by_size(table, of_seeds, recommended, fewest, "tflite_gzip_bytes", "download", "file size after gzip -9")


def _by_size(
    table: pd.DataFrame,
    of_seeds: pd.DataFrame,
    recommended: Collection[str],
    fewest: int,
    column: str,
    what: str,
    xlabel: str,
) -> "Figure":
    runs = measured(table, SCORE, column)
    runs = runs.assign(kilobytes=runs[column].astype(float) / 1000)
    titles = task_titles(runs)
    shown = [
        Panel(
            titles[group.index[0]],
            points(group, of_seeds, "kilobytes", recommended),
            metric_of(group),
            score_label(group),
        )
        for _, group in panels(runs, TASK)
    ]
    caption = [
        _bars(shown),
        READ.format("small", shown[0].metric.first),
        *_shipped(shown),
        *left_out(table, runs),
        *panels_left_out(runs, TASK),
    ]
    title = f"{score_title(runs)} and {what} of the files: {setting_of(runs)}"
    return _drawn(shown, f"{xlabel} in kB (1,000 bytes)", title, " ".join(caption), fewest)


def accuracy_latency(
    table: pd.DataFrame, of_seeds: pd.DataFrame, recommended: Collection[str] = (), fewest: int = 1
) -> "Figure":
    """Plot the accuracy of the TFLite files against their latency; a panel per model, data set and machine.

    Raises:
        NoPictureError: no run has both, or every timing is invalid.
        FewPointsError: every panel has less than `fewest` points.
    """
    timed = measured(table, SCORE, "latency_p50_us")
    runs = timed[timed["speed"] != VOID]
    if runs.empty:
        raise NoPictureError("every timing is invalid")
    by = [*TASK, "machine"]
    machines = runs["machine"].nunique(dropna=False)
    groups = panels(runs, by)
    relative = all(of_one_float_file(group) and group["speedup"].notna().all() for _, group in groups)
    if relative:
        groups = [(key, group.assign(**{RELATIVE: 100 / group["speedup"]})) for key, group in groups]
    column = RELATIVE if relative else "latency_p50_us"
    titles = task_titles(runs)
    shown = [
        Panel(
            _panel_title(titles[group.index[0]], group, machines),
            points(group, of_seeds, column, recommended),
            metric_of(group),
            score_label(group),
        )
        for _, group in groups
    ]
    caption = [
        _bars(shown),
        f"Horizontal: {OF_RATIOS if relative else OF_TIMES}"
        + (
            "; with several seeds, their range." if any(point.runs for panel in shown for point in panel.found) else "."
        ),
        READ.format("fast", shown[0].metric.first),
        *_shipped(shown),
        *left_out(table, timed),
        *void_left_out(timed),
        *(["Latencies of different machines are not comparable."] if machines > 1 else []),
        *panels_left_out(runs, by),
    ]
    title = f"{score_title(runs)} and latency of the files: {setting_of(runs)}"
    what = (
        "latency in % of that of the float file, timed together"
        if relative
        else "latency of one inference (µs), median"
    )
    return _drawn(shown, what, title, " ".join(caption), fewest)


@dataclass(frozen=True)
class Panel:
    """The points of a panel, and the metric of its vertical axis."""

    title: str
    found: Sequence[Point]
    metric: RecordedMetric
    ylabel: str

    def values(self, point: Point, xlabel: str) -> dict[str, str]:
        """Return what a point shows, as text."""
        scale = 100 if self.metric.is_share else 1
        score = self.metric.shown(*(end / scale for end in (point.score, point.low, point.high)))
        return {"strategy": point.label, self.ylabel: score, xlabel: f"{point.x:,.4g}"}

    @property
    def best(self) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Which points are on the frontier."""
        sign = 1 if self.metric.better == "higher" else -1
        return frontier(np.array([each.x for each in self.found]), sign * np.array([each.score for each in self.found]))


Panels = Sequence[Panel]


def _panel_title(title: str, runs: pd.DataFrame, machines: int) -> str:
    return title if machines == 1 else f"{title}, {runs['cpu'].iloc[0]} (machine {runs['machine'].iloc[0]})"


def _shipped(shown: Panels) -> list[str]:
    """Return a sentence on how the setting to ship is marked, or none."""
    return [SHIP] if any(point.recommended for panel in shown for point in panel.found) else []


def _bars(shown: Panels) -> str:
    every = [point for panel in shown for point in panel.found]
    over_images = "Vertical bars: 95 % intervals over the test examples."
    if any(len(panel.found) > MOST_LABELS for panel in shown):
        over_images += " Only points on the frontier have labels and bars."
    if not any(point.runs for point in every):
        return over_images
    over_seeds = "Vertical bars: 95 % intervals for new seeds and new test examples; faint: the single runs."
    return (
        over_seeds
        if all(point.runs for point in every)
        else f"{over_seeds} Without faint points: over the test examples."
    )


def _as_rows(shown: Panels, xlabel: str) -> list[dict[str, str]]:
    """Return the points of panels as the rows of a table, with the names of the panels if there are several."""
    several = len(shown) > 1
    return [
        {**({"files": panel.title} if several else {}), **panel.values(point, xlabel)}
        for panel in shown
        for point in panel.found
    ]


def _drawn(shown: Panels, xlabel: str, title: str, caption: str, fewest: int) -> "Figure":
    most = max(len(panel.found) for panel in shown)
    if most < fewest:
        raise FewPointsError(f"a plot would have only {most} point{'s' if most > 1 else ''}", _as_rows(shown, xlabel))
    alone = (9.0, 5.6) if most > ROOMY else (7.5, 4.6)
    figure, sheets = sheet(len(shown), alone if len(shown) == 1 else (6.2, 4.4))
    for axes, panel in zip(sheets, shown, strict=True):
        if len(shown) > 1:
            axes.set_title(panel.title)
        if len(panel.found) < fewest:
            _write(axes, _as_rows([panel], xlabel))
            continue
        axes.set_xlabel(xlabel)
        axes.set_ylabel(panel.ylabel)
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        _scatter(axes, panel, xlabel)
        if len(panel.found) > MOST_LABELS:
            axes.legend(fontsize=7, ncols=2)
    add_texts(figure, title, caption)
    lay_out(figure)
    for axes, panel in zip(sheets, shown, strict=True):
        if len(panel.found) >= fewest:
            _name(axes, panel)
    return figure


def _write(axes: "Axes", rows: Sequence[dict[str, str]]) -> None:
    """Write a small table in place of a panel's axes."""
    axes.set_axis_off()
    lines = "\n".join("\n".join(f"{name}: {value}" for name, value in row.items()) + "\n" for row in rows)
    axes.text(0.0, 0.97, lines, transform=axes.transAxes, va="top", ha="left", color=INK, linespacing=1.5)


def _scatter(axes: "Axes", panel: Panel, xlabel: str) -> None:
    """Draw the points with their bars, single runs behind them, and the frontier."""
    found, best = panel.found, panel.best
    for strategy in dict.fromkeys(point.strategy for point in found):
        look, own = mark(strategy), [point for point in found if point.strategy == strategy]
        singles = np.array([run for point in own for run in point.runs]).reshape(-1, 2)
        style: Any = {"marker": look.marker, "color": look.colour, "lw": 0, "rasterized": len(found) > MOST_SHAPES}
        axes.scatter(singles[:, 0], singles[:, 1], s=14, alpha=FAINT, **style)
        xy = np.array([(point.x, point.score) for point in own])
        axes.scatter(xy[:, 0], xy[:, 1], s=40, zorder=4, label=strategy, **style)
    show_values(axes, [(point.x, point.score, panel.values(point, xlabel)) for point in found])
    for point, on_frontier in zip(found, best, strict=True):
        if point.recommended:
            axes.scatter([point.x], [point.score], s=150, facecolors="none", edgecolors=INK, lw=1.4, zorder=5)
        if on_frontier or point.recommended or len(found) <= MOST_LABELS:
            colour = mark(point.strategy).colour
            axes.plot([point.x] * 2, [point.low, point.high], color=colour, lw=1.2, zorder=3)
            axes.plot([point.x_low, point.x_high], [point.score] * 2, color=colour, lw=1.2, zorder=3)
    _widen(axes, [end for point in found for end in (point.x_low, point.x_high)])
    axes.plot(*_steps(axes, panel).T, color=GREY, ls="--", lw=1, zorder=1, scalex=False)


def _steps(axes: "Axes", panel: Panel) -> Boxes:
    """Return the corners (n, 2) of the frontier, from the smallest file to the right edge."""
    line = sorted((point.x, point.score) for point, best in zip(panel.found, panel.best, strict=True) if best)
    ends = [*(x for x, _ in line[1:]), axes.get_xlim()[1]]
    return np.array([corner for (x, y), end in zip(line, ends, strict=True) for corner in ((x, y), (end, y))])


def _widen(axes: "Axes", xs: Sequence[float]) -> None:
    """Widen the axis for labels, to 0 if that is near; use a logarithmic axis for a large range."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    least, most = min(xs), max(xs)
    if least > 0 and most / least > LARGE_RANGE:
        room = (most / least) ** 0.12
        axes.set_xscale("log")
        axes.set_xlim(least / room, most * room)
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        room = 0.16 * ((most - least) or most or 1.0)
        axes.set_xlim(max(0.0, least - room), most + room)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
    axes.margins(y=0.12)


def _name(axes: "Axes", panel: Panel) -> None:
    labels = []
    for point, best in zip(panel.found, panel.best, strict=True):
        if best or point.recommended or len(panel.found) <= MOST_LABELS:
            colour = mark(point.strategy).colour
            labels.append(Label(point.label, point.x, point.score, colour, bold=point.recommended))
    first = sorted(labels, key=lambda label: not label.bold)[:MOST_LABELS]
    place(axes, [label for label in labels if label in first], _lines_on_screen(axes, panel))


def _lines_on_screen(axes: "Axes", panel: Panel) -> Boxes:
    """Return the boxes (n, 4) of bars, single runs and the frontier, which labels should avoid."""
    found = panel.found
    if len(found) > MOST_SHAPES:
        found = [point for point, best in zip(found, panel.best, strict=True) if best]
    ends = [((point.x, point.low), (point.x, point.high)) for point in found]
    ends += [((point.x_low, point.score), (point.x_high, point.score)) for point in found]
    ends += [(run, run) for point in found for run in point.runs]
    corners = _steps(axes, panel)
    ends += pairwise(corners)
    places = axes.transData.transform(np.array(ends).reshape(-1, 2)).reshape(-1, 4)
    return np.asarray(places + np.array([-2, -2, 2, 2]))
