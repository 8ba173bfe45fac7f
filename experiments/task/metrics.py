"""Metrics that judge a model: each gives its value on all test examples, and on every resample of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from experiments.dataset import Split
from experiments.dataset.arrays import by_parts, chunks, row_bytes
from experiments.statistics.bootstrap import RESAMPLES, Replicates, resamples
from experiments.task.boxes import THRESHOLDS, Decoding, average_precisions, matches

Better = Literal["higher", "lower"]
Outputs = npt.NDArray[np.float32]  # (n, ...): of a model for n examples
CHUNK = 2**22  # of weights of resamples that are held at once
IN_CACHE = 2**17  # as many, but few enough for several arrays of them to stay in the cache of a core


@dataclass(frozen=True)
class Metric(ABC):
    """What judges a model's outputs, as a number for a set of examples."""

    name: ClassVar[str]  # in columns
    title: ClassVar[str]  # in headings and sentences
    better: ClassVar[Better] = "higher"

    def units(self, test: Split) -> int:
        """Return how many independent examples there are, which is what a resample draws from."""
        return len(test)

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

    def all_parts(self, outputs: Outputs, test: Split) -> npt.NDArray[np.float64]:
        """Return the parts of all examples, computed for a few megabytes of outputs at once."""
        return np.concatenate([self.parts(*each) for each in in_parts(outputs, test, len(test) // self.units(test))])

    def finish(self, means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the metric (k,) from means (k, ...) over k sets of examples."""
        return means[:, 0]

    def value(self, outputs: Outputs, test: Split) -> float:
        """Return the value on all examples."""
        parts, shape = self._flat(outputs, test)
        return float(self.finish(parts.mean(axis=0).reshape(1, *shape))[0])

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
        parts = np.asarray(self.all_parts(outputs, test), np.float64)
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


def in_parts(outputs: Outputs, test: Split, together: int = 1) -> Iterator[tuple[Outputs, Split]]:
    """Yield outputs and examples, a few megabytes at once; `together` examples are always in one part."""
    for units in chunks(len(test) // together, together * row_bytes(outputs)):
        rows = slice(units.start * together, units.stop * together)
        examples = test.take(np.arange(rows.start, rows.stop))
        yield np.ascontiguousarray(outputs[rows]), replace(examples, y=np.asarray(examples.y))


def _differences(outputs: Outputs, targets: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return outputs.reshape(len(outputs), -1).astype(np.float64) - targets.reshape(len(targets), -1)


@dataclass(frozen=True)
class OfSets(Metric):
    """A metric of a set of examples that is no function of means; it is computed for each resample."""

    @abstractmethod
    def prepared(self, outputs: Outputs, test: Split) -> Any:
        """Return what `of` requires, computed once for all resamples."""

    @abstractmethod
    def of(self, prepared: Any, weights: npt.NDArray[np.int64]) -> float:
        """Return the metric if each example counts as often as its weight (n,) says; NaN if it is not defined."""

    def value(self, outputs: Outputs, test: Split) -> float:
        """Return the value on all examples."""
        return self.of(self.prepared(outputs, test), np.ones(self.units(test), np.int64))

    def replicates(self, outputs: Outputs, test: Split) -> Replicates:
        """See Metric.replicates. A resample without a value, as of one class, has that of all examples."""
        prepared = self.prepared(outputs, test)
        values = np.array([self.of(prepared, weights) for weights in resamples(self.units(test))])
        return np.where(np.isnan(values), values[0], values)


@dataclass(frozen=True)
class Auc(OfSets):
    """The area under the receiver operating characteristic: the share of pairs in the right order, ties half."""

    name: ClassVar[str] = "auc"
    title: ClassVar[str] = "AUC"

    def scores(self, outputs: Outputs, test: Split) -> npt.NDArray[np.float64]:
        """Return a number for each example that is higher, the more likely it is positive."""
        return np.asarray(outputs[:, -1].astype(np.float64) - (outputs[:, 0] if outputs.shape[1] > 1 else 0))

    def prepared(self, outputs: Outputs, test: Split) -> Any:
        """Return the rank of each example, ties being equal, and whether it is positive."""
        ranks = np.unique(self.scores(outputs, test), return_inverse=True)[1]
        return ranks.ravel(), test.y.ravel() == 1

    def of(self, prepared: Any, weights: npt.NDArray[np.int64]) -> float:
        """See OfSets.of; Mann and Whitney's statistic (Hanley and McNeil, Radiology 143, 1982)."""
        ranks, positive = prepared
        most = int(ranks.max()) + 1
        ones = np.bincount(ranks, weights * positive, most)
        zeros = np.bincount(ranks, weights * ~positive, most)
        pairs = ones.sum() * zeros.sum()
        return float((ones * (zeros.cumsum() - zeros / 2)).sum() / pairs) if pairs else float("nan")


@dataclass(frozen=True)
class ErrorAuc(Auc):
    """The area under the curve of the reconstruction error as a sign of an anomaly."""

    windows: int = 1  # consecutive examples of one recording, which is normal or not as a whole

    def units(self, test: Split) -> int:
        """Return the number of recordings."""
        return len(test) // self.windows

    def scores(self, outputs: Outputs, test: Split) -> npt.NDArray[np.float64]:
        """Return the mean squared error of each recording."""
        pairs = in_parts(outputs, test, self.windows)
        return np.concatenate([_reconstruction_errors(*each, self.windows) for each in pairs])

    def prepared(self, outputs: Outputs, test: Split) -> Any:
        """See Auc.prepared; for each recording."""
        ranks, positive = super().prepared(outputs, test)
        return ranks, positive[:: self.windows]


@dataclass(frozen=True)
class ReconstructionError(OfMeans):
    """The mean squared difference between normal examples and their reconstructions."""

    name: ClassVar[str] = "mse"
    title: ClassVar[str] = "MSE"
    better: ClassVar[Better] = "lower"

    windows: int = 1  # see ErrorAuc

    def units(self, test: Split) -> int:
        """Return the number of recordings."""
        return len(test) // self.windows

    def parts(self, outputs: Outputs, test: Split) -> npt.NDArray[np.float64]:
        """Return the error of each normal recording, and whether it is normal."""
        normal = test.y.ravel()[:: self.windows] == 0
        errors = _reconstruction_errors(outputs, test, self.windows)
        return np.stack([errors * normal, normal.astype(np.float64)], axis=1)

    def finish(self, means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the mean over normal examples."""
        return _ratio(means[:, 0], means[:, 1])


def _reconstruction_errors(outputs: Outputs, test: Split, windows: int) -> npt.NDArray[np.float64]:
    """Return the mean squared error of each recording, from all its windows."""
    return np.asarray((_differences(outputs, test.x[:]) ** 2).reshape(len(test) // windows, -1).mean(axis=1))


@dataclass(frozen=True)
class TopFive(OfMeans):
    """The share of examples whose class is among the five largest outputs."""

    name: ClassVar[str] = "top5_accuracy"
    title: ClassVar[str] = "top-5 accuracy"

    def parts(self, outputs: Outputs, test: Split) -> npt.NDArray[np.float64]:
        """Return whether fewer than five outputs are larger than that of the class."""
        own = np.take_along_axis(outputs, test.y[:, np.newaxis], axis=1)
        return np.asarray((outputs > own).sum(axis=1) < 5, np.float64)


@dataclass(frozen=True)
class _OfConfusion(OfSets):
    """A metric of the numbers of examples by true and predicted class."""

    threshold: float = 0.0  # of a single output for class 1

    def prepared(self, outputs: Outputs, test: Split) -> Any:
        """Return the cell of the confusion matrix of each example, and the number of classes."""
        one = outputs.shape[1] == 1
        predicted = (outputs[:, 0] > self.threshold).astype(np.int64) if one else by_parts(_largest, outputs)
        classes = int(max(test.y.max(), predicted.max())) + 1
        return test.y * classes + predicted, classes

    def of(self, prepared: Any, weights: npt.NDArray[np.int64]) -> float:
        """See OfSets.of."""
        cells, classes = prepared
        return self.of_counts(np.bincount(cells, weights, classes**2).astype(np.float64).reshape(classes, classes))

    @abstractmethod
    def of_counts(self, counts: npt.NDArray[np.float64]) -> float:
        """Return the metric from a confusion matrix: true classes in rows, predicted ones in columns."""


def _largest(outputs: Outputs) -> npt.NDArray[np.int64]:
    return np.asarray(outputs.argmax(axis=1))


@dataclass(frozen=True)
class BalancedAccuracy(_OfConfusion):
    """The mean over classes of the share of their examples that are classified correctly."""

    name: ClassVar[str] = "balanced_accuracy"
    title: ClassVar[str] = "balanced accuracy"

    def of_counts(self, counts: npt.NDArray[np.float64]) -> float:
        """Return the mean recall of the classes that occur."""
        return float(np.nanmean(_ratio(np.diag(counts), counts.sum(axis=1))))


@dataclass(frozen=True)
class MacroF1(_OfConfusion):
    """The mean over classes of the F1 score."""

    name: ClassVar[str] = "macro_f1"
    title: ClassVar[str] = "macro-F1"

    def of_counts(self, counts: npt.NDArray[np.float64]) -> float:
        """Return the mean of the classes that occur or are predicted."""
        return float(np.nanmean(_ratio(2 * np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1))))


@dataclass(frozen=True)
class _OfLabels(OfMeans):
    """A metric of the labels that are right, missed, or wrongly given, of several for each example."""

    threshold: float = 0.5  # of an output for its label

    def parts(self, outputs: Outputs, test: Split) -> npt.NDArray[np.float64]:
        """Return for each label whether it is right, and how often it was given or is true: (n, labels, 2)."""
        predicted, true = outputs > self.threshold, test.y > 0.5
        return np.asarray(np.stack([predicted & true, predicted.astype(np.int64) + true], axis=-1), np.float64)


@dataclass(frozen=True)
class LabelMicroF1(_OfLabels):
    """The F1 score over all labels of all examples."""

    name: ClassVar[str] = "micro_f1"
    title: ClassVar[str] = "micro-F1"

    def finish(self, means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return twice the right labels over those given and those true."""
        total = means.sum(axis=1)
        return np.nan_to_num(_ratio(2 * total[:, 0], total[:, 1]))


@dataclass(frozen=True)
class LabelMacroF1(_OfLabels):
    """The mean over labels of the F1 score; 0 for a label that is neither true nor given."""

    name: ClassVar[str] = "macro_f1"
    title: ClassVar[str] = "macro-F1"

    def finish(self, means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the mean."""
        return np.asarray(np.nan_to_num(_ratio(2 * means[..., 0], means[..., 1])).mean(axis=1))


@dataclass(frozen=True)
class MeanIntersectionOverUnion(OfMeans):
    """The mean over classes of the intersection of true and predicted pixels over their union."""

    name: ClassVar[str] = "miou"
    title: ClassVar[str] = "mIoU"
    ignored: int | None = None  # class of pixels that do not count; it is not among the classes of the mean

    def parts(self, outputs: Outputs, test: Split) -> npt.NDArray[np.float64]:
        """Return the pixels of the intersection and of the union, by example and class: (n, classes, 2)."""
        predicted = outputs.argmax(axis=-1).reshape(len(outputs), -1)
        classes = [each for each in range(outputs.shape[-1]) if each != self.ignored]
        true = test.y.reshape(len(test), -1)
        counts = [true != self.ignored] if self.ignored is not None else [np.ones_like(true, bool)]
        pairs = [(true == each, (predicted == each) & counts[0]) for each in classes]
        return np.stack(
            [np.stack([(t & s).sum(axis=1), (t | s).sum(axis=1)], axis=1) for t, s in pairs], axis=1
        ).astype(np.float64)

    def finish(self, means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the mean over classes that are true or predicted somewhere."""
        return np.asarray(np.nanmean(_ratio(means[..., 0], means[..., 1]), axis=1))


@dataclass(frozen=True)
class MeanAveragePrecision(OfSets):
    """The mean over classes and thresholds of overlap of the average precision: COCO's mAP@[.5:.95]."""

    name: ClassVar[str] = "map"
    title: ClassVar[str] = "mAP"
    thresholds: ClassVar[npt.NDArray[np.float64]] = THRESHOLDS

    decoding: Decoding = field(default_factory=Decoding)

    def prepared(self, outputs: Outputs, test: Split) -> Any:
        """Return the matches of each class that has boxes."""
        return matches(self.decoding.detections(outputs), self.decoding.targets(test.y), len(test), self.thresholds)

    def of(self, prepared: Any, weights: npt.NDArray[np.int64]) -> float:
        """See OfSets.of."""
        return float(self._of_all(prepared, weights[np.newaxis])[0])

    def replicates(self, outputs: Outputs, test: Split) -> Replicates:
        """See OfSets.replicates; many resamples at once."""
        prepared = self.prepared(outputs, test)
        step = max(1, IN_CACHE // (1 + len(test) + max((len(each.images) for each in prepared), default=0)))
        drawn, values = resamples(len(test)), []
        while held := list(islice(drawn, step)):
            values.append(self._of_all(prepared, np.stack(held)))
        found = np.concatenate(values)
        return np.where(np.isnan(found), found[0], found)

    @staticmethod
    def _of_all(prepared: Any, weights: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the metric of each set (sets,); NaN without boxes."""
        found = [average_precisions(matched, weights).mean(axis=1) for matched in prepared]
        counted = np.stack(found, axis=1) if found else np.empty((len(weights), 0))
        return _ratio(np.nansum(counted, axis=1), np.count_nonzero(~np.isnan(counted), axis=1).astype(np.float64))


@dataclass(frozen=True)
class MeanAveragePrecision50(MeanAveragePrecision):
    """The mean over classes of the average precision, for an overlap of at least half: COCO's mAP@.5."""

    name: ClassVar[str] = "map50"
    title: ClassVar[str] = "mAP50"
    thresholds: ClassVar[npt.NDArray[np.float64]] = THRESHOLDS[:1]


def _ratio(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return part / whole; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full_like(part, np.nan, dtype=np.float64), where=whole > 0)


# How reports name metrics, and which of them are shares, shown in percent.
_ALL: tuple[type[Metric], ...] = (
    MeanAbsoluteError, RootMeanSquareError, Auc, ReconstructionError, TopFive, BalancedAccuracy, MacroF1, LabelMicroF1,
    MeanIntersectionOverUnion, MeanAveragePrecision, MeanAveragePrecision50,
)  # fmt: skip
TITLES = {"accuracy": "accuracy", **{each.name: each.title for each in _ALL}}
SHARES = frozenset({"accuracy", *(each.name for each in _ALL if each.better == "higher")})
