"""Model files of strangers: what they name is looked at before Keras sees them."""

import json
import stat
import zipfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from experiments.model.inspection import inspect
from experiments.model.keras2 import known_names
from experiments.model.keras_file import KerasFile
from experiments.system.errors import UserError
from tests.hostile import attacks, break_member, dense, hdf5, layer, model, of_new_format, save, save_archive

ROUTES = attacks(Path("mark"))
ENDINGS = (".keras", ".h5")
PLAIN: dict[str | zipfile.ZipInfo, str | bytes] = {
    "metadata.json": '{"keras_version": "2.19.0"}',
    "config.json": json.dumps(model(dense())),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("route", ROUTES)
def test_a_file_that_names_code_is_refused_with_the_name(tmp_path: Path, route: str, ending: str) -> None:
    config, named = ROUTES[route]
    path = save(config, tmp_path / f"model{ending}")
    with pytest.raises(UserError, match=named):
        KerasFile(path=path).check()


@pytest.mark.parametrize("route", ROUTES)
def test_it_is_refused_with_a_module_beside_each_class_too(tmp_path: Path, route: str) -> None:
    config, named = ROUTES[route]
    path = save(of_new_format(config), tmp_path / "model.keras")
    with pytest.raises(UserError, match=named):
        KerasFile(path=path).check()


def test_a_refusal_names_the_layer_and_the_ways_out(tmp_path: Path) -> None:
    path = save(ROUTES["Lambda"][0], tmp_path / "model.h5")
    with pytest.raises(
        UserError, match=r"Lambda.*contains Python code.*'model/l'.*model\.module=FILE.*model\.trust=true"
    ):
        inspect(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_trusted_file_is_accepted(tmp_path: Path, ending: str) -> None:
    inspect(save(ROUTES["Lambda"][0], tmp_path / f"model{ending}"), trust=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_layers_of_keras_pass(tmp_path: Path, ending: str) -> None:
    inspect(save(model(dense(activation="relu", kernel_regularizer={"class_name": "L2", "config": {"l2": 0.1}})),
                 tmp_path / f"model{ending}"))  # fmt: skip


OWN = {"class_name": "Scale", "config": {"name": "scale", "factor_constraint": "whatever"}}
OWN_OF_A_MODULE = {**OWN, "module": "anything", "registered_name": "mine>Scale"}


@pytest.mark.parametrize(("layer", "name"), [(OWN, "Scale"), (OWN_OF_A_MODULE, "mine>Scale")])
def test_a_class_of_the_users_module_passes_by_its_name(tmp_path: Path, layer: dict[str, Any], name: str) -> None:
    path = save(model(layer), tmp_path / "model.keras")
    inspect(path, provided=[name])
    with pytest.raises(UserError, match="Scale"):
        inspect(path, provided=["other"])


def test_a_module_that_keras_would_import_is_refused_though_the_class_has_a_name_of_the_user_s_own(
    tmp_path: Path,
) -> None:
    layer = {**OWN, "module": "evil", "registered_name": "unknown"}
    with pytest.raises(UserError, match=r"evil\.Scale, registered as unknown"):
        inspect(save(model(layer), tmp_path / "model.keras"), provided=["Scale"])


def test_the_content_of_a_users_class_is_inspected(tmp_path: Path) -> None:
    layer = {**OWN, "config": {"name": "scale", "inner": {"class_name": "Lambda", "config": {"name": "l"}}}}
    with pytest.raises(UserError, match="Lambda"):
        inspect(save(model(layer), tmp_path / "model.h5"), provided=["Scale"])


def test_how_a_model_was_trained_may_name_anything_for_nothing_is_made_of_it(tmp_path: Path) -> None:
    loss = {"class_name": "function", "config": "my_loss", "module": "my_package", "registered_name": "my_loss"}
    inspect(save({**model(dense()), "compile_config": {"loss": loss}}, tmp_path / "model.keras"))
    inspect(save(model(dense()), tmp_path / "model.h5", training_config={"loss": loss}))


def test_an_archive_that_begins_like_hdf5_is_read_as_keras_reads_it(tmp_path: Path) -> None:
    path = save(ROUTES["Lambda"][0], tmp_path / "model.keras")
    path.write_bytes(save(model(dense()), tmp_path / "model.h5").read_bytes() + path.read_bytes())
    with pytest.raises(UserError, match="Lambda"):
        KerasFile(path=path).check()


def test_an_hdf5_file_that_ends_like_an_archive_is_read_as_keras_reads_it(tmp_path: Path) -> None:
    path = save(ROUTES["Lambda"][0], tmp_path / "model.h5")
    path.write_bytes(path.read_bytes() + save(model(dense()), tmp_path / "model.keras").read_bytes())
    with pytest.raises(UserError, match="Lambda"):
        KerasFile(path=path).check()


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    text = json.dumps(model(dense())).replace('"units": 2', '"units": {"class_name": "X"}, "units": 2')
    with pytest.raises(UserError, match="has a duplicate key"):
        inspect(save(text, tmp_path / "model.h5"))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "text", ["", "no configuration", "[]", "[" * 100_000, '{"a":' * 300 + "1" + "}" * 300, "\udcff"]
)
def test_a_configuration_that_is_none_is_damage(tmp_path: Path, text: str, ending: str) -> None:
    try:
        path = save(text, tmp_path / f"model{ending}")
    except UnicodeEncodeError:
        pytest.skip("cannot be written in this format")
    with pytest.raises(UserError, match=r"model\.path=.*(damaged|nested|not an object|configuration)"):
        inspect(path)


def _twice(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for text in (json.dumps(ROUTES["Lambda"][0]), json.dumps(model(dense()))):
            archive.writestr("config.json", text)
    save_again(path)


def save_again(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("metadata.json", PLAIN["metadata.json"])
        archive.writestr("model.weights.h5", hdf5(path.parent, lambda file: file.create_group("vars")))


def _with(name: str, content: str | bytes = "x", mode: int = 0) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        save_archive(path, {**PLAIN, member: content})

    return write


def _bomb(path: Path) -> None:
    save_archive(path, PLAIN)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/words.txt", bytes(50_000_000))


def _without_weights(path: Path) -> None:
    save_archive(path, PLAIN, weights=False)


def _of_numpy(path: Path) -> None:
    save_archive(path, {**PLAIN, "model.weights.npz": b""}, weights=False)


@pytest.mark.filterwarnings("ignore:Duplicate name")  # of zipfile, which writes what Keras would not
@pytest.mark.parametrize(
    ("write", "told"),
    [
        (_twice, "several members named 'config.json'"),
        (_with("assets/../../evil.py"), "outside of itself"),
        (_with("/etc/cron.d/evil"), "outside of itself"),
        (_with("C:evil"), "outside of itself"),
        (_with("assets\\evil"), "unusual name"),
        (_with("config.json\0.txt"), "unusual name|several members"),
        (_with("assets/\x1b]0;evil"), "unusual name"),
        (_with("assets/words.txt", "/etc/passwd", stat.S_IFLNK | 0o777), "not a file"),
        (_bomb, "would unpack to"),
        (_without_weights, "lacks model.weights.h5"),
        (_of_numpy, "not an HDF5 file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_archive_that_keras_would_not_write_is_refused(
    tmp_path: Path, write: Callable[[Path], None], told: str
) -> None:
    path = tmp_path / "model.keras"
    write(path)
    with pytest.raises(UserError, match=told):
        KerasFile(path=path).check()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("name", ["metadata.json", "config.json", "model.weights.h5"])
def test_compressed_members_that_cannot_be_unpacked_are_damage(tmp_path: Path, method: int, name: str) -> None:
    path, contents = tmp_path / "model.keras", {**PLAIN, "model.weights.h5": hdf5(tmp_path, lambda file: None)}
    with zipfile.ZipFile(path, "w", method) as archive:
        for each, content in contents.items():
            archive.writestr(each, content)
        members = archive.infolist()
    break_member(path, next(each for each in members if each.filename == name))
    with pytest.raises(UserError, match="a damaged Keras model"):
        KerasFile(path=path).check()


def _external_link(file: h5py.File) -> None:
    file["vars"] = h5py.ExternalLink("/etc/passwd", "/")


def _deep_external_link(file: h5py.File) -> None:
    file.create_group("a/b")["c"] = h5py.ExternalLink("other.h5", "/")


def _external_storage(file: h5py.File) -> None:
    file.create_dataset("kernel", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "kernel", (4,))
    file.create_virtual_dataset("kernel", layout)


def _of_no_fixed_size(file: h5py.File) -> None:
    file.create_dataset("kernel", (4,), h5py.vlen_dtype(np.float32))[0] = np.zeros(4, np.float32)


def _never_written(file: h5py.File) -> None:
    file.create_dataset("kernel", (10**12,), "f4", chunks=(1024,))


@pytest.mark.parametrize(
    ("fill", "told"),
    [
        (_external_link, r"reads /.*vars from another file"),
        (_deep_external_link, r"reads /.*a/b/c from another file"),
        (_external_storage, "values of .*kernel from another file"),
        (_virtual, "values of .*kernel from another file"),
        (_of_no_fixed_size, "kernel has values of no fixed size"),
        (_never_written, "would unpack to"),
    ],
)
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("trust", [False, True])
def test_weights_from_elsewhere_on_the_disk_are_refused(
    tmp_path: Path, fill: Callable[[h5py.File], None], told: str, ending: str, trust: bool
) -> None:
    path = tmp_path / f"model{ending}"
    if ending == ".keras":
        save_archive(path, {**PLAIN, "model.weights.h5": hdf5(tmp_path, fill)}, weights=False)
    else:
        with h5py.File(save(model(dense()), path), "a") as file:
            fill(file)
    with pytest.raises(UserError, match=told):
        inspect(path, trust=trust)


def test_a_group_that_contains_itself_is_inspected_once(tmp_path: Path) -> None:
    path = save(model(dense()), tmp_path / "model.h5")
    with h5py.File(path, "a") as file:
        file["model_weights"]["again"] = file["model_weights"]
    inspect(path)


@pytest.mark.parametrize(("version", "passes"), [("3.15.1", True), ("2.19.0", False)])
def test_the_version_in_a_file_decides_which_names_it_may_use(tmp_path: Path, version: str, passes: bool) -> None:
    path = save(model(layer("RMSNormalization", name="only_in_keras_3")), tmp_path / "model.h5")
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = version
    with nullcontext() if passes else pytest.raises(UserError, match="RMSNormalization"):
        KerasFile(path=path).check()


def test_a_version_of_keras_that_is_not_known_is_refused(tmp_path: Path) -> None:
    path = save(model(dense()), tmp_path / "model.h5")
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = "4.0.0"
    with pytest.raises(UserError, match=r"saved by Keras 4\.0\.0, which is not supported\. model\.path requires"):
        KerasFile(path=path).check()


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["kernel"] = np.zeros(3)
    with pytest.raises(UserError, match=r"the file has weights only.*model\.save"):
        inspect(tmp_path / "model.h5")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_truncated_file_is_damage_in_one_message(tmp_path: Path, ending: str) -> None:
    path = save(model(dense()), tmp_path / f"model{ending}")
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 3])
    with pytest.raises(UserError, match=r"damaged|truncated"):
        KerasFile(path=path).check()


@pytest.mark.tensorflow
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("route", ROUTES)
def test_nothing_is_run_when_such_a_file_is_loaded(
    tmp_path: Path, route: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')")  # as beside a file that was downloaded
    monkeypatch.syspath_prepend(str(tmp_path))
    path = save(attacks(mark)[route][0], tmp_path / f"model{ending}")
    with pytest.raises(UserError):
        KerasFile(path=path).build((4,), 2)
    assert not mark.exists()


@pytest.mark.tensorflow
def test_nothing_is_made_of_how_a_model_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    loss = {"class_name": "X", "config": {}, "module": "evil", "registered_name": "X"}
    trained = {"loss": loss, "optimizer": loss, "optimizer_config": loss, "metrics": [loss]}
    path = save(model({"class_name": "Softmax", "config": {"name": "s"}}), tmp_path / "m.h5", training_config=trained)
    KerasFile(path=path).build((4,), 2)
    assert not mark.exists()


@pytest.mark.tensorflow
def test_every_class_on_the_list_is_one_of_keras_that_computes() -> None:
    from tensorflow.python.util.tf_export import get_symbol_from_name

    from experiments.system.tensorflow import keras

    kinds = (
        keras.layers.Layer, keras.initializers.Initializer, keras.regularizers.Regularizer,
        keras.constraints.Constraint, keras.losses.Loss, keras.metrics.Metric, keras.optimizers.Optimizer,
        keras.optimizers.legacy.Optimizer, keras.optimizers.schedules.LearningRateSchedule,
        keras.mixed_precision.Policy, keras.mixed_precision.LossScaleOptimizer,
    )  # fmt: skip
    found = {
        f"{module}.{name}": get_symbol_from_name(f"{module}.{name}")
        for module, names in known_names.CLASSES_BY_MODULE.items()
        for name in names
        if module.partition(".")[0] == "keras"
    }
    strange = {
        name
        for name, each in found.items()
        if isinstance(each, type) and not (issubclass(each, kinds) and each.__module__.startswith("tf_keras."))
    }
    assert not strange


@pytest.mark.tensorflow
def test_no_operation_on_the_list_reads_files_or_calls_python() -> None:
    from tensorflow.python.util.tf_export import get_symbol_from_name

    homes = set()
    for name in known_names.OPERATIONS:
        for symbol in (name, f"compat.v1.{name}"):
            if (function := get_symbol_from_name(symbol)) is not None:
                homes.add(function.__module__)
    assert not {
        home for home in homes if any(word in home for word in ("io_ops", "script_ops", "logging", "gfile", "load"))
    }


COMMON = """Activation(activation="relu6") ActivityRegularization(0.1) AlphaDropout(0.1) BatchNormalization()
Dense(3,activation="gelu",kernel_regularizer="l2",bias_constraint="non_neg") Dropout(0.1) ELU() Flatten()
GaussianDropout(0.1) GaussianNoise(0.1) Identity() LayerNormalization() LeakyReLU() PReLU() ReLU(6.0) Softmax()
UnitNormalization() Rescaling(2.0) Normalization(mean=0.0,variance=1.0) CategoryEncoding(4) Discretization([0.5])
IntegerLookup(vocabulary=[1,2]) EinsumDense("ab,bc->ac",3)"""
IMAGES = """Conv2D(3,3,kernel_initializer="he_normal") SeparableConv2D(3,3) DepthwiseConv2D(3) Conv2DTranspose(3,3)
MaxPooling2D() AveragePooling2D() GlobalAveragePooling2D() GlobalMaxPooling2D() UpSampling2D() ZeroPadding2D()
Cropping2D() SpatialDropout2D(0.1) Resizing(4,4) CenterCrop(4,4) RandomFlip() RandomRotation(0.1) RandomZoom(0.1)
RandomContrast(0.1) RandomBrightness(0.1) RandomTranslation(0.1,0.1) Permute((2,1,3)) Reshape((64,3))
LocallyConnected2D(2,3) GroupNormalization(3)"""
SERIES = """LSTM(3) GRU(3) SimpleRNN(3) Bidirectional(k.LSTM(3)) RNN(k.StackedRNNCells([k.GRUCell(2),k.LSTMCell(2)]))
TimeDistributed(k.Dense(3)) Conv1D(3,3) Masking()"""


@pytest.mark.tensorflow
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        *((each, (4,)) for each in COMMON.split()),
        *((each, (8, 8, 3)) for each in IMAGES.split()),
        *((each, (6, 3)) for each in SERIES.split()),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_common_layers_pass(tmp_path: Path, layer: str, shape: tuple[int, ...], ending: str) -> None:
    from experiments.system.tensorflow import keras

    made = eval(f"k.{layer}", {"k": keras.layers})  # the text above
    net = keras.Sequential([keras.Input(shape), made])
    net.compile("adam", "mse", metrics=["accuracy"])
    net.save(tmp_path / f"model{ending}")
    inspect(tmp_path / f"model{ending}")


@pytest.mark.tensorflow
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.filterwarnings("ignore")
def test_arithmetic_on_tensors_passes(tmp_path: Path, ending: str) -> None:
    from experiments.system.tensorflow import keras, tf

    x = inputs = keras.Input((8, 8, 3))
    x = tf.nn.relu6(x * 2 + 1) / 3 - tf.reduce_mean(x, [1, 2], keepdims=True)
    x = tf.concat([x[:, 1:], tf.transpose(x, (0, 2, 1, 3))[:, :1]], axis=1)
    x = tf.image.resize(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), (4, 4))
    x = keras.layers.Multiply()([x, keras.activations.gelu(tf.clip_by_value(x, 0.0, 1.0))])
    x = keras.layers.MultiHeadAttention(2, 2)(x, x) ** 2
    inner = keras.Sequential([keras.layers.Dense(2, activation=keras.layers.LeakyReLU())], name="inner")
    inner.compile(keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)), "mse")
    net = keras.Model(inputs, inner(tf.reshape(x, (-1, 48))))
    net.save(tmp_path / f"model{ending}")
    inspect(tmp_path / f"model{ending}")


@pytest.mark.tensorflow
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_of_mixed_precision_passes(tmp_path: Path, precision: str) -> None:
    from experiments.system.tensorflow import keras

    policy = keras.mixed_precision.Policy(precision)
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, dtype=policy)])
    net.compile(keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam()), "mse")
    for ending in ENDINGS:
        net.save(tmp_path / f"model{ending}")
        inspect(tmp_path / f"model{ending}")


