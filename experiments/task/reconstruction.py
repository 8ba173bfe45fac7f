"""Reconstruction: a model that gives its input back, whose error shows anomalies."""

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic.dataclasses import dataclass as option

from experiments.dataset import Dataset, Split
from experiments.dataset.targets import Kind
from experiments.system.errors import UserError
from experiments.system.options import OPTION
from experiments.task import Head, Task
from experiments.task.metrics import ErrorAuc, Metric, ReconstructionError

if TYPE_CHECKING:
    from tf_keras import Model


@dataclass(frozen=True)
class ReconstructionHead(Head):
    """Outputs that are the input again."""

    task: ClassVar[str] = "reconstruction"
    judged_by: Literal["auc", "mse"] = "auc"

    @property
    def metric(self) -> Metric:
        """The metric that judges the model."""
        return ErrorAuc() if self.judged_by == "auc" else ReconstructionError()

    @property
    def further(self) -> tuple[Metric, ...]:
        """The error and, with known anomalies, the area under the curve."""
        return (ReconstructionError(), *((ErrorAuc(),) if self.judged_by == "auc" else ()))

    def loss(self, keras: Any) -> Any:
        """See Head.loss."""
        return keras.losses.MeanSquaredError()

    def training_data(self, data: Dataset) -> Dataset:
        """See Head.training_data."""
        train, validation = (Split(split.x, split.x[:]) for split in (data.train, data.validation))
        return replace(data, train=train, validation=validation)


@option(frozen=True, config=OPTION, kw_only=True)
class Reconstruction(Task):
    """A model that learned normal examples; y_test, if it is given, is 1 for an anomaly and 0 for others."""

    name: ClassVar[str] = "reconstruction"
    kind: ClassVar[Kind | None] = "anomalies"

    metric: Literal["auto", "auc", "mse"] = "auto"  # auto: auc if y_test has anomalies, else mse

    def head(self, model: "Model", data: Dataset) -> ReconstructionHead:
        """See Task.head."""
        given, wanted = tuple(model.outputs[0].shape[1:]), data.input_shape
        if given != wanted:
            raise UserError(
                f"task=reconstruction: requires a model whose outputs have the shape of its input, {wanted}, not "
                f"{given}. Use model=autoencoder, or your own."
            )
        found = {int(each) for each in set(data.test.y.tolist())}
        if self.metric == "auc" and found != {0, 1}:
            raise UserError(
                "task.metric=auc: requires y_test with 0 for normal examples and 1 for anomalies, and both. Without "
                "anomalies, type task.metric=mse."
            )
        if self.metric != "auc" and 0 not in found:
            raise UserError("y_test: requires normal examples, with 0; all are anomalies.")
        judged = "auc" if self.metric == "auto" and found == {0, 1} else "mse" if self.metric == "auto" else self.metric
        return ReconstructionHead(prod(wanted), judged)
