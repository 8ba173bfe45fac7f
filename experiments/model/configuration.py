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
    """Return what Keras saves of a model without its weights, and without what does not change its outputs."""
    described = json.loads(model.to_json())
    return {key: value for key, value in described.items() if key not in LEFT_OUT}
