"""What becomes of a model under each strategy, read from the TFLite file. No training: only the structure counts."""

import json
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.dataset import Dataset, Images
from experiments.dataset.mnist import Mnist
from experiments.errors import UserError
from experiments.graph import Op, arithmetic, coverage, read_ops
from experiments.measure.accuracy import keras_logits, tflite_logits
from experiments.model import Architecture
from experiments.model.article_cnn import ArticleCNN
from experiments.model.ds_cnn import DSCNN
from experiments.model.mlp import MLP
from experiments.model.resnet8 import ResNet8
from experiments.strategy import Strategy
from experiments.strategy.annotate import Annotate
from experiments.strategy.finetune import Finetune
from experiments.strategy.none import Nothing
from experiments.strategy.ptq_dynamic import PTQDynamic
from experiments.strategy.ptq_float16 import PTQFloat16
from experiments.strategy.ptq_int4 import PTQInt4
from experiments.strategy.ptq_int8 import PTQInt8
from experiments.strategy.ptq_int16x8 import PTQInt16x8
from experiments.strategy.qat import QAT
from experiments.tflite import Learned, TFLiteModel, convert
from experiments.training import Trained

pytestmark = pytest.mark.tensorflow

GOLDEN = json.loads((Path(__file__).parent / "golden" / "strategies.json").read_text())
STRATEGIES: dict[str, Strategy] = {
    "none": Nothing(),
    "finetune": Finetune(),
    "ptq_dynamic": PTQDynamic(),
    "ptq_float16": PTQFloat16(),
    "ptq_int8": PTQInt8(calibration_samples=20),
    "ptq_int8 with int8 interface": PTQInt8(calibration_samples=20, interface="int8"),
    "ptq_int4": PTQInt4(),
    "ptq_int16x8": PTQInt16x8(calibration_samples=20),
    "qat": QAT(),
    "annotate": Annotate(),
}


@cache
def data() -> Dataset:
    return Mnist(train_samples=200, test_samples=100).load()


def calibration(count: int) -> Images:
    return data().calibration(min(count, 20), seed=0)


def converted(architecture: Architecture, strategy: Strategy) -> tuple[Any, TFLiteModel, tuple[Op, ...]]:
    """The Keras parent, the file and its ops, without training."""
    from experiments.tensorflow_quietly import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = architecture.build(data().input_shape, data().classes)
    strategy.promise(model)
    parent = strategy.prepare(model, Trained.untouched, calibration).model
    file = convert(parent, strategy.scheme, calibration)
    return parent, file, read_ops(file.content, [layer.name for layer in model.layers])


def types(ops: tuple[Op, ...]) -> list[str]:
    """Each op in a line: its name, layer and types."""
    return [f"{op.op} {op.layer} {op.input_type}/{op.weights_type or '-'}/{op.output_type}" for op in ops]


def integer_layers(ops: tuple[Op, ...]) -> set[str]:
    return {op.layer for op in ops if op.computes and op.arithmetic == "integer"}


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_ops_of_each_strategy_are_the_golden_ones(name: str) -> None:
    _, _, ops = converted(ArticleCNN(), STRATEGIES[name])
    assert types(ops) == GOLDEN[name]["ops"]


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_size_of_each_strategy_is_the_golden_one(name: str) -> None:
    _, file, _ = converted(ArticleCNN(), STRATEGIES[name])
    assert file.bytes == pytest.approx(GOLDEN[name]["bytes"], rel=0.005)


def test_conversion_gives_the_same_bytes_every_time() -> None:
    assert converted(ArticleCNN(), PTQInt8())[1].digest == converted(ArticleCNN(), PTQInt8())[1].digest


