"""Label smoothing, and weights of classes in the loss; both require a classifier."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.dataset import Dataset
from experiments.system.errors import UserError, format_value, suggestion
from experiments.task import Head
from experiments.task.classification import ClassHead
from experiments.training.outputs import JointHead

NONE, BALANCED = "none", "balanced"


def class_weights_named(value: object) -> object:
    """Return the setting `class_weights`, with the names of classes as text.

    Raises:
        ValueError: it is neither `none` nor `balanced` nor weights by class.
    """
    match value:
        case "none" | "balanced":
            return value
        case Mapping() if value and all(_is_weight(each) for each in value.values()):
            return {str(name): weight for name, weight in value.items()}
        case str():
            raise ValueError(f"unknown name {value}. {suggestion(value, (NONE, BALANCED))}")
    raise ValueError("requires none, balanced, or a positive weight for each class, as in {cat: 1, dog: 2.5}")


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < np.inf


def check(head: Head, label_smoothing: float, class_weights: object, key: str = "training") -> None:
    """Check that the task has classes, which these settings require.

    Raises:
        UserError: it has none.
    """
    head = head.judged if isinstance(head, JointHead) else head
    asked = (
        f"label_smoothing={label_smoothing:g}" if label_smoothing else f"class_weights={format_value(class_weights)}"
    )
    if (label_smoothing or class_weights != NONE) and not isinstance(head, ClassHead):
        raise UserError(f"{key}.{asked}: requires task=classification, not task={head.task}. Remove it.")


def weights_of(setting: Any, data: Dataset, key: str = "training") -> dict[int, float] | None:
    """Return the weight of each class in the loss; None for equal ones.

    `balanced` weights a class by examples / (classes * examples of the class), so that all classes count the same.
    Classes that are not named have the weight 1.

    Raises:
        UserError: the setting names a class that the data do not have.
    """
    if setting == NONE:
        return None
    numbers = range(max(data.classes, 1 + max(data.labels, default=0)))  # a model file may have classes in between
    if setting == BALANCED:
        counts = np.bincount(data.train.y, minlength=len(numbers))
        present = np.count_nonzero(counts)
        return {number: len(data.train) / (present * max(int(counts[number]), 1)) for number in numbers}
    names = {name: number for number, name in data.labels.items()} or {str(number): number for number in numbers}
    given = {str(name): float(weight) for name, weight in setting.items()}
    for name in given:
        if name not in names:
            raise UserError(f"{key}.class_weights: the data have no class {name}. {suggestion(name, names)}")
    return dict.fromkeys(numbers, 1.0) | {names[name]: weight for name, weight in given.items()}


def loss_for(head: Head, keras: Any, label_smoothing: float) -> Any:
    """Return the loss of a head, for targets of which a share is spread over all classes of the judged output."""
    if isinstance(head, JointHead):
        return [
            each and loss_for(each, keras, label_smoothing if name == head.output else 0)
            for name, each in head.heads.items()
        ]
    if not label_smoothing:
        return head.loss(keras)
    assert isinstance(head, ClassHead)
    from experiments.system.tensorflow import tf

    logits = head.meaning == "logits"
    if head.outputs == 1:
        return keras.losses.BinaryCrossentropy(from_logits=logits, label_smoothing=label_smoothing)

    def smoothed_crossentropy(labels: Any, outputs: Any) -> Any:
        targets = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), head.outputs, dtype=outputs.dtype)
        if head.meaning == "sigmoid":
            return keras.losses.binary_crossentropy(targets, outputs, label_smoothing=label_smoothing)
        return keras.losses.categorical_crossentropy(
            targets, outputs, from_logits=logits, label_smoothing=label_smoothing
        )

    return smoothed_crossentropy
