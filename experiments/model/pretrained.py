"""Transfer learning: a model that was trained on other data, with a new head and frozen layers."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic.dataclasses import dataclass as option

from experiments.dataset.shapes import Shape
from experiments.model.freezing import Layers, freeze
from experiments.model.keras_file import KerasFile
from experiments.system.errors import UserError, suggestion
from experiments.system.options import OPTION
from experiments.system.progress import say_once

if TYPE_CHECKING:
    from tf_keras import Model

BEHIND = ("Activation", "Softmax", "Dropout")  # layers between the last Dense layer and the outputs
FLAT = 2  # axes of features (n, features)


@option(frozen=True, config=OPTION, kw_only=True)
class Pretrained(KerasFile):
    """The model at `path`, whose head is replaced if its outputs do not fit the classes of the data.

    The head is the last Dense layer and what follows it. A model that ends in feature maps, as with include_top=False,
    gets global average pooling and a head. The weights of a new head are the same for every seed.
    """

    has_trained_head: ClassVar[bool] = False

    head: Literal["auto", "new"] = "auto"  # new: also if the outputs fit
    features: str | None = None  # the layer whose outputs the new head takes; None: the one before the head
    freeze: Layers = 0  # a share of the layers before the head, from the input on, or names and patterns

    @property
    def trainable(self) -> bool:
        """See Architecture.trainable."""
        return True

    def build(self, input_shape: Shape | Mapping[str, Shape], classes: int) -> "Model":
        """Return the model with a head for the classes, and with frozen layers.

        Raises:
            UserError: the file cannot be used, or a setting names a layer that does not exist.
        """
        if not super().trainable:
            raise UserError(f"model.path={self.path}: a SavedModel has no layers to train. Save it as .keras.")
        model = super().build(input_shape, classes)
        last = _last_dense(model)
        fits = last is not None and _fits(last.units, classes)
        if self.head == "new" or self.features is not None or not fits:
            model = self._with_new_head(model, last, classes)
        frozen = freeze(model, self.freeze, "model.freeze")
        if frozen:
            say_once(f"  model.freeze: {len(frozen)} layers keep their weights: {_listed(frozen)}")
        return model

    def _check_kind(self, model: "Model") -> None:
        outputs = getattr(model, "outputs", None) or []
        if len(outputs) > 1 or len(getattr(model, "inputs", None) or []) > 1:
            raise UserError(
                f"model.path={self.path}: model=pretrained requires a model with one input and one output. Use "
                "model=keras_file for several."
            )
        if not outputs or len(outputs[0].shape) == FLAT:
            super()._check_kind(model)

    def _with_new_head(self, model: "Model", last: Any, classes: int) -> "Model":
        from experiments.system.tensorflow import keras_of

        keras = keras_of(model)
        layers = keras.layers
        features = self._features(model, last)
        kept = {layer.name for layer in keras.Model(model.inputs, features).layers}
        axes = len(features.shape)
        if axes > FLAT:
            pooling = {3: layers.GlobalAveragePooling1D, 4: layers.GlobalAveragePooling2D}.get(axes)
            if pooling is None:
                raise UserError(
                    f"model.path={self.path}: a new head requires features of the shape (n, features), (n, steps, "
                    f"features) or (n, height, width, features), not {tuple(features.shape)}. Name another layer: "
                    "model.features=NAME"
                )
            features = pooling(name=_free("pooling", kept))(features)
        head = layers.Dense(classes, kernel_initializer=keras.initializers.GlorotUniform(0), name=_free("head", kept))
        say_once(f"  model.path={self.path}: a new head for {classes} classes takes {int(features.shape[-1])} features")
        return keras.Model(model.inputs, head(features), name=model.name)

    def _features(self, model: "Model", last: Any) -> Any:
        if self.features is None:
            return model.outputs[0] if last is None else last.input
        names = [layer.name for layer in model.layers]
        if self.features not in names:
            raise UserError(f"model.features={self.features}: no such layer. {suggestion(self.features, names)}")
        return model.get_layer(self.features).output


def _fits(outputs: int, classes: int) -> bool:
    return outputs == classes or (outputs, classes) == (1, 2)


def _last_dense(model: "Model") -> Any:
    """Return the Dense layer that the outputs come from; None if they come from another layer with weights."""
    for layer in _from_the_end(model):
        if type(layer).__name__ == "Dense":
            return layer
        if type(layer).__name__ not in BEHIND:
            return None
    return None


def _from_the_end(model: "Model") -> Iterator[Any]:
    """Yield the layers of the outputs from the last one on, as long as each has one input."""
    tensor = model.outputs[0]
    while True:
        layer, number, _ = tensor._keras_history  # in Keras 3, an operation
        yield layer
        node = (layer.inbound_nodes if hasattr(layer, "inbound_nodes") else layer._inbound_nodes)[number]
        inputs = node.keras_inputs if hasattr(node, "keras_inputs") else node.input_tensors
        if len(inputs) != 1:
            return
        tensor = inputs[0]


def _free(name: str, taken: set[str]) -> str:
    return name if name not in taken else _free(f"new_{name}", taken)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= FLAT * 2 else f"{names[0]} to {names[-1]}"
