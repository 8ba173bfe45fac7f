"""Sensitivity of layers, and the proposed choice of layers."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.dataset import Split
from experiments.dataset.rows import Rows
from experiments.model import Architecture
from experiments.record.metric import RecordedMetric
from experiments.sensitivity import (
    Findings,
    Measure,
    Measured,
    Options,
    _compared,
    _show,
    _split,
    describe_proposal,
    find_smallest,
    round_to_levels,
)
from experiments.statistics.estimates import Estimate
from experiments.system.errors import UserError
from experiments.system.progress import CONSOLE
from experiments.task import Head
from experiments.task.binary import BinaryHead
from experiments.task.classification import ClassHead
from experiments.task.multilabel import LabelHead
from experiments.task.reconstruction import ReconstructionHead
from experiments.task.regression import NumberHead
from experiments.task.segmentation import PixelHead
from tests.conftest import run, save_images
from tests.support.results import document

FEW = ("a", "b", "c")
MANY = tuple("abcdefgh")


@dataclass(frozen=True)
class Nothing(Architecture):
    """A model that computes nothing."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> Any:
        from experiments.system.tensorflow import keras

        return keras.Sequential([keras.layers.InputLayer(input_shape), keras.layers.Flatten()])


def measure_with(drops: dict[str, float], sizes: dict[str, int]) -> Measure:
    """Files whose drops of accuracy add up, layer by layer; a layer in int8 saves its size."""

    def measure(chosen: Collection[str]) -> Measured:
        drop = sum(drops[unit] for unit in chosen)
        size = 1000 - sum(sizes[unit] for unit in chosen)
        return Measured(tuple(sorted(chosen)), size, 1 - drop, Estimate(-drop, -drop, -drop), drop, drop)

    return measure


def test_all_layers_are_quantized_if_nothing_is_lost() -> None:
    measure = measure_with(dict.fromkeys(MANY, 0.0), dict.fromkeys(MANY, 10))
    assert find_smallest(MANY, measure, 0.0).chosen == MANY


@pytest.mark.parametrize("units", [FEW, MANY], ids=["every choice", "step by step"])
def test_too_sensitive_layer_stays_float(units: tuple[str, ...]) -> None:
    drops = {unit: 0.1 if unit == "b" else 0.0 for unit in units}
    measure = measure_with(drops, dict.fromkeys(units, 10))
    assert set(find_smallest(units, measure, 0.01).chosen) == set(units) - {"b"}


IMAGES = 2000
LOST = st.integers(0, IMAGES // 10).map(lambda images: images / IMAGES)  # what a file can lose, and what a bound is


def images_lost(file: Measured) -> int:
    return round(-file.change.value * IMAGES)


@given(
    st.fixed_dictionaries(dict.fromkeys(MANY, LOST)),
    st.fixed_dictionaries({unit: st.integers(1, 100) for unit in MANY}),
    LOST,
)
def test_proposal_stays_within_max_drop(drops: dict[str, float], sizes: dict[str, int], max_drop: float) -> None:
    assert images_lost(find_smallest(MANY, measure_with(drops, sizes), max_drop)) <= round(max_drop * IMAGES)


@given(st.fixed_dictionaries(dict.fromkeys(FEW, LOST)), LOST)
def test_exhaustive_search_finds_the_smallest_file(drops: dict[str, float], max_drop: float) -> None:
    measure = measure_with(drops, {"a": 1, "b": 2, "c": 4})
    proposed = find_smallest(FEW, measure, max_drop)
    smaller = [measure(set(FEW) - {unit}) for unit in FEW] + [measure(FEW)]
    assert not [
        file for file in smaller if file.bytes < proposed.bytes and images_lost(file) <= round(max_drop * IMAGES)
    ]


def test_loss_equal_to_max_drop_is_allowed() -> None:
    measure = measure_with({"a": 1 - 0.998, "b": 0.0, "c": 0.0}, {"a": 1, "b": 2, "c": 4})  # a little over 0.002
    assert find_smallest(FEW, measure, 0.002).chosen == FEW


RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(40, 2)).astype(np.float32)
TWO = np.eye(2, dtype=np.float32)
LABELS, MAPS = (RNG.integers(0, 2, shape) for shape in ((40, 2), (40, 3, 3)))
SIDES = LABELS[:, 0]


