"""Segmentation: a class for each pixel, judged by mean intersection over union."""

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import NonNegativeInt
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Dataset, Examples
from experiments.dataset.targets import Kind, largest_class
from experiments.system.errors import UserError
from experiments.system.options import OPTION
from experiments.task import Head, Task
from experiments.task.classification import ROUNDING, SAMPLE
from experiments.task.metrics import MeanIntersectionOverUnion, Metric

if TYPE_CHECKING:
    from tf_keras import Model


@dataclass(frozen=True)
class PixelHead(Head):
    """For each pixel, an output for each class: probabilities, or logits."""

    task: ClassVar[str] = "segmentation"
    by_place: ClassVar[bool] = True
    logits: bool
    ignored: int | None = None

    @property
    def metric(self) -> Metric:
        """Mean intersection over union."""
        return MeanIntersectionOverUnion(self.ignored)

    @property
    def further(self) -> tuple[Metric, ...]:
        """The same, by its name."""
        return (self.metric,)

    def loss(self, keras: Any) -> Any:
        """See Head.loss."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=self.logits, ignore_class=self.ignored)


@option(frozen=True, config=OPTION, kw_only=True)
class Segmentation(Task):
    """A class for each pixel: y is (n, height, width), the model's outputs (n, height, width, classes)."""

    name: ClassVar[str] = "segmentation"
    kind: ClassVar[Kind | None] = "maps"

    ignored: NonNegativeInt | None = None  # class of pixels that do not count, such as 255

    def counted(self, examples: Examples) -> Examples:
        """See Task.counted."""
        return replace(examples, ignored=self.ignored)

    def head(self, model: "Model", data: Dataset) -> PixelHead:
        """See Task.head."""
        given, wanted = tuple(model.outputs[0].shape[1:]), data.train.y.shape[1:]
        if len(given) != 3 or given[:2] != wanted:
            raise UserError(
                f"task=segmentation: requires a model with outputs of shape (n, {wanted[0]}, {wanted[1]}, classes), as "
                f"many pixels as the targets have, not (n, {', '.join(map(str, given))}). Use model=encoder_decoder, "
                "or your own."
            )
        most = max(largest_class(split.y, self.ignored) for split in (data.train, data.validation, data.test))
        if most >= given[2]:
            raise UserError(
                f"task=segmentation: the targets have the class {most}, but the model has outputs for {given[2]} "
                f"classes, from 0 on. Number the classes from 0, or type task.ignored={most} if it marks pixels that "
                "do not count."
            )
        outputs = model(data.train.sample(SAMPLE).x[:4], training=False).numpy()
        probable = outputs.min() >= -ROUNDING and np.allclose(outputs.sum(axis=-1), 1, atol=ROUNDING)
        return PixelHead(prod(given), not probable, self.ignored)
