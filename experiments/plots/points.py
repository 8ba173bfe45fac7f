"""Convert the table of a comparison to points for plots; runs of several seeds become one point."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.comparison.columns import VOID, cell_of, key_of, may_be_shipped
from experiments.comparison.metric import common_metric
from experiments.comparison.names import epochs_text, names, subjects_of
from experiments.plots import NoPictureError
from experiments.record.metric import RecordedMetric

Numbers = npt.NDArray[np.float64]
MOST_PANELS = 6
SCORE = "tflite_score"  # the column of the metric that judges a file


@dataclass(frozen=True)
class Point:
    """A setting: its score, in percent if it is a share, `x` and its range in the column's unit, and runs of seeds."""

    label: str
    strategy: str
    x: float
    x_low: float
    x_high: float
    score: float
    low: float
    high: float
    runs: tuple[tuple[float, float], ...] = ()  # (x, score) of each, if the point is their mean
    recommended: bool = False


def metric_of(runs: pd.DataFrame) -> RecordedMetric:
    """Return the metric of a panel, whose runs have the same."""
    return common_metric(runs) or RecordedMetric()


def scale_of(runs: pd.DataFrame) -> float:
    """Return the factor of plotted scores: shares are in percent."""
    return 100.0 if metric_of(runs).is_share else 1.0


def score_label(runs: pd.DataFrame) -> str:
    """Return the label of an axis of scores."""
    metric = metric_of(runs)
    return f"{metric.title} of the TFLite file{metric.unit}"


def score_title(runs: pd.DataFrame) -> str:
    """Return what a figure with these runs is about."""
    metric = common_metric(runs)
    return metric.title[:1].upper() + metric.title[1:] if metric else "Score"


def frontier(x: Numbers, y: Numbers) -> npt.NDArray[np.bool_]:
    """Return which points are on the Pareto frontier of small x and high y."""
    if not len(x):
        return np.zeros(0, bool)
    places, place = np.unique(x, return_inverse=True)
    highest = np.full(len(places), -np.inf)
    np.maximum.at(highest, place, y)
    before = np.concatenate([[-np.inf], np.maximum.accumulate(highest)[:-1]])
    return np.asarray((y == highest[place]) & (y > before[place]))


def measured(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return the finished and verified runs that have all of these numbers.

    Raises:
        NoPictureError: there are none.
    """
    found = table[may_be_shipped(table) & table[list(columns)].notna().all(axis=1)]
    if found.empty:
        raise NoPictureError(f"no finished and verified run has {' and '.join(columns)}")
    return found


def left_out(table: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    """Return a sentence on the number of omitted runs, or none."""
    missing = len(table) - len(shown)
    why = "which are not finished or verified, or lack these values"
    return [f"Omitted: {missing} of {len(table)} runs, {why}."] if missing else []


def void_left_out(timed: pd.DataFrame) -> list[str]:
    """Return a sentence on strategies with invalid timings, which are not drawn, or none."""
    strategies = timed.loc[timed["speed"] == VOID, "strategy"].unique()
    return [f"Omitted: invalid timings of {', '.join(strategies)}."] if len(strategies) else []


def panels(runs: pd.DataFrame, by: list[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Return the runs of each panel; if there are too many panels, those with the most runs."""
    groups = [(key, group) for key, group in runs.groupby(by, dropna=False, sort=False)]
    largest = sorted(groups, key=lambda group: -len(group[1]))[:MOST_PANELS]
    kept = [key for key, _ in largest]
    return [(key, group) for key, group in groups if key in kept]


def panels_left_out(runs: pd.DataFrame, by: list[str]) -> list[str]:
    """Return a sentence on the number of omitted panels, or none."""
    more = runs.groupby(by, dropna=False).ngroups - MOST_PANELS
    return [f"{more} more panels are not shown; select runs with --where."] if more > 0 else []


def setting_of(runs: pd.DataFrame) -> str:
    """Describe what these runs have in common: article_cnn on mnist, 1 epoch, seed 0."""
    parts = [subjects_of(runs)]
    if runs["epochs"].nunique() == 1:
        parts.append(epochs_text(runs["epochs"].iloc[0]))
    seeds = runs["seed"].nunique()
    parts.append(f"seed {runs['seed'].iloc[0]}" if seeds == 1 else f"{seeds} seeds")
    return ", ".join(parts)


def points(runs: pd.DataFrame, of_seeds: pd.DataFrame, column: str, recommended: Collection[str] = ()) -> list[Point]:
    """Return the runs of a panel as points over a column; runs of several seeds are one point, with `of_seeds`."""
    means = dict(_means(of_seeds))
    cells = cell_of(runs)
    named = runs.assign(_label=names(runs, ["seed"]))
    found = []
    for key, group in named.groupby(cells, dropna=False, sort=False):
        mean = means.get(key_of(key)) if len(group) > 1 else None
        points_of_group = [_pooled(group, column, mean)] if mean else list(_single(group, column))
        shipped = group["run_id"].isin(recommended)
        chosen = [bool(shipped.any())] if mean else shipped.tolist()
        found += [replace(point, recommended=each) for point, each in zip(points_of_group, chosen, strict=True)]
    return found


def _means(of_seeds: pd.DataFrame) -> Iterator[tuple[tuple[Any, ...], tuple[float, float, float]]]:
    if of_seeds.empty:
        return
    cells = cell_of(of_seeds)
    for row in of_seeds.to_dict("records"):
        yield key_of(row[name] for name in cells), (row[SCORE], row[f"{SCORE}_low"], row[f"{SCORE}_high"])


def _pooled(group: pd.DataFrame, column: str, mean: tuple[float, float, float]) -> Point:
    x, scale = group[column].astype(float), scale_of(group)
    value, low, high = (scale * number for number in mean)
    first = group.iloc[0]
    single = tuple(zip(x, scale * group[SCORE], strict=True))
    return Point(
        first["_label"], first["strategy"], float(x.median()), x.min(), x.max(), value, low, high, single
    )  # fmt: skip


def _single(group: pd.DataFrame, column: str) -> Iterator[Point]:
    scale = scale_of(group)
    name = next((name for name in ("seed", "machine") if group[name].nunique() > 1), "run_id")
    for _, run in group.iterrows():
        apart = f", {name.removesuffix('_id')} {str(run[name])[:8]}"
        label = run["_label"] + (apart if len(group) > 1 else "")
        score = [scale * run[f"{SCORE}{end}"] for end in ("", "_low", "_high")]
        yield Point(label, run["strategy"], *_range(run, column), *score)


def _range(run: pd.Series, column: str) -> tuple[float, float, float]:
    """Return a value with its range: that of the speedup for a latency; a size is exact."""
    x = float(run[column])
    if not column.startswith("latency") or not 0 < run["speedup_low"] <= run["speedup_high"]:
        return x, x, x
    return x, x * run["speedup"] / run["speedup_high"], x * run["speedup"] / run["speedup_low"]