@pytest.mark.parametrize(
    ("head", "right", "truth"),
    [
        (ClassHead(2, "logits"), TWO[SIDES], SIDES),
        (BinaryHead(1, "sigmoid"), SIDES[:, np.newaxis].astype(np.float32), SIDES),
        (LabelHead(2, "sigmoid"), LABELS.astype(np.float32), LABELS),
        (PixelHead(18, True), TWO[MAPS], MAPS),
        (NumberHead(2), NUMBERS, NUMBERS),
        (ReconstructionHead(2), NUMBERS, np.zeros(40, np.int64)),
    ],
    ids=["classification", "binary", "multilabel", "segmentation", "regression", "reconstruction of normal examples"],
)
def test_loss_is_how_much_worse_a_score_is_whichever_values_are_better(head: Head, right: Any, truth: Any) -> None:
    examples, wrong = Split(Rows(NUMBERS), truth), right.copy()
    wrong[:4] = 1 - wrong[:4] * 3
    score, change, lost = _compared(head, examples, right)(wrong)
    metric = head.validation_metric
    assert lost > 0
    assert change.value == (lost if metric is not None and metric.better == "lower" else -lost)
    assert change.low < change.value < change.high
    assert _compared(head, examples, wrong)(right)[2] == -lost
    assert _compared(head, examples, right)(right)[0] == pytest.approx(score - change.value)


def test_metric_without_value_on_the_validation_examples_is_refused() -> None:
    one_class = Split(Rows(NUMBERS), np.ones(40, np.int64))
    with pytest.raises(UserError, match="task=binary: its metric, AUC, has no value on 40 validation examples"):
        _compared(BinaryHead(1, "logits"), one_class, NUMBERS[:, :1])


def test_max_drop_of_an_error_is_a_share_of_that_of_the_float_file() -> None:
    none, whole = (Measured(chosen, 9, 50.0, Estimate(0, 0, 0), 0.0, 0.1) for chosen in ((), FEW))
    findings = Findings(FEW, none, none, whole, {}, {}, none, {}, 40, RecordedMetric("mae", "lower"))
    assert describe_proposal(findings, Options()) == (
        "No layer can be quantized within max_drop=0.002, which is 0.1 in MAE: ship the float file."
    )


@pytest.mark.parametrize(("width", "tables"), [(80, 2), (140, 1)])
def test_names_and_intervals_are_whole_on_a_narrow_terminal(
    width: int, tables: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CONSOLE, "_width", width)
    layers = ("separable_conv2d_1", "batch_normalization_12")
    file = Measured((), 30_000, 0.09, Estimate(0.0002, -0.0098, 0.0122), 0.0, 0.0123)
    each = dict.fromkeys(layers, file)
    findings = Findings(layers, file, file, file, each, each, file, {}, 300, RecordedMetric("mae", "lower"))
    with CONSOLE.capture() as captured:
        _show(findings, Options())
    shown = captured.get()
    assert shown.count("layer  ") == tables
    assert shown.count("batch_normalization_12  ") == tables
    assert shown.count("[-0.0098, +0.0122]  ") == 4


def test_values_are_rounded_to_the_nearest_level() -> None:
    values = np.array([[-9.0, 0.4, 0.6, 9.0]], np.float32)
    assert round_to_levels(values, np.array([-1.0, 0.0, 1.0])).tolist() == [[-1.0, 0.0, 1.0, 1.0]]
    assert round_to_levels(values, np.empty(0)) is values


@pytest.mark.tensorflow
def test_every_layer_of_a_network_with_branches_is_measured() -> None:
    from experiments.runs.configuration import compose_request
    from experiments.sensitivity import measure_layers

    overrides = ["model=resnet8", "epochs=0", "dataset.train_samples=300", "dataset.test_samples=10"]
    findings = measure_layers(compose_request(overrides).experiment, Options(images=20, max_drop=1.0))
    assert {"stem", "conv_0a", "add_0", "shortcut_1", "pool", "dense"} <= set(findings.alone)
    assert findings.proposal.chosen == findings.units
    assert findings.rounded.rms_logit_error > 0
    assert all(file.bytes < findings.none.bytes for unit, file in findings.alone.items() if unit.startswith("conv"))


