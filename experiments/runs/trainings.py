"""The names of a run's trainings, known before TensorFlow is imported: a plan finds their epochs in the cache by them.

The key of a training has the digest of the initial weights, so only a run can compute it. The name has the digest of
the options that decide it; a run leaves the name beside the states of the training.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from experiments.strategy.finetune import Finetune
from experiments.system.contents import contents_of
from experiments.training.loop import ENGINES, digest_of_files, numerics

if TYPE_CHECKING:
    from experiments.runs.experiment import Experiment
    from experiments.strategy import Strategy
    from experiments.task import Task
    from experiments.training.loop import Training

AFTER_TRAINING = ("interface", "calibration_samples", "quantization")  # fields of strategies that no training uses
NAME_DIGITS = 32

Contents = Callable[[Any], Mapping[str, Any]]


def training_name(experiment: "Experiment", stage: int, contents: Contents = contents_of) -> str:
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


def _without_epochs(settings: "Training", last: bool) -> dict[str, Any]:
    """Return what decides the states of a training; nothing starts from the one that it keeps if it is the `last`."""
    left_out = ("epochs", "keep") if last else ("epochs",)
    return {name: value for name, value in asdict(settings).items() if name not in left_out} | {"total": settings.total}


def _without_judging(task: "Task", contents: Contents) -> Mapping[str, Any]:
    """Return a task without what only judges the outputs."""
    found, left_out = contents(task), vars(type(task)).get("judging", ())
    return {**found, "values": {name: value for name, value in found["values"].items() if name not in left_out}}


def _trained_as(strategy: "Strategy", contents: Contents) -> object:
    """Return what decides a strategy's training; the controls train alike."""
    if isinstance(strategy, Finetune):
        return Finetune.__name__
    found = dict(contents(strategy))
    found["values"] = {name: value for name, value in found["values"].items() if name not in AFTER_TRAINING}
    return found
