"""Exact copies of a model.

Copying the weights is not enough: the state of an adapted Normalization, the vocabulary of a lookup, frozen layers and
activity regularizers are not weights. So the state is copied as Keras would save and load it, and `first_difference`
checks that the copy gives the same outputs. What differs between Keras 2 and Keras 3 is in keras2/ and keras3/.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.dataset import Images
from experiments.dataset.named import as_inputs
from experiments.model.keras2 import copies as keras2
from experiments.model.keras3 import copies as keras3
from experiments.system.keras_version import version_of

if TYPE_CHECKING:
    from tf_keras import Model

Node = Any
KerasLayer = Any

TOLERANCE = 1e-4  # relative to the largest output; another order of float32 additions differs by far less


def _of(value: Any) -> ModuleType:
    return keras2 if version_of(value) == 2 else keras3


def copied(model: "Model") -> "Model":
    """Return a copy with the same architecture and state, which can be trained independently."""
    with kinds_known(model):
        copy = _of(model).cloned(model)
    take_over_state(copy, model)
    return copy


def kinds_known(model: "Model") -> AbstractContextManager[None]:
    """Register the model's layer classes with Keras while the block runs, so that layers can be made from configs.

    Keras' safe mode is off: the configs are those of a model in memory, whose code was accepted before.
    """
    known: AbstractContextManager[None] = _of(model).kinds_known(model)
    return known


def take_over_state(copy: "Model", model: "Model") -> None:
    """Copy the state of the model's layers to a copy, whose layers may be wrapped.

    Layers correspond by name. The weights of a wrapped layer are left to the code that wrapped it; this function copies
    whether it is frozen, and what wrappers lose of a layer.
    """
    _of(model).take_over_state(copy, model)


def copy_layer_state(target: KerasLayer, layer: KerasLayer) -> None:
    """Copy the state of a layer, and whether it is frozen, to a layer of the same class."""
    _of(layer).copy_trainable(target, layer)
    _of(layer).copy_saved_state(target, layer)


def state_of(model: "Model") -> Sequence[Any]:
    """Return copies of all variables that decide the outputs and the further training, as NumPy arrays.

    They are the weights, and for Keras 3 also the states of the seed generators, from which dropout draws.
    """
    state: Sequence[Any] = _of(model).state_of(model)
    return state


def set_state(model: "Model", state: Sequence[Any]) -> None:
    """Set the variables of a model to the values that `state_of` returned for this model or a copy."""
    _of(model).set_state(model, list(state))


def set_weights(model: "Model", weights: Sequence[Any]) -> None:
    """Set the weights of a model, and what layers such as Normalization derive from them, which Keras leaves as it was.

    A copy derives it anew, so its outputs would differ.
    """
    model.set_weights(weights)
    _of(model).finalize_state(model)


def unwrapped(layer: KerasLayer) -> KerasLayer:
    """Return the layer inside a quantization or compression wrapper; other layers are returned unchanged."""
    return _of(layer).unwrapped(layer)


def is_wrapper(layer: KerasLayer) -> bool:
    """Whether a layer is a quantization or compression wrapper, of TFMOT or our own, around another one."""
    return bool(_of(layer).is_wrapper(layer))


def nodes_of(model: "Model") -> list[Node]:
    """Return the calls of the layers in topological order; in Keras 3, those of `keras.ops` among them."""
    nodes: list[Node] = _of(model).nodes_of(model)
    return nodes


def layer_of(node: Node) -> KerasLayer:
    """Return the layer that a node calls; in Keras 3, it may be an operation of `keras.ops`."""
    return node.layer if hasattr(node, "layer") else node.operation


def first_difference(copy: "Model", model: "Model", images: Images, tolerance: float = TOLERANCE) -> str | None:
    """Describe the first layer of a copy whose outputs differ on these images; None if the final outputs are equal.

    Outputs are equal if they differ by at most `tolerance` times the largest absolute output of the model.
    """
    pairs = zip(_outputs(copy, images), _outputs(model, images), strict=True)
    if all(_equal(own, wanted, tolerance) for own, wanted in pairs):
        return None
    return _first_layer(copy, model, images, tolerance)


def other_penalty(copy: "Model", model: "Model", tolerance: float = TOLERANCE) -> str | None:
    """Describe a difference of the regularization losses, after both models were called on the same images."""
    own, wanted = _penalty(copy), _penalty(model)
    alike = np.isclose(own, wanted, rtol=tolerance, atol=1e-6)
    return None if alike else f"regularization adds {own:.6g} to its loss instead of {wanted:.6g}"


def _outputs(model: "Model", images: Images) -> list[Any]:
    from experiments.system.tensorflow import tf

    given = as_inputs(images)
    values = dict(zip(map(id, model.inputs), given if isinstance(given, list) else [given], strict=True))
    graph = getattr(model, "_functional", None) or model  # a Sequential of Keras 3 has no input before it is called
    inputs = tf.nest.map_structure(lambda entry: tf.constant(values[id(entry)]), graph.input)  # perhaps a dict
    return [np.asarray(output, np.float64) for output in tf.nest.flatten(model(inputs, training=False))]


def _penalty(model: "Model") -> float:
    """Return the sum of regularization losses, without symbolic tensors that layers keep from earlier graphs."""
    from experiments.system.tensorflow import tf

    return float(sum(float(loss) for loss in model.losses if not tf.is_symbolic_tensor(loss)))


def _equal(own: Any, wanted: Any, tolerance: float) -> bool:
    if own.shape != wanted.shape:
        return False
    finite = wanted[np.isfinite(wanted)]
    scale = float(np.abs(finite).max()) if finite.size else 0.0
    return bool(np.allclose(own, wanted, rtol=0, atol=tolerance * scale, equal_nan=True))


def _first_layer(copy: "Model", model: "Model", images: Images, tolerance: float) -> str:
    """Describe the first layer whose outputs differ, in the order of the model's calls."""
    own_values = dict(_values_by_layer(copy, images))
    for call, wanted in _values_by_layer(model, images):
        own = own_values.get(call)
        if own is not None and not _equal(own, wanted, tolerance):
            if own.shape != wanted.shape:
                return f"layer {call[0]} has outputs of shape {own.shape} instead of {wanted.shape}"
            difference = float(np.nanmax(np.abs(own - wanted)))
            scale = float(np.nanmax(np.abs(wanted)))
            return f"outputs of layer {call[0]} differ by up to {difference:.3g} (the largest is {scale:.3g})"
    return f"the output of layer {model.layers[-1].name} differs"


def _values_by_layer(model: "Model", images: Images) -> Iterator[tuple[tuple[str, int], Any]]:
    """Yield the output of each call of a layer, with the layer's name and the number of the call."""
    from experiments.system.tensorflow import keras_of, tf

    calls: dict[str, int] = {}
    tensors: dict[tuple[str, int], Any] = {}
    for node in nodes_of(model):
        if not node.is_input:
            name = unwrapped(layer_of(node)).name
            calls[name] = calls.get(name, -1) + 1
            tensors[name, calls[name]] = tf.nest.flatten(node.outputs)[0]
    for name in [name for name, _ in tensors if name.endswith("/pointwise")]:
        tensors.setdefault((name.removesuffix("/pointwise"), 0), tensors[name, 0])
    given = tf.nest.map_structure(tf.constant, as_inputs(images))
    values = keras_of(model).Model(model.inputs, list(tensors.values()))(given, training=False)
    for call, value in zip(tensors, tf.nest.flatten(values), strict=True):
        if value.dtype.is_floating or value.dtype.is_integer:
            yield call, np.asarray(value, np.float64)
