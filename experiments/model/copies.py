"""Copies of a model that answer as it does.

Weights alone do not make a copy: an adapted Normalization, the vocabulary of a lookup, layers that are frozen and
penalties on outputs are no weights. What Keras would save of a layer is taken over as Keras itself would load it, and
`first_difference` tells whether the copy answers as the model does.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.dataset import Images

if TYPE_CHECKING:
    from tf_keras import Model

Node = Any
KerasLayer = Any

TOLERANCE = 1e-4  # of the greatest output: float32 added up in another order differs by far less


def copied(model: "Model") -> "Model":
    """A model with the same architecture and state, which can be trained without touching this one."""
    from experiments.system.tensorflow import keras

    with kinds_known(model):
        copy = keras.models.clone_model(model)
    take_over_state(copy, model)
    return copy


@contextmanager
def kinds_known(model: "Model") -> Iterator[None]:
    """Within it, layers of these kinds can be made from their configurations, also where Keras has no list of them.

    Keras' safe mode is off: the configurations are those of a model in memory, whose code has been let in before.
    """
    from tf_keras.src.saving.serialization_lib import SafeModeScope

    from experiments.system.tensorflow import keras

    kinds = {type(layer).__name__: type(layer) for layer in model._flatten_layers() if not is_wrapper(layer)}
    with keras.utils.custom_object_scope(kinds), SafeModeScope(safe_mode=False):
        yield


def take_over_state(copy: "Model", model: "Model") -> None:
    """Give a copy what the layers of the model hold, whatever wrappers the copy has around its own.

    Layers correspond by name. Weights inside a wrapper are the business of whoever wrapped them; of a wrapped layer
    this takes over whether it is frozen and the penalty on its outputs, both of which TFMOT's wrappers lose.
    """
    copy._trainable = model._trainable
    counterparts: dict[str, list[KerasLayer]] = {}
    for layer in copy.layers:
        for name in {unwrapped(layer).name, unwrapped(layer).name.rpartition("/")[0]}:
            counterparts.setdefault(name, []).append(layer)
    for layer in model.layers:
        for target in counterparts.get(layer.name, ()):
            inner = unwrapped(target)
            if inner.name != layer.name:  # one of the two halves that TFMOT makes of a SeparableConv2D
                inner._trainable = layer._trainable
            else:
                _take_over_trainable(inner, layer)
            if target is inner and inner.name == layer.name:
                _take_over_saved(target, layer)
            elif target is not inner:
                _apply_to_wrapper(target, inner)


def take_over_layer(target: KerasLayer, layer: KerasLayer) -> None:
    """Give a layer of the same kind what another one holds, and whether it is frozen."""
    _take_over_trainable(target, layer)
    _take_over_saved(target, layer)


def finalize_state(layer: KerasLayer) -> None:
    """Let layers compute with the state that they hold, which Keras leaves out for some when it loads a file."""
    for part in layer._flatten_layers():
        part.finalize_state()


def unwrapped(layer: KerasLayer) -> KerasLayer:
    """The layer inside a wrapper of TFMOT; any other layer itself."""
    return layer.layer if is_wrapper(layer) else layer


def is_wrapper(layer: KerasLayer) -> bool:
    """Whether TFMOT has put this layer around another one."""
    return type(layer).__module__.startswith("tensorflow_model_optimization") and hasattr(layer, "layer")


def nodes_of(model: "Model") -> list[Node]:
    """The calls of the layers, each after those whose results it takes."""
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]


def first_difference(copy: "Model", model: "Model", images: Images, tolerance: float = TOLERANCE) -> str | None:
    """Where a copy answers differently from the model on these images, in words; None where it answers alike.

    Outputs are alike where they differ by no more than `tolerance` times the greatest absolute output of the model.
    """
    pairs = zip(_outputs(copy, images), _outputs(model, images), strict=True)
    if all(_alike(own, wanted, tolerance) for own, wanted in pairs):
        return None
    return _first_layer(copy, model, images, tolerance)


def other_penalty(copy: "Model", model: "Model", tolerance: float = TOLERANCE) -> str | None:
    """Where regularization adds other values to the loss than the model's, both just called on the same images."""
    own, wanted = _penalty(copy), _penalty(model)
    alike = np.isclose(own, wanted, rtol=tolerance, atol=1e-6)
    return None if alike else f"regularization adds {own:.6g} to its loss instead of {wanted:.6g}"


def _outputs(model: "Model", images: Images) -> list[Any]:
    from experiments.system.tensorflow import tf

    return [np.asarray(output, np.float64) for output in tf.nest.flatten(model(images, training=False))]


