"""What becomes of a model under each strategy, read from the TFLite file. No training: only the structure counts."""

import json
from collections.abc import Callable
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.dataset import Dataset, Images
from experiments.dataset.mnist import Mnist
from experiments.measure.accuracy import keras_logits, tflite_logits, traced
from experiments.model import Architecture
from experiments.model.article_cnn import ArticleCNN
from experiments.model.ds_cnn import DSCNN
from experiments.model.mlp import MLP
from experiments.model.resnet8 import ResNet8
from experiments.runs.result_cache import ResultCache
from experiments.strategy import Strategy
from experiments.strategy.annotate import Annotate
from experiments.strategy.cluster import Cluster
from experiments.strategy.cluster_qat import ClusterQAT
from experiments.strategy.finetune import Finetune
from experiments.strategy.finetune_ptq_int8 import FinetunePTQInt8
from experiments.strategy.none import Nothing
from experiments.strategy.post_training import PTQDynamic, PTQFloat16, PTQInt4, PTQInt4Int8, PTQInt8, PTQInt16x8
from experiments.strategy.prune import Prune
from experiments.strategy.prune_cluster_qat import PruneClusterQAT
from experiments.strategy.prune_qat import PruneQAT
from experiments.strategy.qat import QAT
from experiments.system.cache import Cache
from experiments.system.errors import UserError
from experiments.tflite.conversion import TFLiteModel, _Traced, _traced, convert
from experiments.tflite.expectation import broken
from experiments.tflite.flatbuffer import packed, parsed, with_buffers_inside
from experiments.tflite.graph import Op, arithmetic, coverage, read_ops
from experiments.tflite.schemes import Float32, Int8, Rest
from experiments.tflite.selective import OpKey, float_constants
from experiments.training.loop import Trained

pytestmark = pytest.mark.tensorflow

GOLDEN = json.loads((Path(__file__).parent / "golden" / "strategies.json").read_text())
STRATEGIES: dict[str, Strategy] = {
    "none": Nothing(),
    "finetune": Finetune(),
    "finetune_ptq_int8": FinetunePTQInt8(calibration_samples=20),
    "ptq_dynamic": PTQDynamic(),
    "ptq_float16": PTQFloat16(),
    "ptq_int8": PTQInt8(calibration_samples=20),
    "ptq_int8 with int8 interface": PTQInt8(calibration_samples=20, interface="int8"),
    "ptq_int4": PTQInt4(),
    "ptq_int16x8": PTQInt16x8(calibration_samples=20),
    "ptq_int8 with clipped weights": PTQInt8(calibration_samples=20, weight_ranges="octav"),
    "ptq_int8 with a scale for each tensor": PTQInt8(calibration_samples=20, weight_scales="tensor", interface="int8"),
    "ptq_int8 with uint8 interface": PTQInt8(calibration_samples=20, interface="uint8"),
    "ptq_int4_int8": PTQInt4Int8(calibration_samples=20),
    "ptq_int4_int8 of one layer": PTQInt4Int8(calibration_samples=20, layers=("conv2d_1",)),
    "ptq_int16x8 of one layer": PTQInt16x8(calibration_samples=20, layers=("dense",)),
    "qat": QAT(),
    "annotate": Annotate(),
    "prune": Prune(),
    "cluster": Cluster(),
    "prune_qat": PruneQAT(),
    "cluster_qat": ClusterQAT(),
    "prune_cluster_qat": PruneClusterQAT(),
}


@cache
def data() -> Dataset:
    return Mnist(train_samples=200, test_samples=100).load()


def calibration(count: int) -> Images:
    return data().calibration(min(count, 20), seed=0)[:]


def built(architecture: Architecture) -> Any:
    """The untrained model."""
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return architecture.build(data().input_shape, data().classes)


@cache
def converted(architecture: Architecture, strategy: Strategy) -> tuple[Any, TFLiteModel, tuple[Op, ...]]:
    """The Keras parent, the file and its ops, without training; made once for all tests."""
    return made_of(built(architecture), strategy)