# These have all classes of layers of the others but cropping and CustomScaleLayer, and LayerScale of their own.
NETS = "MobileNetV3Small EfficientNetB0 Xception ConvNeXtTiny"
SIMILAR = """MobileNet MobileNetV2 MobileNetV3Large EfficientNetV2B0 ResNet50 ResNet50V2 ResNetRS50 RegNetX002
RegNetY002 DenseNet121 InceptionV3 InceptionResNetV2 NASNetMobile VGG16"""


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "name", [*NETS.split(), *(pytest.param(each, marks=pytest.mark.nightly) for each in SIMILAR.split())]
)
@pytest.mark.filterwarnings("ignore")
def test_the_networks_of_keras_applications_pass(tmp_path: Path, name: str) -> None:
    from experiments.system.tensorflow import keras

    own = ["LayerScale"] if name == "ConvNeXtTiny" else []  # which Keras itself does not find in .h5
    assert_both_formats_pass(tmp_path, getattr(keras.applications, name)(weights=None), own)
    keras.backend.clear_session()


def assert_both_formats_pass(folder: Path, net: Any, provided: Sequence[str] = ()) -> None:
    """The configurations of a network, as both formats hold them: the weights would take gigabytes."""
    from tf_keras.src.saving.serialization_lib import serialize_keras_object

    inspect(save(json.dumps(serialize_keras_object(net)), folder / "model.keras"))
    older = {"class_name": "Functional", "config": {**net.get_config()}}
    inspect(save(json.dumps(older, default=str), folder / "model.h5"), provided=provided)


@pytest.mark.tensorflow
def test_the_layer_that_inception_resnet_alone_has_passes(tmp_path: Path) -> None:
    """The network itself has 780 layers."""
    from tf_keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    from experiments.system.tensorflow import keras

    image = keras.Input((8, 8, 3))
    assert_both_formats_pass(tmp_path, keras.Model(image, CustomScaleLayer(0.1)([image, 2 * image])))
