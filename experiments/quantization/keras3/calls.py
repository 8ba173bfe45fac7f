"""The calls of a model's layers, as far as they decide whether a layer can be quantized."""

from collections.abc import Collection
from typing import Any

from experiments.quantization.keras3.kind import Operation
from experiments.system.tensorflow import keras_3

Tensor = Any


def shapes_taken(operation: Operation) -> list[tuple[int | None, ...]]:
    """Return the shapes of an operation's inputs in the model."""
    return [tuple(tensor.shape) for tensor in _taken(operation)]


def is_masked(operation: Operation) -> bool:
    """Whether an operation takes masked values."""
    return any(getattr(tensor, "_keras_mask", None) is not None for tensor in _taken(operation))


def _taken(operation: Operation) -> list[Tensor]:
    return [tensor for node in operation._inbound_nodes for tensor in node.input_tensors]


def option_asked(operation: Operation, *, known: Collection[str] = ()) -> str | None:
    """Return what a call asks for beyond its values, such as a mask, and has no counterpart in integers; or None."""
    for node in operation._inbound_nodes:
        for name, value in node.arguments.kwargs.items():
            given = [each for each in keras_3().tree.flatten(value) if each is not None and each is not False]
            if given and name not in ("training", *known):
                return f"is called with {name}"
    return None
