"""Conversion of Keras models to TFLite files."""

import gzip
import hashlib
import logging
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.dataset import ImageRows, Images
from experiments.dataset.named import apart, is_named
from experiments.model.configuration import layer_names
from experiments.model.ends import entry_names, exit_names
from experiments.system.errors import UserError, first_line
from experiments.system.keras_version import version_of
from experiments.system.silence import native_stderr_silenced
from experiments.tflite.biases import with_wide_biases
from experiments.tflite.flatbuffer import without_metadata
from experiments.tflite.graph import outermost_layer, read_ops
from experiments.tflite.schemes import (
    Dynamic,
    DynamicInt4,
    Float16,
    Float32,
    Int8,
    Int16x8,
    Learned,
    Rest,
    Scheme,
    Static,
    interface_of,
    starts_from_float,
)
from experiments.tflite.selective import restrict_to_layers, without_detours
from experiments.tflite.static import ActivationBits, Precision, quantized_statically
from experiments.tflite.weights import Weights, requantized

if TYPE_CHECKING:
    from tf_keras import Model

Calibration = Callable[[int], ImageRows]  # calibration(n) returns n images of the training split
WEIGHTS_OF_THE_REST: Mapping[Rest, Weights] = {"dynamic": "int8", "float16": "float16"}
MOST_STEPS = 128  # of a recurrent layer whose loop is unrolled: each step is a dozen ops in the file
LOOPS = frozenset({"WHILE", "IF", "CALL"})
# In the converter's messages: the origin of an op, an op that TFLite lacks, and the line of Python that created it.
TRACED = re.compile(r'"([^"@]+/[^"@]+)@')
MISSING_OP = re.compile(r"'tf\.([\w.]+)' op is neither a custom op nor a flex op")
PLACE = re.compile(r"^(Could not translate MLIR to FlatBuffer\.)?\s*([^\s:]+:\d+:\d+: )?(error: )?")
TENSOR_LIST = "requires element_shape to be static"
OF_ONE = "export it for a batch of one, or give the Keras model"
NO_INT16 = "Quantization to 16x8-bit not yet supported for op"
LEAST_DYNAMIC = 1024  # minimum number of weights for which the converter quantizes a layer dynamically
LEAST_FACTOR = 1e-4  # of a BatchNorm, relative to the largest of its layer: see _factors_raised
CONVERSION_METADATA = b"CONVERSION_METADATA"  # of TensorFlow, in each file


@dataclass(frozen=True)
class TFLiteModel:
    """The content of a TFLite file."""

    content: bytes

    @property
    def bytes(self) -> int:
        """Size of the file in bytes."""
        return len(self.content)

    @cached_property
    def gzip_bytes(self) -> int:
        """Size in bytes after gzip -9, as in an app package."""
        return len(gzip.compress(self.content, compresslevel=9, mtime=0))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content; conversion is deterministic, so equal models have equal digests."""
        return hashlib.sha256(self.content).hexdigest()


def convert(
    model: "Model", scheme: Scheme, calibration: Calibration, in_float: TFLiteModel | None = None
) -> TFLiteModel:
    """Convert a Keras model; uses calibration images if the scheme requires them.

    `in_float` is the file of the same model under Float32, if the caller has it; see starts_from_float.

    Raises:
        UserError: the converter rejects the model, or LiteRT would compute the file wrongly.
    """
    float_file = next((each.float_file for each in model.layers if hasattr(each, "float_file")), None)
    if float_file is not None:  # the model is a TFLite file
        content = _quantized_file(float_file, scheme, calibration)
    elif starts_from_float(scheme):
        content = _quantized_afterwards(model, scheme, calibration, in_float or convert(model, Float32(), calibration))
    else:
        content = _from_keras(model, scheme)
    if _activation_bits(scheme) == 16:
        _refuse_wrong_sums(content, model)
    return TFLiteModel(content)


def _activation_bits(scheme: Scheme) -> ActivationBits:
    match scheme:
        case Int16x8():
            return 16
        case Static(precision=precision):
            return precision.activation_bits
        case Learned(activation_bits=bits):
            return bits
    return 8


def _refuse_wrong_sums(content: bytes, model: "Model") -> None:
    """Raise UserError if a file sums int16 values, which LiteRT's kernel does wrongly: the results are unrelated."""
    wrong = [op for op in read_ops(content, layer_names(model)) if op.op == "SUM" and op.types == "int16"]
    if wrong:
        raise UserError(
            f"{wrong[0].layer or 'a layer'}: sums int16 values, which LiteRT computes incorrectly (op SUM; a masked "
            "mean has one, too). 16-bit activations require a model without sums. Use strategy=ptq_int8 or ptq_dynamic."
        )


