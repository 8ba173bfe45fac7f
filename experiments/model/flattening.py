"""A model as the strategies need it: one graph of layers, free in its batch, in float32.

What people save is often a model within a model, computes in float16, or was made for batches of one size. `plain`
builds the same network anew where that is so. A layer of a model that is a layer itself gets the names of both, as in
backbone/conv1; what was shared stays shared, and what was frozen stays frozen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.model.copies import finalize_state, first_difference, kinds_known, nodes_of, take_over_layer
from experiments.system.errors import UserError, first_cause, first_line
from experiments.system.progress import say_once

if TYPE_CHECKING:
    from tf_keras import Model

KerasLayer = Any
Tensor = Any

# Names of policies under which layers compute, or keep their weights, in another float than float32; and how far their
# answers may lie from those in float32, as a share of the greatest output.
ROUNDING = {
    "float16": 0.02,
    "half": 0.02,
    "mixed_float16": 0.02,
    "bfloat16": 0.1,
    "mixed_bfloat16": 0.1,
    "float64": 1e-4,
    "double": 1e-4,
}
BATCH = 3  # images by which a model of any batch size is tried


def plain(model: "Model", input_shape: tuple[int, ...], name: str) -> "Model":
    """The same model for images of the shape (n, *input_shape); itself where it already is as the strategies need it.

    `name` is what messages begin with, such as model.path=my.keras.

    Raises:
        UserError: it cannot be built anew, or would not answer as the model of the file does.
    """
    from experiments.system.tensorflow import keras

    for layer in model._flatten_layers():
        finalize_state(layer)
    reasons = _reasons(model)
    if not reasons:
        return model
    images = keras.Input(input_shape, name=model.input_names[0])
    building = _Building()
    try:
        with kinds_known(model):
            outputs = building.call(model, [images], "", is_trained=bool(model._trainable), training=None)
        built = keras.Model(images, outputs, name=model.name)
        difference = _difference(built, model, input_shape)
    except Exception as error:  # layers of a user's own may raise every kind of exception
        raise UserError(
            f"{name}: cannot be built anew, which is needed for {reasons[0]} ({first_line(first_cause(error))}). Build "
            "the model in this way with tf_keras, take over the weights (new.set_weights(old.get_weights())) and save "
            "it again."
        ) from error
    if difference:
        raise UserError(f"{name}: built anew for {reasons[0]}, it does not answer as it was saved: {difference}.")
    if halves := sorted({_policy(layer) for layer in model._flatten_layers()} & ROUNDING.keys()):
        say_once(f"  {name}: was saved in {' and '.join(halves)}, and computes in float32")
    if (batch := model.inputs[0].shape[0]) is not None:
        say_once(f"  {name}: takes batches of any size, though it was saved for batches of {batch}")
    if building.stateless:
        say_once(f"  {name}: begins anew with each batch, though it was saved as stateful: {_few(building.stateless)}")
    if building.fixed:
        say_once(f"  {name}: called with training=False, and so not trained: {_few(building.fixed)}")
    return built


def _few(names: Sequence[str]) -> str:
    """The first names, and how many others there are."""
    others = f" and {len(names) - 3} others" if len(names) > 4 else ""
    return f"{', '.join(names[:3] if others else names)}{others}"


def _reasons(model: "Model") -> list[str]:
    """Why a model has to be built anew, in words."""
    layers = list(model._flatten_layers(include_self=False))
    entry = model.inputs[0]
    found = {
        "layers within a model that is a layer": any(_is_graph(layer) for layer in layers),
        "images of one size": None in entry.shape[1:],
        "batches of any size": entry.shape[0] is not None,
        "float32": any(_policy(layer) in ROUNDING for layer in layers) or entry.dtype.name != "float32",
        "no state between batches": any(getattr(layer, "stateful", False) for layer in layers),
        "training that is not decided beforehand": any(
            node.call_kwargs.get("training") is not None for node in nodes_of(model)
        ),
        "vocabularies in its configuration": any(_has_learned_words(layer) for layer in layers),
    }
    return [reason for reason, holds in found.items() if holds]


@dataclass
class _Building:
    """The layers of a model that is built anew; each is made once, however often it is called."""

    made: dict[int, KerasLayer] = field(default_factory=dict)  # by the id of the layer in the model of the file
    names: set[str] = field(default_factory=set)
    stateless: list[str] = field(default_factory=list)  # layers whose state would be kept between batches
    fixed: list[str] = field(default_factory=list)  # BatchNorm layers that the model calls with training=False

    def call(
        self, model: "Model", inputs: list[Tensor], prefix: str, is_trained: bool, training: bool | None
    ) -> list[Tensor]:
        """The outputs of a model for these inputs, from new layers whose names begin with `prefix`.

        `is_trained` is whether no model around this one is frozen, `training` how the model was called.
        """
        from experiments.system.tensorflow import tf

        values = {id(tensor): value for tensor, value in zip(model.inputs, inputs, strict=True)}
        for node in nodes_of(model):
            if node.is_input:
                continue
            held: dict[str, list[Tensor]] = {}
            for tensor in tf.nest.flatten(node.keras_inputs):
                held.setdefault(str(id(tensor)), []).append(values[id(tensor)])
            args, kwargs = node.map_arguments(held)
            own = kwargs.pop("training", None)
            mode = training if own is None else bool(own)
            layer = node.layer
            if _is_graph(layer) and not [each for each in kwargs.values() if each is not None]:
                outputs = self.call(
                    layer, tf.nest.flatten(args), f"{prefix}{layer.name}/", is_trained and layer._trainable, mode
                )
            else:
                if mode is not None and not self._can_be_fixed(layer) and _takes_training(layer):
                    kwargs["training"] = mode
                outputs = self._layer(layer, prefix, is_trained, mode, args, kwargs)
            for tensor, value in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
                values[id(tensor)] = value
        return [values[id(tensor)] for tensor in model.outputs]

    def _layer(
        self, layer: KerasLayer, prefix: str, is_trained: bool, training: bool | None, args: Any, kwargs: Any
    ) -> Any:
        """What the new layer gives; it is made, and given the state of the old one, where that has not been done."""
        if id(layer) in self.made:
            return self.made[id(layer)](*args, **kwargs)
        config = _in_float32(layer.get_config())
        config["name"] = self._free_name(f"{prefix}{layer.name}")
        if _has_learned_words(layer):
            config["vocabulary"] = _words(layer)
        if training is False:
            config |= {key: 0.0 for key in ("rate", "stddev") if key in config and self._can_be_fixed(layer)}
        new = self.made[id(layer)] = type(layer).from_config(config)
        outputs = new(*args, **kwargs)
        take_over_layer(new, layer)
        if any(getattr(part, "stateful", False) for part in layer._flatten_layers()):
            self.stateless.append(new.name)
        if not is_trained:
            new.trainable = False
        if training is False and _is_batchnorm(layer) and new.trainable:
            self.fixed.append(new.name)
            new.trainable = False
        return outputs

    def _can_be_fixed(self, layer: KerasLayer) -> bool:
        """Whether it can be made to do the same in training and out of it, without being told at each call.

        TFMOT's wrappers would take what they are told for themselves, and learn no ranges.
        """
        from experiments.system.tensorflow import keras

        random = (keras.layers.Dropout, keras.layers.SpatialDropout2D, keras.layers.GaussianNoise)
        return _is_batchnorm(layer) or isinstance(layer, random)

    def _free_name(self, name: str) -> str:
        free, number = name, 0
        while free in self.names:
            number += 1
            free = f"{name}_{number}"
        self.names.add(free)
        return free


def _is_graph(layer: KerasLayer) -> bool:
    """Whether a layer is a model of which the layers and their calls are known."""
    return getattr(layer, "_is_graph_network", False) and type(layer).call.__module__.startswith("tf_keras.")


def _is_batchnorm(layer: KerasLayer) -> bool:
    from experiments.system.tensorflow import keras

    return isinstance(layer, keras.layers.BatchNormalization)


def _takes_training(layer: KerasLayer) -> bool:
    return bool(layer._call_spec.expects_training_arg)


def _policy(layer: KerasLayer) -> str:
    return str(layer.dtype_policy.name)


def _has_learned_words(layer: KerasLayer) -> bool:
    """Whether it looks words up that it has learned, and were not given when it was made."""
    return hasattr(layer, "get_vocabulary") and layer.get_config().get("vocabulary") is None and bool(_words(layer))


def _words(layer: KerasLayer) -> list[Any]:
    words = layer.get_vocabulary(include_special_tokens=False)
    return [word.item() if isinstance(word, np.generic) else word for word in words]


def _in_float32(value: Any, key: str = "") -> Any:
    """A layer's configuration, and of those within it, for float32, any batch size and no state between batches."""
    match value:
        case {"class_name": "Policy", "config": {"name": str(name)}} if key == "dtype" and name in ROUNDING:
            return "float32"
        case str(name) if key == "dtype" and name in ROUNDING:
            return "float32"
        case list() | tuple() if key == "batch_input_shape":
            return (None, *value[1:])
        case dict():
            return {each: _in_float32(held, each) for each, held in value.items()}
        case list():
            return [_in_float32(held) for held in value]
    return False if key == "stateful" else value


def _difference(built: "Model", model: "Model", input_shape: tuple[int, ...]) -> str | None:
    """Where the model that was built anew answers differently from that of the file, in words."""
    fixed = model.inputs[0].shape[0]
    images = np.random.default_rng(0).random((fixed or BATCH, *input_shape), np.float32)
    if any(getattr(layer, "stateful", False) for layer in model._flatten_layers()):
        model.reset_states()
    built(images[:1], training=False)  # whoever computes with the size of its batch fails here
    policies = {_policy(layer) for layer in model._flatten_layers()}
    tolerance = max([1e-4, *(ROUNDING[policy] for policy in policies if policy in ROUNDING)])
    return first_difference(built, model, images, tolerance)
