"""A run, from the data set to the record."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.dataset import Dataset, Examples, Images, Source
from experiments.dataset.named import apart, is_named, under
from experiments.dataset.rows import at_once
from experiments.measure.accuracy import Logits
from experiments.measure.changes import Changed, changed_images
from experiments.measure.fidelity import NOISE_IMAGES, delegated, gaps_of_outputs, op_noise
from experiments.measure.interpreter import xnnpack_refusal
from experiments.measure.latency import IMAGES, LatencyProtocol, measure_latency
from experiments.measure.memory import Arena, Memory, footprint
from experiments.measure.op_profile import op_profile
from experiments.measure.plausibility import input_warnings, output_warnings, score_warnings
from experiments.model import Architecture
from experiments.model.configuration import layer_names
from experiments.model.ends import entries_of, exit_names, with_output
from experiments.quantization.engines import NAMES
from experiments.record.evidence import Evidence, Predictions, Scores
from experiments.record.identity import DIGITS, Identity, model_digest, name_of
from experiments.record.run_record import (
    AFTER,
    BASELINE,
    FINAL,
    REFERENCE,
    Data,
    RunRecord,
    Setting,
    Stage,
    describe_float_layers,
)
from experiments.runs import trial
from experiments.runs.result_cache import ResultCache
from experiments.runs.trainings import training_name
from experiments.strategy import QuantizationAware, Strategy
from experiments.system.cache import Cache
from experiments.system.errors import UserError, first_line
from experiments.system.extras import require
from experiments.system.keras_version import version_of
from experiments.system.machine import compute_lock
from experiments.system.progress import bar, say, say_once
from experiments.system.stamp import stamp
from experiments.task import Head, Task
from experiments.task.auto import Auto
from experiments.task.classification import ClassHead
from experiments.tflite.conversion import Float32, Learned, Scheme, TFLiteModel
from experiments.tflite.expectation import Expectation
from experiments.tflite.graph import read_ops
from experiments.training.loop import Fit, Trained, Training, check_fit, fit
from experiments.training.outputs import heads_of, joint_head

if TYPE_CHECKING:
    from tf_keras import Model


NO_PREDICTIONS = Predictions(*[np.empty(0, np.int64)] * 4)
LISTED = 3  # float layers to print per reason; the record has all


@dataclass(frozen=True)
class Experiment:
    """The typed configuration of a run."""

    setting: Setting
    dataset: Source
    model: Architecture
    strategy: Strategy
    training: Training
    finetune: Training
    latency: LatencyProtocol
    cache: Cache
    threads: int  # of TensorFlow, and of the evaluation of TFLite files
    task: Task = field(default_factory=Auto)

    def __post_init__(self) -> None:
        self.training.check("training")
        if self.strategy.trains:
            self.finetune.check("finetune")
        if not self.model.trainable:
            self._check_untrainable()
        if self.strategy.needs_epochs and self.finetune.epochs == 0:
            raise UserError(
                f"finetune.epochs=0: strategy={self.setting.strategy} requires at least 1, since it learns ranges in "
                "training. Or quantize after training with strategy=ptq_int8."
            )
        if self.finetune.precision != "float32":
            raise UserError(
                f"finetune.precision={self.finetune.precision}: requires float32, like fake quantization and its "
                f"control. Only training.precision={self.finetune.precision} is possible."
            )

    def _check_untrainable(self) -> None:
        """Refuse what requires Keras layers, for a model that is a graph of operations."""
        strategy, model = f"strategy={self.setting.strategy}", f"model={self.setting.model}"
        way_out = "or give the Keras model, with model=keras_file model.path=FILE.keras"
        if self.strategy.trains:
            raise UserError(
                f"{strategy}: trains the model, and {model} has operations and no Keras layers. Quantize after "
                f"training, with strategy=ptq_int8 or another ptq_..., {way_out}."
            )
        if getattr(self.strategy, "layers", None) is not None:
            raise UserError(f"strategy.layers: {model} has no Keras layers to choose. Quantize all of it, {way_out}.")
        if self.training.epochs:
            raise UserError(f"training.epochs={self.training.epochs}: {model} cannot be trained. Type epochs=0.")

    @property
    def identity(self) -> Identity:
        """The names of model and data; their digests are computed when they are loaded."""
        files = (getattr(self.model, "path", None), getattr(self.dataset, "path", None))
        return Identity(name_of(self.setting.model, files[0]), name_of(self.setting.dataset, files[1]))

    @property
    def modules(self) -> frozenset[str]:
        """The module of the data set's class, which a user may have written."""
        return frozenset([type(self.dataset).__module__])

    def check(self) -> None:
        """Check, without TensorFlow, whether this machine can do the run.

        Raises:
            UserError: a file of data or model is missing or invalid, more threads than cores are set, or the strategy
                requires a package that is not installed.
        """
        for extra in self.strategy.extras:
            rest = self.strategy.rest if isinstance(self.strategy, QuantizationAware) else None
            require(extra, f"strategy={self.setting.strategy}{f' strategy.rest={rest}' if rest else ''}")
        for extra in self.task.extras:
            require(extra, f"task={self.task.name}")
        for extra in self.model.extras if self.setting.strategy != "none" else ():
            require(extra, f"model={self.setting.model} strategy={self.setting.strategy}")
        self.dataset.check()
        self.task.check(self.dataset)
        self.dataset.check_targets(self.task.kind, self.task.output)
        if not self.model.given and self.task.kind in (None, "classes"):
            self.dataset.check_for_new_model()
        self.model.check()
        self.latency.check()

    def fit(self, data: Dataset, settings: Training, title: str, head: Head | None = None) -> Fit:
        """Return a function that trains a model on these data with these settings; see training.fit for the head.

        Raises:
            UserError: (of the returned function) training diverged.
        """
        stages = count(0 if settings is self.training else 1)
        train = partial(
            fit, data=data, settings=settings, seed=self.setting.seed, cache=self.cache, title=title, head=head
        )
        key = "finetune" if settings is self.finetune else "training"

        def trained(model: "Model", callbacks: Sequence[Any] = ()) -> Trained:
            result = train(model, callbacks)
            if result.key:
                self.cache.trajectory(result.key).name(training_name(self, next(stages)))
            if not all(np.isfinite(weights).all() for weights in result.model.get_weights()):
                raise UserError(_not_finite(settings, key))
            return result

        return trained


