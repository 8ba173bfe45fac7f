"""The architectures of keras.applications, untrained: qat makes them int8 as a whole, in Keras 2 and 3."""

from typing import Any

import numpy as np
import pytest

from experiments.model.configuration import layer_names
from experiments.model.flattening import flatten
from experiments.runs.trial import try_conversion
from experiments.strategy.qat import QAT
from experiments.system.keras_version import Version
from experiments.tflite.conversion import convert
from experiments.tflite.expectation import broken
from experiments.tflite.graph import SCALE_KEEPING, read_ops

pytestmark = [pytest.mark.tensorflow, pytest.mark.nightly]

SHAPE = (96, 96, 3)
IMAGES = np.random.default_rng(0).uniform(0, 255, (32, *SHAPE)).astype(np.float32)


def few(count: int) -> Any:
    return IMAGES[:count]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small", "EfficientNetB0"])
@pytest.mark.parametrize("version", [2, 3])
def test_qat_makes_every_op_int8(name: str, version: Version) -> None:
    from experiments.system.tensorflow import keras_version

    application = getattr(keras_version(version).applications, name)
    model = flatten(application(weights=None, input_shape=SHAPE, classes=10), [SHAPE], name)
    scheme, expectation = try_conversion(QAT(), QAT().scheme(model), model, few)
    copy = QAT().prepare_untrained(scheme, model, few)
    assert copy is not None
    ops = read_ops(convert(copy, scheme, few).content, layer_names(model))
    assert broken(expectation, ops) == ()
    assert not expectation.left_float
    assert {op.types for op in ops if op.computes and op.op not in SCALE_KEEPING} == {"int8"}
