"""The metrics of tasks against the definitions of scikit-learn's, written out for each example."""

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from experiments.dataset import Split, arrays
from experiments.dataset.rows import Rows
from experiments.statistics.bootstrap import RESAMPLES, resamples
from experiments.task.metrics import (
    Auc,
    BalancedAccuracy,
    ErrorAuc,
    LabelMacroF1,
    LabelMicroF1,
    MacroF1,
    MeanIntersectionOverUnion,
    Metric,
    ReconstructionError,
    TopFive,
)

RNG = np.random.default_rng(0)
EXAMPLES = 60
Array = npt.NDArray[Any]


def f1(true: Any, said: Any) -> float:
    hits = np.sum(true & said)
    return float(2 * hits / (np.sum(true) + np.sum(said))) if np.sum(true) + np.sum(said) else 0.0


def share_of_pairs_in_order(scores: Array, positive: Array) -> float:
    pairs = list(product(scores[positive], scores[~positive]))
    return float(np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]))


LOGITS = RNG.normal(size=(EXAMPLES, 7)).round(1).astype(np.float32)
CLASSES = RNG.integers(0, 7, EXAMPLES)
SAID = LOGITS.argmax(axis=1)
BINARY = RNG.integers(0, 2, EXAMPLES)
ONE = RNG.normal(size=(EXAMPLES, 1)).round(1).astype(np.float32)
LABELS = RNG.integers(0, 2, (EXAMPLES, 4)).astype(np.float32)
GIVEN = RNG.random((EXAMPLES, 4)).astype(np.float32)
PIXELS = RNG.normal(size=(EXAMPLES, 3, 3, 3)).astype(np.float32)
MAPS = RNG.integers(0, 3, (EXAMPLES, 3, 3))
X = RNG.normal(size=(EXAMPLES, 5)).astype(np.float32)
BACK = (X + RNG.normal(size=X.shape)).astype(np.float32)
ERRORS = ((BACK.astype(np.float64) - X) ** 2).mean(axis=1)


def expected_iou() -> float:
    said = PIXELS.argmax(axis=-1)
    return float(np.mean([np.sum((c == MAPS) & (said == c)) / np.sum((c == MAPS) | (said == c)) for c in range(3)]))


CASES: dict[str, tuple[Metric, Array, Array, float]] = {
    "auc": (Auc(), ONE, BINARY, share_of_pairs_in_order(ONE[:, 0], BINARY == 1)),
    "auc of two outputs": (
        Auc(), LOGITS[:, :2], BINARY, share_of_pairs_in_order(LOGITS[:, 1].astype(float) - LOGITS[:, 0], BINARY == 1)
    ),
    "auc of errors": (ErrorAuc(), BACK, BINARY, share_of_pairs_in_order(ERRORS, BINARY == 1)),
    "error": (ReconstructionError(), BACK, BINARY, float(ERRORS[BINARY == 0].mean())),
    "balanced accuracy": (
        BalancedAccuracy(), LOGITS, CLASSES, float(np.mean([np.mean(SAID[c == CLASSES] == c) for c in range(7)]))
    ),
    "macro-F1": (MacroF1(), LOGITS, CLASSES, float(np.mean([f1(c == CLASSES, c == SAID) for c in range(7)]))),
    "top 5": (
        TopFive(), LOGITS, CLASSES, float(np.mean([np.sum(r > r[c]) < 5 for r, c in zip(LOGITS, CLASSES, strict=True)]))
    ),
    "micro-F1 of labels": (LabelMicroF1(), GIVEN, LABELS, f1(LABELS == 1, GIVEN > 0.5)),
    "macro-F1 of labels": (
        LabelMacroF1(), GIVEN, LABELS, float(np.mean([f1(LABELS[:, k] == 1, GIVEN[:, k] > 0.5) for k in range(4)]))
    ),
    "mean intersection over union": (MeanIntersectionOverUnion(), PIXELS, MAPS, expected_iou()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_metric_is_that_of_its_definition_on_all_examples_and_on_each_resample(name: str) -> None:
    metric, outputs, y, expected = CASES[name]
    found = metric.replicates(outputs, Split(Rows(X), y))
    assert found.shape == (1 + RESAMPLES,)
    assert np.isfinite(found).all()
    assert metric.value(outputs, Split(Rows(X), y)) == pytest.approx(expected)
    assert found[0] == pytest.approx(expected)
    weights = list(resamples(EXAMPLES))[5]
    places = np.repeat(np.arange(EXAMPLES), weights)
    drawn = metric.value(outputs[places], Split(Rows(X[places]), y[places]))
    assert found[5] == pytest.approx(drawn)


def test_ignored_pixels_do_not_count() -> None:
    right = np.eye(3, dtype=np.float32)[MAPS]
    ignored = np.where(RNG.random(MAPS.shape) < 0.3, 255, MAPS)
    assert MeanIntersectionOverUnion(255).value(right, Split(Rows(X), ignored)) == 1
    assert MeanIntersectionOverUnion(255).value(np.roll(right, 1, axis=-1), Split(Rows(X), ignored)) == 0


def test_an_ignored_class_that_the_model_has_an_output_for_is_not_in_the_mean() -> None:
    background = np.where(np.isin(MAPS, (1, 2)), MAPS, 0)
    right = np.eye(3, dtype=np.float32)[background]
    assert MeanIntersectionOverUnion(0).value(right, Split(Rows(X), background)) == 1
    said = np.eye(3, dtype=np.float32)[np.where(background == 1, 0, background)]  # all of class 1 is missed
    assert MeanIntersectionOverUnion(0).value(said, Split(Rows(X), background)) == 0.5


@pytest.mark.parametrize("name", ["error", "auc of errors", "mean intersection over union"])
def test_a_metric_reads_a_few_examples_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    metric, outputs, y, expected = CASES[name]
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 7 * outputs[0].nbytes)
    counts: list[int] = []

    def counted(self: Rows, rows: Any) -> Any:
        counts.append(len(self))
        return read(self, rows)

    def taken(self: Split, index: Any) -> Split:
        counts.append(len(index))
        return take(self, index)

    read, take = Rows._read, Split.take
    monkeypatch.setattr(Rows, "_read", counted)
    monkeypatch.setattr(Split, "take", taken)  # not every metric reads examples
    assert metric.value(outputs, Split(Rows(X), y)) == pytest.approx(expected)
    assert counts
    assert max(counts) <= 7


def test_windows_of_a_recording_are_judged_together_in_any_part(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split(Rows(X), np.repeat([0, 1], EXAMPLES // 2))
    whole = [each(4).value(BACK, split) for each in (ErrorAuc, ReconstructionError)]
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 10 * BACK[0].nbytes)
    assert [each(4).value(BACK, split) for each in (ErrorAuc, ReconstructionError)] == pytest.approx(whole, rel=1e-12)