@pytest.mark.parametrize("architecture", [ArticleCNN(), MLP(), DSCNN(), ResNet8()], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("strategy", [PTQInt8(calibration_samples=20), QAT()], ids=lambda s: type(s).__name__)
def test_whole_model_quantization_leaves_nothing_in_float(architecture: Architecture, strategy: Strategy) -> None:
    _, _, ops = converted(architecture, strategy)
    assert arithmetic(ops) == f"{sum(op.computes for op in ops)} int8"
    assert coverage(ops).ops == coverage(ops).weights == coverage(ops).macs == 1


@pytest.mark.parametrize(
    ("architecture", "layers", "integer"),
    [
        (ArticleCNN(), ("Dense",), {"dense"}),  # behind Dropout and Flatten: stays float when annotated the usual way
        (ArticleCNN(), ("conv2d_2",), {"conv2d_2"}),  # behind Dropout
        (ArticleCNN(), ("first:1",), {"conv2d"}),
        (ArticleCNN(), ("last:2",), {"conv2d_2", "dense"}),
        (ArticleCNN(), ("conv.*",), {"conv2d", "conv2d_1", "conv2d_2"}),
        (MLP(), ("classifier",), {"classifier"}),
        (MLP(), ("dense_0",), {"dense_0"}),  # behind Flatten on the input
        (ResNet8(), ("Dense",), {"dense"}),
        (ResNet8(), ("conv_2a",), {"conv_2a"}),  # with its BatchNorm and ReLU, in a branch
        (DSCNN(), ("depthwise_0",), {"depthwise_0"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Architecture) else ",".join(sorted(value)),
)
def test_exactly_the_chosen_layers_run_in_integers(
    architecture: Architecture, layers: tuple[str, ...], integer: set[str]
) -> None:
    _, _, ops = converted(architecture, Annotate(layers=layers))
    assert integer_layers(ops) == integer


LAYERS = ("conv2d", "conv2d_1", "conv2d_2", "dense")
SUBSETS = [subset for size in range(1, 5) for subset in combinations(LAYERS, size)]


@pytest.mark.parametrize("chosen", SUBSETS, ids=",".join)
def test_every_subset_of_the_article_s_layers_is_exact(chosen: tuple[str, ...]) -> None:
    _, file, ops = converted(ArticleCNN(), Annotate(layers=chosen))
    assert integer_layers(ops) == set(chosen)
    assert tflite_logits(file, data().test.x[:5]).shape == (5, 10)  # the edited file still runs


RESIDUAL = ("stem", "conv_0a", "conv_0b", "add_0", "conv_1a", "conv_1b", "shortcut_1", "add_1", "conv_2a", "dense")


@pytest.mark.parametrize("seed", range(4))
def test_random_subsets_of_a_residual_network_are_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = tuple(str(name) for name in rng.choice(RESIDUAL, rng.integers(2, 8), replace=False))
    _, _, ops = converted(ResNet8(), Annotate(layers=chosen))
    assert integer_layers(ops) == set(chosen)


def test_annotation_leaves_the_baseline_as_it_is() -> None:
    model = ArticleCNN().build(data().input_shape, data().classes)
    before = keras_logits(model, data().test.x)
    Annotate().prepare(model, Trained.untouched, calibration)
    assert np.array_equal(keras_logits(model, data().test.x), before)


def test_a_pattern_that_matches_nothing_is_found_before_training() -> None:
    model = ArticleCNN().build(data().input_shape, data().classes)
    with pytest.raises(UserError, match=r"'LSTM' chooses no layer"):
        Annotate(layers=("LSTM",)).promise(model)


def test_layers_that_cannot_be_trained_quantization_aware_are_all_named() -> None:
    from experiments.tensorflow_quietly import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            layers.InputLayer((28, 28, 1)),
            layers.Conv2D(4, 3, activation="elu", name="odd"),
            layers.BatchNormalization(name="alone"),
            layers.Flatten(),
            layers.LayerNormalization(name="norm"),
            layers.Dense(10, name="dense"),
        ]
    )
    with pytest.raises(UserError, match=r"odd \(.*elu.*alone \(.*norm \(.*strategy\.layers=\[dense\]"):
        QAT().promise(model)


def test_batchnorm_behind_a_dense_layer_is_refused_since_the_converter_would_leave_it_float() -> None:
    from experiments.tensorflow_quietly import keras

    layers = keras.layers
    head = [
        layers.Dense(8, name="d0"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(),
        layers.Dense(10, name="d1"),
    ]
    model = keras.Sequential([layers.InputLayer((28, 28, 1)), layers.Flatten(), *head])
    with pytest.raises(UserError, match=r"bn \(BatchNormalization that.*strategy\.layers=\[d1\]"):
        Annotate(layers=("d0",)).promise(model)


def test_a_chosen_layer_that_stays_float_all_the_same_is_found_in_the_file() -> None:
    import tensorflow_model_optimization as tfmot

    from experiments.tensorflow_quietly import keras

    layers = keras.layers
    head = [layers.Dense(8, name="d0"), layers.BatchNormalization(), layers.ReLU(), layers.Dense(10, name="d1")]
    model = keras.Sequential([layers.InputLayer((28, 28, 1)), layers.Flatten(), *head])
    with pytest.raises(UserError, match="left layers in float that were to be quantized: batch_normalization"):
        convert(tfmot.quantization.keras.quantize_model(model), Learned(), partial(data().calibration, seed=0))


# Ranges that are learned need training: test_pipeline has those.
@pytest.mark.parametrize("name", [name for name, strategy in STRATEGIES.items() if not strategy.needs_epochs])
def test_the_file_answers_as_its_keras_parent_does(name: str) -> None:
    parent, file, _ = converted(ArticleCNN(), STRATEGIES[name])
    images = data().test.x
    agreement = (keras_logits(parent, images).argmax(1) == tflite_logits(file, images).argmax(1)).mean()
    assert agreement >= (1.0 if name in ("none", "finetune", "ptq_float16") else 0.9)


def test_one_image_a_call_on_all_cores_gives_the_answers_of_the_plain_loop() -> None:
    from ai_edge_litert.interpreter import Interpreter

    _, file, _ = converted(ArticleCNN(), Nothing())
    interpreter = Interpreter(model_content=file.content, num_threads=1)
    interpreter.allocate_tensors()
    plain = []
    for image in data().test.x:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
        interpreter.invoke()
        plain.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    assert np.array_equal(tflite_logits(file, data().test.x), np.stack(plain))
