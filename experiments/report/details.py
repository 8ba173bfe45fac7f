"""Details of a run in the report: its ops, a confusion matrix, and images whose prediction changed."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from experiments.comparison.files import with_texts
from experiments.measure.changes import EACH, Changed
from experiments.record.evidence import Predictions
from experiments.report.tables import Table
from experiments.statistics.estimates import proportion
from experiments.system.escaping import from_spreadsheet_text

MOST_CLASSES = 20  # a larger confusion matrix is not readable
WORST = 3
LAYER_COLUMNS = {
    "layer": "layer", "op": "op", "arithmetic": "compute dtype", "weights": "weights", "weights_bytes": "bytes",
    "macs": "multiply-accumulates", "xnnpack": "XNNPACK",
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """An image whose prediction changed, as a data URL of a PNG."""

    source: str
    place: int
    truth: int
    before: int
    after: int

    @property
    def lost(self) -> bool:
        """Whether the prediction was correct before."""
        return self.before == self.truth


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: images by true class (row) and predicted class (column)."""

    counts: npt.NDArray[np.int64]

    def shade(self, truth: int, predicted: int) -> float:
        """Return the shade of a cell, 0 to 1: the share of its class, on a scale that shows few errors as well."""
        share = self.counts[truth, predicted] / max(self.counts[truth].sum(), 1)
        return float(share**0.35)


@dataclass(frozen=True)
class Details:
    """One run in the report."""

    run_id: str
    anchor: str
    page: str  # in MLflow
    name: str
    seed: str  # if the row is a mean over seeds
    facts: tuple[tuple[str, str], ...]
    layers: Table | None
    matrix: Matrix | None
    worst: tuple[str, ...]
    pictures: tuple[Picture, ...]
    names: Mapping[int, str] = field(default_factory=dict)  # of the classes

    def class_name(self, number: int) -> str:
        """Return the name of a class."""
        return self.names.get(number, str(number))


def display_layers(rows: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """Return the main columns of a file's ops."""
    table = with_texts(pd.DataFrame(rows, dtype=str), from_spreadsheet_text)
    shown = table[list(LAYER_COLUMNS)].rename(columns=LAYER_COLUMNS)
    shown["XNNPACK"] = np.where(table["xnnpack"] == "True", "yes", "no")
    for name in ("weights", "bytes", "multiply-accumulates"):
        shown[name] = [f"{int(value or 0):,}" for value in shown[name]]
    return shown


def confusion(predictions: Predictions) -> Matrix | None:
    """Return the confusion matrix of the file; None if there are too many classes."""
    classes = int(max(predictions.truth.max(), predictions.tflite.max())) + 1
    if classes > MOST_CLASSES:
        return None
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (predictions.truth, predictions.tflite), 1)
    return Matrix(counts)


def worst_classes(predictions: Predictions, names: Mapping[int, str]) -> tuple[str, ...]:
    """Describe the classes with the lowest accuracy, with interval and most frequent wrong prediction."""
    right = predictions.tflite == predictions.truth
    classes = np.unique(predictions.truth)
    shares = sorted((float(right[predictions.truth == each].mean()), int(each)) for each in classes)
    return tuple(_describe_class(each, predictions, names) for share, each in shares[:WORST] if share < 1)


def _describe_class(label: int, predictions: Predictions, names: Mapping[int, str]) -> str:
    predicted = predictions.tflite[predictions.truth == label]
    share = proportion(int((predicted == label).sum()), len(predicted))
    wrong, counts = np.unique(predicted[predicted != label], return_counts=True)
    most = int(wrong[counts.argmax()])
    interval = f"{100 * share.value:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}] correct"
    name, other = (names.get(each, str(each)) for each in (label, most))
    return f"class {name}: {interval}, most often predicted as {other} ({counts.max()} of {len(predicted)})"


def pictures(changed: Changed, predictions: Predictions) -> tuple[Picture, ...]:
    """Return the images whose prediction changed, first those that became wrong."""
    return tuple(
        Picture(
            _as_png(image),
            int(place),
            int(predictions.truth[place]),
            int(predictions.reference[place]),
            int(predictions.tflite[place]),
        )
        for place, image in zip(changed.places[: 2 * EACH], changed.images, strict=False)
        if place < len(predictions.truth)
    )


def _as_png(image: npt.NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
