"""MLflow's loader for the TFLite file of a run.

This file is copied into the folder of each model, so it imports only LiteRT and NumPy: `mlflow.pyfunc.load_model` and
`mlflow models serve` require neither this package nor TensorFlow.
"""

from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter, OpResolverType


def _load_pyfunc(path: str) -> "LiteRTModel":
    """Load the model; MLflow calls this with the path of the .tflite file."""
    return LiteRTModel(path)


class LiteRTModel:
    """A TFLite file that predicts one image per invocation, bit for bit like the run's evaluation."""

    def __init__(self, path: str) -> None:
        self._interpreter = _load_interpreter(path)
        self._entries = _by_name(self._interpreter, "inputs", self._interpreter.get_input_details())
        self._exits = _by_name(self._interpreter, "outputs", self._interpreter.get_output_details())
        self._one_at_a_time = Lock()  # a server has many threads, but the interpreter is not thread-safe

    def predict(self, images: Any, params: dict[str, Any] | None = None) -> Any:
        """Return outputs (n, classes) float32 for images (n, ...) float32, on the scale of the run's data set (0..1).

        Several inputs are a dictionary of arrays by their names, and so are several outputs.

        Raises:
            ValueError: the shape of the images does not match the model, or an input is missing.
        """
        given = images if len(self._entries) > 1 else {"": images}
        if not hasattr(given, "keys") or set(given.keys()) != set(self._entries):
            raise ValueError(f"The model requires a dictionary with the inputs {', '.join(self._entries)}.")
        values = {name: _checked(given[name], entry) for name, entry in self._entries.items()}
        count = len(next(iter(values.values())))
        outputs = {name: np.empty((count, *each["shape"][1:]), each["dtype"]) for name, each in self._exits.items()}
        with self._one_at_a_time:
            for place in range(count):
                self._interpreter.reset_all_variables()  # clears the state of recurrent layers
                for name, entry in self._entries.items():
                    self._interpreter.set_tensor(entry["index"], values[name][place : place + 1])
                self._interpreter.invoke()
                for name, each in self._exits.items():
                    outputs[name][place] = self._interpreter.get_tensor(each["index"])[0]
        found = {name: _dequantized(outputs[name], each) for name, each in self._exits.items()}
        return found if len(found) > 1 else next(iter(found.values()))


def _by_name(interpreter: Interpreter, end: str, details: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return LiteRT's details of the inputs or outputs by name; the name of the only one is empty."""
    signatures = list(interpreter._get_full_signature_list().values())
    names = {index: name for name, index in signatures[0][end].items()} if signatures else {}
    return {names.get(each["index"], each["name"]) if len(details) > 1 else "": each for each in details}


def _checked(given: Any, entry: dict[str, Any]) -> npt.NDArray[np.generic]:
    """Return the values of an input in its type."""
    values = np.asarray(
        given, np.float32 if entry["dtype"] == np.float32 or entry["quantization"][0] else entry["dtype"]
    )
    shape = tuple(entry["shape"][1:])
    if values.shape[1:] != shape:
        raise ValueError(f"The model requires inputs of shape (n, {', '.join(map(str, shape))}), not {values.shape}.")
    return _quantized(values, entry)


def _load_interpreter(path: str) -> Interpreter:
    """Return an interpreter that has run once; uses LiteRT's own kernels if XNNPACK rejects the file."""
    for kernels in (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        interpreter = Interpreter(path, num_threads=1, experimental_op_resolver_type=kernels)
        try:
            interpreter.allocate_tensors()
            for entry in interpreter.get_input_details():
                if np.issubdtype(entry["dtype"], np.integer):
                    interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))  # valid indices
            interpreter.invoke()
        except RuntimeError:
            if kernels is not OpResolverType.AUTO:
                raise
        else:
            break
    return interpreter


# Copies of the functions in measure/accuracy.py, since this file must run without the package.
def _quantized(values: npt.NDArray[Any], tensor: dict[str, Any]) -> npt.NDArray[np.generic]:
    """Quantize values to the tensor's type: q = round(x / scale) + zero point, saturated."""
    scale, zero = tensor["quantization"]
    if not np.issubdtype(tensor["dtype"], np.integer) or not scale:
        return values
    limits = np.iinfo(tensor["dtype"])
    steps: npt.NDArray[Any] = np.round(values / np.float32(scale)) + np.float32(zero)
    quantized: npt.NDArray[np.generic] = np.clip(steps, limits.min, limits.max).astype(tensor["dtype"])
    return quantized


def _dequantized(values: npt.NDArray[np.generic], tensor: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Dequantize a tensor's integers: x = (q - zero point) * scale."""
    if not np.issubdtype(values.dtype, np.integer):
        return np.asarray(values, np.float32)
    scale, zero = tensor["quantization"]
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
