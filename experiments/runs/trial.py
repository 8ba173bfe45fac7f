"""What a strategy can promise of a model's file, seen before any training: a conversion of the untrained model.

The types in a file follow from the architecture, and not from what the weights are trained to. So the file of the
untrained model is judged as the final one will be, and what breaks the promise is left out of it, with the reason.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from experiments.dataset import Images
from experiments.record.identity import contents_of
from experiments.runs.result_cache import ResultCache
from experiments.strategy import Strategy
from experiments.system.cache import Arrays
from experiments.system.errors import UserError
from experiments.tflite.conversion import Calibration, Float32, convert
from experiments.tflite.expectation import Expectation, differences
from experiments.tflite.graph import Op, read_ops

if TYPE_CHECKING:
    from tf_keras import Model

ROUNDS = 8  # a layer that is left float may change the types of its neighbours
SAMPLES = 4  # images to calibrate with: ranges are needed, and need not be good


def remembered(
    known: ResultCache, strategy: Strategy, expectation: Expectation, model: "Model", digest: str, final: bool
) -> tuple[Expectation, bool]:
    """What `kept` finds for the model of this digest, and whether it was found out now, and the model been used.

    Raises:
        UserError: see `kept`.
    """
    made = []

    def make() -> Arrays:
        made.append(kept(strategy, expectation, model, known.calibration, final))
        return {"expectation": np.array(json.dumps(asdict(made[0]), default=sorted))}

    inputs = {"trial": dict(contents_of(strategy)), "model": digest, "final": final}
    found = json.loads(str(known.once(inputs, make, f"trial: {model.name}, {type(strategy).__name__}")["expectation"]))
    narrowed = {field: found[field] for field in ("types", "rest", "left_float")}
    chosen = None if found["chosen"] is None else frozenset(found["chosen"])
    exempt = frozenset((layer, op) for layer, op in found["exempt"])
    return (
        replace(expectation, **narrowed, chosen=chosen, kernels=frozenset(found["kernels"]), exempt=exempt),
        bool(made),
    )


def kept(
    strategy: Strategy, expectation: Expectation, model: "Model", calibration: Calibration, final: bool = False
) -> Expectation:
    """The strategy's promise, as far as the converter can keep it for this model, whose weights are as before then.

    `final` are weights that will not be trained any more.

    Raises:
        UserError: it refuses the model, or the strategy cannot do without what breaks the promise.
    """

    def few(count: int) -> Images:
        return calibration(min(count, SAMPLES))

    with nullcontext() if final else _constants_varied(model):
        for _ in range(ROUNDS):
            ops = _ops(strategy, expectation, model, few)
            found = differences(replace(expectation, sparsity=0.0, clusters=None), ops) if ops else ()
            narrower = strategy.within(expectation, model, found) if found else expectation
            if narrower == expectation:
                _refuse_nothing(expectation, ops)
                return expectation
            expectation = narrower
    raise UserError(
        f"No choice of layers was found for which the file is what it should be: {'; '.join(d.said for d in found)}. "
        "Quantize after training, with strategy=ptq_int8."
    )


def _ops(strategy: Strategy, expectation: Expectation, model: "Model", calibration: Calibration) -> tuple[Op, ...]:
    """The ops of the untrained file; none of a strategy that makes no trial, whose float reference has to convert."""
    untrained = strategy.untrained(expectation, model, calibration)
    if untrained is None:
        convert(model, Float32(), calibration)
        return ()
    file = convert(untrained, strategy.scheme, calibration, expectation.chosen)
    return read_ops(file.content, [layer.name for layer in model.layers])


def _refuse_nothing(expectation: Expectation, ops: Sequence[Op]) -> None:
    """Raise UserError where so much is left in float that nothing is as promised."""
    computing = [op for op in ops if op.computes]
    if expectation.exempt and all((op.layer, op.op) in expectation.exempt for op in computing):
        raise UserError(
            f"The converter leaves every op of this model in float, and none in {expectation.types}: "
            f"{', '.join(expectation.left_float)}. Take strategy=ptq_float16 or ptq_dynamic."
        )


@contextmanager
def _constants_varied(model: "Model") -> Iterator[None]:
    """Let no weights be all alike, as before training biases are zeros: the converter drops ops that change nothing."""
    before = model.get_weights()
    rng = np.random.default_rng(0)
    model.set_weights([_varied(weights, rng) for weights in before])
    try:
        yield
    finally:
        model.set_weights(before)


def _varied(weights: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    if weights.size == 0 or not np.issubdtype(weights.dtype, np.floating) or (weights != weights.flat[0]).any():
        return weights
    return np.asarray(weights + rng.uniform(0.01, 0.1, weights.shape), weights.dtype)
