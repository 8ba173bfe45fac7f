"""Model files of Keras 3 from strangers: what they name is checked before Keras sees them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.model.inspection import inspect
from experiments.model.keras3 import known_names
from experiments.model.keras_file import KerasFile
from experiments.system.errors import UserError
from tests.hostile import attacks, dense, layer, model, save

VERSION = "3.15.1"
ENDINGS = (".keras", ".h5")
ROUTES = attacks(Path("mark"))
OWN = "mine>Scale"


def named(kind: str, home: str | None, registered: str | None = None, /, **config: Any) -> dict[str, Any]:
    """Return an object as Keras 3 writes it."""
    return {"class_name": kind, "module": home, "registered_name": registered, "config": config}


def modern(*layers: dict[str, Any], args: list[Any] | None = None) -> dict[str, Any]:
    """Return a functional model in the format of Keras 3; the last layer is called with `args`."""
    first = named("InputLayer", "keras.layers", batch_shape=[None, 4], dtype="float32", name="in")
    whole, before = [{**first, "name": "in", "inbound_nodes": []}], "in"
    for each in layers:
        tensor = {
            "class_name": "__keras_tensor__",
            "config": {"shape": [None, 4], "dtype": "float32", "keras_history": [before, 0, 0]},
        }
        called = args if args is not None and each is layers[-1] else [tensor]
        before = each["config"]["name"]
        whole.append({**each, "name": before, "inbound_nodes": [{"args": called, "kwargs": {}}]})
    ends: dict[str, Any] = {"input_layers": [["in", 0, 0]], "output_layers": [[before, 0, 0]]}
    return named(
        "Functional", "keras.src.models.functional", "Functional", name="m", trainable=True, layers=whole, **ends
    )


def hidden(mark: Path) -> dict[str, dict[str, Any]]:
    """Return attacks that only the format of Keras 3 knows; all would make the file `mark` if the file were loaded."""
    function = {"class_name": "function", "config": "get_file", "module": "keras.utils", "registered_name": "get_file"}
    lambda_ = {"class_name": "__lambda__", "config": {"value": ["4wAA", None, None]}}
    typespec: dict[str, Any] = {
        "class_name": "__typespec__",
        "spec_name": "X",
        "module": "evil",
        "config": [],
        "registered_name": None,
    }
    plain = {"name": "x", "units": 2}
    own = {"class_name": "TFSMLayer", "registered_name": OWN, "config": {"name": "x", "filepath": str(mark)}}
    return {
        "Lambda": modern(named("Lambda", "keras.layers", name="x", function=lambda_)),
        "Lambda by its module": modern(
            named("Lambda", "keras.src.layers.core.lambda_layer", "Lambda", name="x", function=lambda_)
        ),
        "SavedModel": modern(named("TFSMLayer", "keras.layers", name="x", filepath=str(mark))),
        "SavedModel by its module": modern(
            named("TFSMLayer", "keras.src.export.tfsm_layer", "TFSMLayer", name="x", filepath=str(mark))
        ),
        "SavedModel behind a name of the user's own": {**modern(own)},
        "loading of another file": modern(named("load_model", "keras.saving", name="x", filepath=str(mark))),
        "download": modern(named("Dense", "keras.layers", **plain, activation=function)),
        "pickled code of JAX": modern(named("JaxLayer", "keras.layers", name="x", call_fn=lambda_)),
        "code of Flax": modern(named("FlaxLayer", "keras.layers", name="x", module=lambda_)),
        "pickled code of PyTorch": modern(named("TorchModuleWrapper", "keras.layers", name="x", module="gASV")),
        "feature space": modern(named("FeatureSpace", "keras.utils", name="x")),
        "operation that calls a function": modern(
            named("VectorizedMap", "keras.src.ops.core", "VectorizedMap", name="x", function=function)
        ),
        "operation with a loop": modern(named("WhileLoop", "keras.src.ops.core", "WhileLoop", name="x")),
        "operation of another module": modern(named("Add", "evil", "Add", name="x")),
        "argument of a call": modern(named("Dense", "keras.layers", **plain), args=[lambda_]),
        "type in a call": modern(named("Dense", "keras.layers", **plain), args=[typespec]),
        "slice in a call": modern(
            named("GetItem", "keras.src.ops.numpy", "GetItem", name="x"),
            args=[{"class_name": "__slice__", "config": {"start": lambda_, "stop": None, "step": None}}],
        ),
        "class of any package": modern(named("X", "evil", "X", name="x")),
        "class of any module of Keras": modern(named("Trainer", "keras.src.trainers.trainer", "Trainer", name="x")),
        "dtype": modern(named("Dense", "keras.layers", **plain, dtype=named("X", "evil"))),
        "quantizer": modern(named("Dense", "keras.layers", **plain, quantization_config=named("X", "evil"))),
        "vocabulary": modern(named("StringLookup", "keras.layers", name="x", vocabulary="/etc/passwd")),
        "optimizer of a nested model": modern(
            {
                **modern(named("Dense", "keras.layers", **plain)),
                "compile_config": {"optimizer": named("X", "evil")},
            }
        ),
        "initializer within a wrapper": modern(
            named(
                "TimeDistributed",
                "keras.layers",
                name="x",
                layer=named("Dense", "keras.layers", **plain, kernel_initializer=named("X", "evil")),
            )
        ),
        "activation by a text": modern(named("Dense", "keras.layers", **plain, activation="deserialize")),
    }


HIDDEN = hidden(Path("mark"))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("route", [*ROUTES, *HIDDEN])
def test_a_file_that_names_code_is_refused(tmp_path: Path, route: str, ending: str) -> None:
    config = ROUTES[route][0] if route in ROUTES else HIDDEN[route]
    with pytest.raises(UserError, match=r"model\.path="):
        KerasFile(path=save(config, tmp_path / f"model{ending}", VERSION)).check()
    with pytest.raises(UserError, match=r"model\.path="):
        inspect(tmp_path / f"model{ending}", provided=[OWN], version=3)


def test_a_registered_name_does_not_hide_the_class_that_older_formats_take(tmp_path: Path) -> None:
    own = {"class_name": "TFSMLayer", "registered_name": "Custom>CustomScaleLayer", "config": {"name": "x"}}
    with pytest.raises(UserError, match="TFSMLayer"):
        inspect(save(model(own), tmp_path / "model.h5"), version=2)


@pytest.mark.parametrize(
    ("name", "module", "told"),
    [
        ("Lambda", "keras.layers", "a Lambda layer contains Python code.*model.trust=true to run the code"),
        ("JaxLayer", "keras.layers", "JaxLayer.*computes with another backend of Keras.*Rebuild this part"),
        ("TorchModuleWrapper", "keras.layers", "another backend of Keras.*functions of keras.ops"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(tmp_path: Path, name: str, module: str, told: str) -> None:
    path = save(modern(named(name, module, name="x")), tmp_path / "model.keras", VERSION)
    with pytest.raises(UserError, match=told):
        KerasFile(path=path).check()


def test_a_model_that_keras_has_quantized_is_refused(tmp_path: Path) -> None:
    policy = named("QuantizedDTypePolicy", "keras.dtype_policies", mode="int8", source_name="float32")
    path = save(modern(named("Dense", "keras.layers", name="x", dtype=policy)), tmp_path / "model.keras", VERSION)
    with pytest.raises(
        UserError, match=r"QuantizedDTypePolicy \(the model is quantized already\).*before model\.quant"
    ):
        KerasFile(path=path).check()


def test_operations_in_an_h5_file_which_keras_cannot_load_are_named_with_the_way_out(tmp_path: Path) -> None:
    path = save(model(layer("Relu", name="relu")), tmp_path / "model.h5", VERSION)
    with pytest.raises(UserError, match=r"Relu in layer 'model/relu'\. Keras loads operations .*'my\.keras'"):
        KerasFile(path=path).check()


def test_a_trusted_file_is_accepted(tmp_path: Path) -> None:
    inspect(save(HIDDEN["Lambda"], tmp_path / "model.keras", VERSION), trust=True, version=3)


ALL_CLASSES = sorted({(module, name) for module, names in known_names.NAMES.classes.items() for name in names})
WORDS = st.one_of(
    st.sampled_from(sorted({part for pair in ALL_CLASSES for part in pair} | {"os", "system", "evil", "keras.utils"})),
    st.text(max_size=12),
)


@settings(deadline=None, max_examples=300)
@given(module=st.one_of(st.none(), WORDS), name=WORDS, registered=st.one_of(st.none(), WORDS))
def test_only_names_on_the_list_pass_whatever_is_combined(
    tmp_path_factory: pytest.TempPathFactory, module: str | None, name: str, registered: str | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "model.keras"
    config = modern(named("Dense", "keras.layers", name="x", inner=named(name, module, registered)))
    on_the_list = (
        name in known_names.NAMES.classes_without_module if module is None else (module, name) in ALL_CLASSES
    ) and registered in (None, name)
    try:
        inspect(save(config, path, VERSION), version=3)
    except UserError:
        assert not on_the_list
    else:
        assert on_the_list or name in ("__tuple__",)


@pytest.mark.tensorflow
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("route", [*ROUTES, *HIDDEN])
def test_nothing_is_run_when_such_a_file_is_loaded(
    tmp_path: Path, route: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')")  # as beside a file that was downloaded
    monkeypatch.syspath_prepend(str(tmp_path))
    config = attacks(mark)[route][0] if route in ROUTES else hidden(mark)[route]
    with pytest.raises(UserError):
        KerasFile(path=save(config, tmp_path / f"model{ending}", VERSION)).build((4,), 2)
    assert not mark.exists()


@pytest.mark.tensorflow
def test_every_class_on_the_list_is_one_of_keras_that_computes() -> None:
    import importlib

    from keras.src.api_export import get_symbol_from_name
    from keras.src.saving.keras_saveable import KerasSaveable

    from experiments.system.tensorflow import keras_3

    keras = keras_3()
    kinds = (
        keras.layers.Layer, keras.Operation, keras.initializers.Initializer, keras.regularizers.Regularizer,
        keras.constraints.Constraint, keras.losses.Loss, keras.metrics.Metric, keras.optimizers.Optimizer,
        keras.optimizers.schedules.LearningRateSchedule, keras.dtype_policies.DTypePolicy,
        keras.dtype_policies.DTypePolicyMap, keras.quantizers.Quantizer, keras.random.SeedGenerator,
    )  # fmt: skip
    for module, name in ALL_CLASSES:
        found = get_symbol_from_name(f"{module}.{name}")
        if found is None and module.startswith("keras.src."):
            found = vars(importlib.import_module(module)).get(name)
            assert found is None or issubclass(found, KerasSaveable), (module, name)
        if isinstance(found, type):
            assert issubclass(found, kinds) and found.__module__.startswith("keras."), (module, name)
            assert name not in {"Lambda", "TFSMLayer", "FeatureSpace", "JaxLayer", "FlaxLayer", "TorchModuleWrapper"}


COMMON = """Activation(activation="relu6") ActivityRegularization(0.1) AlphaDropout(0.1) BatchNormalization()
Dense(3,activation="gelu",kernel_regularizer="l2",bias_constraint="non_neg") Dense(3,activation="hard_swish")
Dense(3,activation=k.LeakyReLU(0.1)) Dropout(0.1) ELU() Flatten() GaussianDropout(0.1) GaussianNoise(0.1) Identity()
LayerNormalization() LeakyReLU() PReLU() ReLU(6.0) Softmax() UnitNormalization() Rescaling(2.0)
Normalization(mean=0.0,variance=1.0) CategoryEncoding(4) Discretization([0.5]) IntegerLookup(vocabulary=[1,2])
EinsumDense("ab,bc->ac",3) RMSNormalization() SpectralNormalization(k.Dense(2))"""
IMAGES = """Conv2D(3,3,kernel_initializer="he_normal") SeparableConv2D(3,3) DepthwiseConv2D(3) Conv2DTranspose(3,3)
MaxPooling2D() AveragePooling2D(2) GlobalAveragePooling2D() GlobalMaxPooling2D() UpSampling2D() ZeroPadding2D()
Cropping2D() SpatialDropout2D(0.1) Resizing(4,4) CenterCrop(4,4) RandomFlip() RandomRotation(0.1) RandomZoom(0.1)
RandomContrast(0.1) RandomTranslation(0.1,0.1) Permute((2,1,3)) Reshape((64,3))
GroupNormalization(3) AdaptiveAveragePooling2D(2) RandomErasing() RandomGrayscale() RandomShear()"""
SERIES = """LSTM(3) GRU(3) SimpleRNN(3) Bidirectional(k.LSTM(3)) RNN(k.StackedRNNCells([k.GRUCell(2),k.LSTMCell(2)]))
TimeDistributed(k.Dense(3)) Conv1D(3,3) Masking()"""
SHAPES = [(COMMON, (4,)), (IMAGES, (8, 8, 3)), (SERIES, (6, 3))]


@pytest.mark.tensorflow
@pytest.mark.parametrize(("made", "shape"), [(each, shape) for text, shape in SHAPES for each in text.split()], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_common_layers_pass(tmp_path: Path, made: str, shape: tuple[int, ...]) -> None:
    from experiments.system.tensorflow import keras_3

    keras = keras_3()
    net = keras.Sequential([keras.Input(shape), eval(f"k.{made}", {"k": keras.layers})])  # the text above
    net.compile("adam", "mse", metrics=["accuracy"])
    for ending in ENDINGS:
        net.save(tmp_path / f"model{ending}")
        inspect(tmp_path / f"model{ending}", version=3)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_operations_on_tensors_pass(tmp_path: Path) -> None:
    from experiments.system.tensorflow import keras_3

    keras, ops = keras_3(), keras_3().ops
    x = inputs = keras.Input((8, 8, 3))
    x = ops.relu6(x * 2 + 1) / 3 - ops.mean(x, [1, 2], keepdims=True)
    x = ops.concatenate([x[:, 1:], ops.transpose(x, (0, 2, 1, 3))[:, :1]], axis=1)
    x = ops.image.resize(ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), (4, 4))
    x = keras.layers.Multiply()([x, keras.activations.gelu(ops.clip(x, 0.0, 1.0))])
    x = keras.layers.MultiHeadAttention(2, 2)(x, x) ** 2
    x = ops.einsum("abcd->abdc", x)
    inner = keras.Sequential([keras.layers.Dense(2, activation=keras.layers.LeakyReLU())], name="inner")
    inner.compile(keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)), "mse")
    keras.Model(inputs, inner(ops.reshape(x, (-1, 48)))).save(tmp_path / "model.keras")
    inspect(tmp_path / "model.keras", version=3)


@pytest.mark.tensorflow
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.filterwarnings("ignore")
def test_a_model_of_mixed_precision_passes(tmp_path: Path, precision: str) -> None:
    from experiments.system.tensorflow import keras_3

    keras = keras_3()
    layer = keras.layers.Dense(2, dtype=keras.mixed_precision.DTypePolicy(precision))
    net = keras.Sequential([keras.Input((4,)), layer])
    net.compile(keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam()), "mse")
    for ending in ENDINGS:
        net.save(tmp_path / f"model{ending}")
        inspect(tmp_path / f"model{ending}", version=3)


# These have all classes of layers of the others but cropping, separable convolutions and CustomScaleLayer, and those
# of their own.
NETS = "MobileNetV3Small EfficientNetB0 ConvNeXtTiny"
SIMILAR = """MobileNet MobileNetV2 MobileNetV3Large EfficientNetV2B0 ResNet50 ResNet50V2 DenseNet121 InceptionV3
InceptionResNetV2 NASNetMobile VGG16 Xception"""


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "name", [*NETS.split(), *(pytest.param(each, marks=pytest.mark.nightly) for each in SIMILAR.split())]
)
@pytest.mark.filterwarnings("ignore")
def test_the_networks_of_keras_applications_pass(tmp_path: Path, name: str) -> None:
    from experiments.system.tensorflow import keras_3

    assert_both_formats_pass(tmp_path, getattr(keras_3().applications, name)(weights=None))
    keras_3().backend.clear_session()


def assert_both_formats_pass(folder: Path, net: Any) -> None:
    """The configurations of a network only: the weights would take gigabytes."""
    inspect(save(net.to_json(), folder / "model.keras", VERSION), version=3)
    older = {"class_name": "Functional", "config": json.loads(net.to_json())["config"]}
    inspect(save(older, folder / "model.h5", VERSION), version=3)


@pytest.mark.tensorflow
def test_the_layer_that_inception_resnet_alone_has_passes(tmp_path: Path) -> None:
    """The network itself has 780 layers."""
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    from experiments.system.tensorflow import keras_3

    image = keras_3().Input((8, 8, 3))
    scaled = CustomScaleLayer(0.1)([image, keras_3().layers.ReLU()(image)])
    assert_both_formats_pass(tmp_path, keras_3().Model(image, scaled))


@pytest.mark.parametrize("ending", ENDINGS)
def test_plain_layers_pass(tmp_path: Path, ending: str) -> None:
    inspect(save(model(dense()), tmp_path / f"model{ending}", VERSION), version=3)
    inspect(save(modern(named("Dense", "keras.layers", name="x")), tmp_path / f"model{ending}", VERSION), version=3)
