"""Training: `fit`, the only function that trains; its states are cached on disk and resumed bit for bit.

The result of `fit` is a function of the initial model, the training data, the settings, the seed, and the versions and
thread counts that affect floating-point results. Together they are the key of the states after each epoch. The number
of epochs is not part of the key, unless the learning rate depends on it: 1, 5 and 20 epochs are states of the same
trajectory. So are the best epoch, and the one at which a training stops early.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Dataset, Labels, Split
from experiments.dataset.named import apart, fields, is_named
from experiments.model.configuration import configuration_of
from experiments.model.copies import is_wrapper
from experiments.system.cache import Arrays, Cache, Trajectory
from experiments.system.contents import code_of
from experiments.system.errors import UserError
from experiments.system.files import PACKAGE
from experiments.system.keras_version import version_of
from experiments.system.machine import compute_lock, usable_cores
from experiments.system.options import OPTION
from experiments.system.progress import Advance, bar
from experiments.system.stamp import further_cpu_flags, stamp
from experiments.task import Head
from experiments.task.classification import head_of
from experiments.training.augmentation import Augmented, augmentation_for, augmentation_of, check_places
from experiments.training.best_epoch import Keep, best_epoch, end_of
from experiments.training.named import valid
from experiments.training.optimizers import COUNTER, optimizer_for, optimizer_named
from experiments.training.outputs import renamed
from experiments.training.precision import Precision, in_precision
from experiments.training.randomness import Randomness, mixed
from experiments.training.schedules import Constant, rate, schedule_of
from experiments.training.unfreezing import Unfreezing, unfreezing_for, unfreezing_of
from experiments.training.weighting import NONE, check, class_weights_named, loss_for, weights_of

if TYPE_CHECKING:
    from tf_keras import Model

# Code that affects the bits of a training.
CODE = (
    *sorted((PACKAGE / "training").glob("*.py")),
    *sorted((PACKAGE / "model").rglob("copies.py")),
    *sorted((PACKAGE / "task").glob("*.py")),
    PACKAGE / "model/configuration.py",
)
# Code that affects those of a training with fake quantization, pruning or clustering.
ENGINES = tuple(sorted((PACKAGE / "quantization").rglob("*.py")))
CHECKED = 32  # images on which a copy in another precision must give the outputs of the original
MOST_EPOCHS = 1_000_000
GPU_INFORMATION = Path("/proc/driver/nvidia/gpus")
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
SWITCHED = {"true": "1", "false": "0"}
PRODUCT = "_u_product"  # of Keras 2's Nadam, which is not among its variables
# Other environment variables that choose kernels or their precision. TensorFlow's operations are deterministic here, so
# TF_DETERMINISTIC_OPS changes nothing.
VARIABLES = (
    "DNNL_DEFAULT_FPMATH_MODE", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA",
    "NPY_DISABLE_CPU_FEATURES", "NVIDIA_TF32_OVERRIDE", "OPENBLAS_CORETYPE", "TF_ENABLE_CUBLAS_TENSOR_OP_MATH_FP32",
    "TF_ENABLE_CUDNN_TENSOR_OP_MATH_FP32", "TF_FUNCTION_JIT_COMPILE_DEFAULT", "TF_SET_ONEDNN_FPMATH_MODE",
    "TF_XLA_FLAGS", "XLA_FLAGS",
)  # fmt: skip
KERAS_DEFAULTS = {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"}
History = Mapping[str, tuple[float, ...]]  # "loss", "accuracy", "val_loss", "val_accuracy": one value per epoch


@option(frozen=True, config=OPTION, kw_only=True)
class Training:
    """Training settings; the article uses 20 epochs, batches of 500, and Adam with its default learning rate."""

    epochs: Annotated[int, Field(ge=0, le=MOST_EPOCHS)]
    batch_size: PositiveInt = 500
    optimizer: Annotated[Any, AfterValidator(valid(optimizer_named))] = "adam"
    learning_rate: PositiveFloat = 0.001
    weight_decay: NonNegativeFloat | None = None  # None: that of the optimizer
    schedule: Annotated[Any, AfterValidator(valid(schedule_of))] = "constant"
    warmup_epochs: NonNegativeFloat = 0
    augmentation: Annotated[Any, AfterValidator(valid(augmentation_of))] = ()  # layers that change training images
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of a label that is spread over all classes
    class_weights: Annotated[Any, AfterValidator(class_weights_named)] = "none"  # of the loss
    keep: Keep = "last"  # the weights after the last epoch, or after the one with the lowest validation loss
    patience: PositiveInt | None = None  # epochs without a lower validation loss after which training stops
    unfreeze: Annotated[Any, AfterValidator(unfreezing_of)] = Field(default_factory=dict)  # layers, by finished epochs
    precision: Precision = "float32"  # of the computation; the weights, and so the model, stay float32

    @property
    def total(self) -> int | None:
        """The number of epochs if the learning rate depends on it: then other numbers are other trainings."""
        return self.epochs if schedule_of(self.schedule).needs_total else None

    def check(self, key: str) -> None:
        """Check what values require of one another; `key` is `training` or `finetune`.

        Raises:
            UserError: the warm-up is longer than the training, or layers are unfrozen in further training.
        """
        if self.unfreeze and key == "finetune":
            raise UserError(
                "finetune.unfreeze: further training keeps the layers that are frozen after the baseline's. Unfreeze "
                "them with training.unfreeze."
            )
        if self.warmup_epochs > self.epochs > 0:
            raise UserError(
                f"{key}.warmup_epochs={self.warmup_epochs:g}: requires at most {key}.epochs={self.epochs}. Type "
                f"{key}.warmup_epochs={self.epochs} or less."
            )


@dataclass(frozen=True)
class Trained:
    """A model after training, with its history and cost."""

    model: "Model"
    key: str  # of the trajectory, independent of the number of epochs; empty without training
    history: History
    epochs_trained: int  # by this call
    epochs_reused: int  # from the cache
    seconds: float  # training time of all epochs, including reused ones
    seconds_reused: float  # training time of the reused epochs
    kept: int = 0  # the epoch whose weights the model has; 0 without training

    def after(self, first: "Trained") -> "Trained":
        """Return this training combined with the one before it."""
        names = [*first.history, *(name for name in self.history if name not in first.history)]
        return replace(
            self,
            history={name: (*first.history.get(name, ()), *self.history.get(name, ())) for name in names},
            epochs_trained=first.epochs_trained + self.epochs_trained,
            epochs_reused=first.epochs_reused + self.epochs_reused,
            seconds=first.seconds + self.seconds,
            seconds_reused=first.seconds_reused + self.seconds_reused,
            kept=first.epochs_trained + first.epochs_reused + self.kept,
        )

    @staticmethod
    def untouched(model: "Model", callbacks: Sequence[Any] = ()) -> "Trained":  # it is a Fit as well
        """Return a model without any training."""
        return Trained(model, "", {}, 0, 0, 0.0, 0.0)


class Fit(Protocol):
    """A function that trains a model on the data, with the settings and the seed of a run."""

    def __call__(self, model: "Model", callbacks: Sequence[Any] = ()) -> Trained:
        """Train the model in place; effects of callbacks must depend only on the model's configuration."""


