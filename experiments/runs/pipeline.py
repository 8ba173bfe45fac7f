"""A run, from the data set to the record."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from experiments.dataset import Dataset, Examples, Images
from experiments.dataset.named import fields, is_named, under
from experiments.dataset.rows import at_once
from experiments.measure.accuracy import Logits
from experiments.measure.changes import Changed, changed_images
from experiments.measure.fidelity import NOISE_IMAGES, OpNoise, delegated, gaps_of_outputs, op_noise
from experiments.measure.interpreter import xnnpack_refusal
from experiments.measure.latency import IMAGES, Latency, LatencyProtocol, measure_latency
from experiments.measure.memory import Arena, Memory, footprint
from experiments.measure.op_profile import Profile, op_profile
from experiments.measure.plausibility import input_warnings, output_warnings, score_warnings
from experiments.model.configuration import layer_names
from experiments.model.ends import entries_of, exit_names, with_output
from experiments.model.flattening import without_additions
from experiments.quantization.engines import NAMES
from experiments.record.evidence import Evidence, Predictions, Scores
from experiments.record.identity import DIGITS, Identity, model_digest
from experiments.record.run_record import (
    AFTER,
    BASELINE,
    FINAL,
    REFERENCE,
    Data,
    RunRecord,
    Stage,
    describe_float_layers,
)
from experiments.runs import trial
from experiments.runs.experiment import Experiment
from experiments.runs.result_cache import ResultCache
from experiments.runs.trainings import trainer
from experiments.system.errors import UserError, first_line
from experiments.system.keras_version import version_of
from experiments.system.machine import compute_lock
from experiments.system.progress import bar, say, say_once
from experiments.system.stamp import stamp
from experiments.task import Head
from experiments.task.classification import ClassHead
from experiments.tflite.conversion import TFLiteModel
from experiments.tflite.expectation import Expectation
from experiments.tflite.graph import Op, read_ops
from experiments.tflite.schemes import Float32, Learned, Scheme
from experiments.training.loop import Trained, check_fit
from experiments.training.outputs import heads_of, joint_head

if TYPE_CHECKING:
    from tf_keras import Model


NO_PREDICTIONS = Predictions(*[np.empty(0, np.int64)] * 4)
LISTED = 3  # float layers to print per reason; the record has all


@dataclass(frozen=True)
class Subject:
    """What a run works on: the untrained model, the data in its input form, and the meaning of its outputs."""

    model: "Model"
    data: Dataset
    head: Head  # of the judged output
    to_train: Head  # of all outputs that have targets
    identity: Identity


@dataclass(frozen=True)
class Models:
    """The baseline and the model after the strategy, with the warnings about data and baseline."""

    baseline: Trained
    prepared: Trained
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Files:
    """The TFLite files of a run, and the ops of those whose ops are compared."""

    tflite: TFLiteModel  # the result
    reference: TFLiteModel  # the baseline in float
    in_float: TFLiteModel  # the result's weights in float
    ops: tuple[Op, ...]  # of `tflite`
    float_ops: tuple[Op, ...]  # of `in_float`
    xnnpack_refusal: str  # empty if XNNPACK runs the result


@dataclass(frozen=True)
class Measurements:
    """What was measured of the files."""

    logits: Mapping[str, Logits]  # the outputs of each model on the test examples
    noise: tuple[OpNoise, ...]
    latency: Latency
    profile: Profile
    memory: Memory
    arena: Arena | None


def _ignore(_: Identity) -> None:
    """Do nothing."""


def run(experiment: Experiment, on_identity: Callable[[Identity], None] = _ignore) -> RunRecord:
    """Train or reuse the baseline, apply the strategy, convert, and measure.

    `on_identity` is called with the digests of model and data as soon as they are known, since a run may fail later.

    Raises:
        UserError: data, model and strategy do not fit together, which is checked before any training; or training
            diverged, or the converter or the interpreter rejects the model.
    """
    durations = Durations()
    experiment.check()
    examples = examples_of(experiment)
    with compute_lock():
        subject = _load(experiment, examples)
        on_identity(subject.identity)
        scheme = experiment.strategy.scheme(subject.model)
    results = ResultCache(experiment.cache, subject.data, experiment.setting.seed, experiment.threads)
    results.check_outputs(subject.model)
    subject, scheme, expectation = _check_conversion(experiment, subject, examples, scheme, results, durations)
    models = _train(experiment, subject, scheme, results, durations)
    files = _convert(subject, models, scheme, results, durations)
    measured = _measure(experiment, subject, models, files, results, durations)
    engine = _engine(subject.model, scheme, expectation)
    return _record(experiment, subject, models, files, measured, expectation, engine, durations)


def _load(experiment: Experiment, examples: Examples) -> Subject:
    model, data, head = build_with_data(experiment, examples)
    return Subject(model, data, head, joint_head(model, data, head), identify(experiment, model, data))


def _check_conversion(
    experiment: Experiment,
    subject: Subject,
    examples: Examples,
    scheme: Scheme,
    results: ResultCache,
    durations: "Durations",
) -> tuple[Subject, Scheme, Expectation]:
    """Return the scheme, reduced to what the converter supports for this model, and the expectation of the file."""
    final = experiment.training.epochs == 0 and not experiment.strategy.trains
    untrained_file = None
    if final:
        with durations.measure("conversion"):
            untrained_file = results.convert(subject.model, scheme)
    scheme, expectation, tried = trial.load_or_try(
        results, experiment.strategy, scheme, subject.model, subject.identity.model, untrained_file
    )
    if expectation.partial:
        say(f"  partial: {describe_float_layers(expectation.left_float, most=LISTED)}")
    if tried and not final:  # the trial used random numbers and layer numbers, which must not affect the training
        with compute_lock():
            model = build_model(experiment, examples if experiment.model.given else subject.data)
        subject = replace(subject, model=model)
    return subject, scheme, expectation


def _train(
    experiment: Experiment, subject: Subject, scheme: Scheme, results: ResultCache, durations: "Durations"
) -> Models:
    """Train or reuse the baseline, and apply the strategy to it."""
    model, data, head = subject.model, subject.data, subject.head
    warnings = [*_print_warnings(data.warnings)]
    warnings += (input_warned := list(_warn_about_input(experiment, model, data, head, results)))
    baseline = trainer(experiment, data, experiment.training, "Training the baseline", subject.to_train)(model)
    with durations.measure("evaluation"):
        outputs = under(data.output, results.keras_outputs(baseline.model))
        warnings += _warn_about_predictions(experiment, outputs, data, head, explained=bool(input_warned))
    further = trainer(
        experiment, data, experiment.finetune, f"Training {experiment.setting.strategy}", subject.to_train
    )
    prepared = experiment.strategy.apply(scheme, baseline.model, further, results.calibration)
    return Models(baseline, prepared, tuple(warnings))


def _convert(subject: Subject, models: Models, scheme: Scheme, results: ResultCache, durations: "Durations") -> Files:
    """Convert the baseline to float, and the model after the strategy both by its scheme and to float."""
    with durations.measure("conversion"):
        reference = results.convert(models.baseline.model, Float32())
        tflite = results.convert(models.prepared.model, scheme)
        in_float = results.in_float(models.prepared.model, subject.model)
    refusal = xnnpack_refusal(tflite)
    if refusal:
        say(f"  XNNPACK rejects the file ({refusal}); LiteRT's own kernels run it")
    ops, float_ops = (read_ops(file.content, layer_names(subject.model)) for file in (tflite, in_float))
    return Files(tflite, reference, in_float, ops, float_ops, refusal)


def _measure(
    experiment: Experiment,
    subject: Subject,
    models: Models,
    files: Files,
    results: ResultCache,
    durations: "Durations",
) -> Measurements:
    """Measure accuracy, noise, memory, latency and the time of each op."""
    data, seed = subject.data, experiment.setting.seed
    # These processes mostly wait for their start, and their results do not depend on the load.
    with ThreadPoolExecutor(1) as pool, durations.measure("evaluation"):
        pending = pool.submit(_footprint, files.tflite, _timing_images(data), experiment.latency, durations)
        logits = {
            BASELINE: results.keras_outputs(models.baseline.model),
            AFTER: results.keras_outputs(models.prepared.model),
            REFERENCE: results.tflite_outputs(files.reference),
            FINAL: results.tflite_outputs(files.tflite),
        }
        with compute_lock():
            images = data.test.sample(NOISE_IMAGES).x
            noise = op_noise(files.tflite, files.ops, files.in_float, files.float_ops, images)
    with durations.measure("latency"):
        latency = measure_latency(files.tflite, files.reference, _timing_images(data), experiment.latency, seed)
    with durations.measure("profile"):
        protocol = replace(experiment.latency, delegate="builtin") if files.xnnpack_refusal else experiment.latency
        profile = op_profile(files.tflite, files.ops, _timing_images(data), protocol, seed)
    memory, arena = pending.result()
    return Measurements(logits, noise, latency, profile, memory, arena)


def _record(
    experiment: Experiment,
    subject: Subject,
    models: Models,
    files: Files,
    measured: Measurements,
    expectation: Expectation,
    engine: str,
    durations: "Durations",
) -> RunRecord:
    """Return the record of a run."""
    data, head = subject.data, subject.head
    judged = {model: under(data.output, outputs) for model, outputs in measured.logits.items()}
    evidence = _evidence_of(data, head, judged)
    return RunRecord(
        setting=experiment.setting,
        identity=subject.identity,
        baseline=_stage(models.baseline),
        own_training=_stage(models.prepared),
        tflite=files.tflite,
        reference=files.reference,
        evidence=evidence,
        changed=_find_changed(data, evidence),
        latency=measured.latency,
        ops=files.ops,
        gaps=gaps_of_outputs(measured.logits, data.output, heads_of(subject.to_train)),
        op_noise=measured.noise,
        delegated=delegated(files.tflite, files.ops),
        profile=measured.profile,
        memory=measured.memory,
        arena=measured.arena,
        expectation=expectation,
        seconds=durations.seconds,
        data=_data(data, head, measured.logits[FINAL]),
        stamp=stamp(),
        xnnpack_refusal=files.xnnpack_refusal,
        engine=engine,
        warnings=models.warnings,
        task=head.task,
        further=_further_metrics(head, data, judged),
        metric=head.metric.name if head.metric else "accuracy",
        metric_better=head.metric.better if head.metric else "higher",
    )


def _engine(model: "Model", scheme: Scheme, expectation: Expectation) -> str:
    """Return the name of the engine of quantization-aware training or compression; empty without either."""
    uses_engine = isinstance(scheme, Learned) or expectation.sparsity > 0 or expectation.clusters is not None
    return NAMES[version_of(model)] if uses_engine else ""


def _warn_about_input(
    experiment: Experiment, model: "Model", data: Dataset, head: Head, results: ResultCache
) -> Iterator[str]:
    """Yield and print warnings about the input of an existing model, before any training."""
    one = not is_named(data.train.x) and not data.output
    if one and experiment.model.given and experiment.model.has_trained_head and isinstance(head, ClassHead):
        with compute_lock():
            found = list(input_warnings(model, data, head, results.predictor(model)))
        yield from _print_warnings(found)


def _warn_about_predictions(
    experiment: Experiment, outputs: Logits, data: Dataset, head: Head, explained: bool
) -> Iterator[str]:
    """Yield and print warnings about the predictions of the baseline, before the strategy."""
    epochs = experiment.training.epochs
    if isinstance(head, ClassHead):
        predictions = head.predict(outputs)
        yield from _print_warnings(output_warnings(predictions, data, head, epochs, explained and epochs == 0))
    else:
        yield from _print_warnings(score_warnings(outputs, data, head, epochs))


def _print_warnings(warnings: Iterable[str]) -> Iterator[str]:
    for warning in warnings:
        say_once(f"  warning: {warning}")
        yield warning


def _evidence_of(data: Dataset, head: Head, logits: Mapping[str, Logits]) -> Evidence:
    if (metric := head.metric) is None:
        assert isinstance(head, ClassHead)
        classes = {model: head.predict(outputs) for model, outputs in logits.items()}
        return Predictions(truth=data.test.y, keras=classes[AFTER], tflite=classes[FINAL], reference=classes[REFERENCE])
    values = {model: metric.replicates(logits[model], data.test) for model in (AFTER, FINAL, REFERENCE)}
    return Scores(metric.units(data.test), values[AFTER], values[FINAL], values[REFERENCE])


def _find_changed(data: Dataset, evidence: Evidence) -> Changed:
    """Return the images whose predicted class changed; none for other tasks."""
    predictions = evidence if isinstance(evidence, Predictions) else NO_PREDICTIONS
    if is_named(data.test.x):  # nothing to show as one image
        return changed_images(np.zeros((len(data.test), 1), np.float32), *[np.empty(0, np.int64)] * 3)
    return changed_images(data.test.x, predictions.truth, predictions.reference, predictions.tflite)


def _further_metrics(head: Head, data: Dataset, logits: Mapping[str, Logits]) -> dict[str, float]:
    """Return the further metrics of the Keras model and of the file, by column."""
    models = {"keras": logits[AFTER], "tflite": logits[FINAL]}
    return {
        f"{model}_{metric.name}": metric.value(outputs, data.test)
        for metric in head.further
        for model, outputs in models.items()
    }


def _timing_images(data: Dataset) -> Images:
    """Return the test images to cycle through in timings; fewer if they are large."""
    return data.test.x[: at_once(data.test.x, IMAGES)]


def _footprint(
    tflite: TFLiteModel, images: Images, protocol: LatencyProtocol, durations: "Durations"
) -> tuple[Memory, Arena | None]:
    with durations.measure("memory"), compute_lock():
        return footprint(tflite, images, protocol.threads)


class Durations:
    """Measures the wall time of the parts of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the duration of the block to this part, and show a bar meanwhile."""
        started = time.perf_counter()
        with bar(part.capitalize(), total=None):
            yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started


def identify(experiment: Experiment, model: "Model", data: Dataset) -> Identity:
    """Return the identity of a run, with the digests of the untrained model and its examples."""
    return replace(
        experiment.identity,
        model=model_digest(model, experiment.model),
        training=data.training_fingerprint[:DIGITS],
        test=data.test_fingerprint[:DIGITS],
    )


def examples_of(experiment: Experiment) -> Examples:
    """Return the examples of a run, as its task counts them."""
    return experiment.task.counted(experiment.dataset.examples(experiment.task.kind, experiment.task.output))


def build_with_data(experiment: Experiment, examples: Examples) -> tuple["Model", Dataset, Head]:
    """Return the untrained model, the data in its input form, and the meaning of its outputs.

    Raises:
        UserError: model, data and settings of training do not fit together.
    """
    if experiment.model.given:
        model = build_model(experiment, examples)
        outputs = {name: tuple(each.shape) for name, each in zip(exit_names(model), model.outputs, strict=True)}
        if wrong := [shape for shape in outputs.values() if len(shape) < 2 or shape[-1] is None]:
            raise UserError(
                f"model={experiment.setting.model}: requires outputs of known shape, such as (n, 10), not {wrong[0]}. "
                "For one number: keras.Sequential([model, keras.layers.Reshape((1,))]).save('my.keras')"
            )
        data = examples.for_model(entries_of(model), {name: int(shape[-1]) for name, shape in outputs.items()})
    else:
        data = examples.for_new_model()
        model = build_model(experiment, data)
    for note in data.notes:
        say_once(f"  {note}")
    head = experiment.task.resolve(examples).head(with_output(model, data.output), data)
    to_train = joint_head(model, data, head)
    for key, settings in (("training", experiment.training), ("finetune", experiment.finetune)):
        if settings.epochs and (key == "training" or experiment.strategy.trains):
            check_fit(model, data, settings, to_train, key)
    return model, data, head


def check_given(experiment: Experiment) -> None:
    """Check that an existing model can be loaded and accepts the data.

    Raises:
        UserError: it cannot, or does not.
    """
    build_with_data(experiment, examples_of(experiment))


def build_model(experiment: Experiment, data: Dataset | Examples) -> "Model":
    """Return the untrained model, with random weights from the seed; frees models of earlier runs."""
    from experiments.system.tensorflow import clear_session, keras

    clear_session()
    keras.utils.set_random_seed(experiment.setting.seed)
    try:
        shapes = (data.stored_shapes if isinstance(data, Examples) else {}) or data.input_shape
        model = experiment.model.build(shapes, data.classes)
    except ValueError as error:
        raise UserError(
            f"model={experiment.setting.model} cannot be built for examples of the shape {data.input_shape}: "
            f"{first_line(error)}"
        ) from error
    return without_additions(model, shapes, f"model={experiment.setting.model}")


def _stage(trained: Trained) -> Stage:
    return Stage(
        key=trained.key,
        history=trained.history,
        epochs_trained=trained.epochs_trained,
        epochs_reused=trained.epochs_reused,
        seconds=trained.seconds,
        seconds_reused=trained.seconds_reused,
        kept=trained.kept,
    )


def _data(data: Dataset, head: Head, every: Logits) -> Data:
    shapes = {name: shape for name, (_, shape) in zip(every.dtype.names or ("",), fields(every), strict=True)}
    return Data(
        training=len(data.train),
        validation=len(data.validation),
        test=len(data.test),
        classes=data.classes,
        example=data.test.x[:1].copy(),  # a view would keep all test images
        training_fingerprint=data.training_fingerprint,
        test_fingerprint=data.test_fingerprint,
        fingerprint=data.fingerprint,
        outputs=head.outputs,
        labels=data.labels,
        scaling=data.scaling,
        output_shape=shapes[data.output if is_named(every) else ""],
        target_shape=data.test.y.shape[1:],
        target_dtype=data.test.y.dtype.name,
        preprocessing=data.preprocessing,
        scalings=data.scalings if is_named(data.test.x) else {},
        exits=shapes if is_named(every) else {},
        output=data.output,
    )
