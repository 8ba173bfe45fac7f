"""Convolutions: one scale for each output channel; transposed ones have a single scale."""

from typing import Any

from experiments.quantization.keras3.kind import Kind, Role, register
from experiments.quantization.keras3.kinds.activation import activation_obstacle
from experiments.quantization.keras3.wrapper import Run, Substitutes
from experiments.quantization.scaling import make_distinct
from experiments.system.tensorflow import keras_3, tf

layers = keras_3().layers

Tensor = Any
FUSES = frozenset[Role]({"batchnorm", "relu"})
# The converter fuses a ReLU into TRANSPOSE_CONV only after a bias, and drops a bias of zeros. This one rounds to zero.
BIAS_THAT_STAYS = 1e-30


def _obstacle(layer: Any) -> str | None:
    kind = type(layer).__name__
    if layer.data_format != "channels_last":
        return f"{kind} with channels first; TFLite requires channels last"
    if getattr(layer, "lora_enabled", False):
        return f"{kind} with LoRA weights"
    if hasattr(layer, "depth_multiplier") and max(layer.dilation_rate) > 1:
        return f"{kind} with dilation, which the converter leaves in float"
    return activation_obstacle(layer)


def _convolution(run: Run, inputs: Tensor) -> Tensor:
    layer = run.layer
    if max(layer.dilation_rate) == 1 and run.wrapper.scaling is None:
        return run.output(run.inner(inputs, weights=_quantized(run, run.weight(layer.kernel, axis=-1))))
    # For dilated ones, Keras moves values into the batch axis, which the converter does not undo between ranges.
    kernel, bias = run.affine(layer.kernel.value, layer.bias, axis=-1)
    padding, dilations = layer.padding.upper(), layer.dilation_rate
    return run.output(run.fused(tf.nn.conv2d(inputs, kernel, layer.strides, padding, dilations=dilations), bias))


def _quantized(run: Run, kernel: Tensor) -> Substitutes:
    """Return the substitutes of a layer's weights."""
    layer = run.layer
    biases = [(layer.bias, make_distinct(layer.bias.value))] if layer.use_bias else []
    return [(layer.kernel, kernel), *biases]


def _takes_scaling(layer: Any, has_offsets: bool) -> bool:
    """Whether a scaling of the inputs can be folded in; an offset cannot with padding, whose zeros have none."""
    return getattr(layer, "groups", 1) == 1 and (not has_offsets or layer.padding == "valid")


def _depthwise(run: Run, inputs: Tensor) -> Tensor:
    kernel = run.layer.kernel  # height, width, channels, multiplier
    *_, channels, multiplier = kernel.shape
    if multiplier == 1:
        return run.output(run.inner(inputs, weights=_quantized(run, run.weight(kernel, axis=-2))))
    flat = tf.reshape(kernel.value, (*kernel.shape[:2], channels * multiplier))
    return run.output(run.inner(inputs, weights=_quantized(run, tf.reshape(run.weight(flat, axis=-1), kernel.shape))))


# The converter allows no per-channel scales if a kernel gets another axis. So convolutions of series are computed as
# those of images of height 1, whose kernels get the axis before.


def _convolution_1d(run: Run, inputs: Tensor) -> Tensor:
    layer = run.layer
    kernel, bias = run.affine(tf.expand_dims(layer.kernel.value, 0), layer.bias, axis=-1)
    padding = layer.padding.upper()
    if padding == "CAUSAL":
        before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        inputs, padding = tf.pad(inputs, [[0, 0], [before, 0], [0, 0]]), "VALID"
    dilations, strides = (1, *layer.dilation_rate), (1, *layer.strides)
    lines = tf.nn.conv2d(tf.expand_dims(inputs, 1), kernel, strides, padding, dilations=dilations)
    return run.output(tf.squeeze(run.fused(lines, bias), 1))


def _depthwise_1d(run: Run, inputs: Tensor) -> Tensor:
    layer = run.layer
    lines = _depthwise_lines(run, inputs, layer.kernel, layer.bias)
    return run.output(tf.squeeze(run.fused(*lines), 1))


def _depthwise_lines(run: Run, inputs: Tensor, variable: Any, bias: Any, fold: bool = True) -> tuple[Tensor, Tensor]:
    """Return the outputs of a depthwise kernel for series, computed as images of height 1, and the bias to add."""
    layer = run.layer
    size, channels, multiplier = variable.shape
    flat = tf.reshape(variable.value, (1, size, 1, channels * multiplier))
    kernel, bias = run.affine(flat, bias, axis=-1, fold=fold)
    kernel = tf.reshape(kernel, (1, size, channels, multiplier))
    strides, dilations = (1, *layer.strides * 2, 1), (1, *layer.dilation_rate)
    padding = layer.padding.upper()
    if padding == "CAUSAL":
        before = layer.dilation_rate[0] * (size - 1)
        inputs, padding = tf.pad(inputs, [[0, 0], [before, 0], [0, 0]]), "VALID"
    return tf.nn.depthwise_conv2d(tf.expand_dims(inputs, 1), kernel, strides, padding, dilations=dilations), bias


