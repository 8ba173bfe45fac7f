"""The architecture of a model as data: names of its layers, and what digests are made of."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_keras import Model

# The version does not change the model, and how it was compiled decides training only, which has keys of its own.
LEFT_OUT = ("keras_version", "compile_config")


def layer_names(model: "Model") -> list[str]:
    """Return the names of a model's layers, in its order; with Keras 3, operations that are no layers are among them.

    Ops in a TFLite file are named after them.
    """
    return [layer.name for layer in getattr(model, "operations", model.layers)]


def configuration_of(model: "Model") -> dict[str, Any]:
    """Return what Keras saves of a model without its weights, and without what does not change its outputs.

    A vocabulary that a layer learned from data is neither among the weights nor, in Keras 3, in the configuration.
    """
    described = json.loads(model.to_json())
    lookups = [layer for layer in model._flatten_layers() if hasattr(layer, "get_vocabulary")]
    learned = [[layer.name, [str(word) for word in layer.get_vocabulary()]] for layer in lookups]
    kept = {key: value for key, value in described.items() if key not in LEFT_OUT}
    return {**kept, **({"vocabularies": learned} if learned else {})}
