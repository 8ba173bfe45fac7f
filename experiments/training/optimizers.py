"""Optimizers of Keras, with weight decay that leaves biases and normalization alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.system.errors import UserError, first_line
from experiments.training.named import Named, named

if TYPE_CHECKING:
    from tf_keras import Model

CLIPPING = ("clipnorm", "clipvalue", "global_clipnorm")
ARGUMENTS: Mapping[str, Sequence[str]] = {
    "adam": ("beta_1", "beta_2", "epsilon", "amsgrad", *CLIPPING),
    "adamw": ("beta_1", "beta_2", "epsilon", "amsgrad", *CLIPPING),
    "nadam": ("beta_1", "beta_2", "epsilon", *CLIPPING),
    "rmsprop": ("rho", "momentum", "epsilon", "centered", *CLIPPING),
    "sgd": ("momentum", "nesterov", *CLIPPING),
}
CLASSES = {"adam": "Adam", "adamw": "AdamW", "nadam": "Nadam", "rmsprop": "RMSprop", "sgd": "SGD"}
# Keras 2's Nadam counts in Python, once for each variable and trace, and compares the count with the number of a step.
# In a graph the count is a constant, so the weights would depend on how often a training was traced, for example
# because it was resumed. From this value on, it never equals a step.
COUNTER, NEVER = "_u_product_counter", -(2**30)
USUAL_DECAY = {"adamw": 0.004}  # of Keras' AdamW


def optimizer_named(value: object) -> Named:
    """Return the name and the arguments of an optimizer.

    Raises:
        ValueError: the setting is invalid.
    """
    return named(value, ARGUMENTS)


def optimizer_for(
    model: "Model", keras: Any, value: object, learning_rate: float, weight_decay: float | None, key: str = "training"
) -> Any:
    """Return a new optimizer for a model; `weight_decay` is that of the optimizer by default.

    Weights of one axis do not decay: biases, and scales and offsets of normalization.

    Raises:
        UserError: Keras rejects an argument.
    """
    given = optimizer_named(value)
    decay = USUAL_DECAY.get(given.name, 0.0) if weight_decay is None else weight_decay
    make: Callable[..., Any] = getattr(keras.optimizers, CLASSES[given.name])
    decaying = {"weight_decay": decay} if decay or given.name == "adamw" else {}
    try:
        optimizer = make(learning_rate=learning_rate, **given.arguments, **decaying)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}.optimizer={given.typed}: Keras rejects it ({first_line(error)}).") from error
    if hasattr(optimizer, COUNTER):
        setattr(optimizer, COUNTER, NEVER)
    if decay:
        optimizer.exclude_from_weight_decay([each for each in model.trainable_variables if len(each.shape) < 2])
    return optimizer