def made_of(model: Any, strategy: Strategy) -> tuple[Any, TFLiteModel, tuple[Op, ...]]:
    """The same of a model that is there."""
    parent = strategy.prepare(model, Trained.untouched, calibration).model
    file = convert(parent, strategy.scheme(model), calibration)
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
    first, second = (made_of(built(ArticleCNN()), PTQInt8())[1].digest for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["none", "ptq_int8", "annotate", "cluster_qat"])
def test_the_file_is_byte_for_byte_what_the_converter_makes_of_the_whole_model(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _, file, _ = converted(ArticleCNN(), STRATEGIES[name])
    monkeypatch.setattr("experiments.tflite.conversion._traced", lambda model: _Traced(model, model))
    assert file == made_of(built(ArticleCNN()), STRATEGIES[name])[1]


def test_a_model_is_converted_once_for_its_float_file_and_its_int8_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    traced_models: list[Any] = []

    def counted(model: Any) -> _Traced:
        traced_models.append(model)
        return _traced(model)

    monkeypatch.setattr("experiments.tflite.conversion._traced", counted)
    results, model = ResultCache(Cache(dir=tmp_path), data(), seed=0, threads=1), built(MLP())
    int8, in_float = results.convert(model, Int8(4)), results.convert(model, Float32())
    assert traced_models == [model]
    assert (int8, in_float) == (convert(model, Int8(4), results.calibration), convert(model, Float32(), calibration))


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
        # What these choose is in test_selection.py as well, and what comes of such layers below.
        pytest.param(ArticleCNN(), ("first:1",), {"conv2d"}, marks=pytest.mark.nightly),
        pytest.param(ArticleCNN(), ("conv.*",), {"conv2d", "conv2d_1", "conv2d_2"}, marks=pytest.mark.nightly),
        (ArticleCNN(), ("last:2",), {"conv2d_2", "dense"}),
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


CHOOSING: dict[str, Callable[..., Strategy]] = {
    "annotate": Annotate,
    "ptq_int8": partial(PTQInt8, calibration_samples=20),
}


def assert_exact(architecture: Architecture, strategy: str, chosen: tuple[str, ...]) -> None:
    """Exactly the chosen layers run in integers, nothing is converted in vain, and the edited file still runs."""
    choice = CHOOSING[strategy](layers=chosen)
    _, file, ops = converted(architecture, choice)
    assert integer_layers(ops) == set(chosen)
    assert broken(choice.expectation(built(architecture)), ops) == ()
    assert np.isfinite(tflite_logits(file, data().test.x[:5])).all()


# The other pairs and triples of layers are tried every night. After training all of them are: the same code leaves each
# layer in float. These spare a layer between two chosen ones.
GAPS = [("conv2d", "conv2d_2"), ("conv2d_1", "dense"), ("conv2d", "conv2d_2", "dense")]
EVERY_SUBSET = [
    pytest.param(strategy, subset, id=f"{strategy}-{','.join(subset)}",
                 marks=() if len(subset) in (1, 4) or (strategy == "annotate" and subset in GAPS)
                 else pytest.mark.nightly)
    for strategy in CHOOSING
    for subset in SUBSETS
]  # fmt: skip


@pytest.mark.parametrize(("strategy", "chosen"), EVERY_SUBSET)
def test_every_subset_of_the_article_s_layers_is_exact(strategy: str, chosen: tuple[str, ...]) -> None:
    assert_exact(ArticleCNN(), strategy, chosen)


# What can be chosen one by one; each stands for its group with BatchNorm and activation.
CHOICES: dict[str, tuple[Architecture, tuple[str, ...]]] = {
    "ds_cnn": (
        DSCNN(filters=8),
        ("stem", *(f"{kind}_{i}" for i in range(4) for kind in ("depthwise", "pointwise")), "pool", "dense"),
    ),
    "resnet8": (
        ResNet8(),
        ("stem", "conv_0a", "conv_0b", "add_0", "conv_1a", "conv_1b", "shortcut_1", "add_1",
         "conv_2a", "conv_2b", "shortcut_2", "add_2", "pool", "dense"),
    ),
}  # fmt: skip


# Seeds of every night, and how many of them there is time for at each change.
SEEDS = {"annotate": (20, 1), "ptq_int8": (5, 1)}
DRAWN = [
    pytest.param(strategy, seed, marks=[] if seed < usual else pytest.mark.nightly)
    for strategy, (all_of_them, usual) in SEEDS.items()
    for seed in range(all_of_them)
]


@pytest.mark.parametrize(("strategy", "seed"), DRAWN)
@pytest.mark.parametrize("name", CHOICES)
def test_random_subsets_of_networks_with_branches_and_batchnorm_are_exact(name: str, strategy: str, seed: int) -> None:
    architecture, layers = CHOICES[name]
    rng = np.random.default_rng(seed)
    chosen = tuple(str(layer) for layer in rng.choice(layers, rng.integers(1, len(layers)), replace=False))
    assert_exact(architecture, strategy, chosen)


@pytest.mark.parametrize("architecture", [ArticleCNN(), DSCNN(), ResNet8()], ids=lambda a: type(a).__name__)
def test_with_every_layer_restored_to_float_the_outputs_are_bit_identical_to_those_of_the_float_file(
    architecture: Architecture,
) -> None:
    model, in_float, _ = converted(architecture, Nothing())
    file = convert(model, Int8(20, layers=()), calibration)
    assert np.array_equal(tflite_logits(file, data().test.x), tflite_logits(in_float, data().test.x))


@pytest.mark.parametrize("chosen", LAYERS)
def test_everything_but_the_chosen_layer_is_as_in_the_float_file(chosen: str) -> None:
    def others(strategy: Strategy) -> dict[OpKey, list[list[tuple[int, ...] | None]]]:
        _, file, ops = converted(ArticleCNN(), strategy)
        held = float_constants(file.content, [op for op in ops if op.computes and op.layer != chosen])
        return {
            key: [[None if content is None else tuple(content) for content in inputs] for inputs in alike]
            for key, alike in held.items()
        }

    assert others(PTQInt8(calibration_samples=20, layers=(chosen,))) == others(Nothing())


def test_a_convolution_in_three_dimensions_takes_one_filter_for_each_value() -> None:
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    layers = [keras.Input((6, 6, 6, 1)), keras.layers.Conv3D(8, 3, name="conv3d"), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(4, name="dense")])
    ops = read_ops(convert(model, Float32(), calibration).content, ["conv3d", "dense"])
    (conv,) = [op for op in ops if op.op == "CONV_3D"]
    assert (conv.weights, conv.macs) == (27 * 8, 4**3 * 8 * 27)


