"""A task of the user's own: a loss, and a score for each example or a metric for a set of them."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Dataset, Split
from experiments.dataset.targets import Kind
from experiments.system.contents import contents_of
from experiments.system.errors import UserError, first_line
from experiments.system.options import OPTION
from experiments.task import Head, Task
from experiments.task.metrics import Better, Metric, OfMeans, OfSets, Outputs

if TYPE_CHECKING:
    from tf_keras import Model


@option(frozen=True, config=OPTION, kw_only=True)
class OwnTask(Task):
    """The base class of a user's tasks: define `score` or `metric`, and `loss` unless it is the mean squared error.

    `name` is the name of the task, `metric_name` that of the metric in tables.
    """

    name: ClassVar[str] = "own"
    kind: ClassVar[Kind | None] = "own"
    metric_name: ClassVar[str]
    better: ClassVar[Better] = "higher"

    def loss(self, keras: Any) -> Any:
        """Return the loss for training: a loss of this Keras package, or a function of (truth, outputs)."""
        return keras.losses.MeanSquaredError()

    def score(self, outputs: Outputs, truth: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a number for each example, (n,); their mean judges the model."""
        raise NotImplementedError

    def metric(self, outputs: Outputs, truth: npt.NDArray[Any]) -> float:
        """Return a number for a set of examples."""
        raise NotImplementedError

    def head(self, model: "Model", data: Dataset) -> "OwnHead":
        """See Task.head."""
        defined = [each for each in ("score", "metric") if getattr(type(self), each) is not getattr(OwnTask, each)]
        if len(defined) != 1 or not getattr(type(self), "metric_name", ""):
            raise UserError(
                f"task: {type(self).__name__} requires metric_name, and one of score(outputs, truth) and "
                f"metric(outputs, truth); it defines {' and '.join(defined) or 'neither'}."
            )
        return OwnHead(prod(length or 1 for length in model.outputs[0].shape[1:]), self)


@dataclass(frozen=True)
class OwnHead(Head):
    """Outputs of a user's task."""

    own: OwnTask

    @property
    def task(self) -> str:  # type: ignore[override]
        """The name of the task."""
        return self.own.name

    @property
    def metric(self) -> Metric:
        """The metric that judges the model."""
        per_example = type(self.own).score is not OwnTask.score
        return _OwnScore(self.own) if per_example else _OwnMetric(self.own)

    def loss(self, keras: Any) -> Any:
        """See Head.loss."""
        return self.own.loss(keras)

    @property
    def identity(self) -> dict[str, Any]:
        """See Head.identity; with the user's code and the content of files that the task names."""
        return {"head": type(self).__name__, "outputs": self.outputs, "own": dict(contents_of(self.own))}


@dataclass(frozen=True)
class _Own(Metric):
    own: OwnTask

    @property
    def name(self) -> str:  # type: ignore[override]
        """The user's name."""
        return self.own.metric_name

    @property
    def better(self) -> Better:  # type: ignore[override]
        """The user's direction."""
        return self.own.better


@dataclass(frozen=True)
class _OwnScore(_Own, OfMeans):
    def parts(self, outputs: Outputs, test: Split) -> npt.NDArray[np.float64]:
        """Return the scores, after checking them."""
        scores = np.asarray(_checked(self.own, "score", outputs, test.y), np.float64)
        if scores.shape != (len(outputs),) or not np.isfinite(scores).all():
            raise UserError(
                f"task: score of {type(self.own).__name__} requires a finite number for each of {len(outputs)} "
                f"examples; it returned the shape {scores.shape}."
            )
        return scores


@dataclass(frozen=True)
class _OwnMetric(_Own, OfSets):
    def prepared(self, outputs: Outputs, test: Split) -> Any:
        """Return the arguments of the user's function."""
        return outputs, test.y

    def of(self, prepared: Any, weights: npt.NDArray[np.int64]) -> float:
        """Return the user's metric for a set in which each example occurs as often as its weight says."""
        outputs, truth = prepared
        places = np.repeat(np.arange(len(weights)), weights)
        value = _checked(self.own, "metric", outputs[places], truth[places])
        if not isinstance(value, int | float | np.number):
            raise UserError(f"task: metric of {type(self.own).__name__} requires a number, not {type(value).__name__}.")
        return float(value)


def _checked(own: OwnTask, what: str, outputs: Outputs, truth: npt.NDArray[Any]) -> Any:
    """Call the user's function."""
    try:
        return getattr(own, what)(outputs, truth)
    except Exception as error:
        raise UserError(
            f"task: {what} of {type(own).__name__} fails ({type(error).__name__}: {first_line(error)})."
        ) from error
