"""Recurrent layers, unrolled: TFLite has no loop with integer values, so each step has its own ops."""

from collections.abc import Callable, Sequence
from typing import Any

from experiments.quantization.keras3.calls import is_masked, option_asked, shapes_taken
from experiments.quantization.keras3.kind import Kind, activation_of, register
from experiments.quantization.keras3.wrapper import Run
from experiments.system.tensorflow import keras_3, tf

layers = keras_3().layers

Tensor = Any
MOST_STEPS = 128  # each step is a dozen ops in the file


def _obstacle(layer: Any, place: Any = None) -> str | None:
    """Return why a layer has to stay float; `place` is the layer that contains it, if any."""
    shapes = shapes_taken(place or layer)
    gates = getattr(layer, "recurrent_activation", None)
    reasons = {
        "over a series of any length; each step is computed by ops of its own": any(
            None in shape[1:] for shape in shapes
        ),
        f"over more than {MOST_STEPS} steps; each is computed by a dozen ops of its own": any(
            (shape[1] or 0) > MOST_STEPS for shape in shapes
        ),
        "with a mask": is_masked(place or layer),
        "that keeps its state, or returns it": layer.stateful or layer.return_state,
        "with another activation than tanh": activation_of(layer) != "tanh",
        "with another activation of its gates than sigmoid": gates is not None and gates.__name__ != "sigmoid",
        "with reset_after=False": not getattr(layer, "reset_after", True),
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None) or option_asked(place or layer)
    return reason and f"{type(layer).__name__} {reason}"


def series(run: Run, layer: Any, inputs: Tensor, name: str = "") -> Tensor:
    """Return the outputs of a recurrent layer: the states of all steps, or the last one."""
    cell = layer.cell
    if run.training and cell.dropout:
        layer._maybe_config_dropout_masks(cell, inputs[:, 0], layer.get_initial_state(tf.shape(inputs)[0]))
        inputs = inputs * tf.expand_dims(_one(cell.get_dropout_mask(inputs[:, 0])), 1)
    weights = run.weight(cell.recurrent_kernel)
    (step,) = (function for kind, function in _STEPS.items() if isinstance(layer, kind))
    bias = _input_bias(layer)
    projected = tf.matmul(inputs, run.weight(cell.kernel))
    projected = run.range(projected if bias is None else projected + bias, f"{name}inputs")
    steps = range(inputs.shape[1])
    states: Sequence[Tensor] = ()
    given: list[Tensor] = []
    for count, at in enumerate(reversed(steps) if layer.go_backwards else steps):
        before = states[0] if states else None
        if before is not None and run.training and cell.recurrent_dropout:
            before = before * _one(cell.get_recurrent_dropout_mask(before))
        states = step(run, layer, projected[:, at], [before, *states[1:]] if states else (), weights, f"{name}{count}_")
        given.append(states[0])
    if run.training:
        layer._maybe_reset_dropout_masks(cell)
    return tf.stack(given, axis=1) if layer.return_sequences else given[-1]


def _one(mask: Any) -> Tensor:
    return mask[0] if isinstance(mask, (list, tuple)) else mask


def _input_bias(layer: Any) -> Tensor | None:
    if not layer.use_bias:
        return None
    bias = layer.cell.bias.value
    return bias[0] if isinstance(layer, layers.GRU) else bias


def _lstm(run: Run, _: Any, inputs: Tensor, states: Sequence[Tensor], weights: Tensor, name: str) -> Sequence[Tensor]:
    if states:
        inputs = run.range(inputs + run.range(tf.matmul(states[0], weights), f"{name}recurrent"), f"{name}sum")
    add, keep, new, give = tf.split(inputs, 4, axis=-1)
    carry = run.between_1_and_1(_sigmoid(run, add) * _tanh(run, new))
    if states:
        carry = run.range(run.range(_sigmoid(run, keep) * states[1], f"{name}kept") + carry, f"{name}carry")
    return run.between_1_and_1(_sigmoid(run, give) * _tanh(run, carry)), carry


def _gru(
    run: Run, layer: Any, inputs: Tensor, states: Sequence[Tensor], weights: Tensor, name: str
) -> Sequence[Tensor]:
    state = states[0] if states else tf.zeros((1, layer.units))
    recurrent = tf.matmul(state, weights)
    recurrent = run.range(recurrent + layer.cell.bias.value[1] if layer.use_bias else recurrent, f"{name}recurrent")
    update, reset, new = tf.split(inputs, 3, axis=-1)
    by_update, by_reset, by_new = tf.split(recurrent, 3, axis=-1)
    update = _sigmoid(run, run.range(update + by_update, f"{name}update"))
    reset = _sigmoid(run, run.range(reset + by_reset, f"{name}reset"))
    new = _tanh(run, run.range(new + run.range(reset * by_new, f"{name}kept"), f"{name}new"))
    change = run.range(update * run.range(state - new, f"{name}difference"), f"{name}change")
    return (run.between_1_and_1(new + change),)


def _simple(run: Run, _: Any, inputs: Tensor, states: Sequence[Tensor], weights: Tensor, name: str) -> Sequence[Tensor]:
    if states:
        inputs = run.range(inputs + run.range(tf.matmul(states[0], weights), f"{name}recurrent"), f"{name}sum")
    return (_tanh(run, inputs),)


def _sigmoid(run: Run, values: Tensor) -> Tensor:
    return run.between_0_and_1(tf.sigmoid(values))


def _tanh(run: Run, values: Tensor) -> Tensor:
    return run.between_1_and_1(tf.tanh(values))


_STEPS: dict[type, Callable[..., Sequence[Tensor]]] = {
    layers.LSTM: _lstm,
    layers.GRU: _gru,
    layers.SimpleRNN: _simple,
}


def _both_obstacle(layer: Any) -> str | None:
    if layer.merge_mode not in ("concat", "sum"):
        return f"Bidirectional with merge_mode={layer.merge_mode}; supported: concat, sum"
    directions = (layer.forward_layer, layer.backward_layer)
    if other := next((each for each in directions if not isinstance(each, tuple(_STEPS))), None):
        return f"Bidirectional around {type(other).__name__}"
    return next((obstacle for each in directions if (obstacle := _obstacle(each, place=layer))), None)


def _recurrent(run: Run, inputs: Tensor, **_: Any) -> Tensor:
    return series(run, run.layer, inputs)


def _both(run: Run, inputs: Tensor, **_: Any) -> Tensor:
    layer = run.layer
    forward = series(run, layer.forward_layer, inputs, "forward_")
    backward = series(run, layer.backward_layer, inputs, "backward_")
    if layer.return_sequences:
        backward = tf.stack(tf.unstack(backward, axis=1)[::-1], axis=1)
    if layer.merge_mode == "sum":
        return run.output(forward + backward)
    return tf.concat([forward, backward], axis=-1)


register(Kind(_recurrent, _obstacle), *_STEPS)
register(Kind(_both, _both_obstacle, no_int16="TANH"), layers.Bidirectional)