def _penalty(model: "Model") -> float:
    """The sum of what regularization adds to the loss; layers keep symbols of graphs that they were once part of."""
    from experiments.system.tensorflow import tf

    return float(sum(float(loss) for loss in model.losses if not tf.is_symbolic_tensor(loss)))


def _alike(own: Any, wanted: Any, tolerance: float) -> bool:
    if own.shape != wanted.shape:
        return False
    finite = wanted[np.isfinite(wanted)]
    scale = float(np.abs(finite).max()) if finite.size else 0.0
    return bool(np.allclose(own, wanted, rtol=0, atol=tolerance * scale, equal_nan=True))


def _first_layer(copy: "Model", model: "Model", images: Images, tolerance: float) -> str:
    """The first layer whose outputs differ, in the order in which the model calls its layers."""
    own_values = dict(_values_by_layer(copy, images))
    for call, wanted in _values_by_layer(model, images):
        own = own_values.get(call)
        if own is not None and not _alike(own, wanted, tolerance):
            if own.shape != wanted.shape:
                return f"layer {call[0]} gives outputs of the shape {own.shape} instead of {wanted.shape}"
            difference = float(np.nanmax(np.abs(own - wanted)))
            scale = float(np.nanmax(np.abs(wanted)))
            return (
                f"layer {call[0]} gives outputs that differ by up to {difference:.3g} where the greatest is {scale:.3g}"
            )
    return f"the output of layer {model.layers[-1].name} differs"


def _values_by_layer(model: "Model", images: Images) -> Iterator[tuple[tuple[str, int], Any]]:
    """What each call of a layer gives, under the layer's name and the number of the call."""
    from experiments.system.tensorflow import keras, tf

    calls: dict[str, int] = {}
    tensors: dict[tuple[str, int], Any] = {}
    for node in nodes_of(model):
        if not node.is_input:
            name = unwrapped(node.layer).name
            calls[name] = calls.get(name, -1) + 1
            tensors[name, calls[name]] = tf.nest.flatten(node.outputs)[0]
    for name in [name for name, _ in tensors if name.endswith("/pointwise")]:
        tensors.setdefault((name.removesuffix("/pointwise"), 0), tensors[name, 0])
    values = keras.Model(model.inputs, list(tensors.values()))(images, training=False)
    for call, value in zip(tensors, tf.nest.flatten(values), strict=True):
        if value.dtype.is_floating or value.dtype.is_integer:
            yield call, np.asarray(value, np.float64)


def _take_over_trainable(target: KerasLayer, layer: KerasLayer) -> None:
    """Which layers are frozen, those inside a layer too: a setter would make them all alike."""
    for own, wanted in zip(target._flatten_layers(), layer._flatten_layers(), strict=True):
        own._trainable = wanted._trainable


def _take_over_saved(target: KerasLayer, layer: KerasLayer) -> None:
    """What Keras saves of a layer: its weights, and what no weight holds, such as vocabularies."""
    from tf_keras.src.saving import saving_lib

    weights = _Memory()
    with tempfile.TemporaryDirectory(prefix="state-") as folder:
        assets = _Folder(Path(folder))
        saving_lib._save_state(layer, weights, assets, inner_path="", visited_trackables=set())
        saving_lib._load_state(target, weights, assets, inner_path="", visited_trackables=set())
    finalize_state(target)


def _apply_to_wrapper(wrapper: KerasLayer, inner: KerasLayer) -> None:
    """Let a wrapper do what Keras does for the layer inside, which the wrapper calls past Keras."""
    wrapper._activity_regularizer = inner._activity_regularizer
    inner._losses.clear()  # those of graphs that it once was part of
    wrapper._call_spec.expects_mask_arg = inner._call_spec.expects_mask_arg
    wrapper._supports_masking, wrapper.compute_mask = inner._supports_masking, inner.compute_mask
    if not inner.trainable:  # it has listed the weights as its own, and trainable
        wrapper._non_trainable_weights[:0] = wrapper._trainable_weights
        wrapper._trainable_weights.clear()


class _Memory:
    """Where Keras puts the arrays that it saves, and finds them again."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}

    def make(self, path: str) -> dict[str, Any]:
        """A new place."""
        return self.held.setdefault(path, {})

    def get(self, path: str) -> dict[str, Any]:
        """The place that was made, or an empty one."""
        return self.held.get(path, {})


class _Folder:
    """Where Keras puts the files that it saves, and finds them again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, path: str) -> str:
        """A new folder."""
        (self.folder / path).mkdir(parents=True, exist_ok=True)
        return str(self.folder / path)

    def get(self, path: str) -> str | None:
        """The folder that was made, if it was."""
        return str(self.folder / path) if (self.folder / path).exists() else None
