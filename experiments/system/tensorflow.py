"""TensorFlow with Keras 2, and Keras 3 beside it, imported once and without the start-up noise.

Modules that import TensorFlow Model Optimization import this one first.
"""

import sys
import warnings
from typing import Any

from experiments.system.errors import UserError
from experiments.system.keras_version import Version, choose_keras_2, version_of
from experiments.system.silence import native_stderr_silenced

# Words in the names of inputs and attributes of TensorFlow's operations: names of files, folders and hosts.
PLACES = frozenset({"address", "dir", "directory", "file", "filename", "filenames", "path", "source", "url", "urls"})

choose_keras_2()
with native_stderr_silenced():
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    tf.config.experimental.enable_op_determinism()

keras = tf.keras
if not keras.Model.__module__.startswith("tf_keras."):  # TensorFlow chooses the version at the first use of tf.keras
    raise UserError(
        "TensorFlow is already loaded in this process with Keras 3, and TensorFlow Model Optimization requires "
        "Keras 2. Set TF_USE_LEGACY_KERAS=1 in the environment before Python starts, or import "
        "experiments.system.tensorflow before anything that uses tensorflow.keras."
    )


def keras_3() -> Any:
    """Return Keras 3, which is imported only if a model requires it, since that takes a second."""
    import keras as keras_3

    # A model that was loaded or copied expects a list of one input, and takes the input itself as well.
    warnings.filterwarnings("ignore", message="The structure of `inputs` doesn't match", category=UserWarning)
    if keras_3.backend.backend() != "tensorflow":  # Keras chooses its backend when it is imported
        raise UserError(
            f"Keras 3 is already loaded in this process with the backend {keras_3.backend.backend()}, and TFLite files "
            "require tensorflow. Set KERAS_BACKEND=tensorflow in the environment before Python starts."
        )
    return keras_3


def keras_version(version: Version) -> Any:
    """Return the package of a Keras version."""
    return keras if version == 2 else keras_3()


def keras_of(value: Any) -> Any:
    """Return the Keras package of a model or a layer: Keras 2, which is `keras` here, or Keras 3."""
    return keras_version(version_of(value))


def clear_session() -> None:
    """Free the models of earlier runs, and restart the numbers of unnamed layers, in each version of Keras in use."""
    keras.backend.clear_session()
    if "keras" in sys.modules:
        keras_3().backend.clear_session()


def saved_model_graphs(content: bytes) -> list[Any]:
    """Return the graphs in the file saved_model.pb, with their functions and objects, without loading any of it."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    held = SavedModel()
    held.ParseFromString(content)
    return list(held.meta_graphs)


def custom_operations(content: bytes) -> set[str]:
    """Return the names of the custom operations in all graphs of a TFLite file, which is valid; none of them is run."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    codes = (model.OperatorCodes(place).CustomCode() for place in range(model.OperatorCodesLength()))
    return {code.decode(errors="replace") for code in codes if code}


def is_stateful(operation: str) -> bool | None:
    """Whether TensorFlow's operation of this name has a state or effects; None if TensorFlow has no such operation."""
    from tensorflow.python.framework import op_def_registry

    definition = op_def_registry.get(operation)
    return None if definition is None else bool(definition.is_stateful)


def reaches_outside(operation: str) -> bool:
    """Whether TensorFlow's operation makes a data set, or an input or attribute of it names a file, folder or host.

    TensorFlow may call it stateless nevertheless, such as the one that sends values to a host for debugging.
    """
    from tensorflow.python.framework import op_def_registry

    definition = op_def_registry.get(operation)
    if definition is None:
        return False
    names = (each.name for each in (*definition.input_arg, *definition.attr))
    return "Dataset" in operation or not PLACES.isdisjoint(word for name in names for word in name.split("_"))


def converter_from_float(content: bytes) -> Any:
    """Return a TFLite converter that quantizes a float file with calibration samples.

    TensorFlow's converter of a Keras model makes such a file first, and quantizes it then; it offers no way to give the
    file. Without this, each quantization of a model would trace, save, load and convert it once more.
    """
    from tensorflow.lite.python.convert import build_conversion_flags
    from tensorflow.lite.python.lite import QuantizationMode

    converter = tf.lite.TFLiteConverter.from_keras_model(None)

    def quantized() -> bytes:
        mode = QuantizationMode(converter.optimizations, converter.target_spec, converter.representative_dataset, None)
        converter._validate_inference_input_output_types(mode)
        flags = build_conversion_flags(**converter._get_base_converter_args(), **mode.converter_flags())
        return bytes(converter._optimize_tflite_model(content, mode, flags.debug_options))

    converter._convert_as_saved_model = quantized
    return converter


def use_threads(count: int) -> None:
    """Set the number of TensorFlow's threads; possible only before its first computation."""
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


__all__ = [
    "clear_session",
    "converter_from_float",
    "custom_operations",
    "is_stateful",
    "keras",
    "keras_3",
    "keras_of",
    "keras_version",
    "reaches_outside",
    "saved_model_graphs",
    "tf",
    "use_threads",
]
