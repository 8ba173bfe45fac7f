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
        (self._entry,), (self._exit,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._one_at_a_time = Lock()  # a server has many threads, but the interpreter is not thread-safe

    def predict(self, images: Any, params: dict[str, Any] | None = None) -> npt.NDArray[np.float32]:
        """Return outputs (n, classes) float32 for images (n, ...) float32, on the scale of the run's data set (0..1).

        Raises:
            ValueError: the shape of the images does not match the model.
        """
        values = np.asarray(images, np.float32)
        shape = tuple(self._entry["shape"][1:])
        if values.shape[1:] != shape:
            raise ValueError(
                f"The model requires images of shape (n, {', '.join(map(str, shape))}), not {values.shape}."
            )
        outputs = np.empty((len(values), *self._exit["shape"][1:]), self._exit["dtype"])
        with self._one_at_a_time:
            for place, image in enumerate(_quantized(values, self._entry)):
                self._interpreter.reset_all_variables()  # clears the state of recurrent layers
                self._interpreter.set_tensor(self._entry["index"], image[np.newaxis])
                self._interpreter.invoke()
                outputs[place] = self._interpreter.get_tensor(self._exit["index"])[0]
        return _dequantized(outputs, self._exit)


def _load_interpreter(path: str) -> Interpreter:
    """Return an interpreter that has run once; uses LiteRT's own kernels if XNNPACK rejects the file."""
    for kernels in (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        interpreter = Interpreter(path, num_threads=1, experimental_op_resolver_type=kernels)
        try:
            interpreter.allocate_tensors()
            interpreter.invoke()
        except RuntimeError:
            if kernels is not OpResolverType.AUTO:
                raise
        else:
            break
    return interpreter


# Copies of the functions in measure/accuracy.py, since this file must run without the package.
def _quantized(values: npt.NDArray[np.float32], tensor: dict[str, Any]) -> npt.NDArray[np.generic]:
    """Quantize values to the tensor's type: q = round(x / scale) + zero point, saturated."""
    if not np.issubdtype(tensor["dtype"], np.integer):
        return values
    scale, zero = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    steps: npt.NDArray[np.float32] = np.round(values / np.float32(scale)) + np.float32(zero)
    return np.clip(steps, limits.min, limits.max).astype(tensor["dtype"])


def _dequantized(values: npt.NDArray[np.generic], tensor: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Dequantize a tensor's integers: x = (q - zero point) * scale."""
    if not np.issubdtype(values.dtype, np.integer):
        return np.asarray(values, np.float32)
    scale, zero = tensor["quantization"]
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
