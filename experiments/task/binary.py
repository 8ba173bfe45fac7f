"""Binary classification: two classes, judged by the area under the curve or by accuracy at a threshold."""

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Dataset
from experiments.dataset.targets import Kind
from experiments.system.errors import UserError
from experiments.system.options import OPTION
from experiments.task.classification import ClassHead, Classification
from experiments.task.metrics import Auc, BalancedAccuracy, Metric, Outputs

if TYPE_CHECKING:
    from tf_keras import Model


@dataclass(frozen=True)
class BinaryHead(ClassHead):
    """One or two outputs for two classes."""

    task: ClassVar[str] = "binary"
    judging: ClassVar[tuple[str, ...]] = ("limit", "judged_by")
    limit: float = 0.5  # class 1 is predicted if its probability is above this
    judged_by: Literal["auc", "accuracy"] = "auc"

    @property
    def metric(self) -> Metric | None:
        """The metric that judges the model."""
        return Auc() if self.judged_by == "auc" else None

    @property
    def further(self) -> tuple[Metric, ...]:
        """The area under the curve and, at half, balanced accuracy."""
        return (Auc(), *((BalancedAccuracy(self.threshold),) if self.limit == 0.5 else ()))

    @property
    def threshold(self) -> float:
        """Threshold of a single output, or of the difference of two, for class 1."""
        if self.meaning == "logits":
            return log(self.limit / (1 - self.limit))
        return self.limit if self.outputs == 1 else 2 * self.limit - 1  # p - (1 - p)

    def predict(self, outputs: Outputs) -> npt.NDArray[np.int64]:
        """Return the predicted class (n,)."""
        values = outputs[:, 0] if self.outputs == 1 else outputs[:, 1] - outputs[:, 0]
        return (values > self.threshold).astype(np.int64)


@option(frozen=True, config=OPTION, kw_only=True)
class Binary(Classification):
    """Two classes, of which the second, in sorted order, is positive."""

    name: ClassVar[str] = "binary"
    kind: ClassVar[Kind | None] = "classes"
    judging: ClassVar[tuple[str, ...]] = ("threshold", "metric")

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    metric: Literal["auc", "accuracy"] = "auc"

    def head(self, model: "Model", data: Dataset) -> BinaryHead:
        """See Task.head."""
        found: Any = super().head(model, data)
        if found.outputs > 2 or data.classes != 2:
            raise UserError(
                f"task=binary: requires two classes and a model with one or two outputs, not {data.classes} classes "
                f"and {found.outputs} outputs. For more classes: task=classification"
            )
        return BinaryHead(found.outputs, found.meaning, self.threshold, self.metric)
