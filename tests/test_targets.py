"""What a configuration may name: its class is looked up and checked before anything is made of it."""

import pickle
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from experiments.dataset import Source
from experiments.dataset.npz import Npz
from experiments.runs.configuration import KINDS, compose_request, read_dataset
from experiments.runs.targets import EARLIER, make
from experiments.strategy import Strategy
from experiments.system.cache import Cache
from experiments.system.errors import UserError
from experiments.training.loop import Training

EVIL = "import pathlib\npathlib.Path({mark!r}).touch()\nclass Data: pass\n"
RECORDED = "dataset:\n  _target_: experiments.dataset.npz.Npz\n  path: my.npz\n"


class _Marking:
    """A pickle that leaves a mark when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that is there where code was run: that of a module `evil`, or of a pickle."""
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(EVIL.format(mark=str(mark)))
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(_Marking(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    return mark


def recorded(target: str, **values: Any) -> str:
    return f"dataset:\n  _target_: {target}\n" + "".join(f"  {key}: {value}\n" for key, value in values.items())


def test_a_recorded_data_set_comes_back() -> None:
    assert read_dataset(RECORDED) == Npz(path=Path("my.npz"))


@pytest.mark.parametrize(
    "target",
    [
        "pandas.read_pickle", "evil.Data", "os.system", "builtins.eval", "hydra.utils.instantiate",
        "experiments.run.main", "experiments.runs.worker.run_child", "experiments.dataset.mnist_loaded.x", "''",
        "'a b.c'",
    ],
)  # fmt: skip
def test_whatever_else_a_recorded_configuration_names_is_refused_and_not_run(mark: Path, target: str) -> None:
    with pytest.raises(UserError, match=r"dataset: the recorded config\.yaml names .*--module"):
        read_dataset(recorded(target, filepath_or_buffer=mark.with_name("evil.pkl")))
    assert not mark.exists()


@pytest.mark.parametrize(
    "value",
    [
        "{_target_: evil.Data}", "[{_target_: evil.Data}]", "{deep: {_target_: os.system, _args_: [ls]}}",
        "{_partial_: true}",
    ],
)  # fmt: skip
def test_a_class_inside_a_value_is_refused(mark: Path, value: str) -> None:
    with pytest.raises(UserError, match=r"dataset\.path.*: an option requires plain values"):
        read_dataset(recorded("experiments.dataset.npz.Npz", path=value))
    assert not mark.exists()


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_recursive_", "_convert_"])
def test_hydra_s_special_keys_are_refused(key: str) -> None:
    with pytest.raises(UserError, match=rf"dataset\.{key}: an option requires plain values"):
        read_dataset(recorded("experiments.dataset.npz.Npz", path="x.npz", **{key: "true"}))


@pytest.mark.parametrize("text", ["${oc.env:HOME}/x.npz", "${oc.decode:'1'}", "${now:%Y}", "${tracking.uri}"])
def test_interpolations_of_a_recorded_configuration_are_texts(text: str) -> None:
    made = read_dataset(recorded("experiments.dataset.npz.Npz", path=f'"{text}"'))
    assert made == Npz(path=Path(text))


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "dataset: 5", "{", "a: &a [1]\ndataset: *a", "dataset: !!python/object/apply:os.system [ls]",
        "x: 1\n" * 10**6, "dataset: !!bool x", "dataset: !!timestamp x", "dataset: !!int ''",
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_a_text_that_is_not_a_recorded_configuration_is_one_message(text: str) -> None:
    with pytest.raises(UserError, match=r"the recorded config\.yaml"):
        read_dataset(text)


def test_a_users_module_is_imported_when_it_is_named(mark: Path) -> None:
    with pytest.raises(UserError, match=r"\(evil\.Data\) requires the name of a subclass of .*\.dataset\.Source"):
        read_dataset(recorded("evil.Data"), modules=["evil"])
    assert mark.exists()


@pytest.mark.parametrize("target", ["os.system", "subprocess.Popen", "pandas.read_pickle", "builtins.eval"])
def test_what_a_command_names_is_of_the_right_kind_before_it_is_called(mark: Path, target: str) -> None:
    with pytest.raises(UserError, match=rf"dataset: _target_ \({target}\) requires the name of a subclass of"):
        compose_request([f"dataset._target_={target}", f"+dataset.args=touch {mark}"])
    assert not mark.exists()


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nowhere.Data", "requires the module nowhere"),
        ("experiments.dataset.nowhere.Data", r"requires the module experiments\.dataset\.nowhere"),
        ("experiments.dataset.Source", "must define read"),
        ("experiments.dataset.npz.Missing", "requires the name of a subclass"),
        ("NPZ", "requires the name of a subclass"),
        (7, "requires the name of a subclass"),
    ],
)
def test_a_class_that_cannot_be_used_is_a_message(target: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        make("dataset", {"_target_": target}, Source)  # type: ignore[type-abstract]


@pytest.mark.parametrize("earlier", EARLIER)
def test_a_class_that_moved_is_made_by_the_name_that_users_options_still_hold(earlier: str) -> None:
    module, _, name = EARLIER[earlier].rpartition(".")
    moved = getattr(import_module(module), name)
    kind = next(each for each in KINDS.values() if issubclass(moved, each))
    values = {"dir": "cache"} if kind is Cache else {"epochs": 1} if kind is Training else {}
    assert type(make("option", {"_target_": earlier, **values}, kind)) is moved


def test_an_option_with_settings_of_an_earlier_version_is_refused_with_the_advice_to_delete_them() -> None:
    earlier = {"_target_": "experiments.strategy.qat.QAT", "range_init": "tfmot", "calibration_samples": 500}
    with pytest.raises(UserError) as refusal:
        make("strategy", earlier, Strategy)  # type: ignore[type-abstract]
    removed, unused = str(refusal.value).splitlines()
    assert removed.startswith("strategy.range_init=tfmot: this setting was removed; ")
    assert unused == "strategy.calibration_samples=500: this strategy does not calibrate. Delete the line"


def test_a_module_of_the_user_that_imports_tensorflow_finds_keras_2_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chosen.py").write_text(
        "import os\nfrom experiments.dataset import Source\nKERAS_2 = os.environ['TF_USE_LEGACY_KERAS']\n"
        "class Data(Source):\n    def read(self): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    make("dataset", {"_target_": "chosen.Data"}, Source)  # type: ignore[type-abstract]
    assert import_module("chosen").KERAS_2 == "1"


@pytest.mark.parametrize(
    "earlier",
    ["    @property\n    def scheme(self): return Float32()\n", "    def promise(self, model): return None\n"],
    ids=["scheme was a property", "promise"],
)
def test_a_strategy_of_an_earlier_version_is_refused_with_what_to_define(
    earlier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_earlier.py").write_text(
        f"from experiments.strategy import Float32, Strategy\nclass Mine(Strategy):\n{earlier}"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "of_earlier", raising=False)
    with pytest.raises(UserError, match=r"Mine is a strategy for an earlier version.*scheme\(self, model\)"):
        make("strategy", {"_target_": "of_earlier.Mine"}, Strategy)  # type: ignore[type-abstract]
