"""Read the data of plots from the store, and write plots to files."""

from pathlib import Path

from experiments.comparison.choices import recommended
from experiments.comparison.compared import Comparison
from experiments.plots import save
from experiments.plots.bars import with_timings
from experiments.plots.comparison import Pictures, PlotData, comparison_pictures, too_many
from experiments.plots.histories import trainings
from experiments.record.artifacts import (
    RECORD,
    ROUNDS,
    SAMPLES,
    read_artifact,
    read_curves,
    read_rounds,
    read_samples,
)
from experiments.system.errors import UserError
from experiments.system.progress import say
from experiments.tracking import Store

ENDINGS = (".png", ".svg")
FEWEST = 3  # points of a panel


def load_plot_data(store: Store, comparison: Comparison, fewest: int = FEWEST) -> PlotData:
    """Return a comparison with the training curves and timings of the runs to plot."""
    table = comparison.runs
    if too_many(table):
        return PlotData(table)
    trained = [run_id for each in trainings(table) for run_id in each.run_ids]
    timed = with_timings(table)["run_id"]
    curves = {run_id: read_artifact(store, run_id, RECORD, read_curves) for run_id in trained}
    samples = {run_id: read_artifact(store, run_id, SAMPLES, read_samples) for run_id in timed}
    rounds = {run_id: read_artifact(store, run_id, ROUNDS, read_rounds) for run_id in timed}
    return PlotData(
        table,
        comparison.of_seeds,
        {run_id: found for run_id, found in curves.items() if found is not None},
        {run_id: found for run_id, found in samples.items() if found is not None},
        recommended(comparison),
        fewest,
        {run_id: found for run_id, found in rounds.items() if found is not None},
    )


def draw_pictures(store: Store, comparison: Comparison, fewest: int = FEWEST) -> Pictures:
    """Draw the plots of a comparison; panels with less than `fewest` points are tables."""
    return comparison_pictures(load_plot_data(store, comparison, fewest))


def write_pictures(pictures: Pictures, folder: Path) -> None:
    """Write each plot to the folder, as PNG and SVG.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in pictures.drawn.items():
            for ending in ENDINGS:
                save(figure, folder / f"{name}{ending}")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error}).") from error


def report_pictures(pictures: Pictures, folder: Path) -> None:
    """Print the paths of written plots, and the reasons for others."""
    for name in pictures.drawn:
        say(f"wrote {' and '.join(str(folder / f'{name}{ending}') for ending in ENDINGS)}")
    for name, reason in pictures.left_out.items():
        say(f"not plotted: {name}: {reason}")
