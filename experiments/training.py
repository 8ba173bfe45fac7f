"""The only place that trains: `fit`, whose result is remembered on disk and can be continued bit by bit.

What `fit` returns is a function of the starting model, the training data, the settings, the seed, and the versions and
cores that change floating-point results. All of them make up the key under which the state after each epoch is kept.
The number of epochs is not part of the key: 1, 5 and 20 epochs are stations of one trajectory.
"""

import hashlib
import io
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.dataset import Dataset
from experiments.errors import UserError
from experiments.progress import Advance, bar, say
from experiments.stamp import stamp

if TYPE_CHECKING:
    from tf_keras import Model

History = Mapping[str, tuple[float, ...]]  # "loss", "accuracy", "val_loss", "val_accuracy": one value an epoch
State = dict[str, npt.NDArray[np.generic]]


@card(frozen=True, config=CARD, kw_only=True)
class Training:
    """How long and how to train; the article: 20 epochs, batches of 500, Adam with its usual rate."""

    epochs: NonNegativeInt
    batch_size: PositiveInt = 500
    optimizer: Literal["adam", "sgd", "rmsprop"] = "adam"
    learning_rate: PositiveFloat = 0.001


@card(frozen=True, config=CARD, kw_only=True)
class Cache:
    """The folder in which the state after each epoch is kept."""

    dir: Path


@dataclass(frozen=True)
class Trained:
    """A model after training, and what the training was."""

    model: "Model"
    key: str  # of the trajectory, whatever the number of epochs; empty where nothing was trained
    history: History
    epochs_trained: int  # by this call
    epochs_reused: int  # taken from the cache
    seconds: float  # of training for all these epochs, including those that were reused

    def after(self, first: "Trained") -> "Trained":
        """This training and the one before it as one."""
        names = [*first.history, *(name for name in self.history if name not in first.history)]
        return replace(
            self,
            history={name: (*first.history.get(name, ()), *self.history.get(name, ())) for name in names},
            epochs_trained=first.epochs_trained + self.epochs_trained,
            epochs_reused=first.epochs_reused + self.epochs_reused,
            seconds=first.seconds + self.seconds,
        )

    @staticmethod
    def untouched(model: "Model", callbacks: Sequence[Any] = ()) -> "Trained":  # it is a Fit as well
        """A model as it is, without any training."""
        return Trained(model, "", {}, 0, 0, 0.0)


class Fit(Protocol):
    """Training on the data, with the settings and the seed of a run, for whoever has a model to train."""

    def __call__(self, model: "Model", callbacks: Sequence[Any] = ()) -> Trained:
        """Train the model in place; whatever the callbacks do has to follow from the model's own configuration."""


def fit(
    model: "Model",
    callbacks: Sequence[Any] = (),
    *,
    data: Dataset,
    settings: Training,
    seed: int,
    cache_dir: Path,
    title: str,
) -> Trained:
    """Train `model` in place for `settings.epochs` epochs, or take up the state that an earlier call left.

    The loss is sparse categorical cross-entropy. Every epoch reseeds the random numbers from (seed, epoch) and draws
    its own order of the images, so that continuing after epoch n gives the same bits as never having stopped.

    Raises:
        UserError: the cache cannot be written.
    """
    if settings.epochs == 0:
        return Trained.untouched(model)
    key = trajectory_key(model, data, settings, seed)
    states = States(cache_dir / "training" / key)
    with states.lock():
        return _trained(model, callbacks, data, settings, seed, states, title)


def trajectory_key(model: "Model", data: Dataset, settings: Training, seed: int) -> str:
    """The name of all that decides the weights after each epoch."""
    digest = hashlib.sha256(model.to_json().encode())
    for weights in model.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    decisive = {
        "data": data.training_fingerprint,
        "batch_size": settings.batch_size,
        "optimizer": settings.optimizer,
        "learning_rate": settings.learning_rate,
        "seed": seed,
        "platform": numerics(),
    }
    digest.update(json.dumps(decisive, sort_keys=True).encode())
    return digest.hexdigest()[:32]


