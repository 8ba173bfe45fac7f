"""Architectures for tests of the process of a run.

They are alone in a folder, for each run reads what lies beside a user's option, and the process of a run imports no
more than this.
"""

import os
import signal
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass as option

from experiments.dataset.npz import Npz
from experiments.measure.latency import LatencyProtocol
from experiments.model import Architecture
from experiments.record.run_record import Setting
from experiments.runs.experiment import Experiment
from experiments.strategy.none import Nothing
from experiments.system.cache import Cache
from experiments.system.errors import UserError
from experiments.system.options import OPTION
from experiments.training.loop import Training


@option(frozen=True, config=OPTION, kw_only=True)
class Hostile(Architecture):
    """A model that ends the process it is built in, or raises."""

    way: str

    def build(self, input_shape: tuple[int, ...], classes: int) -> Any:
        match self.way:
            case "exit":
                os._exit(7)
            case "mistake":
                raise UserError("a mistake that its reader can mend")
            case "bug":
                raise ZeroDivisionError("a bug")
        os.kill(os.getpid(), getattr(signal, self.way))


@option(frozen=True, config=OPTION, kw_only=True)
class Tiny(Architecture):
    def build(self, input_shape: tuple[int, ...], classes: int) -> Any:
        from experiments.system.tensorflow import keras

        layers = [keras.layers.InputLayer(input_shape), keras.layers.Flatten(), keras.layers.Dense(classes)]
        return keras.Sequential(layers)


def experiment(model: Architecture, folder: Path, threads: int = 1) -> Experiment:
    """A run on the images of a folder."""
    return Experiment(
        setting=Setting("none", "a model", "npz", 1, 0, 0),
        dataset=Npz(path=folder / "images.npz"),
        model=model,
        strategy=Nothing(),
        training=Training(epochs=1, batch_size=50),
        finetune=Training(epochs=0),
        latency=LatencyProtocol(seconds=0.1),
        cache=Cache(dir=folder / "cache"),
        threads=threads,
    )
