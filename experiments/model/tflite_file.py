"""A float TFLite file, from whatever framework: for quantization after training by LiteRT's quantizer."""

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic.dataclasses import dataclass as option

from experiments.dataset.shapes import shape_for
from experiments.model import Architecture
from experiments.system.errors import UserError, first_line
from experiments.system.files import UserPath
from experiments.system.options import OPTION, first_bytes
from experiments.system.silence import native_stderr_silenced

if TYPE_CHECKING:
    from tf_keras import Model

MARK = b"TFL3"  # at byte 4 of a TFLite file


@option(frozen=True, config=OPTION, kw_only=True)
class TFLiteFile(Architecture):
    """The float32 TFLite file at `path`, such as litert-torch and onnx2tf make of PyTorch models."""

    given: ClassVar[bool] = True
    extras: ClassVar[tuple[str, ...]] = ("int4",)  # LiteRT's quantizer

    path: UserPath

    @property
    def trainable(self) -> bool:
        """See Architecture.trainable."""
        return False

    def check(self) -> None:
        """Check the first bytes."""
        if first_bytes(self.path, "model.path")[4:8] != MARK:
            raise UserError(
                f"{self._named}: not a TFLite file. For .keras and .h5, type model=keras_file; for a SavedModel's "
                "folder, model=saved_model."
            )

    def build(self, input_shape: tuple[int, ...], classes: int) -> "Model":
        """Return a model of one layer, which runs the file; raises UserError if it does not fit."""
        from experiments.system.tensorflow import keras

        content = self.path.read_bytes()
        interpreter = self._interpreter(content)
        taken, given = self._ends(interpreter)
        shape = shape_for(tuple(int(n) for n in taken["shape"][1:]), input_shape)
        images = keras.Input(shape, name="images")
        layer = _layer_of()(content, interpreter, int(given["shape"][-1]))
        return keras.Model(images, layer(images), name="tflite_file")

    @property
    def _named(self) -> str:
        return f"model.path={self.path}"

    def _interpreter(self, content: bytes) -> Any:
        """Return an interpreter that has the file ready to run, after checking types and operations."""
        import warnings

        from experiments.system.tensorflow import tf

        try:
            with native_stderr_silenced(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TensorFlow's interpreter is to be removed in favour of LiteRT's
                interpreter = tf.lite.Interpreter(model_content=content)
        except ValueError as error:
            raise UserError(f"{self._named}: a damaged TFLite file ({first_line(error)}).") from error
        self._check_types(interpreter)
        flex = {op["op_name"] for op in interpreter._get_ops_details() if op["op_name"].startswith("Flex")}
        try:
            with native_stderr_silenced():
                interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{self._named}: cannot be run ({first_line(error)}). {CUSTOM}") from error
        if flex:
            raise UserError(f"{self._named}: has operations of TensorFlow ({', '.join(sorted(flex))}). {CUSTOM}")
        signatures = interpreter.get_signature_list()
        if len(signatures) > 1:
            raise UserError(
                f"{self._named}: has several signatures ({', '.join(sorted(signatures))}). Export a file with one."
            )
        return interpreter

    def _check_types(self, interpreter: Any) -> None:
        """Refuse a file that is quantized, or has float16 weights."""
        types = Counter(
            np.dtype(tensor["dtype"]).name
            for tensor in interpreter.get_tensor_details()
            if tensor["quantization_parameters"]["scales"].size or tensor["dtype"] == np.float16
        )
        if types:
            found = ", ".join(
                f"{count} {'tensor' if count == 1 else 'tensors'} of {name}" for name, count in sorted(types.items())
            )
            raise UserError(
                f"{self._named}: quantized already ({found}). The strategies quantize a float model: give the float32 "
                "file."
            )

    def _ends(self, interpreter: Any) -> tuple[Any, Any]:
        """Return the details of the only input and the only output."""
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(
                f"{self._named}: requires one input and one output; the file has {len(inputs)} inputs and "
                f"{len(outputs)} outputs."
            )
        (taken,), (given,) = inputs, outputs
        if taken["dtype"] != np.float32 or given["dtype"] != np.float32:
            raise UserError(
                f"{self._named}: requires float32 inputs and outputs, not {np.dtype(taken['dtype']).name} and "
                f"{np.dtype(given['dtype']).name}."
            )
        if len(taken["shape"]) < 2 or taken["shape"][0] != 1:
            raise UserError(f"{self._named}: requires batches of one; the file takes {tuple(taken['shape'])}.")
        if len(given["shape"]) != 2:
            raise UserError(f"{self._named}: requires outputs of shape (n, classes), not {tuple(given['shape'])}.")
        return taken, given


CUSTOM = "The suite requires LiteRT's own operations. Export the model without custom operations."


def _layer_of() -> type:
    from experiments.system.tensorflow import keras, tf

    class TFLite(keras.layers.Layer):  # type: ignore[misc]
        """Runs a TFLite file, image by image; the conversion takes `float_file` in place of this layer."""

        def __init__(self, content: bytes, interpreter: Any, outputs: int) -> None:
            super().__init__(name="tflite", trainable=False)
            self.float_file, self.interpreter, self.outputs = content, interpreter, outputs

        def call(self, images: Any) -> Any:
            values = tf.numpy_function(self._run, [images], tf.float32)
            return tf.ensure_shape(values, (images.shape[0], self.outputs))

        def _run(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            (taken,), (given,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
            outputs = []
            for image in images:
                self.interpreter.set_tensor(taken["index"], image[None])
                self.interpreter.invoke()
                outputs.append(self.interpreter.get_tensor(given["index"])[0])
            return np.stack(outputs)

        def get_config(self) -> dict[str, Any]:
            return {"name": self.name, "digest": hashlib.sha256(self.float_file).hexdigest()}

    return TFLite
