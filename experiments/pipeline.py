"""One run, from the data set to the record, top to bottom."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from experiments.dataset import Dataset, Source
from experiments.errors import UserError, first_line
from experiments.graph import coverage, read_ops
from experiments.measure.accuracy import Logits, keras_logits, tflite_logits
from experiments.measure.fidelity import delegated, gaps, op_noise
from experiments.measure.latency import LatencyProtocol, measure_latency
from experiments.model import Architecture
from experiments.progress import say
from experiments.promise import broken
from experiments.record import AFTER, BASELINE, FINAL, REFERENCE, Answers, RunRecord, Setting, Stage, described
from experiments.stamp import stamp
from experiments.statistics import Estimate, mcnemar, paired_difference, proportion
from experiments.strategy import Strategy
from experiments.tflite import Calibration, Float32, TFLiteModel, convert
from experiments.training import Fit, Trained, Training, fit

if TYPE_CHECKING:
    from tf_keras import Model


@dataclass(frozen=True)
class Experiment:
    """All that decides a run, as typed objects; what the configuration becomes at the door."""

    setting: Setting
    dataset: Source
    model: Architecture
    strategy: Strategy
    training: Training
    finetune: Training
    latency: LatencyProtocol
    cache_dir: Path

    def __post_init__(self) -> None:
        if self.strategy.needs_epochs and self.finetune.epochs == 0:
            raise UserError(
                f"finetune.epochs=0: strategy={self.setting.strategy} learns its ranges while it trains; give "
                "finetune.epochs=1 or more, or quantize after training with strategy=ptq_int8."
            )

    def fit(self, data: Dataset, settings: Training, title: str) -> Fit:
        """Training on this data with these settings, for whoever has a model to train."""
        return partial(fit, data=data, settings=settings, seed=self.setting.seed, cache_dir=self.cache_dir, title=title)


def run(experiment: Experiment) -> RunRecord:
    """Train or reuse the baseline, apply the strategy, convert, and measure.

    Raises:
        UserError: the data, the model or the strategy cannot work together; found before any training.
    """
    seed, strategy = experiment.setting.seed, experiment.strategy
    experiment.model.check()
    data = experiment.dataset.load()
    model = built(experiment, data)
    promise = strategy.promise(model)
    if promise.partial:
        say(f"  partial: {described(promise.left_float)}")

    baseline = experiment.fit(data, experiment.training, "Training the baseline")(model)
    calibration = partial(data.calibration, seed=seed)
    further = experiment.fit(data, experiment.finetune, f"Training {experiment.setting.strategy}")
    prepared = strategy.prepare(baseline.model, further, calibration)

    reference = convert(baseline.model, Float32(), calibration)
    tflite = convert(prepared.model, strategy.scheme, calibration, promise.chosen)

    logits = _logits(data, baseline.model, prepared.model, reference, tflite)
    answers = Answers(
        truth=data.test.y,
        keras=logits[AFTER].argmax(axis=1),
        tflite=logits[FINAL].argmax(axis=1),
        reference=logits[REFERENCE].argmax(axis=1),
    )
    right, right_before = answers.tflite == answers.truth, answers.reference == answers.truth
    layers = [layer.name for layer in model.layers]
    ops = read_ops(tflite.content, layers)
    in_float = reference if prepared.model is baseline.model else _in_float(prepared.model, calibration)
    return RunRecord(
        setting=experiment.setting,
        baseline=_stage(baseline),
        own_training=_stage(prepared),
        tflite=tflite,
        reference_bytes=reference.bytes,
        answers=answers,
        keras_accuracy=_accuracy(answers.keras == answers.truth),
        tflite_accuracy=_accuracy(right),
        accuracy_change=paired_difference(right, right_before),
        accuracy_change_p=mcnemar(right, right_before),
        agreement=float(np.mean(answers.keras == answers.tflite)),
        latency=measure_latency(tflite, reference, data.test.x, experiment.latency, seed),
        ops=ops,
        coverage=coverage(ops),
        gaps=gaps(logits),
        op_noise=op_noise(tflite, ops, in_float, read_ops(in_float.content, layers), data.test.x),
        delegated=delegated(tflite, ops),
        promise=promise,
        broken=broken(promise, ops),
        data_fingerprint=data.fingerprint,
        stamp=stamp(),
    )


def _logits(
    data: Dataset, baseline: "Model", after: "Model", reference: TFLiteModel, tflite: TFLiteModel
) -> dict[str, Logits]:
    """Outputs on the test images of the four models between which accuracy can be lost, in the order of the story."""
    images = data.test.x
    of_baseline = keras_logits(baseline, images)
    return {
        BASELINE: of_baseline,
        AFTER: of_baseline if after is baseline else keras_logits(after, images),
        REFERENCE: tflite_logits(reference, images),
        FINAL: tflite_logits(tflite, images),
    }


def _in_float(model: "Model", calibration: Calibration) -> TFLiteModel:
    """The float file of the weights that a strategy has trained, without any quantization."""
    from experiments.strategy.annotation import fake_quantization_off

    with fake_quantization_off():
        return convert(model, Float32(), calibration)


def built(experiment: Experiment, data: Dataset) -> "Model":
    """The untrained model, its random weights drawn from the seed; models of earlier runs are let go."""
    from experiments.tensorflow_quietly import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(experiment.setting.seed)
    try:
        return experiment.model.build(data.input_shape, data.classes)
    except ValueError as error:
        raise UserError(
            f"model={experiment.setting.model} cannot be built for images of the shape {data.input_shape}: "
            f"{first_line(error)}"
        ) from error


def _stage(trained: Trained) -> Stage:
    return Stage(trained.key, trained.history, trained.epochs_trained, trained.epochs_reused, trained.seconds)


def _accuracy(right: npt.NDArray[np.bool_]) -> Estimate:
    return proportion(int(np.count_nonzero(right)), len(right))
