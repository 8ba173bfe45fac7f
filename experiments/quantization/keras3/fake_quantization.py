"""Fake quantization: values rounded to what an integer type can hold, in float, as the converter reads them.

Weights are symmetric, in a narrow range, with limits that follow from the weights themselves. Activations are
asymmetric, with limits that are learned: a moving average of the least and the greatest value of each batch (Jacob et
al., arXiv:1712.05877, section 3).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce
from typing import Any, Literal

from experiments.system.tensorflow import tf

Tensor = Any
WeightBits = Literal[4, 8]
ActivationBits = Literal[8, 16]
Limits = tuple[float, float]

# What a quantizer does to values: round them, pass them unchanged, or pass them and record their range.
_MODE: ContextVar[Literal["round", "pass", "watch"]] = ContextVar("fake quantization", default="round")

# Share of the largest weight of a kernel below which a channel's range does not shrink: with the scale of a channel
# whose weights are all zero, its bias would not fit into 32 bits.
LEAST_CHANNEL = 1e-5
LEAST_RANGE = 1e-6


@contextmanager
def fake_quantization_off() -> Iterator[None]:
    """Let all quantizers pass values and weights unchanged.

    It holds for what is called eagerly or traced while the block runs; functions that were traced before keep theirs.
    """
    token = _MODE.set("pass")
    try:
        yield
    finally:
        _MODE.reset(token)


@contextmanager
def ranges_watched() -> Iterator[None]:
    """Let all quantizers pass values unchanged, and set each range to the limits of its values; for eager calls."""
    token = _MODE.set("watch")
    try:
        yield
    finally:
        _MODE.reset(token)


def shielded(values: Tensor) -> Tensor:
    """Return the values, shielded from the converter, which would quantize ops between two ranges.

    It makes two CASTs of it, which `tflite.selective` takes out of the file.
    """
    return values if _MODE.get() != "round" else tf.cast(tf.cast(values, tf.float64), tf.float32)


def quantized_weight(weight: Tensor, bits: int, axis: int | None) -> Tensor:
    """Return a weight rounded to `bits` bits, with a scale for each index of the axis, or one scale (None)."""
    if _MODE.get() != "round":
        return tf.convert_to_tensor(weight)
    weight = tf.convert_to_tensor(weight)
    sizes = tf.abs(tf.stop_gradient(weight))
    most = tf.reduce_max(sizes)
    if axis is None:
        limit = tf.maximum(most, LEAST_RANGE)
        return tf.quantization.fake_quant_with_min_max_vars(weight, -limit, limit, num_bits=bits, narrow_range=True)
    last = len(weight.shape) - 1
    order = list(range(last + 1))
    order[axis], order[last] = order[last], order[axis]
    if order != sorted(order):
        weight, sizes = tf.transpose(weight, order), tf.transpose(sizes, order)
    limits = tf.maximum(tf.reduce_max(sizes, axis=list(range(last))), tf.maximum(LEAST_CHANNEL * most, LEAST_RANGE))
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        weight, -limits, limits, num_bits=bits, narrow_range=True
    )
    return rounded if order == sorted(order) else tf.transpose(rounded, order)


def quantized_values(values: Tensor, limits: tuple[Tensor, Tensor], bits: int) -> Tensor:
    """Return values rounded to `bits` bits between these limits.

    TFLite's kernels for 16 bits take ranges with zero in the middle only: these limits are widened to such a one.
    """
    if _MODE.get() != "round":
        return values
    if bits == 16:
        step = tf.maximum(tf.maximum(-limits[0], limits[1]), LEAST_RANGE) / (2**15 - 1)
        limits = (-(2**15) * step, (2**15 - 1) * step)
    return tf.quantization.fake_quant_with_min_max_vars(values, *limits, num_bits=bits)


class Range:
    """The learned limits of the values at one place of a model.

    Values that one op combines need one scale: such places share the widest limits of the ranges in `group`.
    """

    def __init__(self, low: Any, high: Any, bits: int) -> None:
        self.low, self.high, self.bits = low, high, bits
        self.group: Sequence[Range] = (self,)

    @property
    def limits(self) -> tuple[Tensor, Tensor]:
        """The limits between which values are rounded."""
        lows, highs = [each.low.value for each in self.group], [each.high.value for each in self.group]
        return reduce(tf.minimum, lows), reduce(tf.maximum, highs)

    def __call__(self, values: Tensor, decay: float, training: bool) -> Tensor:
        """Return the values, rounded in this range, which first moves towards their limits during training."""
        if _MODE.get() == "watch":
            self._move(*limits_of(values), decay=0.0)
        elif training and _MODE.get() == "round":
            self._move(*limits_of(values), decay)
        return quantized_values(values, self.limits, self.bits)

    def of_all(self, several: Sequence[Tensor], decay: float, training: bool) -> list[Tensor]:
        """Return several values, rounded in this range, which moves towards their common limits."""
        if training or _MODE.get() == "watch":
            self(tf.stack([limit for values in several for limit in limits_of(values)]), decay, training)
        return [quantized_values(values, self.limits, self.bits) for values in several]

    def _move(self, low: Tensor, high: Tensor, decay: float) -> None:
        """Move towards these limits, unless all values are zero: those fit any range.

        A ReLU that is never active would shrink its range to one whose scale XNNPACK refuses.
        """
        is_zero = low == high
        for limit, reached in ((self.low, low), (self.high, high)):
            limit.assign(tf.where(is_zero, limit.value, decay * limit.value + (1 - decay) * reached))


def share_limits(ranges: Iterable[Range]) -> None:
    """Let these ranges, and those that share limits with one of them, have the same limits."""
    group = tuple({id(each): each for member in ranges for each in member.group}.values())
    for each in group:
        each.group = group


def limits_of(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the minimum and maximum of the values and zero, which padding consists of."""
    values = tf.stop_gradient(values)
    return tf.minimum(tf.reduce_min(values), 0.0), tf.maximum(tf.reduce_max(values), 0.0)
