"""Regression: numbers to predict, judged by the size of the errors."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Dataset
from experiments.dataset.targets import Kind
from experiments.system.errors import UserError
from experiments.system.options import OPTION
from experiments.task import Head, Task
from experiments.task.metrics import MeanAbsoluteError, Metric, Outputs, RootMeanSquareError

if TYPE_CHECKING:
    from tf_keras import Model

Loss = Literal["mse", "mae", "huber"]


@dataclass(frozen=True)
class NumberHead(Head):
    """Outputs that are numbers."""

    task: ClassVar[str] = "regression"
    judging: ClassVar[tuple[str, ...]] = ("judged_by",)
    loss_name: Loss = "mse"
    judged_by: Literal["mae", "rmse"] = "mae"

    @property
    def metric(self) -> Metric:
        """The metric that judges the model."""
        return MeanAbsoluteError() if self.judged_by == "mae" else RootMeanSquareError()

    @property
    def further(self) -> tuple[Metric, ...]:
        """Both metrics."""
        return MeanAbsoluteError(), RootMeanSquareError()

    def constant(self, data: Dataset) -> Outputs:
        """Return the median of the training targets, or their mean for a squared error."""
        best = np.median(data.train.y, axis=0) if self.judged_by == "mae" else data.train.y.mean(axis=0)
        return np.broadcast_to(best.astype(np.float32), data.test.y.shape)

    def loss(self, keras: Any) -> Any:
        """See Head.loss."""
        losses = keras.losses
        kinds = {"mse": losses.MeanSquaredError, "mae": losses.MeanAbsoluteError, "huber": losses.Huber}
        return kinds[self.loss_name]()

    def training_metrics(self, keras: Any) -> list[Any]:
        """Return the mean absolute error."""
        return [keras.metrics.MeanAbsoluteError(name="mae")]


@option(frozen=True, config=OPTION, kw_only=True)
class Regression(Task):
    """Numbers to predict: y is (n,) or (n, ...), and so are the model's outputs."""

    name: ClassVar[str] = "regression"
    kind: ClassVar[Kind | None] = "numbers"
    judging: ClassVar[tuple[str, ...]] = ("metric",)

    loss: Loss = "mse"
    metric: Literal["mae", "rmse"] = "mae"

    def head(self, model: "Model", data: Dataset) -> NumberHead:
        """See Task.head."""
        given, wanted = tuple(model.outputs[0].shape[1:]), data.train.y.shape[1:]
        if given != wanted:
            raise UserError(
                f"task=regression: the targets have the shape {_shown(wanted)}, but the model has outputs of shape "
                f"{_shown(given)}. Use a model with {prod(wanted)} linear output{'s' if prod(wanted) > 1 else ''}, or "
                "targets of that shape."
            )
        return NumberHead(prod(wanted), self.loss, self.metric)


def _shown(shape: tuple[int | None, ...]) -> str:
    return f"(n, {', '.join(map(str, shape))})"