def _ignore(_: Identity) -> None:
    """Do nothing."""


def run(experiment: Experiment, on_identity: Callable[[Identity], None] = _ignore) -> RunRecord:
    """Train or reuse the baseline, apply the strategy, convert, and measure.

    `on_identity` is called with the digests of model and data as soon as they are known, since a run may fail later.

    Raises:
        UserError: data, model and strategy do not fit together, which is checked before any training; or training
            diverged, or the converter or the interpreter rejects the model.
    """
    seed, strategy, durations = experiment.setting.seed, experiment.strategy, Durations()
    experiment.check()
    examples = examples_of(experiment)
    with compute_lock():
        model, data, head = build_with_data(experiment, examples)
        to_train = joint_head(model, data, head)
        identity = identify(experiment, model, data)
        on_identity(identity)
        scheme = strategy.scheme(model)
    results = ResultCache(experiment.cache, data, seed, experiment.threads)
    final = experiment.training.epochs == 0 and not strategy.trains
    untrained_file = None
    if final:
        with durations.measure("conversion"):
            untrained_file = results.convert(model, scheme)
    scheme, expectation, tried = trial.load_or_try(results, strategy, scheme, model, identity.model, untrained_file)
    if expectation.partial:
        say(f"  partial: {describe_float_layers(expectation.left_float, most=LISTED)}")
    if tried and not final:  # the trial used random numbers and layer numbers, which must not affect the training
        with compute_lock():
            model = build_model(experiment, examples if experiment.model.given else data)

    warnings = [*_print_warnings(data.warnings)]
    warnings += (input_warned := list(_warn_about_input(experiment, model, data, head, results)))
    baseline = experiment.fit(data, experiment.training, "Training the baseline", to_train)(model)
    with durations.measure("evaluation"):
        outputs = results.keras_outputs(baseline.model)
        warnings += _warn_about_predictions(
            experiment, under(data.output, outputs), data, head, explained=bool(input_warned)
        )
    further = experiment.fit(data, experiment.finetune, f"Training {experiment.setting.strategy}", to_train)
    prepared = strategy.apply(scheme, baseline.model, further, results.calibration)

    with durations.measure("conversion"):
        reference = results.convert(baseline.model, Float32())
        tflite = results.convert(prepared.model, scheme)
        in_float = results.in_float(prepared.model, model)
    refusal = xnnpack_refusal(tflite)
    if refusal:
        say(f"  XNNPACK rejects the file ({refusal}); LiteRT's own kernels run it")
    ops, float_ops = (read_ops(file.content, layer_names(model)) for file in (tflite, in_float))

    # These processes mostly wait for their start, and their results do not depend on the load.
    with ThreadPoolExecutor(1) as pool, durations.measure("evaluation"):
        pending = pool.submit(_footprint, tflite, _few(data), experiment.latency, durations)
        logits = {
            BASELINE: results.keras_outputs(baseline.model),
            AFTER: results.keras_outputs(prepared.model),
            REFERENCE: results.tflite_outputs(reference),
            FINAL: results.tflite_outputs(tflite),
        }
        with compute_lock():
            noise = op_noise(tflite, ops, in_float, float_ops, data.test.sample(NOISE_IMAGES).x)
    with durations.measure("latency"):
        latency = measure_latency(tflite, reference, _few(data), experiment.latency, seed)
    with durations.measure("profile"):
        protocol = replace(experiment.latency, delegate="builtin") if refusal else experiment.latency
        profile = op_profile(tflite, ops, _few(data), protocol, seed)
    memory, micro = pending.result()
    judged = {model: under(data.output, outputs) for model, outputs in logits.items()}
    return RunRecord(
        setting=experiment.setting,
        identity=identity,
        baseline=_stage(baseline),
        own_training=_stage(prepared),
        tflite=tflite,
        reference=reference,
        answers=(answers := _answers(data, head, judged)),
        changed=_changed(data, answers),
        latency=latency,
        ops=ops,
        gaps=gaps_of_outputs(logits, data.output, heads_of(to_train)),
        op_noise=noise,
        delegated=delegated(tflite, ops),
        profile=profile,
        memory=memory,
        arena=micro,
        expectation=expectation,
        seconds=durations.seconds,
        data=_data(data, head, logits[FINAL]),
        stamp=stamp(),
        xnnpack_refusal=refusal,
        engine=_engine(model, scheme, expectation),
        warnings=tuple(warnings),
        task=head.task,
        further=_further(head, data, judged),
        metric=head.metric.name if head.metric else "accuracy",
        metric_better=head.metric.better if head.metric else "higher",
    )