def twice_the_same_convolution() -> Any:
    """A model in a model: both convolutions of the inner one are of one layer, and their kernels have one shape."""
    from experiments.system.tensorflow import keras

    inner = keras.Sequential([keras.layers.Conv2D(4, 3, padding="same", name=f"conv_{n}") for n in "ab"], name="inner")
    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Conv2D(4, 3, padding="same", name="outer"), inner,
                             keras.layers.Flatten(), keras.layers.Dense(10, name="dense")])  # fmt: skip


def test_ops_of_one_kind_in_a_layer_get_back_their_own_constants() -> None:
    model = twice_the_same_convolution()
    in_float = convert(model, Float32(), calibration)
    file = convert(model, Int8(20, layers=()), calibration)
    assert np.array_equal(tflite_logits(file, data().test.x), tflite_logits(in_float, data().test.x))


def default_names() -> Any:
    """A model of a user who names no layer: Keras calls the first Add `add`, as every Add calls its own op."""
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    images = keras.Input((28, 28, 1))
    first = layers.Conv2D(4, 3, padding="same")(images)
    second = layers.Add()([first, layers.SeparableConv2D(4, 3, padding="same")(first)])
    third = layers.Add()([second, layers.SeparableConv2D(4, 3, padding="same")(second)])
    pooled = layers.GlobalAveragePooling2D()(third)
    return keras.Model(images, layers.Dense(10, activation="softmax", name="block/dense")(pooled))


