"""Attention: projections, scores and weighted values, each an op in integers."""

from typing import Any

from experiments.quantization.keras3.calls import is_masked, option_asked, shapes_taken
from experiments.quantization.keras3.kind import Kind, register
from experiments.quantization.keras3.wrapper import Run
from experiments.system.tensorflow import keras_3, tf

layers = keras_3().layers

Tensor = Any


def _heads_obstacle(layer: Any) -> str | None:
    if is_masked(layer):
        return "MultiHeadAttention with masks, which would widen the range of its scores"
    if layer._use_gate or layer._sliding_window is not None:
        return "MultiHeadAttention with a gate or a sliding window"
    if any(len(shape) != 3 for shape in shapes_taken(layer)):
        return "MultiHeadAttention along more than one axis"
    asked = option_asked(layer, known=("query", "value", "key"))
    return asked and f"MultiHeadAttention {asked}"


def _heads(run: Run, query: Tensor, value: Tensor, key: Tensor | None = None, **_: Any) -> Tensor:
    """Compute attention without masks; heads come before positions, so that products are of matrices."""
    layer = run.layer
    key = value if key is None else key
    sides = {"query": query, "key": key, "value": value}
    query, key, value = (_split(run, values, getattr(layer, f"_{side}_dense"), side) for side, values in sides.items())
    weighed = _weighed(run, query, key, value, layer._inverse_sqrt_key_dim, layer._dropout)
    joined = tf.reshape(
        tf.transpose(weighed, (0, 2, 1, 3)), (-1, weighed.shape[2], weighed.shape[1] * weighed.shape[3])
    )
    return run.output(_projected(run, joined, layer._output_dense, joined.shape[-1]))


def _split(run: Run, values: Tensor, dense: Any, name: str) -> Tensor:
    """Return the outputs of a projection by head: (batch, heads, positions, size)."""
    heads, size = dense.kernel.shape[1:]
    projected = run.range(_projected(run, values, dense, values.shape[-1]), name)
    return tf.transpose(tf.reshape(projected, (-1, values.shape[1], heads, size)), (0, 2, 1, 3))


def _projected(run: Run, values: Tensor, dense: Any, taken: int) -> Tensor:
    """Return the outputs of a projection, whose kernel and bias are quantized as those of a dense layer."""
    kernel = run.weight(tf.reshape(dense.kernel.value, (taken, -1)))
    products = tf.matmul(values, kernel)
    return products if dense.bias is None else products + tf.reshape(dense.bias.value, (-1,))


def _weighed(run: Run, query: Tensor, key: Tensor, value: Tensor, scale: Any, dropout: float) -> Tensor:
    """Return the values, weighted by the products of their keys with the queries."""
    scores = tf.matmul(query, key, transpose_b=True)
    if scale is not None:
        scores = run.range(scores, "products") * run.constant(scale)
    return _by_scores(run, scores, value, dropout)


def _by_scores(run: Run, scores: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Return the values, weighted by their scores."""
    shares = run.between_0_and_1(tf.nn.softmax(run.range(scores, "scores")))
    if run.training and dropout:
        shares = tf.nn.dropout(shares, dropout)
    return run.range(tf.matmul(shares, value), "weighed")


def _attention_obstacle(layer: Any) -> str | None:
    if is_masked(layer):
        return f"{type(layer).__name__} with masks, which would widen the range of its scores"
    if layer.score_mode != "dot":
        return f"{type(layer).__name__} with score_mode={layer.score_mode}; supported: dot"
    asked = option_asked(layer, known=("inputs",))
    return asked and f"{type(layer).__name__} {asked}"


def _attention(run: Run, inputs: Any, **_: Any) -> Tensor:
    query, value, *keys = inputs
    return _weighed(run, query, keys[0] if keys else value, value, run.layer.scale, run.layer.dropout)


def _additive_obstacle(layer: Any) -> str | None:
    if any(None in shape[1:] for shape in shapes_taken(layer)):
        return "AdditiveAttention over a series of any length"
    return _attention_obstacle(layer)


def _additive(run: Run, inputs: Any, **_: Any) -> Tensor:
    """Return the values, weighted by sums over their keys and the queries, which a product with a column computes."""
    query, value, *keys = inputs
    key = keys[0] if keys else value
    sums = run.range(tf.expand_dims(query, 2) + tf.expand_dims(key, 1), "sums")
    size = sums.shape[-1]
    column = tf.ones(size) if run.layer.scale is None else run.layer.scale.value
    rows = tf.reshape(run.between_1_and_1(tf.tanh(sums)), (-1, size))
    scores = tf.matmul(rows, run.weight(tf.reshape(column, (size, 1))))
    return _by_scores(run, tf.reshape(scores, (-1, *sums.shape[1:3])), value, run.layer.dropout)


register(Kind(_heads, _heads_obstacle, no_int16="SOFTMAX"), layers.MultiHeadAttention)
register(Kind(_attention, _attention_obstacle, no_int16="SOFTMAX"), layers.Attention)
register(Kind(_additive, _additive_obstacle, no_int16="SOFTMAX"), layers.AdditiveAttention)
