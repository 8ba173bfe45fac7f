"""The plots of a comparison, and the reasons why some are not drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pandas as pd

from experiments.measure.rounds import Rounds
from experiments.plots import FewPointsError, NoPictureError, in_one_style
from experiments.plots.bars import Timed, coverage, latency_distributions
from experiments.plots.epochs import accuracy_epochs
from experiments.plots.histories import Curves, training_histories
from experiments.plots.rounds import latency_rounds
from experiments.plots.tradeoffs import accuracy_download, accuracy_latency, accuracy_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PlotData:
    """Data to plot: the table, the table over seeds (may be empty), training curves and raw timings by run id."""

    table: pd.DataFrame
    of_seeds: pd.DataFrame = field(default_factory=pd.DataFrame)
    histories: Mapping[str, Curves] = field(default_factory=dict)
    timings: Mapping[str, Timed] = field(default_factory=dict)
    recommended: frozenset[str] = frozenset()  # ids of the runs to ship
    fewest: int = 1  # points of a panel; fewer are shown as a table
    rounds: Mapping[str, Rounds] = field(default_factory=dict)  # of timing


@dataclass(frozen=True)
class Pictures:
    """Figures by name, the reasons why others were not drawn, and tables in place of some of these."""

    drawn: "Mapping[str, Figure]"
    left_out: Mapping[str, str]
    tables: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)


Plot = Literal["size", "download", "latency", "epochs", "training", "coverage", "timings", "rounds"]
# What Python code calls the pictures below.
PLOTS: Mapping[Plot, str] = {
    "size": "accuracy_size", "download": "accuracy_download", "latency": "accuracy_latency",
    "epochs": "accuracy_epochs", "training": "training_histories", "coverage": "coverage",
    "timings": "latency_distributions", "rounds": "latency_rounds",
}  # fmt: skip
PICTURES: "Mapping[str, Callable[[PlotData], Figure]]" = {
    "accuracy_size": lambda given: accuracy_size(given.table, given.of_seeds, given.recommended, given.fewest),
    "accuracy_download": lambda given: accuracy_download(given.table, given.of_seeds, given.recommended, given.fewest),
    "accuracy_latency": lambda given: accuracy_latency(given.table, given.of_seeds, given.recommended, given.fewest),
    "accuracy_epochs": lambda given: accuracy_epochs(given.table),
    "training_histories": lambda given: training_histories(given.table, given.histories, given.fewest),
    "coverage": lambda given: coverage(given.table),
    "latency_distributions": lambda given: latency_distributions(given.table, given.timings),
    "latency_rounds": lambda given: latency_rounds(given.table, given.rounds),
}


MOST_DRAWN = 500  # runs


def too_many(table: pd.DataFrame) -> str:
    """Return why the runs are too many to plot; empty if they are not."""
    if len(table) <= MOST_DRAWN:
        return ""
    return f"{len(table):,} runs are more than a plot can show ({MOST_DRAWN:,}); select fewer with --where"


def comparison_pictures(data: PlotData) -> Pictures:
    """Draw all plots for which there are data."""
    if reason := too_many(data.table):
        return Pictures({}, dict.fromkeys(PICTURES, reason))
    drawn, left_out, tables = {}, {}, {}
    with in_one_style():
        for name, draw in PICTURES.items():
            try:
                drawn[name] = draw(data)
            except NoPictureError as reason:
                left_out[name] = str(reason)
                if isinstance(reason, FewPointsError):
                    tables[name] = reason.rows
    return Pictures(drawn, left_out, tables)