# The second of each pair has the name that may be taken for another's. Both strategies read layers' names alike.
@pytest.mark.parametrize(
    ("strategy", "chosen"),
    [
        pytest.param(strategy, chosen, id=f"{strategy}-{','.join(chosen)}",
                     marks=() if strategy == "ptq_int8" or chosen in usual else pytest.mark.nightly)
        for usual in ((("add_1",), ("separable_conv2d_1",), ("block/dense",)),)
        for strategy in CHOOSING
        for chosen in (("add",), ("separable_conv2d",), ("conv2d", "add_1"), *usual)
    ],
)  # fmt: skip
def test_layers_of_default_names_are_distinguished(strategy: str, chosen: tuple[str, ...]) -> None:
    choice, model = CHOOSING[strategy](layers=chosen), default_names()
    _, _, ops = made_of(model, choice)
    assert broken(choice.expectation(model), ops) == ()
    assert integer_layers(ops) == set(chosen)


def ending_in(last: str) -> Any:
    """A model whose last op has no kernel, and so no name but that of the model's output."""
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    layers = keras.layers
    body = [keras.Input((28, 28, 1)), layers.Conv2D(10, 3), layers.GlobalAveragePooling2D()]
    ends = {"Softmax": [layers.Softmax()], "softmax": [layers.Dense(10, activation="softmax")]}
    return keras.Sequential([*body, *ends.get(last, [])])


@pytest.mark.parametrize("last", ["GlobalAveragePooling2D", "Softmax", "softmax"])
def test_the_op_that_makes_the_output_is_of_the_last_layer(last: str) -> None:
    model = ending_in(last)
    for scheme in (Float32(), Int8(20)):
        ops = read_ops(convert(model, scheme, calibration).content, [layer.name for layer in model.layers])
        assert [op.layer for op in ops if op.computes][-1] == model.layers[-1].name


@pytest.mark.parametrize("last", ["GlobalAveragePooling2D", "Softmax", "softmax"])
@pytest.mark.parametrize("strategy", CHOOSING)
def test_a_convolution_alone_is_chosen_whatever_the_model_ends_in(strategy: str, last: str) -> None:
    choice, model = CHOOSING[strategy](layers=("conv2d",)), ending_in(last)
    _, _, ops = made_of(model, choice)
    assert broken(choice.expectation(model), ops) == ()


# What is done with the rest does not depend on what is chosen: each is tried with two choices at each change.
@pytest.mark.parametrize(
    ("chosen", "rest"),
    [
        pytest.param(chosen, rest, id=f"{','.join(chosen)}-{rest}", marks=() if rest in usual else pytest.mark.nightly)
        for chosen, usual in (
            (("dense",), ("dynamic",)),
            (("conv2d_1", "dense"), ("float16",)),
            (("conv2d", "conv2d_2"), ("dynamic", "float16")),
        )
        for rest in ("dynamic", "float16")
    ],
)
def test_the_rest_has_smaller_weights_and_the_chosen_layers_stay_exact(chosen: tuple[str, ...], rest: Rest) -> None:
    strategy = Annotate(layers=chosen, rest=rest)
    _, file, ops = converted(ArticleCNN(), strategy)
    assert broken(strategy.expectation(built(ArticleCNN())), ops) == ()
    assert np.isfinite(tflite_logits(file, data().test.x[:5])).all()


def test_annotating_dense_alone_with_a_dynamic_rest_is_as_small_as_the_whole_model() -> None:
    _, file, _ = converted(ArticleCNN(), Annotate(rest="dynamic"))
    assert file.bytes == pytest.approx(154_000, rel=0.005)


