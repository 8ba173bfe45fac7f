"""What `flattening` has to know of a Keras 2 model: its layers, its calls, its data types."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from experiments.model.keras2.copies import finalize_state

if TYPE_CHECKING:
    from tf_keras import Model

Node = Any
KerasLayer = Any
Tensor = Any

SEPARATOR = "/"  # between the name of a nested model and that of a layer in it


def complete(model: "Model") -> None:
    """Finalize the state of all layers, which Keras omits for some when it loads a file."""
    finalize_state(model)


def is_graph(layer: KerasLayer) -> bool:
    """Whether a layer is a functional or sequential model."""
    return getattr(layer, "_is_graph_network", False) and type(layer).call.__module__.startswith("tf_keras.")


def has_additions(model: "Model") -> bool:
    """Whether losses or metrics were added to a model or one within it (`model.add_loss`): TFMOT cannot copy those."""
    from tf_keras.src.engine.base_layer import AddLoss, AddMetric

    return any(isinstance(layer, (AddLoss, AddMetric)) for layer in model._flatten_layers())


def arguments_of(node: Node, values: Mapping[int, Tensor]) -> tuple[Any, dict[str, Any]]:
    """Return the arguments of a call, with the tensors replaced by `values`, which are held by the ids of tensors."""
    from experiments.system.tensorflow import tf

    held: dict[str, list[Tensor]] = {}
    for tensor in tf.nest.flatten(node.keras_inputs):
        held.setdefault(str(id(tensor)), []).append(values[id(tensor)])
    args, kwargs = node.map_arguments(held)
    return args, kwargs


def fixed_training(node: Node) -> Any:
    """Return the training argument of a call; None if it has none."""
    return node.call_kwargs.get("training")


def takes_training(layer: KerasLayer) -> bool:
    """Whether calls of a layer may have a training argument."""
    return bool(layer._call_spec.expects_training_arg)


def renewed(layer: KerasLayer, config: dict[str, Any], name: str) -> KerasLayer:
    """Return a new layer of this config and name."""
    return type(layer).from_config({**config, "name": name})


def reset_state(model: "Model") -> None:
    """Set the states of stateful layers to zero."""
    model.reset_states()