@pytest.mark.tensorflow
def test_layers_of_another_task_are_chosen_by_its_metric(tmp_path: Path) -> None:
    from experiments.runs.configuration import compose_request
    from experiments.sensitivity import measure_layers, write

    np.savez(tmp_path / "data.npz", x_train=NUMBERS, y_train=NUMBERS, x_test=NUMBERS, y_test=NUMBERS)
    options = Options(max_drop=1.0, folder=tmp_path)
    settings = ["dataset=npz", f"dataset.path={tmp_path / 'data.npz'}", "model=mlp", "epochs=0"]
    findings = measure_layers(compose_request(settings).experiment, options)
    write(findings, options)
    assert (findings.metric, findings.error) == (RecordedMetric("mae", "lower"), "output error")
    assert findings.everything.rms_logit_error > 0
    assert findings.proposal.bytes <= findings.everything.bytes < findings.none.bytes
    heading = (tmp_path / "sensitivity.csv").read_text(encoding="utf-8").splitlines()[0]
    assert heading == "layer,what,bytes,mae,mae_change,low,high,rms_logit_error"


@pytest.mark.tensorflow
def test_model_without_layers_to_choose_is_rejected() -> None:
    from experiments.runs.configuration import compose_request
    from experiments.sensitivity import measure_layers

    asked = compose_request(["dataset.train_samples=20", "dataset.test_samples=10"]).experiment
    with pytest.raises(UserError, match="model=article_cnn: requires a layer with weights"):
        measure_layers(replace(asked, model=Nothing()), Options())


@pytest.mark.tensorflow
def test_threads_setting_applies_to_training(tmp_path: Path) -> None:
    # TensorFlow takes them once a process, so another one is asked.
    (tmp_path / "asking.py").write_text(
        "import sys\nfrom experiments import sensitivity\n"
        "def find(*_):\n"
        "    from experiments.training.loop import _threads\n"
        "    sys.exit(f'{_threads()} threads')\n"
        "sensitivity.measure_layers = find\nsensitivity.main()"
    )
    done = run(tmp_path, "asking", "threads=7")
    assert done.stderr.endswith("7 threads\n")


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("strategy=qat", "this command chooses layers, not a strategy"),
        ("strategy.layers=[Dense]", "this command chooses layers, not a strategy"),
        ("latency.seconds=1", "this command does not measure latency"),
        ("finetune.epochs=3", "this command trains only the baseline"),
        ("tracking=server", "this command records no run"),
        ("+tracking.uri=sqlite:///mlflow.db", "this command records no run"),
        ("resume=false", "this command records no run"),
    ],
)
def test_setting_without_effect_is_rejected_with_alternatives(argument: str, said: str) -> None:
    with pytest.raises(UserError) as refusal:
        _split([argument])
    assert str(refusal.value).startswith(f"{argument}: has no effect; {said}")
    assert "dataset, model, task, epochs, training, seed, threads, cache, max_drop, images, folder" in str(
        refusal.value
    )


def test_effective_settings_are_accepted() -> None:
    others = ["model=mlp", "training.batch_size=20", "threads=1", "+dataset.train_samples=9", "cache.dir=x"]
    assert _split(["images=9", *others]) == ({"images": "9"}, others)


@pytest.mark.endtoend
def test_command_prints_a_proposal_and_writes_table_and_plot(tmp_path: Path) -> None:
    images = save_images(tmp_path / "images.npz")
    data = ["dataset=npz", f"dataset.path={images}", "training.batch_size=20"]
    done = run(tmp_path, "experiments.sensitivity", "model=mlp", *data, "max_drop=0.5", "images=20", "--json")
    assert done.returncode == 0, done.stderr
    assert "strategy=ptq_int8 'strategy.layers=[" in done.stderr
    assert document(done.stdout)["all_in_int8"]["bytes"] < document(done.stdout)["all_in_float"]["bytes"]
    assert (tmp_path / "sensitivity" / "sensitivity.csv").read_text().count("\n") == 11
    assert (tmp_path / "sensitivity" / "sensitivity.png").stat().st_size > 5000


@pytest.mark.endtoend
@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("max_drop=much", "max_drop=much"),
        ("images=0", "images=0"),
        ("strategy=qat", "this command chooses layers, not a strategy"),
        ("model=resnet", "model=resnet: unknown option"),
    ],
)
def test_invalid_setting_is_reported_in_one_line(argument: str, said: str, tmp_path: Path) -> None:
    done = run(tmp_path, "experiments.sensitivity", argument)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
