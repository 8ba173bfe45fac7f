"""The inputs and outputs of a Keras model, by name and in order; copies for training have the same names."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from experiments.dataset.named import as_inputs, together
from experiments.dataset.shapes import Entries, Entry
from experiments.model.copies import unwrapped
from experiments.system.keras_version import version_of

if TYPE_CHECKING:
    from tf_keras import Model

Outputs = npt.NDArray[Any]


def entries_of(model: "Model") -> Entries:
    """Return the inputs of a model, in its order."""
    return {
        name: Entry(tuple(tensor.shape[1:]), dtype_of(tensor))
        for name, tensor in zip(entry_names(model), model.inputs, strict=True)
    }


def entry_names(model: "Model") -> list[str]:
    """Return the names of a model's inputs."""
    return list(model.input_names) if version_of(model) == 2 else [str(each.name) for each in model.inputs]


def exit_names(model: "Model") -> list[str]:
    """Return the names of a model's outputs: those of the layers that give them, numbered if they repeat."""
    names: list[str] = []
    for tensor in model.outputs:
        name = free = unwrapped(tensor._keras_history[0]).name
        number = 0
        while free in names:
            number += 1
            free = f"{name}_{number}"
        names.append(free)
    return names


def dtype_of(tensor: Any) -> str:
    """Return the type of a symbolic tensor."""
    return str(getattr(tensor.dtype, "name", tensor.dtype))  # Keras 3 has names only


def with_output(model: "Model", name: str) -> "Model":
    """Return the part of a model that gives one of its outputs, with the same layers; the model if it has only one."""
    if len(model.outputs) == 1:
        return model
    from experiments.system.tensorflow import keras_of

    return keras_of(model).Model(model.inputs, model.outputs[exit_names(model).index(name)], name=model.name)


def compute_outputs(model: "Model", forward: Any, examples: npt.NDArray[Any]) -> Outputs:
    """Return the outputs of a model for examples; if there are several, with a field for each.

    `forward` calls the model.
    """
    from experiments.system.tensorflow import tf

    outputs = [np.asarray(each) for each in tf.nest.flatten(forward(as_inputs(examples)))]
    return outputs[0] if len(outputs) == 1 else together(dict(zip(exit_names(model), outputs, strict=True)))