def test_annotation_leaves_the_baseline_as_it_is() -> None:
    model = ArticleCNN().build(data().input_shape, data().classes)
    before = keras_logits(model, data().test.x)
    Annotate().prepare(model, Trained.untouched, calibration)
    assert np.array_equal(keras_logits(model, data().test.x), before)


def test_a_keras_model_is_traced_once_for_several_forms_of_its_input() -> None:
    traces = []

    class Model:
        outputs = (np.zeros((1, 2), np.float32),)

        def __call__(self, images: Any, training: bool) -> Any:
            traces.append(training)
            return images

    answer = traced(Model())
    outputs = [answer(factor * np.ones((3, 2), np.float32)) for factor in (1, 2)]
    assert ([each.max() for each in outputs], traces) == ([1, 2], [False])


def test_a_pattern_that_matches_nothing_is_found_before_training() -> None:
    model = ArticleCNN().build(data().input_shape, data().classes)
    with pytest.raises(UserError, match=r"'LSTM' selects no layer"):
        Annotate(layers=("LSTM",)).expectation(model)


# Ranges that are learned need training: test_pipeline has those.
@pytest.mark.parametrize("name", [name for name, strategy in STRATEGIES.items() if not strategy.needs_epochs])
def test_the_file_has_the_outputs_of_its_keras_model(name: str) -> None:
    parent, file, _ = converted(ArticleCNN(), STRATEGIES[name])
    images = data().test.x
    agreement = (keras_logits(parent, images).argmax(1) == tflite_logits(file, images).argmax(1)).mean()
    least = 1.0 if name in ("none", "finetune", "ptq_float16") else 0.8 if "int4_int8" in name else 0.9
    assert agreement >= least  # of an untrained network, whose outputs lie close together


def test_parallel_evaluation_has_the_outputs_of_the_plain_loop() -> None:
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


def sequence_model(kind: str) -> Any:
    """A classifier of series: what Keras makes of the layer depends on the size of the batch."""
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    series = keras.Input((12, 6), name="series")
    match kind:
        case "LSTM" | "GRU" | "SimpleRNN":
            x = getattr(layers, kind)(4)(series)
        case "Bidirectional":
            x = layers.Bidirectional(layers.LSTM(4))(series)
        case "attention":
            x = layers.Flatten()(layers.MultiHeadAttention(2, 4)(series, series))
        case "dense":
            x = layers.Flatten()(layers.Dense(4, activation="relu")(series))
    return keras.Model(series, layers.Dense(3, name="head")(x))


SEQUENCES = ("LSTM", "GRU", "SimpleRNN", "Bidirectional", "attention", "dense")


@pytest.mark.parametrize("kind", SEQUENCES)
def test_a_layer_that_computes_with_its_batch_s_size_is_converted_for_a_batch_of_one(kind: str) -> None:
    model = sequence_model(kind)
    file = convert(model, Float32(), calibration)
    assert {op.op for op in read_ops(file.content, [])}.isdisjoint({"SHAPE", "PACK", "FILL"})
    series = np.random.default_rng(0).random((11, 12, 6)).astype(np.float32)
    assert np.allclose(tflite_logits(file, series), keras_logits(model, series), atol=1e-5)


@pytest.mark.parametrize("kind", ["GRU", "SimpleRNN"])
def test_a_loop_is_calibrated_step_by_step(kind: str) -> None:
    model = sequence_model(kind)
    series = np.random.default_rng(0).random((40, 12, 6)).astype(np.float32)
    file = convert(model, Int8(40), lambda count: series[:count])
    assert {"WHILE"}.isdisjoint(op.op for op in read_ops(file.content, []))
    steps = np.abs(tflite_logits(file, series) - keras_logits(model, series)) / np.ptp(keras_logits(model, series))
    assert steps.max() < 0.1


