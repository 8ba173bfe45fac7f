"""A model in the form that strategies require: one flat graph of layers, any batch size, float32.

Saved models are often nested, compute in float16, or have a fixed batch size. `flatten` rebuilds such a model. The
layer conv1 of a nested model backbone is named backbone/conv1 in Keras 2 and backbone.conv1 in Keras 3; shared layers
stay shared, and frozen layers stay frozen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.dataset.entries import forms
from experiments.dataset.named import as_inputs, together
from experiments.dataset.shapes import Shape
from experiments.model.copies import copy_layer_state, first_difference, kinds_known, layer_of, nodes_of
from experiments.model.ends import dtype_of, entries_of
from experiments.model.keras2 import graphs as keras2
from experiments.model.keras3 import graphs as keras3
from experiments.system.errors import UserError, first_cause, first_line
from experiments.system.keras_version import version_of
from experiments.system.progress import say_once

if TYPE_CHECKING:
    from tf_keras import Model

KerasLayer = Any
Tensor = Any

# Dtype policies other than float32, and the tolerance of their outputs against float32, relative to the largest output.
ROUNDING = {
    "float16": 0.02,
    "half": 0.02,
    "mixed_float16": 0.02,
    "bfloat16": 0.1,
    "mixed_bfloat16": 0.1,
    "float64": 1e-4,
    "double": 1e-4,
}
BATCH = 3  # images to test a model of any batch size


def flatten(model: "Model", input_shapes: Sequence[tuple[int, ...]], name: str) -> "Model":
    """Return an equal model in the required form for examples of these shapes; the same object if nothing changes.

    `name` is the start of messages, such as model.path=my.keras.

    Raises:
        UserError: the model cannot be rebuilt, or the rebuilt model gives different outputs.
    """
    from experiments.system.tensorflow import keras_of

    graphs, keras = _of(model), keras_of(model)
    graphs.complete(model)
    reasons = _missing_requirements(model)
    if not reasons:
        return model
    images = [
        keras.Input(shape, name=taken, dtype=None if "float" in entry.dtype else entry.dtype)
        for shape, (taken, entry) in zip(input_shapes, entries_of(model).items(), strict=True)
    ]
    building = _Building(graphs)
    try:
        with kinds_known(model):
            outputs = building.call(model, images, "", is_trained=bool(model._trainable), training=None)
        ends = (images, outputs) if graphs is keras2 or len(outputs) > 1 else (images, outputs[0])
        built = keras.Model(ends[0] if len(images) > 1 else images[0], ends[1], name=model.name)
        difference = _difference(built, model)
    except Exception as error:  # user layers may raise errors of any type
        package = "tf_keras" if graphs is keras2 else "keras"
        raise UserError(
            f"{name}: requires {reasons[0]}, but cannot be rebuilt for that ({first_line(first_cause(error))}). Build "
            f"the model in this form with {package}, copy the weights (new.set_weights(old.get_weights())) and save "
            "it again."
        ) from error
    if difference:
        raise UserError(
            f"{name}: requires {reasons[0]}, but the rebuilt model gives different outputs: {difference}. Build the "
            "model in this form, copy the weights (new.set_weights(old.get_weights())) and save it again."
        )
    if policies_found := sorted(_policies(model) & ROUNDING.keys()):
        say_once(f"  {name}: saved in {' and '.join(policies_found)}; computes in float32 here")
    if (batch := model.inputs[0].shape[0]) is not None:
        say_once(f"  {name}: saved for batches of {batch}; accepts any batch size here")
    if building.stateless:
        say_once(
            f"  {name}: saved as stateful; its state is reset for each batch here: {_list_names(building.stateless)}"
        )
    if graphs.has_additions(model):
        say_once(f"  {name}: trained by the loss of the task alone, without what add_loss and add_metric added")
    if building.fixed:
        say_once(f"  {name}: called with training=False, so not trained: {_list_names(building.fixed)}")
    return built


def without_additions(model: "Model", input_shape: Shape | Mapping[str, Shape], name: str) -> "Model":
    """Return a model that a user's code built without losses and metrics that were added to it; most have none.

    Raises:
        UserError: see flatten.
    """
    if not _of(model).has_additions(model):
        return model
    return flatten(model, forms(entries_of(model), input_shape), name)


def _of(value: Any) -> ModuleType:
    return keras2 if version_of(value) == 2 else keras3


def _list_names(names: Sequence[str]) -> str:
    """List the first names and the number of others."""
    others = f" and {len(names) - 3} others" if len(names) > 4 else ""
    return f"{', '.join(names[:3] if others else names)}{others}"


def _missing_requirements(model: "Model") -> list[str]:
    """Return what the strategies require and the model does not have."""
    graphs, layers = _of(model), list(model._flatten_layers(include_self=False))
    inside = (
        layers if graphs is keras2 else [layer for layer in layers if layer is not model.__dict__.get("_functional")]
    )
    whole = model.__dict__.get("_functional") or model  # a Sequential of Keras 3 has no input before its first call
    found = {
        "layers that are not nested": any(graphs.is_graph(layer) for layer in inside),
        "images of a fixed size": any(None in entry.shape[1:] for entry in model.inputs),
        "batches of any size": any(entry.shape[0] is not None for entry in model.inputs),
        "float32": bool(_policies(model) & ROUNDING.keys())
        or any(dtype_of(entry) != "float32" and "float" in dtype_of(entry) for entry in model.inputs),
        "lists of inputs and outputs": not (_is_list(whole.input) and _is_list(whole.output)),
        "no state between batches": any(getattr(layer, "stateful", False) for layer in layers),
        "layers without a fixed training argument": any(
            graphs.fixed_training(node) is not None for node in nodes_of(model)
        ),
        "a loss from its outputs alone": graphs.has_additions(model),
        "vocabularies in its configuration": any(_has_adapted_vocabulary(layer) for layer in layers),
    }
    return [reason for reason, holds in found.items() if holds]


def _is_list(ends: Any) -> bool:
    """Whether inputs or outputs are one tensor or a list of tensors, and not a dict or nested."""
    return not any(
        isinstance(each, (dict, list, tuple)) for each in (ends if isinstance(ends, (list, tuple)) else [ends])
    )


@dataclass
class _Building:
    """Builds the layers of a model again; a layer with several calls is built once."""

    graphs: ModuleType  # of the version of Keras
    made: dict[int, KerasLayer] = field(default_factory=dict)  # by the id of the original layer
    names: set[str] = field(default_factory=set)
    stateless: list[str] = field(default_factory=list)  # layers that were stateful
    fixed: list[str] = field(default_factory=list)  # BatchNorm layers that the model calls with training=False

    def call(
        self, model: "Model", inputs: list[Tensor], prefix: str, is_trained: bool, training: bool | None
    ) -> list[Tensor]:
        """Return the outputs of a model for these inputs, from new layers whose names start with `prefix`.

        `is_trained` is false if an enclosing model is frozen; `training` is the argument of the model's call.
        """
        from experiments.system.tensorflow import tf

        graphs = self.graphs
        values = {id(tensor): value for tensor, value in zip(model.inputs, inputs, strict=True)}
        for node in nodes_of(model):
            if node.is_input:
                continue
            args, kwargs = graphs.arguments_of(node, values)
            kwargs.pop("training", None)
            own = graphs.fixed_training(node)
            mode = training if own is None else bool(own)
            layer = layer_of(node)
            if graphs.is_graph(layer) and all(each is None for each in tf.nest.flatten(list(kwargs.values()))):
                prefix_inside = f"{prefix}{layer.name}{graphs.SEPARATOR}"
                outputs = self.call(layer, tf.nest.flatten(args), prefix_inside, is_trained and layer._trainable, mode)
            else:
                if mode is not None and not _can_be_fixed(layer) and graphs.takes_training(layer):
                    kwargs["training"] = mode
                outputs = self._layer(layer, prefix, is_trained, mode, args, kwargs)
            for tensor, value in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
                values[id(tensor)] = value
        return [values[id(tensor)] for tensor in model.outputs]

    def _layer(
        self, layer: KerasLayer, prefix: str, is_trained: bool, training: bool | None, args: Any, kwargs: Any
    ) -> Any:
        """Call the new layer; the first call builds it and copies the state of the original."""
        if id(layer) in self.made:
            return self.made[id(layer)](*args, **kwargs)
        config = _in_float32(layer.get_config())
        if _has_adapted_vocabulary(layer):
            config["vocabulary"] = _vocabulary(layer)
        is_off = training is False and _is_random(layer)
        if is_off:
            config |= {key: 0.0 for key in ("rate", "stddev") if key in config}
        new = self.made[id(layer)] = self.graphs.renewed(layer, config, self._free_name(f"{prefix}{layer.name}"))
        outputs = new(*args, **kwargs)
        if not hasattr(layer, "_flatten_layers"):  # an operation of Keras 3, which has no state
            return outputs
        if not is_off:
            copy_layer_state(new, layer)
        if any(getattr(part, "stateful", False) for part in layer._flatten_layers()):
            self.stateless.append(new.name)
        if not is_trained:
            new.trainable = False
        if training is False and _is_batchnorm(layer) and new.trainable:
            self.fixed.append(new.name)
            new.trainable = False
        return outputs

    def _free_name(self, name: str) -> str:
        free, number = name, 0
        while free in self.names:
            number += 1
            free = f"{name}_{number}"
        self.names.add(free)
        return free


def _can_be_fixed(layer: KerasLayer) -> bool:
    """Whether a layer can be configured to ignore the training mode, so that no training argument is needed.

    TFMOT's wrappers would apply that argument to themselves, and learn no ranges.
    """
    return _is_batchnorm(layer) or _is_random(layer)


def _is_random(layer: KerasLayer) -> bool:
    from experiments.system.tensorflow import keras_of

    layers = keras_of(layer).layers
    return isinstance(layer, (layers.Dropout, layers.SpatialDropout2D, layers.GaussianNoise))


def _is_batchnorm(layer: KerasLayer) -> bool:
    from experiments.system.tensorflow import keras_of

    return isinstance(layer, keras_of(layer).layers.BatchNormalization)


def _policies(model: "Model") -> set[str]:
    """Return the names of the dtype policies of all layers; a map of Keras 3 counts with its default."""
    return {str(layer.dtype_policy.name).removeprefix("map_") for layer in model._flatten_layers()}


def _has_adapted_vocabulary(layer: KerasLayer) -> bool:
    """Whether a layer has a vocabulary that was adapted, and is not in its config."""
    return (
        hasattr(layer, "get_vocabulary") and layer.get_config().get("vocabulary") is None and bool(_vocabulary(layer))
    )


def _vocabulary(layer: KerasLayer) -> list[Any]:
    words = layer.get_vocabulary(include_special_tokens=False)
    return [word.item() if isinstance(word, np.generic) else word for word in words]


def _in_float32(value: Any, key: str = "") -> Any:
    """Change a config, including nested ones, to float32, any batch size and no state between batches."""
    match value:
        case str(name) | {"config": {"name": str(name)}} if key == "dtype" and name in ROUNDING:
            return "float32"
        case list() | tuple() if key in ("batch_input_shape", "batch_shape"):
            return (None, *value[1:])
        case dict():
            return {each: _in_float32(held, each) for each, held in value.items()}
        case list():
            return [_in_float32(held) for held in value]
    return False if key == "stateful" else value


def _difference(built: "Model", model: "Model") -> str | None:
    """Describe where the rebuilt model differs from the original; None if it does not."""
    fixed = model.inputs[0].shape[0]
    rng = np.random.default_rng(0)
    parts = {
        name: rng.random(shape, np.float32) if "float" in entry.dtype else rng.integers(0, 2, shape).astype(entry.dtype)
        for name, entry in entries_of(built).items()
        for shape in [(fixed or BATCH, *(length or 1 for length in entry.shape))]
    }
    images = together(parts) if len(parts) > 1 else next(iter(parts.values()))
    if any(getattr(layer, "stateful", False) for layer in model._flatten_layers()):
        _of(model).reset_state(model)
    built(as_inputs(images[:1]), training=False)  # layers that depend on the batch size fail here
    types = _policies(model) | {dtype_of(entry) for entry in model.inputs}
    tolerance = max([1e-4, *(ROUNDING[each] for each in types if each in ROUNDING)])
    return first_difference(built, model, images, tolerance)
