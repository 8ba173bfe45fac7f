"""The work of a sweep without the suite: plain model.fit, one conversion per file, one evaluation per model.

The strategies build their models as ever; what trains them is a loop around model.fit, without the suite's cache,
locks, reseeding or records. So other random numbers are drawn than in the suite, and the models are as large and as
much work, but not the same bits.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from benchmarks.harness.trajectories import BASELINE, Cell, Piece, stations
from experiments.dataset import Dataset
from experiments.runs.configuration import compose_request
from experiments.runs.experiment import Experiment
from experiments.system.die_with_parent import die_with_parent
from experiments.training.loop import Fit, Trained

if TYPE_CHECKING:
    from tf_keras import Model


# TensorFlow and TFMOT: any script that does this work has to import them once, and so does a sweep.
LOADED_FIRST = (
    "experiments.system.tensorflow",
    "experiments.quantization.tfmot.annotation",
    "experiments.quantization.tfmot.compression",
)


@dataclass(frozen=True)
class Bare:
    """The total seconds of the work without the suite, and its pieces."""

    seconds: float
    pieces: tuple[Piece, ...]

    @property
    def epochs(self) -> int:
        """The number of epochs that were trained."""
        return sum(piece.what == "epoch" for piece in self.pieces)

    def spent_on(self, *parts: str) -> float:
        """Return the seconds of the pieces of these kinds."""
        return sum(piece.seconds for piece in self.pieces if piece.what in parts)


def in_own_process(cells: Sequence[Cell], overrides: Sequence[str], shared: bool) -> Bare:
    """Do the work of all cells in a new process: each piece once, or each cell separately."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=die_with_parent) as pool:
        return pool.submit(_all, cells, overrides, shared).result()


def _all(cells: Sequence[Cell], overrides: Sequence[str], shared: bool) -> Bare:
    started = time.perf_counter()
    for module in LOADED_FIRST:
        import_module(module)
    from experiments.system.tensorflow import keras, use_threads

    experiments = {cell.name: _composed(cell, overrides) for cell in cells}
    use_threads(experiments[cells[0].name].threads)
    keras.utils.set_random_seed(0)
    batches = [cells] if shared else [[cell] for cell in cells]
    pieces = [piece for batch in batches for piece in _ByHand(batch, experiments).all_pieces()]
    return Bare(time.perf_counter() - started, tuple(pieces))


def _composed(cell: Cell, overrides: Sequence[str]) -> Experiment:
    return compose_request(
        [*overrides, f"strategy={cell.strategy}", f"finetune.epochs={cell.finetune_epochs}"]
    ).experiment


class _ByHand:
    """Trains, converts and evaluates for some cells, each piece once."""

    def __init__(self, cells: Sequence[Cell], experiments: Mapping[str, Experiment]) -> None:
        self._cells = {cell.name: cell for cell in cells}
        self._experiments = experiments
        self._stations = stations(cells)
        self._weights: dict[str, dict[int, list[Any]]] = {}  # by trajectory and number of epochs
        self._pieces: list[Piece] = []

    def all_pieces(self) -> list[Piece]:
        """Do all pieces."""
        cell = next(iter(self._cells.values()))
        experiment = self._experiments[cell.name]
        data = experiment.dataset.load()
        with self._timed("building", BASELINE):
            baseline = experiment.model.build(data.input_shape, data.classes)
        self._train(baseline, (), data, experiment, (BASELINE, cell.baseline_epochs))
        evaluated = set()
        for cell in self._cells.values():
            model = self._model_and_file(cell, baseline, data)
            if cell.model not in evaluated:
                evaluated.add(cell.model)
                self._evaluate(model, cell.model, data)
        return self._pieces

    def _model_and_file(self, cell: Cell, baseline: "Model", data: Dataset) -> "Model":
        """Return the Keras model of a cell, its file converted and evaluated."""
        from experiments.measure.accuracy import tflite_logits
        from experiments.tflite.conversion import convert

        experiment = self._experiments[cell.name]
        strategy, calibration = experiment.strategy, partial(data.calibration, seed=0)
        trajectories = list(cell.trajectories())[1:]
        done, started = len(self._pieces), time.perf_counter()
        model = strategy.prepare(baseline, self._fit(data, experiment, trajectories), calibration).model
        if trajectories:
            raise ValueError(f"TRAININGS names more than strategy={cell.strategy} trains: {trajectories}")
        trained = sum(piece.seconds for piece in self._pieces[done:])
        self._pieces.append(Piece("building", cell.name, 0, time.perf_counter() - started - trained))
        with self._timed("conversion", cell.name):
            file = convert(model, strategy.scheme(baseline), calibration)
        with self._timed("tflite_evaluation", cell.name):
            (tflite_logits(file, data.test.x).argmax(axis=1) == data.test.y).mean()
        return model

    def _fit(self, data: Dataset, experiment: Experiment, trajectories: list[tuple[str, int]]) -> Fit:
        """Return what a strategy trains with: each call follows the next trajectory, and removes it from the list."""

        def fit(model: "Model", callbacks: Sequence[Any] = ()) -> Trained:
            if not trajectories:
                raise ValueError(f"TRAININGS names less than strategy={experiment.setting.strategy} trains.")
            self._train(model, callbacks, data, experiment, trajectories.pop(0))
            return Trained.untouched(model)

        return fit

    def _train(
        self,
        model: "Model",
        callbacks: Sequence[Any],
        data: Dataset,
        experiment: Experiment,
        trajectory: tuple[str, int],
    ) -> None:
        """Train a trajectory once, as far as needed, and set the model's weights to those after some epochs."""
        name, epochs = trajectory
        if name not in self._weights:
            self._weights[name] = {}
            settings = experiment.training
            for epoch in range(1, max(self._stations[name]) + 1):
                with self._timed("epoch", name, epoch):
                    if epoch == 1:
                        _compile(model, settings.learning_rate)
                    model.fit(
                        data.train.x,
                        data.train.y,
                        batch_size=settings.batch_size,
                        validation_data=(data.validation.x, data.validation.y),
                        validation_batch_size=settings.batch_size,
                        verbose=0,
                        callbacks=list(callbacks),
                    )
                if epoch in self._stations[name]:
                    self._weights[name][epoch] = model.get_weights()
        model.set_weights(self._weights[name][epochs])

    def _evaluate(self, model: "Model", name: str, data: Dataset) -> None:
        from experiments.measure.accuracy import keras_logits

        with self._timed("keras_evaluation", name):
            (keras_logits(model, data.test.x).argmax(axis=1) == data.test.y).mean()

    @contextmanager
    def _timed(self, what: Any, of: str, epoch: int = 0) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._pieces.append(Piece(what, of, epoch, time.perf_counter() - started))


def _compile(model: "Model", learning_rate: float) -> None:
    from experiments.system.tensorflow import keras
    from experiments.training.loop import ends_in_softmax

    model.compile(
        keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=not ends_in_softmax(model)),
        metrics=["accuracy"],
    )
