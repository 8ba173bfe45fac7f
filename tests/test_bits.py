"""Quantization-aware training for 4-bit weights and 16-bit activations, with models of Keras 3."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from experiments.dataset import Dataset, Images
from experiments.dataset.mnist import Mnist
from experiments.measure.accuracy import keras_logits, tflite_logits
from experiments.model import Architecture
from experiments.model.article_cnn import ArticleCNN
from experiments.model.configuration import layer_names
from experiments.model.ds_cnn import DSCNN
from experiments.strategy import QuantizationAware
from experiments.strategy.annotate import Annotate
from experiments.strategy.qat import QAT
from experiments.system.errors import UserError
from experiments.tflite.conversion import TFLiteModel, convert
from experiments.tflite.expectation import broken
from experiments.tflite.graph import Op, read_ops
from experiments.training.loop import Trained

pytestmark = pytest.mark.tensorflow

DS_CNN = DSCNN(keras=3, filters=8, blocks=1)


@cache
def data() -> Dataset:
    return Mnist(train_samples=200, test_samples=100).load()


def calibration(count: int) -> Images:
    return data().calibration(min(count, 20), seed=0)[:]


@cache
def converted(architecture: Architecture, strategy: QuantizationAware) -> tuple[Any, TFLiteModel, tuple[Op, ...]]:
    """The untrained parent, the file and its ops; the file meets the strategy's expectation."""
    from experiments.system.tensorflow import keras

    keras.utils.set_random_seed(0)
    model = architecture.build(data().input_shape, data().classes)
    parent = strategy.prepare(model, Trained.untouched, calibration).model
    file = convert(parent, strategy.scheme(model), calibration)
    ops = read_ops(file.content, layer_names(model))
    assert not broken(strategy.expectation(model), ops)
    return parent, file, ops


@pytest.mark.parametrize(
    ("strategy", "types"),
    [
        (QAT(weight_bits=4), {"int8x4", "int8"}),
        (QAT(activation_bits=16), {"int16x8", "int16"}),
        (QAT(interface="uint8"), {"int8"}),
        (Annotate(layers=("Dense",), weight_bits=4), {"int8x4", "float32"}),
    ],
)
def test_a_file_computes_in_the_requested_integers(strategy: QuantizationAware, types: set[str]) -> None:
    _, _, ops = converted(DS_CNN, strategy)
    assert {op.types for op in ops if op.computes} == types


@pytest.mark.parametrize("strategy", [QAT(weight_bits=4), QAT(activation_bits=16)])
@pytest.mark.parametrize("architecture", [DS_CNN, ArticleCNN(keras=3)])
def test_a_file_has_the_outputs_of_its_keras_model(architecture: Architecture, strategy: QuantizationAware) -> None:
    parent, file, _ = converted(architecture, strategy)
    wanted = keras_logits(parent, data().test.x)
    given = tflite_logits(file, data().test.x)
    assert np.abs(given - wanted).max() <= 0.03 * np.ptp(wanted)


def test_tfmot_cannot_train_for_other_bits() -> None:
    model = DSCNN(filters=8, blocks=1).build(data().input_shape, data().classes)
    with pytest.raises(UserError, match=r"strategy.weight_bits=4 requires a model of Keras 3.*strategy=ptq_int4_int8"):
        QAT(weight_bits=4).scheme(model)


@pytest.mark.parametrize(
    "options", [{"weight_bits": 4, "activation_bits": 16}, {"activation_bits": 16, "interface": "int8"}]
)
def test_bits_without_kernels_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises((UserError, ValidationError), match="requires"):
        QAT(**options)
