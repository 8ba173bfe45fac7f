"""The least training that a sweep needs, and the cost of training everything once or each cell from scratch.

A *trajectory* is one training from one starting model, however many epochs of it are asked for: the states after 1, 2
and 4 epochs lie on it. Two cells share a trajectory only if all that was trained before it is the same. So one that
starts from the baseline serves every number of epochs, and one that starts from a model that was itself trained for
`finetune.epochs` is another for each number.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

BASELINE = "baseline"
# The trainings of each strategy after the baseline's, in their order; strategies that are not named here train nothing.
# Trainings of one name from one start are the same: that of `finetune` is also that of `finetune_ptq_int8`, that of
# `prune` the first of `prune_qat`.
TRAININGS: Mapping[str, tuple[str, ...]] = {
    "finetune": ("finetune",),
    "finetune_ptq_int8": ("finetune",),
    "qat": ("qat",),
    "annotate": ("annotate",),
    "prune": ("prune",),
    "cluster": ("cluster",),
    "prune_qat": ("prune", "qat keeping zeros"),
    "cluster_qat": ("cluster", "qat keeping clusters"),
    "prune_cluster_qat": ("prune", "cluster keeping zeros", "qat keeping both"),
}


@dataclass(frozen=True)
class Cell:
    """One strategy with one number of epochs."""

    strategy: str
    finetune_epochs: int
    baseline_epochs: int

    @property
    def name(self) -> str:
        """A key that is equal for cells with the same result."""
        return f"{self.strategy}@{self.finetune_epochs}" if self.strategy in TRAININGS else self.strategy

    @property
    def model(self) -> str:
        """The Keras model that is converted."""
        return self.name if self.strategy in TRAININGS else BASELINE

    def trajectories(self) -> Iterator[tuple[str, int]]:
        """Yield the trajectories that lead to the result, and for how many epochs each is followed."""
        name = BASELINE
        yield name, self.baseline_epochs
        epochs = self.baseline_epochs
        for training in TRAININGS.get(self.strategy, ()):
            name, epochs = f"{name}@{epochs} > {training}", self.finetune_epochs
            yield name, epochs


@dataclass(frozen=True)
class Piece:
    """A piece of work, and its seconds when done without the suite."""

    what: Literal["epoch", "building", "conversion", "keras_evaluation", "tflite_evaluation"]
    of: str  # a trajectory, a cell's name or a cell's model
    epoch: int  # from 1; 0 for other pieces
    seconds: float


def stations(cells: Iterable[Cell]) -> Mapping[str, frozenset[int]]:
    """Return the numbers of epochs after which each trajectory's state is needed."""
    needed: dict[str, set[int]] = defaultdict(set)
    for cell in cells:
        for name, epochs in cell.trajectories():
            needed[name].add(epochs)
    return {name: frozenset(epochs) for name, epochs in needed.items()}


def least_epochs(cells: Iterable[Cell]) -> int:
    """Return the smallest number of epochs that yields all cells: each trajectory once, as far as it is needed."""
    return sum(max(epochs) for epochs in stations(cells).values())


def plain_pieces(pieces: Sequence[Piece], cells: Iterable[Cell]) -> list[Piece]:
    """Return the pieces of all cells if nothing is shared, given each distinct piece once."""
    known = {(piece.what, piece.of, piece.epoch): piece for piece in pieces}
    needed: list[Piece] = []
    for cell in cells:
        needed += [known["building", BASELINE, 0], known["building", cell.name, 0]]
        needed += [known["epoch", name, i] for name, epochs in cell.trajectories() for i in range(1, epochs + 1)]
        needed += [known["conversion", cell.name, 0]]
        needed += [known["keras_evaluation", cell.model, 0], known["tflite_evaluation", cell.name, 0]]
    return needed
