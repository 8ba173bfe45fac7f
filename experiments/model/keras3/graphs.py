"""What `flattening` has to know of a Keras 3 model: its layers, its calls, its data types."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from experiments.model.keras3.copies import finalize_state

if TYPE_CHECKING:
    from keras import Model

Node = Any
KerasLayer = Any
Tensor = Any

SEPARATOR = "."  # Keras 3 allows no slash in the name of a layer


def complete(model: "Model") -> None:
    """Finalize the state of all layers, which Keras omits for nested models when it loads an .h5 file."""
    finalize_state(model)


def is_graph(layer: KerasLayer) -> bool:
    """Whether a layer is a functional or sequential model."""
    from keras.src.models.functional import Functional

    from experiments.system.tensorflow import keras_3

    return isinstance(layer, (Functional, keras_3().Sequential)) and type(layer).call.__module__.startswith("keras.")


def has_additions(_: "Model") -> bool:
    """Return False: in Keras 3 only layers can add losses, while they are called."""
    return False


def arguments_of(node: Node, values: Mapping[int, Tensor]) -> tuple[Any, dict[str, Any]]:
    """Return the arguments of a call, with the tensors replaced by `values`, which are held by the ids of tensors."""
    args, kwargs = node.arguments.fill_in(values)
    return args, dict(kwargs)


def fixed_training(_: Node) -> None:
    """Return None: Keras 3 ignores the training argument of a call within a model while the model is trained."""


def renewed(layer: KerasLayer, config: dict[str, Any], name: str) -> KerasLayer:
    """Return a new layer, or operation, of this config and name."""
    new = type(layer).from_config({key: value for key, value in config.items() if key != "name"})
    new.name = name  # not every operation takes a name
    return new


def reset_state(model: "Model") -> None:
    """Set the states of stateful layers to zero."""
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False):
            layer.reset_state()
