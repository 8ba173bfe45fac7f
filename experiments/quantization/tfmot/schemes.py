"""TFMOT's 8-bit schemes, with two changes.

A layer with several inputs keeps their order. The two layers of a split SeparableConv2D keep its name: TFMOT gives them
new names such as conv2d_1, which may be the name of another layer; ops in the file are assigned to layers by these
names.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.system.tensorflow import keras  # first: it chooses Keras 2

# isort: split
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.api.quantization.keras import default_8bit
from tensorflow_model_optimization.python.core.api.quantization.keras.graph_transformations import model_transformer

from experiments.model.copies import kinds_known
from experiments.quantization.tfmot.replaced import replaced

if TYPE_CHECKING:
    from tf_keras import Model


class _SplitByName(default_8bit.default_8bit_transforms.SeparableConvQuantize):  # type: ignore[misc]  # TFMOT ships no types
    """The halves of the layer NAME are NAME/depthwise and NAME/pointwise."""

    def replacement(self, match_layer: Any) -> Any:
        pointwise = super().replacement(match_layer)
        (depthwise,) = pointwise.input_layers
        for half, node in (("depthwise", depthwise), ("pointwise", pointwise)):
            node.layer["name"] = node.layer["config"]["name"] = f"{match_layer.layer['config']['name']}/{half}"
        return pointwise


class _Layout(default_8bit.Default8BitQuantizeLayoutTransform):  # type: ignore[misc]
    """Splits these layers before TFMOT's own transforms."""

    def apply(self, model: "Model", layer_quantize_map: Mapping[str, Any]) -> tuple["Model", Mapping[str, Any]]:
        if any(isinstance(layer, keras.layers.SeparableConv2D) for layer in model.layers):
            annotated = set(layer_quantize_map)
            splitting = model_transformer.ModelTransformer(model, [_SplitByName()], annotated, layer_quantize_map)
            model, layer_quantize_map = splitting.transform()
        transformed: tuple[Model, Mapping[str, Any]] = super().apply(model, layer_quantize_map)
        return transformed


class _NamesKept:
    """A scheme with this layout transform."""

    def get_layout_transformer(self) -> _Layout:
        return _Layout()


class _Default(_NamesKept, default_8bit.Default8BitQuantizeScheme):  # type: ignore[misc]
    """The default scheme."""


class _KeepingZeros(_NamesKept, tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme):  # type: ignore[misc]
    """A scheme that preserves zeros."""


class _KeepingClusters(_NamesKept, tfmot.experimental.combine.Default8BitClusterPreserveQuantizeScheme):  # type: ignore[misc]
    """A scheme that preserves clusters."""


def _in_order(transformer: Any, names: Sequence[str]) -> list[Any]:
    """Return the layers of these names in their order.

    TFMOT returns them in the order of the model, where folding a BatchNorm moves a layer to the end: Concatenate would
    then take its inputs in another order.
    """
    by_name = {layer["config"]["name"]: layer for layer in transformer._config["layers"]}
    if isinstance(transformer.model, keras.Sequential):  # TFMOT replaces layers from the first of the returned ones on
        return [layer for name, layer in by_name.items() if name in names]
    return [by_name[name] for name in dict.fromkeys(names)]


def quantization_aware(annotated: "Model", like: "Model", keep: Collection[str] = ()) -> "Model":
    """Apply fake quantization to an annotated copy of the model `like`; `keep` is `zeros`, `clusters`, both or none.

    Raises:
        RuntimeError, ValueError, AttributeError: TFMOT cannot quantize a layer.
    """
    match "zeros" in keep, "clusters" in keep:
        case zeros, True:
            scheme = _KeepingClusters(preserve_sparsity=zeros)
        case True, False:
            scheme = _KeepingZeros()
        case _:
            scheme = _Default()
    ordered = replaced(model_transformer.ModelTransformer, "_get_layers", _in_order)
    with kinds_known(like), tfmot.quantization.keras.quantize_scope(), ordered:
        return tfmot.quantization.keras.quantize_apply(annotated, scheme)
