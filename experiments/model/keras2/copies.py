"""The state of Keras 2 models and layers, and TFMOT's wrappers; used through experiments.model.copies."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_keras import Model

Node = Any
KerasLayer = Any


def cloned(model: "Model") -> "Model":
    """Return a model of the same architecture, with a state of its own."""
    from experiments.system.tensorflow import keras

    return keras.models.clone_model(model)


@contextmanager
def kinds_known(model: "Model") -> Iterator[None]:
    """See copies.kinds_known."""
    from tf_keras.src.saving.serialization_lib import SafeModeScope

    from experiments.system.tensorflow import keras

    kinds = {type(layer).__name__: type(layer) for layer in model._flatten_layers() if not is_wrapper(layer)}
    with keras.utils.custom_object_scope(kinds), SafeModeScope(safe_mode=False):
        yield


def take_over_state(copy: "Model", model: "Model") -> None:
    """See copies.take_over_state: TFMOT's wrappers lose activity regularizers, and what is frozen."""
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
                copy_trainable(inner, layer)
            if target is inner and inner.name == layer.name:
                copy_saved_state(target, layer)
            elif target is not inner:
                _apply_to_wrapper(target, inner)


def finalize_state(layer: KerasLayer) -> None:
    """Call finalize_state for all parts of a layer, which Keras omits for some when it loads a file."""
    for part in layer._flatten_layers():
        part.finalize_state()


def is_wrapper(layer: KerasLayer) -> bool:
    """Whether a layer is a TFMOT wrapper around another one."""
    return type(layer).__module__.startswith("tensorflow_model_optimization") and hasattr(layer, "layer")


def unwrapped(layer: KerasLayer) -> KerasLayer:
    """Return the layer inside a TFMOT wrapper; other layers are returned unchanged."""
    return layer.layer if is_wrapper(layer) else layer


def nodes_of(model: "Model") -> list[Node]:
    """Return the calls of the layers in topological order."""
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]


def state_of(model: "Model") -> list[Any]:
    """See copies.state_of."""
    return list(model.get_weights())


def set_state(model: "Model", state: list[Any]) -> None:
    """See copies.set_state."""
    model.set_weights(state)


def copy_trainable(target: KerasLayer, layer: KerasLayer) -> None:
    """Copy which parts of a layer are frozen; the public setter would set all of them to the same value."""
    for own, wanted in zip(target._flatten_layers(), layer._flatten_layers(), strict=True):
        own._trainable = wanted._trainable


def copy_saved_state(target: KerasLayer, layer: KerasLayer) -> None:
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