def fit(
    model: "Model",
    callbacks: Sequence[Any] = (),
    *,
    data: Dataset,
    settings: Training,
    seed: int,
    cache: Cache,
    title: str,
    head: Head | None = None,
) -> Trained:
    """Train `model` in place for `settings.epochs` epochs, or resume from the state of an earlier call.

    The loss fits `head`, which is inferred from the layers by default. Every epoch reseeds the random numbers from
    (seed, epoch) and draws its own order of the images, so that resuming after epoch n is bit-identical to training
    without interruption.

    Raises:
        UserError: the cache cannot be written, or the settings do not fit the data.
    """
    if settings.epochs == 0:
        return Trained.untouched(model)
    head = head or head_of(model)
    check_fit(model, data, settings, head)
    unfreezing = unfreezing_for(model, settings.unfreeze)
    states = cache.trajectory(trajectory_key(model, data, settings, seed, head))
    with states.lock(), in_precision(model, settings.precision, data.train.x[:CHECKED]) as in_training:
        work = _Work(in_training, callbacks, head.training_data(data), seed, states, title, head, unfreezing)
        trained = _trained(work, settings)
    unfreezing.apply(model, trained.kept - 1)
    return replace(trained, model=model)


@dataclass(frozen=True)
class _Work:
    """The model, data and callbacks of a training, without its settings."""

    model: "Model"
    callbacks: Sequence[Any]
    data: Dataset
    seed: int
    states: Trajectory
    title: str
    head: Head
    unfreezing: Unfreezing

    def prepare(self, settings: Training, epoch: int) -> None:
        """Compile the model, with the layers frozen as after this number of epochs."""
        self.unfreezing.apply(self.model, epoch)
        _compile(self.model, settings, self.head)


