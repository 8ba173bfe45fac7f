"""Which layers of a model can be pruned and clustered, by either engine: those with trained kernels."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from experiments.system.errors import UserError
from experiments.system.keras_version import version_of

if TYPE_CHECKING:
    from tf_keras import Model

KerasLayer = Any


def refuse_incompressible(model: "Model", way: str, is_supported: Callable[[KerasLayer], bool], reason: str) -> None:
    """Raise UserError if a layer with kernels is not supported, or all of them are frozen.

    Args:
        model: The model to compress.
        way: What is done to the layers: pruned or clustered.
        is_supported: Whether the engine can compress a layer with kernels.
        reason: Why it cannot compress others, as a sentence.
    """
    with_kernels = [layer for layer in leaves(model) if has_kernel(layer)]
    if unsupported := [layer.name for layer in with_kernels if not is_supported(layer)]:
        raise UserError(
            f"Layers that cannot be {way}: {', '.join(unsupported)}. {reason} Quantize the model without compression, "
            "as with strategy=ptq_int8."
        )
    if with_kernels and not any(layer.trainable for layer in with_kernels):
        raise UserError(
            f"No layer can be {way}, since all layers with kernels are frozen (trainable=False). Set "
            "layer.trainable = True for layers that may change and save the model again, or quantize it after "
            "training with strategy=ptq_int8."
        )


def frozen(model: "Model") -> frozenset[str]:
    """Return the names of frozen layers (trainable=False) with kernels, which are not compressed."""
    return frozenset(layer.name for layer in model.layers if has_kernel(layer) and not layer.trainable)


def leaves(model: "Model") -> Iterator[KerasLayer]:
    """Yield the layers of a model, and those of models inside it."""
    from experiments.system.tensorflow import keras_version

    kind = keras_version(version_of(model)).Model
    for layer in model.layers:
        if isinstance(layer, kind):
            yield from leaves(layer)
        else:
            yield layer


def has_kernel(layer: KerasLayer) -> bool:
    """Whether a layer has a kernel; weights of PReLU or normalizations are not kernels and are not compressed."""
    return any("kernel" in weight.name for weight in layer.weights)
