"""Fidelity: differences between models, the noise of each op, and the ops that XNNPACK runs."""

from functools import cache, partial
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from experiments.dataset import Dataset
from experiments.dataset.mnist import Mnist
from experiments.measure.accuracy import Logits, tflite_logits
from experiments.measure.fidelity import OpNoise, decibel, delegated, gaps, op_noise
from experiments.model import Architecture
from experiments.model.article_cnn import ArticleCNN
from experiments.model.resnet8 import ResNet8
from experiments.plots.run import COLOURS, MOST_OPS, most_of, save_noise
from experiments.strategy.annotate import Annotate
from experiments.strategy.qat import QAT
from experiments.tflite.conversion import TFLiteModel, convert
from experiments.tflite.graph import Op, read_ops
from experiments.tflite.schemes import Dynamic, DynamicInt4, Float16, Float32, Int8, Int16x8, Learned, Scheme
from experiments.training.loop import Trained

# One more than the strategies promise; what an op can carry, the extremes among it.
TYPES = (*COLOURS, "uint8")
RATIOS = (inf, -inf, -3.0, 0.0, 20.0, 40.0, 60.0)
LOGITS = arrays(np.float32, (5, 3), elements=st.floats(-10, 10, width=32))


@given(LOGITS)
def test_a_model_and_itself_have_no_gap(logits: Logits) -> None:
    (gap,) = gaps({"a": logits, "b": logits})
    assert (gap.agreement, gap.rms_logit_error, gap.max_logit_error) == (1, 0, 0)


def test_gap_has_agreement_and_logit_error() -> None:
    (gap,) = gaps({"a": np.array([[1, 0], [0, 1]], np.float32), "b": np.array([[1, 0], [4, 1]], np.float32)})
    assert (gap.agreement, gap.rms_logit_error, gap.max_logit_error) == (0.5, 2, 4)


def test_every_pair_of_models_has_a_gap() -> None:
    logits = np.zeros((1, 2), np.float32)
    assert [(gap.first, gap.second) for gap in gaps(dict.fromkeys("abc", logits))] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]


@pytest.mark.parametrize(
    ("signal", "noise", "ratio"), [(100, 1, 20), (1, 1, 0), (1, 0, inf), (0, 1, -inf), (0, 0, inf)]
)
def test_decibel(signal: float, noise: float, ratio: float) -> None:
    assert decibel(signal, noise) == ratio


def test_noise_of_a_file_with_many_types_is_plotted(tmp_path: Path) -> None:
    noise = [OpNoise("conv2d", "CONV_2D", types, ratio) for types, ratio in zip(TYPES, RATIOS, strict=True)]
    save_noise(tmp_path / "noise.png", noise, "many types")
    assert (tmp_path / "noise.png").read_bytes().startswith(b"\x89PNG")


def test_of_many_ops_those_with_the_most_noise_are_plotted_in_the_order_of_the_model() -> None:
    ratios = [float((7 * place) % 100) for place in range(100)]
    noise = [OpNoise(f"conv_{place}", "CONV_2D", "int8", ratio) for place, ratio in enumerate(ratios)]
    shown = most_of(noise, lambda op: -op.sqnr_db)
    assert [op.sqnr_db for op in shown] == [ratio for ratio in ratios if ratio < MOST_OPS]


@cache
def data() -> Dataset:
    return Mnist(train_samples=200, test_samples=20).load()


def built() -> Any:
    """The untrained model."""
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return ArticleCNN().build(data().input_shape, data().classes)


@cache
def converted(scheme: Scheme) -> tuple[TFLiteModel, tuple[Op, ...]]:
    model = built()
    file = convert(model, scheme, partial(data().calibration, seed=0))
    return file, read_ops(file.content, [layer.name for layer in model.layers])


def noise(scheme: Scheme) -> tuple[OpNoise, ...]:
    return op_noise(*converted(scheme), *converted(Float32()), data().test.x[:])


@pytest.mark.tensorflow
def test_the_float_file_is_exact() -> None:
    assert {op.sqnr_db for op in noise(Float32())} == {inf}


