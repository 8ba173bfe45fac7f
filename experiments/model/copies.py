"""Exact copies of a model.

Copying the weights is not enough: the state of an adapted Normalization, the vocabulary of a lookup, frozen layers and
activity regularizers are not weights. So the state is copied as Keras would save and load it, and `first_difference`
checks that the copy gives the same outputs.
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

TOLERANCE = 1e-4  # relative to the largest output; another order of float32 additions differs by far less


def copied(model: "Model") -> "Model":
    """Return a copy with the same architecture and state, which can be trained independently."""
    from experiments.system.tensorflow import keras

    with kinds_known(model):
        copy = keras.models.clone_model(model)
    take_over_state(copy, model)
    return copy


@contextmanager
def kinds_known(model: "Model") -> Iterator[None]:
    """Register the model's layer classes with Keras while the block runs, so that layers can be made from configs.

    Keras' safe mode is off: the configs are those of a model in memory, whose code was accepted before.
    """
    from tf_keras.src.saving.serialization_lib import SafeModeScope

    from experiments.system.tensorflow import keras

    kinds = {type(layer).__name__: type(layer) for layer in model._flatten_layers() if not is_wrapper(layer)}
    with keras.utils.custom_object_scope(kinds), SafeModeScope(safe_mode=False):
        yield


def take_over_state(copy: "Model", model: "Model") -> None:
    """Copy the state of the model's layers to a copy, whose layers may be wrapped.

    Layers correspond by name. The weights of a wrapped layer are left to the code that wrapped it; this function copies
    whether it is frozen and its activity regularizer, both of which TFMOT's wrappers lose.
    """
    copy._trainable = model._trainable
    counterparts: dict[str, list[KerasLayer]] = {}
    for layer in copy.layers:
        for name in {unwrapped(layer).name, unwrapped(layer).name.rpartition("/")[0]}:
            counterparts.setdefault(name, []).append(layer)
    for layer in model.layers:
        for target in counterparts.get(layer.name, ()):
            inner = unwrapped(target)
            if inner.name != layer.name:  # TFMOT splits a SeparableConv2D into two layers
                inner._trainable = layer._trainable
            else:
                _copy_trainable(inner, layer)
            if target is inner and inner.name == layer.name:
                _copy_saved_state(target, layer)
            elif target is not inner:
                _apply_to_wrapper(target, inner)


def copy_layer_state(target: KerasLayer, layer: KerasLayer) -> None:
    """Copy the state of a layer, and whether it is frozen, to a layer of the same class."""
    _copy_trainable(target, layer)
    _copy_saved_state(target, layer)


def finalize_state(layer: KerasLayer) -> None:
    """Call finalize_state for all parts of a layer, which Keras omits for some when it loads a file."""
    for part in layer._flatten_layers():
        part.finalize_state()


def unwrapped(layer: KerasLayer) -> KerasLayer:
    """Return the layer inside a TFMOT wrapper; other layers are returned unchanged."""
    return layer.layer if is_wrapper(layer) else layer


def is_wrapper(layer: KerasLayer) -> bool:
    """Whether a layer is a TFMOT wrapper around another one."""
    return type(layer).__module__.startswith("tensorflow_model_optimization") and hasattr(layer, "layer")


def nodes_of(model: "Model") -> list[Node]:
    """Return the calls of the layers in topological order."""
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]


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

    return [np.asarray(output, np.float64) for output in tf.nest.flatten(model(images, training=False))]


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


def _copy_trainable(target: KerasLayer, layer: KerasLayer) -> None:
    """Copy which parts of a layer are frozen; the public setter would set all of them to the same value."""
    for own, wanted in zip(target._flatten_layers(), layer._flatten_layers(), strict=True):
        own._trainable = wanted._trainable


def _copy_saved_state(target: KerasLayer, layer: KerasLayer) -> None:
    """Copy what Keras saves of a layer: weights, and other state such as vocabularies."""
    from tf_keras.src.saving import saving_lib

    weights = _Memory()
    with tempfile.TemporaryDirectory(prefix="state-") as folder:
        assets = _Folder(Path(folder))
        saving_lib._save_state(layer, weights, assets, inner_path="", visited_trackables=set())
        saving_lib._load_state(target, weights, assets, inner_path="", visited_trackables=set())
    finalize_state(target)


def _apply_to_wrapper(wrapper: KerasLayer, inner: KerasLayer) -> None:
    """Copy to a wrapper what Keras handles in `__call__`, which the wrapper bypasses for its inner layer."""
    wrapper._activity_regularizer = inner._activity_regularizer
    inner._losses.clear()  # from earlier graphs
    wrapper._call_spec.expects_mask_arg = inner._call_spec.expects_mask_arg
    wrapper._supports_masking, wrapper.compute_mask = inner._supports_masking, inner.compute_mask
    if not inner.trainable:  # the wrapper lists the weights as its own trainable ones
        wrapper._non_trainable_weights[:0] = wrapper._trainable_weights
        wrapper._trainable_weights.clear()


class _Memory:
    """In-memory store for arrays, with the interface of Keras' H5IOStore."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}

    def make(self, path: str) -> dict[str, Any]:
        """Return a new entry."""
        return self.held.setdefault(path, {})

    def get(self, path: str) -> dict[str, Any]:
        """Return an existing entry, or an empty one."""
        return self.held.get(path, {})


class _Folder:
    """Store for files, with the interface of Keras' DiskIOStore."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, path: str) -> str:
        """Return a new folder."""
        (self.folder / path).mkdir(parents=True, exist_ok=True)
        return str(self.folder / path)

    def get(self, path: str) -> str | None:
        """Return the folder, if it exists."""
        return str(self.folder / path) if (self.folder / path).exists() else None