def _from_keras(model: "Model", scheme: Scheme) -> bytes:
    from experiments.system.tensorflow import tf

    _refuse_not_finite(model)
    _refuse_lookups(model)
    traced = _traced(model)
    converter = tf.lite.TFLiteConverter.from_keras_model(traced.module)
    match scheme:
        case Dynamic():
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        case Float16():
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        case Learned(interface=interface):
            # Without this the file keeps float ops between QUANTIZE and DEQUANTIZE: larger and slower than float.
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.inference_input_type = converter.inference_output_type = tf.as_dtype(interface)
    with _factors_raised(model) if isinstance(scheme, Learned) else nullcontext():
        content = _converted(converter, model)
    if isinstance(scheme, Learned):
        content = with_wide_biases(_exactly_as_annotated(content, traced))
        return content if scheme.rest == "float" else requantized(content, WEIGHTS_OF_THE_REST[scheme.rest])
    return content


def _quantized_afterwards(model: "Model", scheme: Scheme, calibration: Calibration, in_float: TFLiteModel) -> bytes:
    """Return the model's float file quantized after training, with the changes that the converter cannot make."""
    if isinstance(scheme, DynamicInt4):
        return requantized(in_float.content, "int4")
    layers, found = layer_names(model), _loops(model, in_float.content)
    loops = found if all(found) else layers
    plain = _without_loops(model, loops) if loops else in_float.content
    match scheme:
        case Static(samples, precision, interface, chosen, rest):
            images = calibration(samples)
            return without_detours(quantized_statically(plain, images, precision, interface, layers, chosen, rest))
        case Int8(layers=tuple() as chosen):
            return restrict_to_layers(_in_int8(model, scheme, calibration, plain), lambda: plain, layers, chosen)
        case Int8():
            return without_detours(_in_int8(model, scheme, calibration, plain))
    return without_detours(_in_int16x8(model, scheme, calibration, loops))


def _in_int8(model: "Model", scheme: Int8, calibration: Calibration, plain: bytes) -> bytes:
    """Return a float file quantized by the converter, byte for byte as if it had begun with the Keras model."""
    from experiments.system.tensorflow import converter_from_float, tf

    # The converter adds the same metadata at the end, where the quantizer would put others after them.
    converter = converter_from_float(without_metadata(plain, CONVERSION_METADATA))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = _one_by_one(calibration(scheme.calibration_samples))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.as_dtype(scheme.interface)
    return _converted(converter, model)


