"""The state of Keras 3 models and layers, and our own wrappers; used through experiments.model.copies."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras import Model

Node = Any
KerasLayer = Any


def cloned(model: "Model") -> "Model":
    """Return a model of the same architecture, with a state of its own; it is not compiled, unlike Keras' clones."""
    copy = type(model).from_config(model.get_config())
    for own, wanted in zip(nodes_of(copy), nodes_of(model), strict=True):
        own.operation.name = wanted.operation.name  # Keras numbers the operations of masks anew
    return copy


@contextmanager
def kinds_known(model: "Model") -> Iterator[None]:
    """See copies.kinds_known; Keras' own classes stay out, since its layers and operations share names such as Add."""
    from keras.src.saving.serialization_lib import SafeModeScope

    from experiments.system.tensorflow import keras_3

    parts = model._flatten_layers()
    operations = [each for part in parts for each in getattr(part, "operations", ())]
    kinds = {type(each).__name__: type(each) for each in (*parts, *operations) if not _is_keras_own(type(each))}
    with keras_3().saving.custom_object_scope(kinds), SafeModeScope(safe_mode=False):
        yield


def take_over_state(copy: "Model", model: "Model") -> None:
    """See copies.take_over_state."""
    copy._trainable = model._trainable
    counterparts = {unwrapped(layer).name: layer for layer in copy.layers}
    for layer in model.layers:
        if (target := counterparts.get(layer.name)) is not None:
            copy_trainable(unwrapped(target), layer)
            if not is_wrapper(target):
                copy_saved_state(target, layer)


def is_wrapper(layer: KerasLayer) -> bool:
    """Whether a layer is one of our own around another one."""
    return type(layer).__module__.startswith("experiments.quantization.keras3") and hasattr(layer, "layer")


def unwrapped(layer: KerasLayer) -> KerasLayer:
    """Return the layer inside a wrapper; other layers are returned unchanged."""
    return layer.layer if is_wrapper(layer) else layer


def nodes_of(model: "Model") -> list[Node]:
    """Return the calls of the layers and of the operations between them, in topological order."""
    graph = getattr(model, "_functional", None) or model  # a Sequential keeps its graph in a model of its own
    return [node for depth in sorted(graph._nodes_by_depth, reverse=True) for node in graph._nodes_by_depth[depth]]


def state_of(model: "Model") -> list[Any]:
    """See copies.state_of."""
    from experiments.system.tensorflow import keras_3

    return [keras_3().ops.convert_to_numpy(variable) for variable in model.variables]


def set_state(model: "Model", state: list[Any]) -> None:
    """See copies.set_state."""
    for variable, value in zip(model.variables, state, strict=True):
        variable.assign(value)


def finalize_state(model: "Model") -> None:
    """Compute what Normalization layers derive from their weights.

    Other adapted layers need nothing: the boundaries of a Discretization are in its config, and finalizing it without
    the statistics they came from would erase them.
    """
    from experiments.system.tensorflow import keras_3

    for layer in model._flatten_layers():
        if isinstance(layer, keras_3().layers.Normalization):
            layer.finalize_state()


def copy_trainable(target: KerasLayer, layer: KerasLayer) -> None:
    """Copy which parts of a layer are frozen; the public setter would set all of them to the same value."""
    for own, wanted in zip(target._flatten_layers(), layer._flatten_layers(), strict=True):
        own._trainable = wanted._trainable
    for own, wanted in zip(target.variables, layer.variables, strict=True):
        own.trainable = wanted.trainable


def copy_saved_state(target: KerasLayer, layer: KerasLayer) -> None:
    """Copy what Keras saves of a layer: weights, other state such as vocabularies, and the seeds of random layers."""
    from experiments.system.tensorflow import keras_3

    numpy = keras_3().ops.convert_to_numpy
    for own, wanted in zip(target._flatten_layers(), layer._flatten_layers(), strict=True):
        weights: dict[str, Any] = {}
        wanted.save_own_variables(weights)
        own.load_own_variables({name: numpy(value) for name, value in weights.items()})
        for seeds, others in zip(own._seed_generators, wanted._seed_generators, strict=True):
            seeds.state.assign(others.state)
        if hasattr(wanted, "save_assets"):
            with tempfile.TemporaryDirectory(prefix="state-") as folder:
                wanted.save_assets(folder)
                own.load_assets(folder)


def _is_keras_own(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "keras"