def check_fit(model: "Model", data: Dataset, settings: Training, head: Head, key: str = "training") -> None:
    """Check that settings fit the model and the data; `key` is `training` or `finetune`, whose settings they are.

    Raises:
        UserError: they do not.
    """
    _check_validation(settings, data, key)
    _check_single(settings, data, key)
    check(head, settings.label_smoothing, settings.class_weights, key)
    weights_of(settings.class_weights, data, key)
    unfreezing_for(model, settings.unfreeze, key)
    if settings.augmentation:
        check_places(settings.augmentation, head.by_place, key)
        augmentation_for(settings.augmentation, data.train.x[:CHECKED], key)
    if optimizer_named(settings.optimizer).arguments:
        from experiments.system.tensorflow import keras_of

        given = settings.optimizer, settings.learning_rate, settings.weight_decay
        optimizer_for(model, keras_of(model), *given, key)


def trajectory_key(model: "Model", data: Dataset, settings: Training, seed: int, head: Head | None = None) -> str:
    """Return the digest of everything that determines the weights after each epoch."""
    head = head or head_of(model)
    decisive = {
        "model": digest_of(model),
        "quantizers": list(_quantizers(model)),
        "engine": digest_of_files(ENGINES) if any(map(is_wrapper, model.layers)) else "",
        "head": head.identity,
        "data": data.training_fingerprint,
        "batch_size": settings.batch_size,
        "optimizer": settings.optimizer,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "schedule": settings.schedule,
        "warmup_epochs": settings.warmup_epochs,
        "total": settings.total,
        "augmentation": settings.augmentation,
        "label_smoothing": settings.label_smoothing,
        "class_weights": weights_of(settings.class_weights, data),
        "unfreeze": list(settings.unfreeze.items()),
        "precision": settings.precision,
        "seed": seed,
        "platform": numerics(),
        "threads": _threads(),
        "devices": _devices(),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:32]


def digest_of(model: "Model") -> str:
    """Return the SHA-256 of a model's architecture, weights, and code of users' own layers."""
    digest = hashlib.sha256(json.dumps(configuration_of(model), sort_keys=True).encode())
    digest.update(code_of(model).encode())
    for weights in model.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    trained = {id(weights) for weights in model.trainable_weights}
    digest.update(bytes(id(weights) in trained for weights in model.weights))
    return digest.hexdigest()


def _quantizers(model: "Model") -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield how the wrappers of TFMOT quantize weights: layer, class and settings.

    Their configuration is the same whether or not they keep zeros and clusters. The digest of the model, from which
    random numbers follow, stays as it is.
    """
    for layer in model.layers:
        for _, quantizer, _ in getattr(layer, "_weight_vars", ()):
            settings = {name: value for name, value in vars(quantizer).items() if isinstance(value, str | int | float)}
            yield layer.name, type(quantizer).__qualname__, settings


def _threads() -> int:
    from experiments.system.tensorflow import tf

    return int(tf.config.threading.get_intra_op_parallelism_threads()) or usable_cores()


def _devices() -> list[str]:
    """Return the kinds of GPUs that TensorFlow trains on; empty on a CPU."""
    from experiments.system.tensorflow import tf

    experimental = tf.config.experimental
    gpus = tf.config.list_physical_devices("GPU")
    return [str(experimental.get_device_details(gpu).get("device_name", gpu.name)) for gpu in gpus]


@cache
def numerics() -> Mapping[str, str]:
    """Return what affects the bits of a result, besides its inputs and the number of threads."""
    packages = ("tensorflow", "keras", "tf-keras", "tensorflow-model-optimization", "numpy")
    return {
        **{package: version(package) for package in packages},
        "onednn": SWITCHED.get((given := os.environ.get(ONEDNN, "1")).lower(), given),
        **{name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
        **_keras_defaults(),
        "gpus": f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')} {_gpu_models()}",
        "cpu_flags": f"{platform.machine()} {stamp()['cpu_flags']}{further_cpu_flags()}",
        "code": digest_of_files(CODE),
    }


@cache
def digest_of_files(paths: tuple[Path, ...]) -> str:
    """Return the SHA-256 of the content of files, as it was at the first call."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _keras_defaults() -> dict[str, str]:
    """Return the settings of the user's keras.json that differ from Keras' own: they decide precision and constants.

    A file that Keras cannot read is ignored, as Keras does.
    """
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        given = json.loads((folder / "keras.json").read_text())
        return {
            f"keras.json {name}": str(given[name])
            for name, usual in KERAS_DEFAULTS.items()
            if given.get(name, usual) != usual
        }
    except (OSError, ValueError, AttributeError):
        return {}


