"""Scaling and shifting of channels in one op, as both engines compute it with fake quantization."""

from collections.abc import Callable
from typing import Any

from experiments.system.tensorflow import tf

Tensor = Any


def scaled(inputs: Tensor, factors: Tensor, offsets: Tensor, rounded: Callable[[Tensor], Tensor]) -> Tensor:
    """Return values times a factor plus an offset for each channel, as a depthwise convolution with 1 x 1 kernels.

    TFLite's MUL and ADD take one scale for all channels. This op has a scale for each, with which every factor is
    exactly 127 or -127 steps, and offsets in 32 bits.

    Args:
        inputs: Values with 2 to 4 axes, channels last.
        factors: One, or one for each channel.
        offsets: One, or one for each channel.
        rounded: Applies fake quantization to the factors, of shape (1, 1, 1, channels), with a scale for each index of
            the last axis.
    """
    channels = inputs.shape[-1]
    flat = tf.reshape(tf.broadcast_to(factors, (channels,)), (1, 1, 1, channels))
    kernel = tf.reshape(rounded(flat), (1, 1, channels, 1))
    offsets = make_distinct(tf.broadcast_to(offsets, (channels,)))
    match len(inputs.shape):
        case 2:
            images = tf.reshape(inputs, (-1, 1, 1, channels))
            return tf.reshape(tf.nn.depthwise_conv2d(images, kernel, (1, 1, 1, 1), "VALID") + offsets, (-1, channels))
        case 3:
            lines = tf.nn.depthwise_conv2d(tf.expand_dims(inputs, 1), kernel, (1, 1, 1, 1), "VALID") + offsets
            return tf.squeeze(lines, 1)
        case _:
            return tf.nn.depthwise_conv2d(inputs, kernel, (1, 1, 1, 1), "VALID") + offsets


def make_distinct(bias: Tensor) -> Tensor:
    """Return a bias whose last value is changed by the smallest possible amount.

    Of one that is the same for all channels the converter takes the scale of the first channel for all.
    """
    factors = [1.0] * bias.shape[0]
    factors[-1] += 2**-22
    return bias * tf.constant(factors)
