"""A float TFLite file, from whatever framework: for quantization after training by LiteRT's quantizer."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic.dataclasses import dataclass as option

from experiments.dataset.entries import forms
from experiments.dataset.shapes import Entry, Shape
from experiments.model import Architecture
from experiments.system.errors import UserError, first_line
from experiments.system.files import UserPath
from experiments.system.options import OPTION, first_bytes
from experiments.system.silence import native_stderr_silenced

if TYPE_CHECKING:
    from tf_keras import Model

Details = Mapping[str, Mapping[str, Any]]  # LiteRT's, by name

MARK = b"TFL3"  # at byte 4 of a TFLite file
# Operations that keep values from one example to the next, or draw random numbers.
UNSTEADY = frozenset({"ASSIGN_VARIABLE", "MULTINOMIAL", "RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM"})


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

    def build(self, input_shape: Shape | Mapping[str, Shape], classes: int) -> "Model":
        """Return a model of one layer, which runs the file; raises UserError if it does not fit."""
        from experiments.system.tensorflow import keras

        content = self.path.read_bytes()
        interpreter = self._interpreter(content)
        taken, given = self._ends(interpreter)
        entries = {
            name: Entry(tuple(int(n) for n in each["shape"][1:]), np.dtype(each["dtype"]).name)
            for name, each in taken.items()
        }
        several = len(taken) > 1
        images = [
            keras.Input(shape, name=name if several else "images", dtype=entries[name].dtype)
            for name, shape in zip(taken, forms(entries, input_shape), strict=True)
        ]
        outputs = _layer_of()(content, interpreter, taken, given)(images if several else images[0])
        if len(given) > 1:  # a layer for each, which has the name of the output
            outputs = [
                keras.layers.Activation("linear", name=name)(output)
                for name, output in zip(given, outputs, strict=True)
            ]
        return keras.Model(images if several else images[0], outputs, name="tflite_file")

    @property
    def _named(self) -> str:
        return f"model.path={self.path}"

    def _interpreter(self, content: bytes) -> Any:
        """Return an interpreter that has the file ready to run, after checking types and operations."""
        import warnings

        from experiments.system.tensorflow import custom_operations, tf

        try:
            with native_stderr_silenced(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TensorFlow's interpreter is to be removed in favour of LiteRT's
                interpreter = tf.lite.Interpreter(model_content=content)
        except ValueError as error:
            raise UserError(f"{self._named}: a damaged TFLite file ({first_line(error)}).") from error
        self._check_types(interpreter)
        # Running one may write files. Loops and conditions have graphs whose operations the interpreter does not list.
        if flex := {name for name in custom_operations(content) if name.startswith("Flex")}:
            raise UserError(f"{self._named}: has operations of TensorFlow ({', '.join(sorted(flex))}). {CUSTOM}")
        try:
            with native_stderr_silenced():
                interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{self._named}: cannot be run ({first_line(error)}). {CUSTOM}") from error
        if unsteady := sorted(UNSTEADY & {op["op_name"] for op in interpreter._get_ops_details()}):
            raise UserError(
                f"{self._named}: gives different outputs for the same input ({', '.join(unsteady)}). Export a model "
                "whose outputs depend on its inputs alone."
            )
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

    def _ends(self, interpreter: Any) -> tuple[Details, Details]:
        """Return the details of the inputs and outputs by their names: those of the signature, or of the tensors."""
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        allowed = (np.float32, np.int32, np.int64) if len(inputs) > 1 else (np.float32,)
        for taken in inputs:
            for given in outputs:
                if taken["dtype"] not in allowed or given["dtype"] != np.float32:
                    raise UserError(
                        f"{self._named}: requires float32 inputs and outputs, not {np.dtype(taken['dtype']).name} and "
                        f"{np.dtype(given['dtype']).name}."
                    )
            if len(taken["shape"]) < 2 or taken["shape"][0] != 1:
                raise UserError(f"{self._named}: requires batches of one; the file takes {_shape(taken)}.")
            if -1 in taken["shape_signature"][1:]:
                fixed = "Export it with one, for the examples that it is to take."
                raise UserError(f"{self._named}: requires an input of a fixed shape; the file takes any. {fixed}")
        for given in outputs:
            if len(given["shape"]) != 2:
                raise UserError(f"{self._named}: requires outputs of shape (n, classes), not {_shape(given)}.")
        signatures = list(interpreter._get_full_signature_list().values())
        maps = signatures[0] if signatures else {"inputs": {}, "outputs": {}}
        names = {end: {index: name for name, index in maps[end].items()} for end in ("inputs", "outputs")}
        return (
            {names["inputs"].get(each["index"], each["name"]): each for each in inputs},
            {names["outputs"].get(each["index"], each["name"]): each for each in outputs},
        )


def _shape(tensor: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(map(int, tensor["shape"]))


CUSTOM = "The suite requires LiteRT's own operations. Export the model without custom operations."


def _layer_of() -> type:
    from experiments.system.tensorflow import keras, tf

    class TFLite(keras.layers.Layer):  # type: ignore[misc]
        """Runs a TFLite file, image by image; the conversion takes `float_file` in place of this layer."""

        def __init__(self, content: bytes, interpreter: Any, taken: Details, given: Details) -> None:
            super().__init__(name="tflite", trainable=False)
            self.float_file, self.interpreter = content, interpreter
            self.entries = [int(each["index"]) for each in taken.values()]
            self.exits = [int(each["index"]) for each in given.values()]
            self.widths = [int(each["shape"][-1]) for each in given.values()]

        def call(self, images: Any) -> Any:
            values = list(images) if len(self.entries) > 1 else [images]
            found = tf.numpy_function(self._run, values, [tf.float32] * len(self.exits))
            outputs = tf.nest.flatten(found)  # of one output, eager TensorFlow returns no list
            shaped = [
                tf.ensure_shape(output, (values[0].shape[0], width))
                for output, width in zip(outputs, self.widths, strict=True)
            ]
            return shaped if len(shaped) > 1 else shaped[0]

        def _run(self, *values: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
            rows: list[list[npt.NDArray[np.float32]]] = [[] for _ in self.exits]
            for place in range(len(values[0])):
                self.interpreter.reset_all_variables()  # the state of recurrent layers
                for index, of_input in zip(self.entries, values, strict=True):
                    self.interpreter.set_tensor(index, of_input[place : place + 1])
                self.interpreter.invoke()
                for row, index in zip(rows, self.exits, strict=True):
                    row.append(self.interpreter.get_tensor(index)[0])
            return [np.stack(row) for row in rows]

        def get_config(self) -> dict[str, Any]:
            return {"name": self.name, "digest": hashlib.sha256(self.float_file).hexdigest()}

    return TFLite
