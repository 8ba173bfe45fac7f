"""Layers that merge several inputs: two at a time, with a range in between."""

from collections.abc import Sequence
from typing import Any

from experiments.quantization.keras3.kind import Kind, register
from experiments.quantization.keras3.wrapper import Run
from experiments.system.tensorflow import keras_3

layers = keras_3().layers

Tensor = Any


def _merged(run: Run, inputs: Sequence[Tensor]) -> Tensor:
    return run.output(_in_pairs(run, inputs))


def _in_pairs(run: Run, inputs: Sequence[Tensor]) -> Tensor:
    values, *others = inputs
    for place, other in enumerate(others):
        both = run.inner([values, other])
        values = run.range(both, f"merged_{place}") if place < len(others) - 1 else both
    return values


def _average(run: Run, inputs: Sequence[Tensor]) -> Tensor:
    total, *others = inputs
    for place, other in enumerate(others):
        total = run.range(total + other, f"sum_{place}")
    return run.output(total * run.constant(1 / len(inputs)))


def _of_one_scale(run: Run, inputs: Sequence[Tensor]) -> Tensor:
    return run.inner(run.in_one_range(inputs))


def _obstacle(layer: Any) -> str | None:
    shapes = layer._build_shapes_dict or {}
    if len({len(shape) for each in shapes.values() for shape in each if shape is not None}) > 1:
        return f"{type(layer).__name__} of values with different numbers of axes"
    return None


register(Kind(_merged, _obstacle, fuses=frozenset({"relu"})), layers.Add)
register(Kind(_merged, _obstacle), layers.Multiply, layers.Subtract)
register(Kind(_of_one_scale, _obstacle, quantizes_inputs=True), layers.Maximum, layers.Minimum)
register(Kind(_average, _obstacle), layers.Average)
register(Kind(_of_one_scale, moves=True, quantizes_inputs=True, no_int16="CONCATENATION"), layers.Concatenate)
