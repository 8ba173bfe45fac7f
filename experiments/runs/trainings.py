"""The trainings of a run, and their names, by which a plan finds their epochs in the cache.

The key of a training has the digest of the initial weights, so only a run can compute it. The name has the digest of
the options that decide it, without TensorFlow; a run leaves the name beside the states of the training.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.dataset import Dataset
from experiments.runs.experiment import Experiment
from experiments.strategy import Strategy
from experiments.strategy.finetune import Finetune
from experiments.system.contents import contents_of
from experiments.system.errors import UserError
from experiments.task import Head, Task
from experiments.training.loop import ENGINES, Fit, Trained, Training, digest_of_files, fit, numerics

if TYPE_CHECKING:
    from tf_keras import Model

AFTER_TRAINING = ("interface", "calibration_samples", "quantization")  # fields of strategies that no training uses
NAME_DIGITS = 32

Contents = Callable[[Any], Mapping[str, Any]]


def training_name(experiment: Experiment, stage: int, contents: Contents = contents_of) -> str:
    """Return the name of the baseline's training (stage 0), or of the strategy's first, second, ... training.

    The number of epochs is part of it only if the training starts from the result of that many epochs.

    Raises:
        UserError: a file that an option names cannot be read.
    """
    decisive: dict[str, Any] = {
        "model": contents(experiment.model),
        "dataset": contents(experiment.dataset),
        "task": _without_judging(experiment.task, contents),
        "seed": experiment.setting.seed,
        "threads": experiment.threads,
        "training": _without_epochs(experiment.training, last=stage == 0),
        "numerics": dict(numerics()),
    }
    if stage:
        decisive |= {
            "stage": stage,
            "engine": digest_of_files(ENGINES),
            "strategy": _trained_as(experiment.strategy, contents),
            "baseline epochs": experiment.training.epochs,
            "finetune": _without_epochs(experiment.finetune, last=stage == 1),
            "epochs before": experiment.finetune.epochs if stage > 1 else 0,
        }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:NAME_DIGITS]


def _without_epochs(settings: Training, last: bool) -> dict[str, Any]:
    """Return what decides the states of a training; nothing starts from the one that it keeps if it is the `last`."""
    left_out = ("epochs", "keep") if last else ("epochs",)
    return {name: value for name, value in asdict(settings).items() if name not in left_out} | {"total": settings.total}


def _without_judging(task: Task, contents: Contents) -> Mapping[str, Any]:
    """Return a task without what only judges the outputs."""
    found, left_out = contents(task), vars(type(task)).get("judging", ())
    return {**found, "values": {name: value for name, value in found["values"].items() if name not in left_out}}


def _trained_as(strategy: Strategy, contents: Contents) -> object:
    """Return what decides a strategy's training; the controls train alike."""
    if isinstance(strategy, Finetune):
        return Finetune.__name__
    found = dict(contents(strategy))
    found["values"] = {name: value for name, value in found["values"].items() if name not in AFTER_TRAINING}
    return found


def trainer(experiment: Experiment, data: Dataset, settings: Training, title: str, head: Head | None = None) -> Fit:
    """Return a function that trains a model on these data with these settings; see training.fit for the head.

    Raises:
        UserError: (of the returned function) training diverged.
    """
    stages = count(0 if settings is experiment.training else 1)
    train = partial(
        fit, data=data, settings=settings, seed=experiment.setting.seed, cache=experiment.cache, title=title, head=head
    )
    key = "finetune" if settings is experiment.finetune else "training"

    def trained(model: "Model", callbacks: Sequence[Any] = ()) -> Trained:
        result = train(model, callbacks)
        if result.key:
            experiment.cache.trajectory(result.key).name(training_name(experiment, next(stages)))
        if not all(np.isfinite(weights).all() for weights in result.model.get_weights()):
            raise UserError(_not_finite(settings, key))
        return result

    return trained


def _not_finite(settings: Training, key: str) -> str:
    what = "weights are not finite (NaN or infinity)"
    if settings.epochs == 0:
        return f"model: its {what}. Use a model that was trained successfully."
    rate = f"{key}.learning_rate={settings.learning_rate:g}"
    return f"{rate}: training diverged: its {what}. Use a lower learning rate, or another {key}.optimizer."