def _engine(model: "Model", scheme: Scheme, expectation: Expectation) -> str:
    """Return the name of the engine that trained with fake quantization, pruned or clustered; empty if none did."""
    uses_engine = isinstance(scheme, Learned) or expectation.sparsity > 0 or expectation.clusters is not None
    return NAMES[version_of(model)] if uses_engine else ""


def _warn_about_input(
    experiment: Experiment, model: "Model", data: Dataset, head: Head, results: ResultCache
) -> Iterator[str]:
    """Yield and print warnings about the input of an existing model, before any training."""
    one = not is_named(data.train.x) and not data.output
    if one and experiment.model.given and experiment.model.answers and isinstance(head, ClassHead):
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


def _answers(data: Dataset, head: Head, logits: Mapping[str, Logits]) -> Evidence:
    if (metric := head.metric) is None:
        assert isinstance(head, ClassHead)
        classes = {model: head.predict(outputs) for model, outputs in logits.items()}
        return Predictions(truth=data.test.y, keras=classes[AFTER], tflite=classes[FINAL], reference=classes[REFERENCE])
    values = {model: metric.replicates(logits[model], data.test) for model in (AFTER, FINAL, REFERENCE)}
    return Scores(metric.units(data.test), values[AFTER], values[FINAL], values[REFERENCE])


def _changed(data: Dataset, answers: Evidence) -> Changed:
    """Return the images whose predicted class changed; none for other tasks."""
    predictions = answers if isinstance(answers, Predictions) else NO_PREDICTIONS
    if is_named(data.test.x):  # nothing to show as one image
        return changed_images(np.zeros((len(data.test), 1), np.float32), *[np.empty(0, np.int64)] * 3)
    return changed_images(data.test.x, predictions.truth, predictions.reference, predictions.tflite)


def _further(head: Head, data: Dataset, logits: Mapping[str, Logits]) -> dict[str, float]:
    """Return the further metrics of the Keras model and of the file, by column."""
    models = {"keras": logits[AFTER], "tflite": logits[FINAL]}
    return {
        f"{model}_{metric.name}": metric.value(outputs, data.test)
        for metric in head.further
        for model, outputs in models.items()
    }


def _few(data: Dataset) -> Images:
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
        """Add the duration of the block to this part, and show that it is being done."""
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
    head = experiment.task.chosen(examples).head(with_output(model, data.output), data)
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
        several = data.stored_shapes if isinstance(data, Examples) else {}
        return experiment.model.build(several or data.input_shape, data.classes)
    except ValueError as error:
        raise UserError(
            f"model={experiment.setting.model} cannot be built for examples of the shape {data.input_shape}: "
            f"{first_line(error)}"
        ) from error


def _not_finite(settings: Training, key: str) -> str:
    what = "weights are not finite (NaN or infinity)"
    if settings.epochs == 0:
        return f"model: its {what}. Use a model that was trained successfully."
    rate = f"{key}.learning_rate={settings.learning_rate:g}"
    return f"{rate}: training diverged: its {what}. Use a lower learning rate, or another {key}.optimizer."


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
        output_shape=under(data.output, every).shape[1:],
        target_shape=data.test.y.shape[1:],
        target_dtype=data.test.y.dtype.name,
        preprocessing=data.preprocessing,
        scalings=data.scalings if is_named(data.test.x) else {},
        exits={name: values.shape[1:] for name, values in apart(every).items()} if is_named(every) else {},
        output=data.output,
    )
