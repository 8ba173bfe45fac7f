"""What decides a result is part of its key: code, libraries, files and settings of the environment, by content."""

import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.dataset import keras_datasets
from experiments.dataset.fashion_mnist import FashionMnist
from experiments.dataset.image_folder import ImageFolder
from experiments.dataset.tfds import TensorFlowDataset
from experiments.system import user_code
from experiments.system.contents import contents_of, digest_value, sha256
from experiments.system.files import expand_path, state_of
from experiments.system.keras_version import Version
from experiments.training import loop

MINE = """
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

def read():
    import library, PIL
    return import_module("dynamic"), Path("mean.npy").read_bytes()

@dataclass(frozen=True)
class Mine:
    values: object = None

def main():
    result = bench.load("mlflow.db")
    result.report("report.html")
    result.table.to_csv("table.csv")
    open("log.txt", "a").write("done")
    open("more.txt", mode="w").write("done")
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A user's option whose module imports from another folder of PYTHONPATH, and by name; it reads a file."""
    for name, text in (("project/mine.py", MINE), ("path/library.py", "x = 1"), ("project/dynamic.py", "x = 1")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "project/mean.npy").write_text("1")
    module = f"mine_{abs(hash(request.node.name))}"
    (tmp_path / "project/mine.py").rename(tmp_path / f"project/{module}.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "project")
    monkeypatch.syspath_prepend(tmp_path / "path")
    return import_module(module).Mine


@pytest.mark.parametrize("changed", ["path/library.py", "project/dynamic.py", "project/mean.npy"])
def test_code_and_files_far_from_an_option_decide_its_result(mine: Any, tmp_path: Path, changed: str) -> None:
    before = contents_of(mine())
    assert contents_of(mine()) == before
    (tmp_path / changed).write_text("x = 2")
    assert contents_of(mine()) != before


@pytest.mark.parametrize("package", ["", "x = 1"], ids=["namespace", "package"])
def test_helpers_of_helpers_decide_a_result_and_others_do_not(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "deep_package"
    compiled = f"fast{EXTENSION_SUFFIXES[0]}"
    texts = {
        "strategies/mine.py": f"{OPTION}\nfrom deep_package.helpers.deep import f\nfrom ..helpers import second",
        "helpers/deep.py": "def f():\n    from .deeper.third import z\n    from deep_package.helpers import fast",
        "helpers/second.py": "x = 1",
        "helpers/deeper/third.py": "z = 1",
        "helpers/unrelated.py": "x = 1",
        f"helpers/{compiled}": "\0",
    }
    for name, text in {**texts, **({f"{each}__init__.py": package for each in FOLDERS} if package else {})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for loaded in [name for name in sys.modules if name.partition(".")[0] == "deep_package"]:
        monkeypatch.delitem(sys.modules, loaded)
    option = import_module("deep_package.strategies.mine").Mine()
    for name, text in texts.items():
        before = contents_of(option)
        (root / name).write_text(f"{text}\n# changed")
        assert (contents_of(option) == before) == (name == "helpers/unrelated.py"), name


FOLDERS = ("", "strategies/", "helpers/", "helpers/deeper/")
OPTION = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Mine:\n    x: int = 0"


def test_code_that_a_running_option_is_not_seen_to_use_may_change(mine: Any, tmp_path: Path) -> None:
    before = contents_of(mine(), unseen=False)
    (tmp_path / "project/mean.npy").write_text("2")
    (tmp_path / "project/beside.py").write_text("x = 2")
    assert contents_of(mine(), unseen=False) == before


@pytest.mark.parametrize("name", ["report.html", "table.csv", "log.txt", "more.txt"])
def test_a_file_that_a_script_writes_does_not_decide_its_results(mine: Any, tmp_path: Path, name: str) -> None:
    before = contents_of(mine())
    (tmp_path / name).write_text("written")
    assert contents_of(mine()) == before


def test_the_store_that_a_script_opens_does_not_decide_its_results(mine: Any, tmp_path: Path) -> None:
    before = contents_of(mine())
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("CREATE TABLE experiment_tags (key)")
    assert contents_of(mine()) == before


def test_another_database_that_a_script_opens_decides_its_results(mine: Any, tmp_path: Path) -> None:
    before = contents_of(mine())
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("CREATE TABLE measurements (value)")
    assert contents_of(mine()) != before


def test_another_version_of_a_library_is_another_result(mine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents_of(mine())
    assert list(before["libraries"]) == ["PIL"]
    monkeypatch.setattr(user_code, "_version_of", lambda name: "0.1" if name == "PIL" else "")
    assert contents_of(mine()) != before


def test_a_text_that_is_the_name_of_a_file_counts_by_content(mine: Any, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_text("1")
    option = mine(values=["data.bin", "no such file"])
    before = contents_of(option)
    (tmp_path / "data.bin").write_text("2")
    assert contents_of(option) != before


def test_files_in_a_mapping_count_by_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("1")
    before = digest_value({"x": tmp_path / "a"})
    assert digest_value({"x": tmp_path / "b"}) == before
    (tmp_path / "a").write_text("2")
    assert digest_value({"x": tmp_path / "a"}) != before


def test_files_behind_a_link_to_a_folder_count(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images/cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images/again").symlink_to(tmp_path / "images")  # a loop
    before = digest_value(tmp_path / "images")
    (tmp_path / "elsewhere/one.png").touch()
    assert digest_value(tmp_path / "images") != before


def test_a_copied_saved_model_is_the_same_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "variables").mkdir(parents=True)
        (tmp_path / name / "saved_model.pb").write_text("graph")
        (tmp_path / name / "variables/variables.index").write_text("weights")
    before = digest_value(tmp_path / "a")
    assert digest_value(tmp_path / "b") == before
    (tmp_path / "a/variables/variables.index").write_text("others!")
    assert digest_value(tmp_path / "a") != before


def replaced(path: Path) -> None:
    (path.parent / "new").write_text("b" * 8)
    os.utime(path.parent / "new", ns=(0, 0))
    (path.parent / "new").rename(path)


def rewritten(path: Path) -> None:
    path.write_text("b" * 8)
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("change", [replaced, rewritten])
def test_a_file_with_another_content_of_equal_size_and_time_is_read_again(
    change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.system.contents.SETTLED", -1)
    path = tmp_path / "data"
    path.write_text("a" * 8)
    os.utime(path, ns=(0, 0))
    before, state = sha256(path), state_of(path)
    while state_of(path)[2] == state[2]:  # until the clock of the file system has moved
        change(path)
    assert state_of(path)[:2] == state[:2]
    assert sha256(path) != before


def test_equal_links_are_equal_whatever_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("1")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert digest_value(tmp_path / "link") == digest_value(tmp_path / "data")
    (tmp_path / "other").write_text("2")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "other")
    assert digest_value(tmp_path / "link") == digest_value(tmp_path / "other")


def numerics() -> dict[str, str]:
    loop.numerics.cache_clear()
    try:
        return dict(loop.numerics())
    finally:
        loop.numerics.cache_clear()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TF_ENABLE_ONEDNN_OPTS", "0"),
        ("ONEDNN_MAX_CPU_ISA", "AVX2"),
        ("XLA_FLAGS", "--xla_cpu_enable_fast_math=true"),
        ("TF_FUNCTION_JIT_COMPILE_DEFAULT", "1"),
        ("TF_SET_ONEDNN_FPMATH_MODE", "BF16"),
    ],
)
def test_variables_that_choose_kernels_decide_a_result(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name, raising=False)
    before = numerics()
    monkeypatch.setenv(name, value)
    assert numerics() != before


def test_another_spelling_of_a_variable_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    before = numerics()
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "False")
    assert numerics() == before


def test_the_settings_of_keras_decide_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    before = numerics()
    settings = {"floatx": "float32", "epsilon": 1e-07, "backend": "jax", "image_data_format": "channels_last"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    assert numerics() == before
    (tmp_path / "keras.json").write_text(json.dumps({**settings, "epsilon": 1e-3}))
    assert numerics() != before


@dataclass(frozen=True)
class WithFile:
    path: Path


def test_a_file_whose_name_begins_with_a_tilde_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~mine.keras").touch()
    assert expand_path("~mine.keras") == expand_path("./~mine.keras") == tmp_path / "~mine.keras"
    assert expand_path("~/mine.keras") == Path.home() / "mine.keras"
    with pytest.raises(ValueError, match="unknown home folder"):
        expand_path("~nobody-of-this-name/x")


def test_an_option_of_the_suite_names_the_libraries_of_its_own_module() -> None:
    assert "PIL" in contents_of(ImageFolder(path=Path("none")))["libraries"]
    assert "PIL" not in contents_of(WithFile(Path("none")))["libraries"]


def test_a_download_changes_no_key_but_another_file_in_keras_cache_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras_datasets, "_folder", lambda: tmp_path)
    published = b"the published file"
    monkeypatch.setattr(keras_datasets, "PUBLISHED", {hashlib.md5(published).hexdigest()})
    before = contents_of(FashionMnist())
    (tmp_path / "fashion-mnist").mkdir()
    file = tmp_path / "fashion-mnist/train-images-idx3-ubyte.gz"
    file.write_bytes(published)
    assert contents_of(FashionMnist()) == before
    file.write_bytes(b"other images")
    assert contents_of(FashionMnist()) != before


def test_prepared_data_sets_count_by_content_wherever_they_are(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place / "pets/1.0.0").mkdir(parents=True)
        (tmp_path / place / "pets/1.0.0/train.tfrecord").write_text("1")
    before = contents_of(TensorFlowDataset(name="pets:1.0.0", data_dir=tmp_path / "a"))
    (tmp_path / "a/others").mkdir()
    (tmp_path / "a/others/file").touch()
    assert contents_of(TensorFlowDataset(name="pets:1.0.0", data_dir=tmp_path / "b")) == before
    (tmp_path / "b/pets/1.0.0/train.tfrecord").write_text("2")
    assert contents_of(TensorFlowDataset(name="pets:1.0.0", data_dir=tmp_path / "b")) != before


@pytest.mark.tensorflow
@pytest.mark.parametrize("version", [2, 3])
def test_a_vocabulary_that_was_learned_decides_what_a_model_answers(version: Version) -> None:
    from experiments.system.tensorflow import keras_version

    keras = keras_version(version)

    def digest(words: list[int]) -> str:
        keras.backend.clear_session()
        lookup = keras.layers.IntegerLookup(max_tokens=4, output_mode="one_hot", name="lookup")
        lookup.adapt(np.array(words))
        entry = keras.Input((1,), dtype="int64")
        made = keras.Model(entry, keras.layers.Dense(2, kernel_initializer="ones", name="head")(lookup(entry)))
        return loop.digest_of(made)

    assert digest([1, 2, 3]) == digest([1, 2, 3])
    assert digest([1, 2, 3]) != digest([7, 8, 9])


@pytest.mark.tensorflow
def test_a_layer_that_holds_a_tuple_is_searched_for_code_of_the_user() -> None:
    from experiments.system.tensorflow import keras
    from experiments.system.user_code import sources_of

    layer = keras.layers.Dense(2, input_shape=(3,))
    layer.held = ((1, 2), [3], {"a": (4,)})  # which TensorFlow wraps
    assert sources_of(keras.Sequential([layer])) == []
