"""Models with several inputs and outputs: data by name, and whole runs of tiny models in both versions of Keras."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from experiments.dataset import Dataset
from experiments.dataset.npz import Npz
from experiments.dataset.shapes import Entry
from experiments.measure.fidelity import Gap
from experiments.record.run_record import AFTER, FINAL, RunRecord
from experiments.runs import pipeline
from experiments.runs.configuration import compose_request
from experiments.system.errors import UserError

Arrays = dict[str, npt.NDArray[Any]]
ENTRIES = {"image": Entry((8, 8, 1)), "tokens": Entry((3,), "int32"), "table": Entry((2,))}
OUTPUTS = {"kind": 3, "size": 1}


def arrays(**changes: npt.NDArray[Any] | None) -> Arrays:
    """Return an image, words and a table for each example, with a class and a size; None leaves an array out."""
    rng = np.random.default_rng(0)
    made: Arrays = {}
    for part, count in (("train", 60), ("test", 30)):
        kinds = np.arange(count) % 3
        made |= {
            f"x_{part}/image": (rng.integers(0, 80, (count, 8, 8)) + 80 * kinds[:, None, None]).astype(np.uint8),
            f"x_{part}/tokens": rng.integers(0, 1000, (count, 3)),
            f"x_{part}/table": rng.normal(size=(count, 2)).astype(np.float32),
            f"y_{part}/kind": kinds,
            f"y_{part}/size": (kinds + rng.normal(scale=0.1, size=count)).astype(np.float32),
        }
    return {name: array for name, array in (made | changes).items() if array is not None}


def saved(folder: Path, given: Mapping[str, npt.NDArray[Any]]) -> Npz:
    np.savez(folder / "data.npz", **dict[str, Any](given))
    return Npz(path=folder / "data.npz")


def loaded(source: Npz, output: str | None = "kind") -> Dataset:
    return source.examples(output=output).for_model(ENTRIES, OUTPUTS)


def test_examples_have_a_field_for_each_input_in_the_order_of_the_model(tmp_path: Path) -> None:
    given = arrays()
    data = loaded(saved(tmp_path, given))
    read: npt.NDArray[Any] = data.test.x[:]
    assert read.dtype.names == tuple(ENTRIES)
    assert read["image"].shape == (30, 8, 8, 1)
    assert np.allclose(read["image"][..., 0], given["x_test/image"] / np.float32(255))
    assert (read["tokens"].dtype.name, read["tokens"].tolist()) == ("int32", given["x_test/tokens"].tolist())
    assert np.array_equal(read["table"], given["x_test/table"])


def test_each_output_has_its_targets_for_the_same_examples(tmp_path: Path) -> None:
    data = loaded(saved(tmp_path, arrays()))
    assert (data.output, data.kind, data.classes) == ("kind", "classes", 3)
    size = data.further["size"]
    assert size.kind == "numbers"
    assert np.abs(size.train.y[:, 0] - data.train.y).max() < 0.5
    assert len(size.validation) == len(data.validation) > 0


def test_digests_cover_every_input_and_output(tmp_path: Path) -> None:
    before = loaded(saved(tmp_path, arrays()))
    for name in ("x_test/tokens", "y_test/size"):
        changed = arrays()
        changed[name] = changed[name][::-1]
        assert loaded(saved(tmp_path, changed)).test_fingerprint != before.test_fingerprint
        assert loaded(saved(tmp_path, changed)).training_fingerprint == before.training_fingerprint


def test_a_file_with_one_named_input_suits_a_model_with_one(tmp_path: Path) -> None:
    given = {name: array for name, array in arrays().items() if "tokens" not in name and "table" not in name}
    data = saved(tmp_path, given).examples(output="kind").for_model({"image": ENTRIES["image"]}, OUTPUTS)
    assert (data.test.x.dtype.name, data.test.x.shape) == ("float32", (30, 8, 8, 1))


def test_inputs_can_have_scales_of_their_own(tmp_path: Path) -> None:
    saved(tmp_path, arrays())
    data = loaded(Npz(path=tmp_path / "data.npz", scale=(("image", "symmetric"),)))
    read: npt.NDArray[Any] = data.test.x[:]
    assert read["image"].min() < -0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train/tabel": np.zeros((60, 2)), "x_test/tabel": np.zeros((30, 2)), "x_train/table": None,
          "x_test/table": None}, "the model has the inputs image float32 (8, 8, 1), tokens int32 (3,), table float32 "
         "(2,); the data set has x_train/image, x_train/tokens, x_train/tabel. It has no x_train/table. Did you mean "
         "tabel?"),
        ({"x_train/table": None, "x_test/table": None}, "It has no x_train/table."),
        ({"x_test/table": None}, "require the same inputs"),
        ({"x_train/more": np.zeros((60, 2)), "x_test/more": np.zeros((30, 2))}, "which the model does not take"),
        ({"x_train/table": np.zeros((59, 2), np.float32)}, "x_train/table has 59"),
        ({"x_train/table": np.zeros((60, 4), np.float32), "x_test/table": np.zeros((30, 4), np.float32)},
         "the input table of the model requires examples of shape (2,), but x_train/table has (4,)"),
        ({"x_train/table": np.full((60, 2), np.nan)}, "x_train/table has values that are not finite"),
        ({"x_train/tokens": np.zeros((60, 3)), "x_test/tokens": np.zeros((30, 3))},
         "x_train/tokens has the dtype float64, but the model requires int32"),
        ({"x_train": np.zeros((60, 8, 8))}, "requires either x_train or arrays by name, not both"),
        ({"y_train/kind": np.zeros(59, int)}, "x_train has 60 examples, but y_train/kind has 59 labels"),
        ({"y_train/knd": np.zeros(60), "y_test/knd": np.zeros(30)}, "the model has no output knd. Did you mean kind?"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_names(tmp_path: Path, changes: Arrays, message: str) -> None:
    with pytest.raises(UserError) as refused:
        loaded(saved(tmp_path, arrays(**changes)))
    assert message in str(refused.value)


def test_several_targets_require_the_output_that_is_judged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task.output: is required.*kind, size.*Type task.output=kind"):
        loaded(saved(tmp_path, arrays()), output=None)


def test_a_model_with_several_inputs_requires_them_by_name(tmp_path: Path) -> None:
    given = arrays()
    plain = {
        f"{x}_{part}": given[f"{x}_{part}/{name}"]
        for part in ("train", "test")
        for x, name in (("x", "image"), ("y", "kind"))
    }
    with pytest.raises(UserError, match=r"but the data set has one\. Save an array for each input"):
        loaded(saved(tmp_path, plain))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with data and a model of each version of Keras, whose inputs and outputs have an own order."""
    from experiments.system.tensorflow import keras_version

    place = tmp_path_factory.mktemp("several")
    saved(place, arrays())
    for version in (2, 3):
        keras = keras_version(version)
        keras.utils.set_random_seed(0)
        layers = keras.layers
        image, table = layers.Input((8, 8, 1), name="image"), layers.Input((2,), name="table")
        tokens = layers.Input((3,), name="tokens", dtype="int32")
        words = layers.Flatten(name="words")(layers.Embedding(1000, 2, name="embedding")(tokens))
        seen = layers.Flatten(name="flat")(layers.Conv2D(4, 3, activation="relu", name="conv")(image))
        joined = layers.Concatenate(name="joined")([seen, words, table])
        hidden = layers.Dense(16, activation="relu", name="hidden")(joined)
        kind, size = layers.Dense(3, name="kind")(hidden), layers.Dense(1, name="size")(hidden)
        keras.Model([table, image, tokens], [size, kind]).save(place / f"keras{version}.keras")
    return place