def test_an_op_that_tflite_lacks_is_named_with_its_layer_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    from experiments.system.tensorflow import keras, tf

    images = keras.Input((4, 4))
    model = keras.Model(images, tf.linalg.det(keras.layers.Reshape((4, 4))(images))[:, None])
    with pytest.raises(
        UserError, match=r"rejects the layer tf\.linalg\.det.* \(TFLite has no MatrixDet\w+\)"
    ) as refusal:
        convert(model, Float32(), calibration)
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr().err == ""
    assert "MatrixDeterminant" in "".join(getattr(refusal.value.__cause__, "__notes__", ()))


@pytest.mark.parametrize("architecture", [ArticleCNN(), MLP(), DSCNN(), ResNet8()], ids=lambda a: type(a).__name__)
def test_the_batch_stays_open_where_no_op_depends_on_its_size(architecture: Architecture) -> None:
    from ai_edge_litert.interpreter import Interpreter

    _, file, _ = converted(architecture, Nothing())
    (entry,) = Interpreter(model_content=file.content).get_input_details()
    assert entry["shape_signature"][0] == -1


@pytest.mark.parametrize("layer", ["conv2d", "conv2d_1", "dense"])
def test_one_layer_has_int4_weights_and_all_others_stay_float(layer: str) -> None:
    strategy = PTQInt4Int8(calibration_samples=20, layers=(layer,), rest="float")
    model, _, ops = converted(ArticleCNN(), strategy)
    assert {op.layer: op.types for op in ops if op.computes and op.types != "float32"} == {layer: "int8x4"}
    assert not broken(strategy.expectation(model), ops)


def test_weights_that_a_file_holds_behind_its_tables_are_read() -> None:
    _, file, ops = converted(ArticleCNN(), Nothing())
    model = parsed(file.content)
    outside = content_outside(model)
    assert [op.weights for op in read_ops(outside, ["dense"])] == [op.weights for op in ops]
    assert parsed(with_buffers_inside(outside)).buffers[-1].offset == 0


def content_outside(model: Any) -> bytes:
    """The file of an object with the content of every buffer behind the tables."""
    contents = [bytes(buffer.data) if buffer.data is not None else b"" for buffer in model.buffers]
    for buffer, content in zip(model.buffers, contents, strict=True):
        buffer.data, buffer.offset, buffer.size = None, 2 if content else 0, len(content)
    start = -(-len(packed(model)) // 16) * 16
    for buffer, content in zip(model.buffers, contents, strict=True):
        if content:
            buffer.offset, start = start, start + len(content)
    tables = packed(model)
    return b"".join([tables.ljust(-(-len(tables) // 16) * 16, b"\0"), *contents])


QUANTIZED_AFTERWARDS: dict[str, Callable[[], Any]] = {
    "branches": lambda: built(ResNet8()),
    "Keras 3": lambda: built(DSCNN(keras=3)),
    "nested": twice_the_same_convolution,
    "softmax": default_names,
    "attention": lambda: sequence_model("attention"),
}


# The interface is a change of the ends, and what ends a model is either a dense layer or a softmax.
@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        pytest.param(kind, scheme, marks=pytest.mark.nightly if kind not in usual else ())
        for scheme, usual in (
            (Int8(4), tuple(QUANTIZED_AFTERWARDS)), (Int8(4, interface="int8"), ("Keras 3", "softmax"))
        )
        for kind in QUANTIZED_AFTERWARDS
    ],
    ids=str,
)  # fmt: skip
def test_the_float_file_is_quantized_to_the_bytes_that_the_converter_makes_of_the_model(
    monkeypatch: pytest.MonkeyPatch, kind: str, scheme: Int8
) -> None:
    from experiments.system.tensorflow import tf

    model = QUANTIZED_AFTERWARDS[kind]()
    examples = np.random.default_rng(0).random((4, *model.input_shape[1:]), np.float32)
    file = convert(model, scheme, lambda count: examples[:count])
    monkeypatch.setattr(
        "experiments.system.tensorflow.converter_from_float",
        lambda content: tf.lite.TFLiteConverter.from_keras_model(_traced(model).module),
    )
    assert convert(model, scheme, lambda count: examples[:count]) == file