def _separable_1d(run: Run, inputs: Tensor) -> Tensor:
    layer = run.layer
    lines, _ = _depthwise_lines(run, inputs, layer.depthwise_kernel, None, fold=False)
    kernel, bias = run.affine(tf.expand_dims(layer.pointwise_kernel.value, 0), layer.bias, axis=-1)
    lines = tf.nn.conv2d(run.range(lines, "depthwise"), kernel, 1, "VALID")
    return run.output(tf.squeeze(run.fused(lines, bias), 1))


def _separable(run: Run, inputs: Tensor) -> Tensor:
    layer = run.layer
    *size, channels, multiplier = layer.depthwise_kernel.shape
    flat = tf.reshape(layer.depthwise_kernel.value, (*size, 1, channels * multiplier))
    depthwise, _ = run.affine(flat, None, axis=-1, fold=False)
    depthwise = tf.reshape(depthwise, (*size, channels, multiplier))
    strides, dilations = (1, *layer.strides, 1), layer.dilation_rate
    values = tf.nn.depthwise_conv2d(inputs, depthwise, strides, layer.padding.upper(), dilations=dilations)
    kernel, bias = run.affine(layer.pointwise_kernel.value, layer.bias, axis=-1)
    return run.output(run.fused(tf.nn.conv2d(run.range(values, "depthwise"), kernel, 1, "VALID"), bias))


def _separable_obstacle(layer: Any) -> str | None:
    if len(set(layer.strides)) > 1 or (max(layer.strides) > 1 and max(layer.dilation_rate) > 1):
        return f"{type(layer).__name__} with strides {layer.strides} and dilation {layer.dilation_rate}"
    return _obstacle(layer)


def _transposed(run: Run, inputs: Tensor) -> Tensor:
    return run.output(_spread(run, inputs, run.layer.kernel.value, 2))


def _transposed_1d(run: Run, inputs: Tensor) -> Tensor:
    return run.output(tf.squeeze(_spread(run, tf.expand_dims(inputs, 1), run.layer.kernel.value[None], 1), 1))


def _spread(run: Run, images: Tensor, kernel: Tensor, axes: int) -> Tensor:
    """Return the outputs of a transposed convolution along `axes` axes, after its activation."""
    layer = run.layer
    kernel, bias = run.affine(kernel, layer.bias, channels=-2)  # height, width, filters, channels
    along = {
        name: (1,) * (2 - axes) + (value if isinstance(value, tuple) else (value,) * axes)
        for name, value in (("strides", layer.strides), ("dilation_rate", layer.dilation_rate))
    }
    padding = None if layer.output_padding is None else (0,) * (2 - axes) + tuple(layer.output_padding)
    values = keras_3().ops.conv_transpose(images, kernel, padding=layer.padding, output_padding=padding, **along)
    return run.fused(values, BIAS_THAT_STAYS + (tf.zeros(kernel.shape[-2]) if bias is None else bias))


_OWN_ACTIVATION: Any = {"obstacle": _obstacle, "fuses": FUSES, "splits_activation": True}
_TRANSPOSED: Any = {**_OWN_ACTIVATION, "folds": True, "int4": False}
register(Kind(_convolution, takes_scaling=_takes_scaling, **_OWN_ACTIVATION), layers.Conv2D)
register(Kind(_depthwise, **_OWN_ACTIVATION), layers.DepthwiseConv2D)
register(Kind(_convolution_1d, folds=True, takes_scaling=_takes_scaling, **_OWN_ACTIVATION), layers.Conv1D)
register(Kind(_depthwise_1d, folds=True, **_OWN_ACTIVATION), layers.DepthwiseConv1D)
register(Kind(_separable_1d, folds=True, **_OWN_ACTIVATION), layers.SeparableConv1D)
register(Kind(_separable, folds=True, **{**_OWN_ACTIVATION, "obstacle": _separable_obstacle}), layers.SeparableConv2D)
register(Kind(_transposed, **_TRANSPOSED), layers.Conv2DTranspose)
# The op that removes the height of 1 makes a ReLU after it a separate op.
register(Kind(_transposed_1d, **{**_TRANSPOSED, "fuses": frozenset({"batchnorm"})}), layers.Conv1DTranspose)