@cache
def numerics() -> Mapping[str, str]:
    """What changes the bits of a training, apart from its inputs."""
    packages = ("tensorflow", "tf-keras", "tensorflow-model-optimization", "numpy")
    return {
        **{package: version(package) for package in packages},
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1"),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "cpu_flags": f"{platform.machine()} {stamp()['cpu_flags']}",
        "code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }


@dataclass(frozen=True)
class States:
    """The states of one trajectory, a file an epoch; each file's name carries the digest of its content."""

    folder: Path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while training, so that several processes train a trajectory once; a dead holder frees it."""
        lock = FileLock(self.folder / "lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    def latest(self, epochs: int) -> tuple[int, State]:
        """The state after as many epochs as there are, up to `epochs`; (0, {}) where there is none."""
        for path in sorted(self.folder.glob("*.npz"), reverse=True):
            epoch, digest = path.stem.split("-")
            if int(epoch) > epochs:
                continue
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest()[:16] == digest:
                with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                    return int(epoch), dict(archive)
            say(f"cache: {path} is damaged; it is thrown away and its epoch trained again")
            path.unlink()
        return 0, {}

    def keep(self, epoch: int, state: State) -> None:
        """Write the state after `epoch`; the file appears under its name only when it is complete."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **state)
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
        partial = self.folder / f"{epoch:05d}.partial"
        try:
            partial.write_bytes(buffer.getvalue())
            partial.replace(self.folder / f"{epoch:05d}-{digest}.npz")
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"cache.dir: {self.folder} cannot be written ({error}); give another with cache.dir=FOLDER.")


def _trained(
    model: "Model",
    callbacks: Sequence[Any],
    data: Dataset,
    settings: Training,
    seed: int,
    states: States,
    title: str,
) -> Trained:
    _compile(model, settings)
    done, state = states.latest(settings.epochs)
    if done:
        _restore(model, state)
    history = {name[len("history/") :]: list(values) for name, values in state.items() if name.startswith("history/")}
    seconds = float(state.get("seconds", np.float64(0)))
    steps = -(-len(data.train) // settings.batch_size)
    with bar(title, total=steps * (settings.epochs - done)) as advance:
        moving = _after_each_batch(advance)
        for epoch in range(done, settings.epochs):
            started = time.perf_counter()
            for name, value in _one_epoch(model, [*callbacks, moving], data, settings, seed, epoch).items():
                history.setdefault(name, []).append(value)
            seconds += time.perf_counter() - started
            states.keep(epoch + 1, _state(model, history, seconds))
    return Trained(
        model=model,
        key=states.folder.name,
        history={name: tuple(float(value) for value in values) for name, values in history.items()},
        epochs_trained=settings.epochs - done,
        epochs_reused=done,
        seconds=seconds,
    )


def _compile(model: "Model", settings: Training) -> None:
    from experiments.tensorflow_quietly import keras

    kinds = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD, "rmsprop": keras.optimizers.RMSprop}
    optimizer = kinds[settings.optimizer](learning_rate=settings.learning_rate)
    model.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=not ends_in_softmax(model)),
        metrics=["accuracy"],
    )
    optimizer.build(model.trainable_variables)


def ends_in_softmax(model: "Model") -> bool:
    """Whether the model gives probabilities instead of logits, seen through quantization wrappers."""
    last = model.layers[-1]
    inner = getattr(last, "layer", last)
    activation = getattr(inner, "activation", None)
    activation = getattr(activation, "activation", activation)
    return type(inner).__name__ == "Softmax" or getattr(activation, "__name__", "") == "softmax"


def _after_each_batch(advance: Advance) -> Any:
    from experiments.tensorflow_quietly import keras

    return keras.callbacks.LambdaCallback(on_train_batch_end=lambda _batch, _logs: advance(1))


def _one_epoch(
    model: "Model", callbacks: Sequence[Any], data: Dataset, settings: Training, seed: int, epoch: int
) -> dict[str, float]:
    from experiments.tensorflow_quietly import keras

    order = np.random.default_rng([seed, epoch]).permutation(len(data.train))
    keras.utils.set_random_seed(_mixed(seed, epoch))
    model.make_train_function(force=True)  # a new trace takes up the new seed, in dropout too
    result = model.fit(
        data.train.x[order],
        data.train.y[order],
        batch_size=settings.batch_size,
        epochs=epoch + 1,
        initial_epoch=epoch,
        shuffle=False,
        validation_data=(data.validation.x, data.validation.y) if len(data.validation) else None,
        validation_batch_size=settings.batch_size,
        verbose=0,
        callbacks=list(callbacks),
    )
    return {name: float(values[0]) for name, values in result.history.items()}


def _mixed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0] & 0x7FFFFFFF)


def _state(model: "Model", history: Mapping[str, list[float]], seconds: float) -> State:
    weights = {f"weight/{i:04d}": value for i, value in enumerate(model.get_weights())}
    optimizer = {f"optimizer/{i:04d}": value.numpy() for i, value in enumerate(model.optimizer.variables)}
    curves = {f"history/{name}": np.array(values) for name, values in history.items()}
    return {**weights, **optimizer, **curves, "seconds": np.array(seconds)}


def _restore(model: "Model", state: State) -> None:
    model.set_weights([state[name] for name in sorted(state) if name.startswith("weight/")])
    saved = [state[name] for name in sorted(state) if name.startswith("optimizer/")]
    for variable, value in zip(model.optimizer.variables, saved, strict=True):
        variable.assign(value)
