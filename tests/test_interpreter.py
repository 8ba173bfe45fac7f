"""The interpreter: XNNPACK, or LiteRT's own kernels if XNNPACK rejects a file; one image per inference."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from experiments.dataset import Images
from experiments.measure.accuracy import tflite_logits
from experiments.measure.fidelity import delegated
from experiments.measure.interpreter import xnnpack_refusal
from experiments.measure.latency import LatencyProtocol, measure_latency
from experiments.measure.memory import peak_memory
from experiments.tflite.conversion import TFLiteModel, convert
from experiments.tflite.graph import read_ops
from experiments.tflite.schemes import Float32, Int8
from experiments.tracking.litert_model import LiteRTModel
from tests.tiny import dense_file

pytestmark = pytest.mark.tensorflow


def images(count: int = 8) -> Images:
    return np.random.default_rng(0).random((count, 8, 8, 3)).astype(np.float32)


@cache
def refused() -> TFLiteModel:
    """An int8 file in which one convolution makes values near 1e-12, and the next makes them large again."""
    from experiments.system.tensorflow import keras

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 3), keras.layers.Conv2D(4, 3)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Flatten()])
    for layer, factor in zip(layers, (1e-12, 1e12), strict=True):
        layer.set_weights([weights * factor for weights in layer.get_weights()])
    return convert(model, Int8(8), images)


def test_xnnpack_refusal_is_one_line() -> None:
    assert "XNNPACK" in xnnpack_refusal(refused())
    assert "\n" not in xnnpack_refusal(refused())


def test_xnnpack_refusal_is_empty_for_a_supported_file() -> None:
    assert xnnpack_refusal(dense_file()) == ""


def test_file_rejected_by_xnnpack_runs_on_builtin_kernels() -> None:
    assert tflite_logits(refused(), images()).shape == (8, 64)


def test_file_rejected_by_xnnpack_has_no_delegated_ops() -> None:
    assert delegated(refused(), read_ops(refused().content, [])) == frozenset()


def test_file_rejected_by_xnnpack_is_timed_and_its_memory_measured() -> None:
    protocol = LatencyProtocol(seconds=0.1)
    assert measure_latency(refused(), refused(), images(), protocol, seed=0).own.min_us > 0
    assert peak_memory(refused(), images(), threads=1).peak_kib > 0


def test_mlflow_model_runs_a_file_rejected_by_xnnpack(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(refused().content)
    assert LiteRTModel(str(tmp_path / "model.tflite")).predict(images(2)).shape == (2, 64)


def test_lstm_state_is_reset_for_each_image() -> None:
    from experiments.system.tensorflow import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12, 6)), keras.layers.LSTM(4), keras.layers.Dense(3)])
    file = convert(model, Float32(), images)
    series = np.random.default_rng(0).random((5, 12, 6)).astype(np.float32)
    assert np.array_equal(tflite_logits(file, series), tflite_logits(file, series[::-1].copy())[::-1])
