"""One run, from the data set to the record, on a little of real MNIST."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.dataset.mnist import Mnist
from experiments.measure.latency import LatencyProtocol
from experiments.model.article_cnn import ArticleCNN
from experiments.record.run_record import RunRecord, Setting
from experiments.runs.experiment import Experiment
from experiments.runs.pipeline import build_model, run
from experiments.runs.trainings import trainer
from experiments.strategy import Strategy
from experiments.strategy.annotate import Annotate
from experiments.strategy.cluster import Cluster
from experiments.strategy.cluster_qat import ClusterQAT
from experiments.strategy.none import Nothing
from experiments.strategy.post_training import PTQDynamic, PTQFloat16, PTQInt4, PTQInt8, PTQInt16x8
from experiments.strategy.prune import Prune
from experiments.strategy.prune_cluster_qat import PruneClusterQAT
from experiments.strategy.prune_qat import PruneQAT
from experiments.strategy.qat import QAT
from experiments.system.cache import Cache
from experiments.system.errors import UserError
from experiments.training.loop import Training

CONTRACT = {
    "keras_accuracy", "tflite_accuracy", "agreement", "tflite_bytes", "tflite_gzip_bytes", "latency_p50_us",
    "latency_p90_us", "latency_p99_us", "latency_min_us", "speedup", "speedup_low", "speedup_high", "size_ratio",
    "coverage_ops", "coverage_weights", "train_seconds",
}  # fmt: skip


def experiment(strategy: Strategy, cache: Path, finetune_epochs: int = 1) -> Experiment:
    return Experiment(
        setting=Setting("a strategy", "article_cnn", "mnist", 1, finetune_epochs, 0),
        dataset=Mnist(train_samples=1200, test_samples=400),
        model=ArticleCNN(),
        strategy=strategy,
        training=Training(epochs=1, batch_size=50),
        finetune=Training(epochs=finetune_epochs, batch_size=50),
        latency=LatencyProtocol(seconds=0.1),
        cache=Cache(dir=cache),
        threads=2,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def baseline(cache: Path) -> RunRecord:
    return run(experiment(Nothing(), cache))


@pytest.mark.tensorflow
def test_a_record_holds_every_metric_of_the_contract(baseline: RunRecord) -> None:
    assert baseline.metrics().keys() >= CONTRACT


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": "best"}, r"^finetune\.keep=best: requires validation examples.*finetune\.keep=last"),
        ({"class_weights": {"cat": 2}}, r"^finetune\.class_weights: the data have no class cat"),
        ({"augmentation": [{"RandomRotation": {"factor": "a"}}]}, r"^finetune\.augmentation=.*Keras rejects it"),
        ({"optimizer": {"sgd": {"momentum": 2}}}, r"^finetune\.optimizer=.*Keras rejects it"),
    ],
)
def test_settings_of_further_training_are_checked_before_the_baseline_is_trained(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    wrong = replace(
        experiment(QAT(), tmp_path),
        dataset=Mnist(train_samples=100, test_samples=50, validation_split=0),
        finetune=Training(epochs=1, **settings),
    )
    with pytest.raises(UserError, match=message):
        run(wrong)
    assert not list(wrong.cache.named_trainings())


@pytest.mark.tensorflow
def test_the_float_file_is_its_own_reference(baseline: RunRecord) -> None:
    metrics = baseline.metrics()
    assert [metrics[name] for name in ("accuracy_change", "agreement", "size_ratio")] == [0, 1, 1]


@pytest.mark.tensorflow
def test_training_curves_have_a_value_for_each_epoch(baseline: RunRecord) -> None:
    assert {name: len(values) for name, values in baseline.curves().items()} == {
        "baseline/loss": 1, "baseline/accuracy": 1, "baseline/val_loss": 1, "baseline/val_accuracy": 1,
    }  # fmt: skip


def assert_agreement(record: RunRecord, baseline: RunRecord) -> None:
    assert record.predictions.agreement >= 0.995
    assert record.broken == ()
    assert record.predictions.tflite_accuracy.value > baseline.predictions.tflite_accuracy.value


@pytest.mark.tensorflow
def test_a_run_of_qat_is_measured_and_its_model_and_file_agree(cache: Path, baseline: RunRecord) -> None:
    record = run(experiment(QAT(), cache))
    assert_agreement(record, baseline)
    assert record.metrics().keys() >= CONTRACT


@pytest.mark.tensorflow
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    "strategy",
    [
        Annotate(),
        # These spare a layer between two chosen ones, which the converter alone would quantize.
        pytest.param(Annotate(layers=("conv2d", "conv2d_2")), marks=pytest.mark.nightly),
        Annotate(layers=("conv2d", "conv2d_1", "dense")),
        pytest.param(Annotate(layers=("conv2d_1", "dense")), marks=pytest.mark.nightly),
        pytest.param(Annotate(layers=("conv2d", "conv2d_2", "dense")), marks=pytest.mark.nightly),
    ],
    ids=["dense", "0,2", "0,1,3", "1,3", "0,2,3"],
)
def test_a_quantization_aware_model_and_its_file_agree(strategy: Strategy, cache: Path, baseline: RunRecord) -> None:
    assert_agreement(run(experiment(strategy, cache)), baseline)


@pytest.mark.tensorflow
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("strategy", "loss"),
    [
        (PTQDynamic(), 0.005),
        (PTQFloat16(), 0.005),
        (PTQInt8(), 0.01),
        (PTQInt8(layers=("conv2d_1", "dense")), 0.01),
        (PTQInt16x8(calibration_samples=20), 0.005),
        (PTQInt4(), 0.02),
        (Annotate(rest="dynamic"), 0.0),
        pytest.param(Annotate(rest="float16"), 0.0, marks=pytest.mark.nightly),
        pytest.param(Prune(), 0.03, marks=pytest.mark.nightly),
        (Cluster(), 0.02),
        pytest.param(PruneQAT(), 0.03, marks=pytest.mark.nightly),
        pytest.param(ClusterQAT(), 0.02, marks=pytest.mark.nightly),
        pytest.param(PruneClusterQAT(), 0.03, marks=pytest.mark.nightly),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Strategy) else "",
)
def test_no_strategy_costs_more_accuracy_than_it_should(
    strategy: Strategy, loss: float, cache: Path, baseline: RunRecord
) -> None:
    record = run(experiment(strategy, cache))
    assert record.broken == ()
    assert record.predictions.tflite_accuracy.value >= baseline.predictions.tflite_accuracy.value - loss


@pytest.mark.tensorflow
@pytest.mark.parametrize("stage", ["training", "finetune"])
def test_a_training_that_diverges_is_reported_with_the_setting_to_change(stage: str, tmp_path: Path) -> None:
    diverging: dict[str, Any] = {stage: Training(epochs=1, batch_size=50, learning_rate=1e30)}
    asked = replace(experiment(Nothing(), tmp_path), **diverging)
    data = Mnist(train_samples=200, test_samples=10).load()
    with pytest.raises(UserError, match=rf"^{stage}\.learning_rate=1e\+30: training diverged: its weights are not fin"):
        trainer(asked, data, getattr(asked, stage), "Training")(build_model(asked, data))


@pytest.mark.tensorflow
def test_a_model_that_was_trained_elsewhere_and_holds_nan_is_refused(tmp_path: Path) -> None:
    asked = replace(experiment(Nothing(), tmp_path), training=Training(epochs=0))
    data = Mnist(train_samples=200, test_samples=10).load()
    model = build_model(asked, data)
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    with pytest.raises(UserError, match=r"^model: its weights are not finite"):
        trainer(asked, data, asked.training, "Training")(model)


def test_learning_ranges_without_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"finetune\.epochs=0"):
        experiment(QAT(), tmp_path, finetune_epochs=0)