def _in_int16x8(model: "Model", scheme: Scheme, calibration: Calibration, loops: Collection[str]) -> bytes:
    """Return a model converted with int16 activations; a conversion of the float file would give other ops."""
    from experiments.system.tensorflow import tf

    assert isinstance(scheme, Int16x8)
    converter = tf.lite.TFLiteConverter.from_keras_model(_traced(model, loops).module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = _one_by_one(calibration(scheme.calibration_samples))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
    return _converted(converter, model)


def _refuse_not_finite(model: "Model") -> None:
    """Raise UserError if weights or ranges are NaN or infinite, of which the converter can crash the process."""
    for each in model.variables:
        values = np.asarray(each)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise UserError(
                f"{getattr(each, 'path', each.name)}: is not finite (NaN or infinity). Conversion requires finite "
                "weights and ranges: use a model that was trained successfully, or train with a lower learning rate."
            )


@contextmanager
def _factors_raised(model: "Model") -> Iterator[None]:
    """Keep the factors of each BatchNorm away from zero while the block runs.

    The converter folds them into a kernel whose scales were learned. With a factor of zero it leaves the layer in
    float, and with a tiny one the bias of the channel does not fit into 32 bits. The values of the channel change by
    less than a hundredth of an integer step of the layer.
    """
    from experiments.system.tensorflow import keras_of

    kind = keras_of(model).layers.BatchNormalization
    scaling = [each for each in model._flatten_layers() if isinstance(each, kind) and each.scale]
    before = [np.asarray(each.gamma).copy() for each in scaling]
    for layer, factors in zip(scaling, before, strict=True):
        least = LEAST_FACTOR * (np.abs(factors).max() or 1.0)
        if (np.abs(factors) < least).any():
            layer.gamma.assign(np.where(np.abs(factors) < least, np.copysign(least, factors), factors))
    try:
        yield
    finally:
        for layer, factors in zip(scaling, before, strict=True):
            layer.gamma.assign(factors)


def _refuse_lookups(model: "Model") -> None:
    """Raise UserError with a layer that looks words or numbers up in a table, if there is one."""
    if found := [layer.name for layer in model.layers if hasattr(layer, "get_vocabulary")]:
        raise UserError(
            f"The TFLite converter rejects the layer {found[0]} (TFLite does not support Keras' lookup tables). "
            "Replace the words in the data by their indices, and save the model without this layer."
        )


def _quantized_file(content: bytes, scheme: Scheme, calibration: Calibration) -> bytes:
    """Return a float file quantized by LiteRT's quantizer instead of the converter, as the scheme requires.

    Raises:
        UserError: the quantizer refuses the file.
    """
    try:
        match scheme:
            case Dynamic():
                return requantized(content, "int8", LEAST_DYNAMIC)
            case DynamicInt4():
                return requantized(content, "int4")
            case Float16():
                return requantized(content, "float16")
            case Int8() | Int16x8() | Static():
                _refuse_loops(content)
                whole = Precision(activation_bits=_activation_bits(scheme))
                precision = scheme.precision if isinstance(scheme, Static) else whole
                return quantized_statically(
                    content, calibration(scheme.calibration_samples), precision, interface_of(scheme)
                )
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise UserError(f"LiteRT's quantizer refuses the file ({first_line(error)}).") from error
    return content


def _refuse_loops(content: bytes) -> None:
    """Raise UserError if a file has loops, which the quantizer cannot calibrate."""
    if loops := sorted({op.op for op in read_ops(content, ())} & LOOPS):
        raise UserError(
            f"The file has a loop ({', '.join(loops)}), whose ranges cannot be calibrated. Use strategy=ptq_dynamic or "
            "ptq_float16, or give the Keras model."
        )


def _exactly_as_annotated(content: bytes, traced: "_Traced") -> bytes:
    """Restore layers to float that were quantized although they have no fake quantization."""
    operations = getattr(traced.model, "operations", traced.model.layers)  # of Keras 3, some are no layers
    layers = {getattr(each, "layer", each).name: _is_fake_quantized(each) for each in operations}
    chosen = [name for name, quantized in layers.items() if quantized]
    return restrict_to_layers(content, traced.in_float, list(layers), chosen)


@dataclass(frozen=True)
class _Traced:
    """A model as one function, which is traced once for all its conversions."""

    model: "Model"
    module: Any  # with the function, as the converter expects it

    def in_float(self) -> bytes:
        """Return the file without any quantization."""
        from experiments.system.tensorflow import tf

        return _converted(tf.lite.TFLiteConverter.from_keras_model(self.module), self.model)


def _without_loops(model: "Model", loops: Collection[str]) -> bytes:
    """Return a model's float file with the steps of these loops as ops of their own.

    Calibrating loops crashes the process in native code. The converter replaces that of an LSTM of Keras 2 by one op;
    of other recurrent layers Keras computes each step on its own, if their number is known.

    Raises:
        UserError: a loop is not that of a recurrent layer, or has many or an unknown number of steps.
    """
    content = _traced(model, loops).in_float()
    if left := _loops(model, content):
        raise UserError(
            f"{', '.join(filter(None, left)) or 'a layer'}: is a loop in TFLite, whose ranges cannot be calibrated. "
            f"Loops of recurrent layers with at most {MOST_STEPS} steps are computed step by step instead. Use "
            "strategy=ptq_dynamic or ptq_float16."
        )
    return content


def _loops(model: "Model", content: bytes) -> list[str]:
    """Return the layers that are loops in a file; the name of an unknown one is empty."""
    return list(dict.fromkeys(op.layer for op in read_ops(content, layer_names(model)) if op.op in LOOPS))


def _traced(model: "Model", unrolled: Collection[str] = ()) -> _Traced:
    """Trace a model as one function, which converts to the same bytes as the model itself.

    Recurrent layers among `unrolled` have no loops.

    The converter saves the model, and Keras would add functions of every layer, also for training. That takes most of
    the time of a conversion, and does not affect the file.

    The batch size stays variable, so that a file can be resized, unless the function computes with it. Then the model
    is converted for a batch of one: ops that compute shapes are folded, and recurrent layers can be converted, whose
    tensor lists require a known shape.
    """
    from experiments.system.tensorflow import tf

    taken, given, variables = _interface(model)
    module = tf.Module()
    module.weights = variables

    def infer(*examples: Any) -> dict[str, Any]:
        with _as_in_a_file(model, unrolled):
            return dict(zip(given, _call(model, list(examples)), strict=True))

    def serving(batch: int | None) -> Any:
        return tf.function(
            infer,
            input_signature=[
                tf.TensorSpec((batch, *entry.shape[1:]), entry.dtype, name=name)
                for name, entry in zip(taken, model.inputs, strict=True)
            ],
        )

    with native_stderr_silenced(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = model.inputs[0].shape[0]
        module.serve = serving(batch)
        ops = _kinds_of_ops(module.serve)
        if batch is None and "Shape" in ops:  # of a shape that is unknown when the function is traced
            module.serve = serving(1)
            _kinds_of_ops(module.serve)  # traces it
    return _Traced(model, module)


@contextmanager
def _as_in_a_file(model: "Model", unrolled: Collection[str]) -> Iterator[None]:
    """Let recurrent layers compute what a file can hold while the block runs.

    Cells of Keras 3 draw masks of dropout and change seeds even in inference. Layers among `unrolled` have no loop, if
    they have at most MOST_STEPS steps.
    """
    changes: list[tuple[Any, dict[str, Any]]] = []
    for layer in model.layers:
        parts = list(layer._flatten_layers())
        if version_of(model) == 3:
            cells = [each for each in parts if hasattr(each, "get_recurrent_dropout_mask")]
            changes += [(cell, {"dropout": 0.0, "recurrent_dropout": 0.0}) for cell in cells]
        if layer.name in unrolled and _steps(layer) <= MOST_STEPS:
            loops = [each for each in parts if hasattr(each, "unroll")]
            changes += [(each, {"unroll": True, "_could_use_gpu_kernel": False}) for each in loops]
    before = [(each, {name: getattr(each, name, None) for name in values}) for each, values in changes]
    for each, values in changes:
        _set(each, values)
    try:
        yield
    finally:
        for each, values in before:
            _set(each, values)


def _set(layer: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(layer, name, value)


def _steps(layer: Any) -> float:
    """Return the number of steps of a recurrent layer in its longest series; infinite if it is unknown."""
    taken = [each for node in layer._inbound_nodes for each in _series_taken(node)]
    return max((each.shape[1] or math.inf for each in taken), default=math.inf)


def _series_taken(node: Any) -> list[Any]:
    from experiments.system.tensorflow import tf

    tensors = node.input_tensors
    return [each for each in tf.nest.flatten(tensors) if len(each.shape) > 2]


def _interface(model: "Model") -> tuple[list[str], list[str], list[Any]]:
    """Return the names of a model's inputs and outputs, and its TensorFlow variables."""
    if version_of(model) == 2:
        given = list(model.output_names) if len(model.outputs) == 1 else exit_names(model)
        return list(model.input_names), given, model.variables
    only = [each._keras_history[0].name for each in model.outputs]
    given = only if len(only) == 1 else exit_names(model)
    return entry_names(model), given, [each.value for each in model.variables]


def _call(model: "Model", examples: list[Any]) -> list[Any]:
    """Return the outputs of a model; layers of Keras 3 run in scopes that identify their ops in the file.

    Keras 3 enters the scope of a layer twice, so TensorFlow would rename conv2d to conv2d_1, like another layer.
    """
    from experiments.system.tensorflow import tf

    if version_of(model) == 2:
        return list(tf.nest.flatten(model(examples if len(examples) > 1 else examples[0], training=False)))

    def named(operation: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            # Operations take no such argument.
            training = {"training": False} if hasattr(operation, "trainable") else {}
            with tf.name_scope(f"{model.name}/{operation.name}/"):
                if _is_plain_embedding(operation):  # Keras adds ops for negative indices, which int16 lacks
                    return tf.gather(operation.embeddings.value, tf.cast(args[0], tf.int32))
                return operation(*args, **{**kwargs, **training})

        return call

    graph = getattr(model, "_functional", None) or model  # a Sequential keeps its graph in a model of its own
    return list(tf.nest.flatten(graph._run_through_graph(examples, operation_fn=named)))


def _is_plain_embedding(operation: Any) -> bool:
    from experiments.system.tensorflow import keras_3

    if type(operation) is not keras_3().layers.Embedding:
        return False
    return not operation.lora_enabled and operation.quantization_mode is None


def _kinds_of_ops(function: Any) -> frozenset[str]:
    """Return the TensorFlow ops of a function without Python arguments, and of all functions that it calls."""
    graph = function.get_concrete_function().graph.as_graph_def()
    return frozenset(node.op for node in chain(graph.node, *(inner.node_def for inner in graph.library.function)))


def is_fake_quantized(model: "Model") -> bool:
    """Whether any layer of a model has fake quantization."""
    return any(hasattr(layer, "quantize_config") or hasattr(layer, "quantizes") for layer in model.layers)


def _is_fake_quantized(layer: Any) -> bool:
    """Whether a wrapped layer quantizes its own computation, not only its output."""
    if hasattr(layer, "quantizes"):  # by our own engine
        return bool(layer.quantizes)
    quantization = getattr(layer, "quantize_config", None)
    return quantization is not None and type(quantization).__name__ != "OutputOnlyConfig"


def _converted(converter: Any, model: "Model") -> bytes:
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        with native_stderr_silenced(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _converted_where_possible(converter)
    except Exception as error:  # its own exceptions, and those of TensorFlow and Python
        messages = "\n".join([str(error), *getattr(error, "__notes__", ())])
        raise UserError(f"The TFLite converter rejects {_refused(messages, model)}.") from error


def _converted_where_possible(converter: Any) -> bytes:
    """Convert; ops without a kernel for int16 stay float."""
    from experiments.system.tensorflow import tf

    try:
        return bytes(converter.convert())
    except RuntimeError as error:
        if NO_INT16 not in str(error):
            raise
        converter.target_spec.supported_ops = [*converter.target_spec.supported_ops, tf.lite.OpsSet.TFLITE_BUILTINS]
        return bytes(converter.convert())


def _refused(messages: str, model: "Model") -> str:
    """Return the layer that the converter rejects, if its messages name one, and the reason, in one line."""
    layers = {getattr(layer, "layer", layer).name for layer in model.layers}
    paths = (path.split("/") for path in TRACED.findall(messages))
    layer = next(filter(None, (outermost_layer(path, layers) for path in paths)), "")
    missing = ", ".join(dict.fromkeys(MISSING_OP.findall(messages)))
    if TENSOR_LIST in messages:
        reason = f"it has a loop over a batch of any size: {OF_ONE}"
    elif missing:
        reason = f"TFLite has no {missing}"
    else:
        reason = PLACE.sub("", (messages.strip().splitlines() or ["no reason"])[0])
    return f"{f'the layer {layer}' if layer else 'the model'} ({reason.strip().rstrip('.')})"


def _one_by_one(images: ImageRows) -> Callable[[], Iterator[list[Images] | dict[str, Images]]]:
    def samples() -> Iterator[list[Images] | dict[str, Images]]:
        for i in range(len(images)):
            image = images[i : i + 1]
            yield apart(image) if is_named(image) else [image]  # by name: the order in a file differs

    return samples
