"""The architecture of a model as data, for digests."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_keras import Model

# The version does not change the model, and how it was compiled decides training only, which has keys of its own.
LEFT_OUT = ("keras_version", "compile_config")


def configuration_of(model: "Model") -> dict[str, Any]:
    """Return what Keras saves of a model without its weights, and without what does not change its outputs."""
    described = json.loads(model.to_json())
    return {key: value for key, value in described.items() if key not in LEFT_OUT}
