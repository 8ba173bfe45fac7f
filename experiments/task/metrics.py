"""Metrics that judge a model: each gives its value on all test examples, and on every resample of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from experiments.dataset import Split
from experiments.statistics.bootstrap import RESAMPLES, Replicates, resamples

Better = Literal["higher", "lower"]
Outputs = npt.NDArray[np.float32]  # (n, ...): of a model for n examples
CHUNK = 2**22  # of weights of resamples that are held at once


@dataclass(frozen=True)
class Metric(ABC):
    """What judges a model's outputs, as a number for a set of examples."""

    name: ClassVar[str]  # in columns
    title: ClassVar[str]  # in headings and sentences
    better: ClassVar[Better] = "higher"

    @abstractmethod
    def replicates(self, outputs: Outputs, test: Split) -> Replicates:
        """Return the value on all examples, and on each resample of them (statistics.bootstrap.resamples)."""

    def value(self, outputs: Outputs, test: Split) -> float:
        """Return the value on all examples."""
        return float(self.replicates(outputs, test)[0])


@dataclass(frozen=True)
class OfMeans(Metric):
    """A metric that is a function of means over examples."""

    @abstractmethod
    def parts(self, outputs: Outputs, test: Split) -> npt.NDArray[np.float64]:
        """Return what is averaged, for each example: (n, ...)."""

    def finish(self, means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the metric (k,) from means (k, ...) over k sets of examples."""
        return means[:, 0]

    def value(self, outputs: Outputs, test: Split) -> float:
        """Return the value on all examples."""
        return float(self.finish(self._flat(outputs, test)[0].mean(axis=0)[np.newaxis])[0])

    def replicates(self, outputs: Outputs, test: Split) -> Replicates:
        """See Metric.replicates."""
        parts, shape = self._flat(outputs, test)
        means = np.empty((1 + RESAMPLES, parts.shape[1]))
        step, held, done = max(1, CHUNK // len(parts)), [], 0
        for weights in resamples(len(parts)):
            held.append(weights)
            if len(held) == step or done + len(held) == len(means):
                means[done : done + len(held)] = np.stack(held) @ parts / len(parts)
                done, held = done + len(held), []
        means[0] = parts.mean(axis=0)
        return self.finish(means.reshape(-1, *shape))

    def _flat(self, outputs: Outputs, test: Split) -> tuple[npt.NDArray[np.float64], tuple[int, ...]]:
        parts = np.asarray(self.parts(outputs, test), np.float64)
        parts = parts[:, np.newaxis] if parts.ndim == 1 else parts
        return parts.reshape(len(parts), -1), parts.shape[1:]


@dataclass(frozen=True)
class MeanAbsoluteError(OfMeans):
    """The mean absolute difference from the targets, over all their numbers."""

    name: ClassVar[str] = "mae"
    title: ClassVar[str] = "MAE"
    better: ClassVar[Better] = "lower"

    def parts(self, outputs: Outputs, test: Split) -> npt.NDArray[np.float64]:
        """Return the mean absolute error of each example."""
        return np.asarray(np.abs(_differences(outputs, test.y)).mean(axis=1))


@dataclass(frozen=True)
class RootMeanSquareError(OfMeans):
    """The root of the mean squared difference from the targets, over all their numbers."""

    name: ClassVar[str] = "rmse"
    title: ClassVar[str] = "RMSE"
    better: ClassVar[Better] = "lower"

    def parts(self, outputs: Outputs, test: Split) -> npt.NDArray[np.float64]:
        """Return the mean squared error of each example."""
        return np.asarray((_differences(outputs, test.y) ** 2).mean(axis=1))

    def finish(self, means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the root."""
        return np.asarray(np.sqrt(means[:, 0]))


def _differences(outputs: Outputs, targets: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return outputs.reshape(len(outputs), -1).astype(np.float64) - targets.reshape(len(targets), -1)


# How reports name metrics, and which of them are shares, shown in percent.
TITLES = {"accuracy": "accuracy", **{each.name: each.title for each in (MeanAbsoluteError, RootMeanSquareError)}}
SHARES = frozenset({"accuracy"})
