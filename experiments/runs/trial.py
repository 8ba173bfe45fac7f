"""A trial conversion of the untrained model, which shows before training what the converter can do.

The types in a file depend on the architecture, not on the values of the weights. Therefore the file of the untrained
model is checked like the final one. If it differs from the expectation, layers that would learn ranges are removed from
the scheme, and ops that the converter leaves in float are removed from the expectation, with the reason.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from experiments.dataset import ImageRows
from experiments.measure.interpreter import load_interpreter
from experiments.model.configuration import layer_names
from experiments.model.copies import set_weights
from experiments.runs.result_cache import ResultCache
from experiments.strategy import Strategy
from experiments.system.cache import Arrays
from experiments.system.contents import contents_of
from experiments.system.errors import UserError
from experiments.tflite.conversion import Calibration, TFLiteModel, convert
from experiments.tflite.expectation import Expectation, differences, expected, without_float_ops
from experiments.tflite.graph import Op, read_ops
from experiments.tflite.schemes import Float32, Learned, Scheme

if TYPE_CHECKING:
    from tf_keras import Model

ROUNDS = 8  # leaving a layer in float may change the types of its neighbours
SAMPLES = 4  # calibration images; the ranges need not be accurate


def load_or_try(
    results: ResultCache,
    strategy: Strategy,
    scheme: Scheme,
    model: "Model",
    digest: str,
    whole: TFLiteModel | None = None,
) -> tuple[Scheme, Expectation, bool]:
    """Return the cached result of `try_conversion` for the model with this digest, and whether it was computed now.

    Raises:
        UserError: see `try_conversion`.
    """
    compression = strategy.compression(model)
    made = []

    def make() -> Arrays:
        made.append(try_conversion(strategy, scheme, model, results.calibration, whole))
        narrowed, expectation = made[0]
        layers = narrowed.layers if isinstance(narrowed, Learned) else None
        found = {"layers": layers, "left_float": expectation.left_float, "exempt": sorted(expectation.exempt)}
        return {"found": np.array(json.dumps(found))}

    inputs = {"trial": dict(contents_of(strategy)), "model": digest, "final": whole is not None}
    kept = results.once(inputs, make, f"trial: {model.name}, {type(strategy).__name__}")
    found = json.loads(str(kept["found"]))
    if isinstance(scheme, Learned) and found["layers"] is not None:
        scheme = replace(scheme, layers=tuple(found["layers"]), left_float=found["left_float"])
    exempt = frozenset((layer, op) for layer, op in found["exempt"])
    expectation = replace(expected(scheme, model, compression), left_float=found["left_float"], exempt=exempt)
    return scheme, expectation, bool(made)


def try_conversion(
    strategy: Strategy,
    scheme: Scheme,
    model: "Model",
    calibration: Calibration,
    whole: TFLiteModel | None = None,
) -> tuple[Scheme, Expectation]:
    """Return the strategy's scheme, reduced to what the converter supports for this model, and the expectation.

    The weights of the model are restored; `whole` is its file, if it will not be trained further.

    Raises:
        UserError: the converter rejects the model, or the strategy requires a layer that stays float.
    """

    def few(count: int) -> ImageRows:
        return calibration(min(count, SAMPLES))

    expectation = expected(scheme, model)
    ops: tuple[Op, ...] = ()
    converted: Scheme | None = None
    with constants_varied(model) if whole is None else nullcontext():
        for _ in range(ROUNDS):
            before = scheme, expectation
            if scheme != converted:
                ops, converted = _ops(strategy, scheme, model, few, whole), scheme
            found = differences(expectation, ops) if ops else ()
            if found and isinstance(scheme, Learned):
                scheme = strategy.narrow(scheme, model, found)
                expectation = expected(scheme, model)
            elif found:
                expectation = without_float_ops(expectation, found)
            if (scheme, expectation) == before:
                _check_any_quantized(expectation, ops)
                return before
    raise UserError(
        f"No choice of layers gives the expected file: {'; '.join(d.text for d in found)}. Quantize after training "
        "with strategy=ptq_int8."
    )


def _ops(
    strategy: Strategy, scheme: Scheme, model: "Model", calibration: Calibration, whole: TFLiteModel | None
) -> tuple[Op, ...]:
    """Return the ops of the untrained file; none for a strategy without a trial, which only requires a float file."""
    untrained = strategy.prepare_untrained(scheme, model, calibration)
    if untrained is None:
        convert(model, Float32(), calibration)
        return ()
    file = whole if whole is not None and untrained is model else convert(untrained, scheme, calibration)
    if strategy.trains:
        load_interpreter(file)  # a file that LiteRT cannot run is refused before the training
    return read_ops(file.content, layer_names(model))


def _check_any_quantized(expectation: Expectation, ops: Sequence[Op]) -> None:
    """Raise UserError if every op stays float."""
    computing = [op for op in ops if op.computes]
    if expectation.exempt and all((op.layer, op.op) in expectation.exempt for op in computing):
        raise UserError(
            f"The converter leaves every op of this model in float instead of {expectation.types}: "
            f"{', '.join(expectation.left_float)}. Use strategy=ptq_float16 or ptq_dynamic."
        )


@contextmanager
def constants_varied(model: "Model") -> Iterator[None]:
    """Make constant weights, such as initial biases of zero, vary: the converter removes ops that change nothing."""
    before = model.get_weights()
    rng = np.random.default_rng(0)
    varied = [
        _varied(weights, rng, positive="variance" in variable.name)
        for variable, weights in zip(model.weights, before, strict=True)
    ]
    set_weights(model, varied)
    try:
        yield
    finally:
        set_weights(model, before)


def _varied(weights: npt.NDArray[Any], rng: np.random.Generator, positive: bool) -> npt.NDArray[Any]:
    """Return constant weights with small differences, in both directions unless they have to stay positive.

    Shifts in one direction would add up with the depth, until each rounding of a deep network changes its outputs.
    """
    if weights.size == 0 or not np.issubdtype(weights.dtype, np.floating) or (weights != weights.flat[0]).any():
        return weights
    shifts = rng.uniform(0.01, 0.1, weights.shape)
    signs = 1 if positive else rng.choice([-1, 1], weights.shape)
    return np.asarray(weights + signs * shifts, weights.dtype)
