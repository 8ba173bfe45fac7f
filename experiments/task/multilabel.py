"""Several labels for each example, or none, judged by the F1 score."""

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Dataset
from experiments.dataset.targets import Kind
from experiments.system.errors import UserError
from experiments.system.options import OPTION
from experiments.task import Head, Task
from experiments.task.classification import Meaning, head_of
from experiments.task.metrics import LabelMacroF1, LabelMicroF1, Metric

if TYPE_CHECKING:
    from tf_keras import Model

SAMPLE = 64  # examples to infer the meaning of outputs from, if the layers do not show it


@dataclass(frozen=True)
class LabelHead(Head):
    """An output for each label: its probability, or its logit."""

    task: ClassVar[str] = "multilabel"
    judging: ClassVar[tuple[str, ...]] = ("limit", "judged_by")
    meaning: Meaning
    limit: float = 0.5
    judged_by: Literal["micro_f1", "macro_f1"] = "micro_f1"

    @property
    def metric(self) -> Metric:
        """The metric that judges the model."""
        return self.further[0 if self.judged_by == "micro_f1" else 1]

    @property
    def further(self) -> tuple[Metric, ...]:
        """Both averages."""
        threshold = log(self.limit / (1 - self.limit)) if self.meaning == "logits" else self.limit
        return LabelMicroF1(threshold), LabelMacroF1(threshold)

    def loss(self, keras: Any) -> Any:
        """See Head.loss."""
        return keras.losses.BinaryCrossentropy(from_logits=self.meaning == "logits")


@option(frozen=True, config=OPTION, kw_only=True)
class Multilabel(Task):
    """Rows of 0 and 1, one number for each label: y is (n, labels), and so are the model's outputs."""

    name: ClassVar[str] = "multilabel"
    kind: ClassVar[Kind | None] = "rows"
    judging: ClassVar[tuple[str, ...]] = ("threshold", "metric")

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    metric: Literal["micro_f1", "macro_f1"] = "micro_f1"

    def head(self, model: "Model", data: Dataset) -> LabelHead:
        """See Task.head."""
        given, labels = tuple(model.outputs[0].shape[1:]), data.train.y.shape[1]
        if given != (labels,):
            raise UserError(
                f"task=multilabel: the targets have {labels} labels, but the model has outputs of shape "
                f"(n, {', '.join(map(str, given))}). Use a model with {labels} outputs, linear or sigmoid."
            )
        meaning = head_of(model, data.train.sample(SAMPLE).x[:]).meaning
        if meaning == "softmax":
            raise UserError(
                "task=multilabel: the model ends in softmax, which gives one label for each example. Use sigmoid or no "
                "activation, or type task=classification."
            )
        return LabelHead(labels, meaning, self.threshold, self.metric)