def _gpu_models() -> list[str]:
    """Return the GPUs of this machine as NVIDIA's driver names them, without TensorFlow; empty if there are none."""
    found = sorted(GPU_INFORMATION.glob("*/information"))
    lines = [line for path in found for line in path.read_text().splitlines()]
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]


def _trained(work: _Work, settings: Training) -> Trained:
    from experiments.system.tensorflow import keras

    start = work.model.get_weights() if settings.keep == "best" else []
    trained = _until(work, settings, settings.epochs)
    if settings.keep == "best" and (best := best_epoch(trained.history)) < trained.kept:
        # Its state is in the cache. If it was dropped there, the epochs are trained again, to the same bits.
        work.unfreezing.apply(work.model, 0)
        work.model.set_weights(start)
        _until(work, replace(settings, patience=None), best)
        trained = replace(trained, kept=best)
    # Later code draws the same random numbers, whether or not epochs came from the cache.
    keras.utils.set_random_seed(mixed(work.seed, trained.kept))
    return trained


def _until(work: _Work, settings: Training, last: int) -> Trained:
    """Bring a model to its state after epoch `last`, or after that at which the training stops early."""
    model, data, seed, states = work.model, work.data, work.seed, work.states
    randomness = Randomness(model, start=int(digest_of(model)[:8], 16))
    done, state = states.latest(last)
    if (end := end_of(history_of(state), settings.patience)) and end < done:  # another training went further
        done, state = states.latest(end)
    work.prepare(settings, max(done - 1, 0))
    if done:
        _restore(model, state)
    history = history_of(state)
    seconds = float(state.get("seconds", np.float64(0)))
    steps = -(-len(data.train) // settings.batch_size)
    about = f"{work.title}: {model.name}, {len(data.train):,} examples, {_described(settings)}, seed {seed}"
    epoch = done
    augmented = augmentation_for(settings.augmentation, data.train.x[:CHECKED])
    with bar(work.title, total=steps * (last - done)) as advance:
        while epoch < last and end_of(history, settings.patience) is None:
            if epoch in work.unfreezing.trained:
                work.prepare(settings, epoch)
            own = _own_callbacks(model, settings, steps, epoch, advance)
            with compute_lock():
                started = time.perf_counter()
                ended = _one_epoch(model, [*work.callbacks, *own], data, settings, seed, epoch, augmented, randomness)
                for name, value in ended.items():
                    history.setdefault(name, []).append(value)
                seconds += time.perf_counter() - started
            epoch += 1
            states.keep(epoch, _state(model, history, seconds), about)
    return Trained(
        model=model,
        key=states.folder.name,
        history={name: tuple(values) for name, values in history.items()},
        epochs_trained=epoch - done,
        epochs_reused=done,
        seconds=seconds,
        seconds_reused=float(state.get("seconds", np.float64(0))),
        kept=epoch,
    )


def history_of(state: Arrays) -> dict[str, list[float]]:
    """Return the metrics of each epoch up to a state of the cache."""
    curves = {name: values for name, values in state.items() if name.startswith("history/")}
    return {name.removeprefix("history/"): [float(value) for value in values] for name, values in curves.items()}


def _check_validation(settings: Training, data: Dataset, key: str) -> None:
    if len(data.validation) or (settings.keep == "last" and settings.patience is None):
        return
    asked = f"patience={settings.patience}" if settings.patience else f"keep={settings.keep}"
    raise UserError(
        f"{key}.{asked}: requires validation examples, which decide which epoch is best. Type "
        f"dataset.validation_split=0.1, or {key}.keep=last {key}.patience=null."
    )


def _check_single(settings: Training, data: Dataset, key: str) -> None:
    """Refuse what applies to one input, or to one output, for data of several."""
    if data.output and settings.class_weights != NONE:
        raise UserError(f"{key}.class_weights: requires a model with one output. Type {key}.class_weights=none.")
    if settings.augmentation and is_named(data.train.x):
        raise UserError(f"{key}.augmentation: requires a model with one input. Type '{key}.augmentation=[]'.")


def _described(settings: Training) -> str:
    precision = "" if settings.precision == "float32" else f", {settings.precision}"
    optimizer = optimizer_named(settings.optimizer).name
    return f"batches of {settings.batch_size}, {optimizer} {settings.learning_rate:g}{precision}"


def _compile(model: "Model", settings: Training, head: Head | None = None) -> None:
    from experiments.system.tensorflow import keras_of

    keras = keras_of(model)
    optimizer = optimizer_for(model, keras, settings.optimizer, settings.learning_rate, settings.weight_decay)
    head = head or head_of(model)
    # On a CPU, XLA, which Keras 3 would choose, makes training several times slower.
    compiler = {} if version_of(model) == 2 else {"jit_compile": False}
    model.compile(
        optimizer,
        loss=loss_for(head, keras, settings.label_smoothing),
        metrics=head.training_metrics(keras),
        **compiler,
    )
    optimizer.build(model.trainable_variables)


def ends_in_softmax(model: "Model") -> bool:
    """Whether the outputs are probabilities instead of logits; looks through quantization wrappers."""
    return head_of(model).meaning == "softmax"


def _own_callbacks(model: "Model", settings: Training, steps: int, epoch: int, advance: Advance) -> list[Any]:
    """Return callbacks for an epoch of `steps` batches: they advance the progress, and set the learning rate."""
    from experiments.system.tensorflow import keras_of

    callback = keras_of(model).callbacks.LambdaCallback
    progress = callback(on_train_batch_end=lambda batch, logs: advance(1))
    schedule = schedule_of(settings.schedule)
    if schedule == Constant() and not settings.warmup_epochs:
        return [progress]

    def set_rate(batch: int, logs: object) -> None:
        after = epoch + batch / steps
        given = rate(schedule, settings.learning_rate, settings.warmup_epochs, after, settings.epochs)
        model.optimizer.learning_rate.assign(given)

    return [callback(on_train_batch_begin=set_rate), progress]


def _one_epoch(
    model: "Model",
    callbacks: Sequence[Any],
    data: Dataset,
    settings: Training,
    seed: int,
    epoch: int,
    augmented: Augmented,
    randomness: Randomness,
) -> dict[str, float]:
    order = np.random.default_rng([seed, epoch]).permutation(len(data.train))
    with randomness.of_epoch(mixed(seed, epoch)):
        result = model.fit(
            augmented(_batches(data.train, settings.batch_size, order), seed, epoch),
            epochs=epoch + 1,
            initial_epoch=epoch,
            validation_data=(_batches(data.validation, settings.batch_size) if len(data.validation) else None),
            class_weight=weights_of(settings.class_weights, data),
            verbose=0,
            shuffle=False,
            callbacks=list(callbacks),
        )
    return renamed(result.history, model, data.output)


def _batches(split: Split, size: int, order: Labels | None = None) -> Any:
    """Return batches of a split in this order, like those that Keras makes of arrays, but read when they are used.

    Without the autotuner of tf.data: there is nothing to tune here, and the tuner sleeps twice as long each time; the
    end of an epoch may have to wait until it wakes. benchmarks.epoch measures the cost.
    """
    from experiments.system.tensorflow import tf

    def read(number: int) -> list[npt.NDArray[Any]]:
        rows = slice(number * size, (number + 1) * size)
        places = np.arange(len(split))[rows] if order is None else order[rows]
        return [*split.x.by_name(places).values(), *apart(split.y[places]).values()]

    taken, given = fields(split.x), fields(split.y)

    def batch(number: Any) -> Any:
        tensors = tf.numpy_function(read, [number], [dtype for dtype, _ in (*taken, *given)])
        for tensor, (_, shape) in zip(tensors, (*taken, *given), strict=True):
            tensor.set_shape((None, *shape))
        ends = tuple(tensors[: len(taken)]), tuple(tensors[len(taken) :])
        return tuple(end if len(end) > 1 else end[0] for end in ends)

    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    return tf.data.Dataset.range(-(-len(split) // size)).map(batch).prefetch(1).with_options(untuned)


def _state(model: "Model", history: Mapping[str, list[float]], seconds: float) -> Arrays:
    weights = {f"weight/{i:04d}": value for i, value in enumerate(model.get_weights())}
    optimizer = {f"optimizer/{i:04d}": np.asarray(value) for i, value in enumerate(model.optimizer.variables)}
    if hasattr(model.optimizer, COUNTER):
        optimizer |= {f"nadam/{PRODUCT}": np.asarray(getattr(model.optimizer, PRODUCT))}
    curves = {f"history/{name}": np.array(values) for name, values in history.items()}
    return {**weights, **optimizer, **curves, "seconds": np.array(seconds)}


def _restore(model: "Model", state: Arrays) -> None:
    model.set_weights([state[name] for name in sorted(state) if name.startswith("weight/")])
    saved = [state[name] for name in sorted(state) if name.startswith("optimizer/")]
    for variable, value in zip(model.optimizer.variables, saved, strict=True):
        variable.assign(value)
    if hasattr(model.optimizer, COUNTER):
        getattr(model.optimizer, PRODUCT).assign(state[f"nadam/{PRODUCT}"])