@pytest.fixture(scope="module")
def run(folder: Path) -> Callable[..., RunRecord]:
    """Return a function that runs a strategy on the model of a version of Keras."""

    def made(version: int, strategy: str, *settings: str) -> RunRecord:
        request = compose_request(
            [
                "model=keras_file", f"model.path={folder}/keras{version}.keras", "dataset=npz",
                f"dataset.path={folder}/data.npz", "task.output=kind", f"strategy={strategy}", "epochs=1",
                "training.batch_size=20", "latency.seconds=0.1", f"cache.dir={folder}/cache", *settings,
            ]
        )  # fmt: skip
        return pipeline.run(request.experiment)

    return made


def gap(record: RunRecord, first: str, second: str, output: str) -> Gap:
    return next(each for each in record.gaps if (each.first, each.second, each.output) == (first, second, output))


@pytest.mark.tensorflow
@pytest.mark.parametrize("version", [2, 3])
def test_the_float_file_equals_keras_in_each_output(
    run: Callable[..., RunRecord], version: int, request: pytest.FixtureRequest
) -> None:
    if version == 2:
        request.getfixturevalue("unmeasured")
    record = run(version, "none")
    for output in OUTPUTS:
        assert gap(record, AFTER, FINAL, output).sqnr_db > 100
    assert gap(record, AFTER, FINAL, "kind").agreement == 1
    assert gap(record, AFTER, FINAL, "size").agreement is None
    assert {"loss", "accuracy", "val_accuracy", "size_loss"} <= set(record.baseline.history)


@pytest.mark.tensorflow
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("strategy", ["ptq_int8", "qat"])
def test_quantized_files_are_as_expected(run: Callable[..., RunRecord], version: int, strategy: str) -> None:
    record = run(version, strategy)
    assert not record.broken
    for output in OUTPUTS:
        assert gap(record, AFTER, FINAL, output).sqnr_db > 10


@pytest.mark.tensorflow
def test_class_weights_are_refused_for_several_outputs(run: Callable[..., RunRecord]) -> None:
    with pytest.raises(UserError, match=r"training.class_weights: requires a model with one output"):
        run(3, "none", "training.class_weights=balanced")