@pytest.mark.tensorflow
def test_noise_takes_time_linear_in_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Describing the tensors of a file takes time for each of them: it is done once, not for every op and image."""
    from ai_edge_litert.interpreter import Interpreter

    described, describe = [], Interpreter.get_tensor_details

    def counted(interpreter: Any) -> Any:
        described.append(interpreter)
        return describe(interpreter)

    monkeypatch.setattr(Interpreter, "get_tensor_details", counted)
    noise(Int8(20))
    assert len(described) == 2


@pytest.mark.tensorflow
def test_every_int8_op_has_noise() -> None:
    ratios = {op.layer: op.sqnr_db for op in noise(Int8(20))}
    assert ratios.keys() == {"conv2d", "conv2d_1", "conv2d_2", "dense"}
    assert all(10 < ratio < 60 for ratio in ratios.values())


@pytest.mark.tensorflow
def test_float16_weights_are_more_faithful_than_int8() -> None:
    assert min(op.sqnr_db for op in noise(Float16())) > max(op.sqnr_db for op in noise(Int8(20)))


@pytest.mark.tensorflow
def test_float_layers_before_an_annotated_one_are_exact() -> None:
    from experiments.quantization.tfmot.annotation import fake_quantization_off

    model = built()
    layers = [layer.name for layer in model.layers]
    calibration = partial(data().calibration, seed=0)
    dense_only = Annotate(layers=("dense",)).prepare(model, Trained.untouched, calibration).model
    file = convert(dense_only, Learned(), calibration)
    with fake_quantization_off():
        in_float = convert(dense_only, Float32(), calibration)

    ratios = op_noise(
        file, read_ops(file.content, layers), in_float, read_ops(in_float.content, layers), data().test.x[:]
    )

    assert [op.layer for op in ratios if op.sqnr_db == inf] == ["conv2d", "conv2d_1", "conv2d_2"]


@pytest.mark.tensorflow
@pytest.mark.parametrize("architecture", [ArticleCNN(), ResNet8()], ids=lambda option: type(option).__name__)
def test_weights_copied_to_a_plain_model_give_the_file_without_fake_quantization(
    architecture: Architecture,
) -> None:
    from experiments.quantization.tfmot.annotation import fake_quantization_off, in_float
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    model = architecture.build(data().input_shape, data().classes)
    calibration = partial(data().calibration, seed=0)
    quantization_aware = QAT().prepare(model, Trained.untouched, calibration).model
    quantization_aware.set_weights([weights * 1.5 for weights in quantization_aware.get_weights()])
    with fake_quantization_off():
        expected = convert(quantization_aware, Float32(), calibration)

    plain = in_float(quantization_aware, model)

    assert plain is not None
    found = convert(plain, Float32(), calibration)
    assert np.array_equal(tflite_logits(found, data().test.x), tflite_logits(expected, data().test.x))


@pytest.mark.tensorflow
def test_layer_with_several_weights_of_one_name_gets_each() -> None:
    from experiments.quantization.tfmot.annotation import in_float
    from experiments.system.tensorflow import keras

    both_ways = keras.layers.Bidirectional(keras.layers.SimpleRNN(2))
    model = keras.Sequential([keras.layers.InputLayer((3, 4)), both_ways])

    plain = in_float(model, model)

    assert plain is not None
    assert all(np.array_equal(a, b) for a, b in zip(plain.get_weights(), model.get_weights(), strict=True))


@pytest.mark.tensorflow
@pytest.mark.parametrize("scheme", [Float32(), Dynamic(), Float16(), Int8(20)], ids=str)
def test_xnnpack_runs_every_op(scheme: Scheme) -> None:
    file, ops = converted(scheme)
    assert delegated(file, ops) == {op.index for op in ops}


@pytest.mark.tensorflow
def test_xnnpack_runs_no_op_of_an_int16_file() -> None:
    assert delegated(*converted(Int16x8(20))) == frozenset()


@pytest.mark.tensorflow
def test_xnnpack_runs_no_convolution_with_int4_weights() -> None:
    file, ops = converted(DynamicInt4())
    assert [op.op for op in ops if op.index in delegated(file, ops)] == ["RESHAPE", "FULLY_CONNECTED"]
