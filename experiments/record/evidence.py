"""The evidence of a run: what its models predicted, or scored, on the test examples, for paired comparisons."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.statistics import bootstrap
from experiments.statistics.bootstrap import Replicates
from experiments.statistics.estimates import (
    Estimate,
    difference_over_seeds,
    difference_p,
    mcnemar,
    over_seeds,
    paired_difference,
    proportion,
)


class Evidence(ABC):
    """The results of the Keras model, the TFLite file and the float TFLite model of the same baseline."""

    @property
    @abstractmethod
    def examples(self) -> int:
        """Number of test examples."""

    @property
    @abstractmethod
    def keras_score(self) -> float:
        """The metric of the Keras model."""

    @property
    @abstractmethod
    def tflite_score(self) -> Estimate:
        """The metric of the file."""

    @property
    @abstractmethod
    def change(self) -> Estimate:
        """The metric of the file minus that of its float reference, on the same examples."""

    @property
    @abstractmethod
    def change_p(self) -> float:
        """P-value that this change is 0."""


@dataclass(frozen=True)
class Predictions(Evidence):
    """The models' predictions for each test example: class numbers (n,) int64, and the true ones."""

    truth: npt.NDArray[np.int64]
    keras: npt.NDArray[np.int64]
    tflite: npt.NDArray[np.int64]
    reference: npt.NDArray[np.int64]  # the float TFLite model of the same baseline

    @property
    def examples(self) -> int:
        """Number of test examples."""
        return len(self.truth)

    @property
    def keras_score(self) -> float:
        """Accuracy of the Keras model."""
        return self.keras_accuracy.value

    @property
    def tflite_score(self) -> Estimate:
        """Accuracy of the file."""
        return self.tflite_accuracy

    @property
    def keras_accuracy(self) -> Estimate:
        """Accuracy of the Keras model."""
        return _share(self.keras == self.truth)

    @property
    def tflite_accuracy(self) -> Estimate:
        """Accuracy of the TFLite file."""
        return _share(self.tflite == self.truth)

    @property
    def change(self) -> Estimate:
        """Accuracy of the file minus that of its float reference, on the same images."""
        return paired_difference(self.tflite == self.truth, self.reference == self.truth)

    @property
    def change_p(self) -> float:
        """P-value of McNemar's exact test that both have the same error rate."""
        return mcnemar(self.tflite == self.truth, self.reference == self.truth)

    @property
    def agreement(self) -> float:
        """Share of the images for which the file and its Keras model predict the same class."""
        return float(np.mean(self.keras == self.tflite))


@dataclass(frozen=True)
class Scores(Evidence):
    """A metric of the models on all test examples and on resamples of them (statistics.bootstrap)."""

    count: int  # test examples
    keras: Replicates
    tflite: Replicates
    reference: Replicates

    @property
    def examples(self) -> int:
        """Number of test examples."""
        return self.count

    @property
    def keras_score(self) -> float:
        """The metric of the Keras model."""
        return float(self.keras[0])

    @property
    def tflite_score(self) -> Estimate:
        """The metric of the file."""
        return bootstrap.mean_over_seeds(self.tflite[np.newaxis], self.count)

    @property
    def change(self) -> Estimate:
        """The metric of the file minus that of its float reference, on the same resamples."""
        return self._compared[0]

    @property
    def change_p(self) -> float:
        """P-value of the paired bootstrap that this change is 0."""
        return self._compared[1]

    @property
    def _compared(self) -> tuple[Estimate, float]:
        return bootstrap.difference_over_seeds(self.tflite[np.newaxis], self.reference[np.newaxis], self.count)


def _share(correct: npt.NDArray[np.bool_]) -> Estimate:
    return proportion(int(np.count_nonzero(correct)), len(correct))


def same_examples(one: Evidence, other: Evidence) -> bool:
    """Whether two runs may have been measured on the same test examples, by what is known of each example."""
    if isinstance(one, Predictions) and isinstance(other, Predictions):
        return np.array_equal(one.truth, other.truth)
    return type(one) is type(other) and one.examples == other.examples


def score_of(runs: Sequence[Evidence]) -> Estimate:
    """Return the mean score of the files of runs that differ only in their seeds, with its interval."""
    if predictions := _all_predictions(runs):
        return over_seeds(np.stack([each.tflite == each.truth for each in predictions]))
    return bootstrap.mean_over_seeds(np.stack([each.tflite for each in _all_scores(runs)]), runs[0].examples)


def change_of(runs: Sequence[Evidence]) -> Estimate:
    """Return the mean change of the score against the float references of the same runs, with its interval."""
    if predictions := _all_predictions(runs):
        right = np.stack([each.tflite == each.truth for each in predictions])
        return difference_over_seeds(right, np.stack([each.reference == each.truth for each in predictions]))
    scores = _all_scores(runs)
    own, float_ones = (np.stack(values) for values in zip(*((s.tflite, s.reference) for s in scores), strict=True))
    return bootstrap.difference_over_seeds(own, float_ones, runs[0].examples)[0]


def difference_of(runs: Sequence[Evidence], others: Sequence[Evidence]) -> tuple[Estimate, float]:
    """Return the mean score of files minus that of others, seed by seed, with its interval and p-value."""
    predictions, before = _all_predictions(runs), _all_predictions(others)
    if predictions and before:
        both = [np.stack([each.tflite == each.truth for each in group]) for group in (predictions, before)]
        return difference_over_seeds(*both), difference_p(*both)
    own, other = (np.stack([each.tflite for each in _all_scores(group)]) for group in (runs, others))
    return bootstrap.difference_over_seeds(own, other, runs[0].examples)


def _all_predictions(runs: Sequence[Evidence]) -> list[Predictions]:
    """Return the runs if all have predictions; otherwise none."""
    found = [each for each in runs if isinstance(each, Predictions)]
    return found if len(found) == len(runs) else []


def _all_scores(runs: Sequence[Evidence]) -> list[Scores]:
    return [each for each in runs if isinstance(each, Scores)]
