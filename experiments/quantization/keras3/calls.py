"""How the layers of a model are called in it, as far as that decides whether they can be quantized."""

from collections.abc import Mapping
from typing import Any

from experiments.quantization.keras3.kind import Operation
from experiments.system.errors import UserError

Tensor = Any


def shapes_taken(operation: Operation) -> list[tuple[int | None, ...]]:
    """Return the shapes of an operation's inputs in the model."""
    return [tuple(tensor.shape) for tensor in _taken(operation)]


def is_masked(operation: Operation) -> bool:
    """Whether an operation takes values of which some are masked."""
    return any(getattr(tensor, "_keras_mask", None) is not None for tensor in _taken(operation))


def _taken(operation: Operation) -> list[Tensor]:
    return [tensor for node in operation._inbound_nodes for tensor in node.input_tensors]


def refuse_options(operation: Operation, options: Mapping[str, Any]) -> None:
    """Raise UserError where a call asks for what has no counterpart in integers, such as a mask."""
    if asked := [name for name, value in options.items() if value is not None and value is not False]:
        raise UserError(
            f"The layer {operation.name} is called with {', '.join(asked)}. Quantization-aware training requires that "
            f"{type(operation).__name__} is called without it. Leave the layer out, as in strategy=annotate "
            "'strategy.layers=[...]', or quantize after training, with strategy=ptq_int8."
        )
