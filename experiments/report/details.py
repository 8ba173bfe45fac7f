"""What the report shows of one run: its ops, which classes it mixes up, and images whose answer has changed."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from experiments.comparison.files import with_texts
from experiments.measure.changes import EACH, Changed
from experiments.record.run_record import Predictions
from experiments.statistics.estimates import proportion
from experiments.system.escaping import from_spreadsheet_text

MOST_CLASSES = 20  # a confusion matrix of more cannot be read
WORST = 3
LAYER_COLUMNS = {
    "layer": "layer", "op": "op", "arithmetic": "compute dtype", "weights": "weights", "weights_bytes": "bytes",
    "macs": "multiply-accumulates", "xnnpack": "XNNPACK",
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """An image whose answer has changed, as a data address of a PNG."""

    source: str
    place: int
    truth: int
    before: int
    after: int

    @property
    def lost(self) -> bool:
        """Whether it was right before."""
        return self.before == self.truth


@dataclass(frozen=True)
class Matrix:
    """How often images of a class (row) were taken for another (column)."""

    counts: npt.NDArray[np.int64]

    def shade(self, truth: int, said: int) -> float:
        """0 to 1: the share of a class that was taken for this one, on a scale that shows few errors too."""
        share = self.counts[truth, said] / max(self.counts[truth].sum(), 1)
        return float(share**0.35)


@dataclass(frozen=True)
class Details:
    """One run in the report."""

    run_id: str
    name: str
    seed: str  # where the run stands for those of several seeds
    facts: tuple[tuple[str, str], ...]
    layers: pd.DataFrame | None
    matrix: Matrix | None
    worst: tuple[str, ...]
    pictures: tuple[Picture, ...]


def display_layers(rows: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """The ops of a file, with what people ask for."""
    table = with_texts(pd.DataFrame(rows, dtype=str), from_spreadsheet_text)
    shown = table[list(LAYER_COLUMNS)].rename(columns=LAYER_COLUMNS)
    shown["XNNPACK"] = np.where(table["xnnpack"] == "True", "yes", "no")
    for name in ("weights", "bytes", "multiply-accumulates"):
        shown[name] = [f"{int(value or 0):,}" for value in shown[name]]
    return shown


def confusion(answers: Predictions) -> Matrix | None:
    """Counts of true classes by answers of the file; None for more classes than can be read."""
    classes = int(max(answers.truth.max(), answers.tflite.max())) + 1
    if classes > MOST_CLASSES:
        return None
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (answers.truth, answers.tflite), 1)
    return Matrix(counts)


def worst_classes(answers: Predictions) -> tuple[str, ...]:
    """The classes of which fewest images are right, with the interval and what they are most often taken for."""
    right = answers.tflite == answers.truth
    shares = sorted((float(right[answers.truth == each].mean()), int(each)) for each in np.unique(answers.truth))
    return tuple(_told(each, answers) for share, each in shares[:WORST] if share < 1)


def _told(label: int, answers: Predictions) -> str:
    said = answers.tflite[answers.truth == label]
    share = proportion(int((said == label).sum()), len(said))
    wrong, counts = np.unique(said[said != label], return_counts=True)
    most = int(wrong[counts.argmax()])
    interval = f"{100 * share.value:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}] right"
    return f"class {label}: {interval}, most often taken for {most} ({counts.max()} of {len(said)})"


def pictures(changed: Changed, answers: Predictions) -> tuple[Picture, ...]:
    """The images that have changed, those that became wrong first."""
    return tuple(
        Picture(
            _as_png(image),
            int(place),
            int(answers.truth[place]),
            int(answers.reference[place]),
            int(answers.tflite[place]),
        )
        for place, image in zip(changed.places[: 2 * EACH], changed.images, strict=False)
        if place < len(answers.truth)
    )


def _as_png(image: npt.NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
