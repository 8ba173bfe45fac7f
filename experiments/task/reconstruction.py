"""Reconstruction: a model that reproduces its input, whose error shows anomalies."""

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Dataset, Source, Split
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
    by_place: ClassVar[bool] = True
    judging: ClassVar[tuple[str, ...]] = ("judged_by", "windows")
    judged_by: Literal["auc", "mse"] = "auc"
    windows: int = 1

    @property
    def metric(self) -> Metric:
        """The metric that judges the model."""
        return self.further[-1]

    @property
    def validation_metric(self) -> Metric:
        """The error: training examples are normal, and each is judged alone."""
        return ReconstructionError()

    @property
    def further(self) -> tuple[Metric, ...]:
        """The error and, with known anomalies, the area under the curve."""
        return (ReconstructionError(self.windows), *((ErrorAuc(self.windows),) if self.judged_by == "auc" else ()))

    def loss(self, keras: Any) -> Any:
        """See Head.loss."""
        return keras.losses.MeanSquaredError()

    def training_data(self, data: Dataset) -> Dataset:
        """See Head.training_data."""
        # Read when they are used, like the examples, which may be larger than memory.
        train, validation = (Split(split.x, cast(Any, split.x)) for split in (data.train, data.validation))
        return replace(data, train=train, validation=validation)


@option(frozen=True, config=OPTION, kw_only=True)
class Reconstruction(Task):
    """A model that learned normal examples; targets, if there are any, are 1 for an anomaly and 0 for others."""

    name: ClassVar[str] = "reconstruction"
    kind: ClassVar[Kind | None] = "anomalies"
    judging: ClassVar[tuple[str, ...]] = ("metric", "windows")

    metric: Literal["auto", "auc", "mse"] = "auto"  # auto: auc if the test part has anomalies, else mse
    windows: PositiveInt = 1  # consecutive test examples of one recording, which are judged by their mean error

    def check(self, source: Source) -> None:
        """See Task.check."""
        if self.windows > 1 and source.test_samples:
            raise UserError(
                f"dataset.test_samples={source.test_samples}: draws single windows, and task.windows={self.windows} "
                "requires all windows of each recording. Save fewer recordings, and type dataset.test_samples=null."
            )

    def head(self, model: "Model", data: Dataset) -> ReconstructionHead:
        """See Task.head."""
        given, wanted = tuple(model.outputs[0].shape[1:]), data.input_shape
        if given != wanted:
            raise UserError(
                f"task=reconstruction: requires a model whose outputs have the shape of its input, {wanted}, not "
                f"{given}. Use model=autoencoder, or your own."
            )
        self._check_windows(data)
        found = {int(each) for each in set(data.test.y.tolist())}
        if self.metric == "auc" and found != {0, 1}:
            raise UserError(
                "task.metric=auc: requires normal examples and anomalies in the test part, with 0 and 1 as targets. "
                "Without anomalies, type task.metric=mse."
            )
        if self.metric != "auc" and 0 not in found:
            raise UserError("task=reconstruction: the test part requires normal examples; all are anomalies.")
        judged = "auc" if self.metric == "auto" and found == {0, 1} else "mse" if self.metric == "auto" else self.metric
        return ReconstructionHead(prod(wanted), judged, self.windows)

    def _check_windows(self, data: Dataset) -> None:
        if len(data.test) % self.windows:
            raise UserError(
                f"task.windows={self.windows}: requires as many test examples of each recording, but "
                f"{len(data.test):,} is no multiple of {self.windows}."
            )
        mixed = int(np.count_nonzero(np.ptp(data.test.y.reshape(-1, self.windows), axis=1)))
        if mixed:
            raise UserError(
                f"task.windows={self.windows}: {mixed:,} recordings of the test part have normal windows and "
                "anomalies. Save the windows of a recording one after the other, all with its label."
            )
