"""What training once is worth: `python -m benchmarks.once`.

A sweep of all strategies with finetune.epochs=1,2,4 on a fixed baseline, 10,000 training images of MNIST:

- Epochs trained, against the smallest number possible. A trajectory serves 1, 2 and 4 epochs when it starts from the
  baseline (finetune, qat, annotate, prune, cluster: 4 epochs each). The quantization-aware part of prune_qat and
  cluster_qat starts from another model for each number of epochs: 1 + 2 + 4, its first part being that of prune or
  cluster. prune_cluster_qat shares the pruning, and has two such parts. The baseline comes once. The number is computed
  from the trainings of each strategy (benchmarks.trajectories), and the bare work below is held to it.
- Wall time, against the same unique work done bare (benchmarks.bare): TensorFlow imported, then plain model.fit, one
  conversion a file, one evaluation a Keras model and a file. It is measured before and after the sweep, since a
  machine's speed drifts; with `--bare-once` only before.
- Wall time, against the plain way: each of the cells trains its own baseline and fine-tuning from scratch, converts and
  evaluates. It would take hours, so it is reckoned: each cell is charged with its pieces, every epoch, model,
  conversion and evaluation, each with the mean of its times in the bare passes. That is the plain way at its best:
  in one process, with TensorFlow imported and the images loaded at no cost. `--in-full` really does it, instead.

Writes benchmarks/results/once/ (once.csv, pieces.csv with every piece's seconds, comparison.csv of the sweep).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from benchmarks import sweeps
from benchmarks.bare import Bare, in_own_process
from benchmarks.results import Results, options
from benchmarks.tables.once import (
    BARE_AFTER,
    BARE_AT_MOST,
    BARE_BEFORE,
    PLAIN,
    PLAIN_AT_LEAST,
    PLAIN_MEASURED,
    PLAIN_RECKONED,
    SWEEP,
    bare_ratio,
    plain_ratio,
)
from benchmarks.trajectories import Cell, Piece, least_epochs, plain_pieces
from experiments.system.options import CONF
from experiments.system.progress import say


@dataclass(frozen=True)
class Work:
    """What is swept over."""

    strategies: tuple[str, ...]
    finetune_epochs: tuple[int, ...]
    baseline_epochs: int
    settings: tuple[str, ...]  # common to sweep and bare work

    @property
    def cells(self) -> list[Cell]:
        """Every strategy with every number of epochs."""
        return [
            Cell(strategy, epochs, self.baseline_epochs)
            for strategy in self.strategies
            for epochs in self.finetune_epochs
        ]

    @property
    def common(self) -> list[str]:
        """The settings that all cells have."""
        return [*self.settings, f"training.epochs={self.baseline_epochs}"]

    @property
    def described(self) -> dict[str, str | int]:
        """What the figures are about, for people."""
        return {
            "strategies": len(self.strategies),
            "finetune_epochs": ",".join(map(str, self.finetune_epochs)),
            "baseline_epochs": self.baseline_epochs,
            "settings": " ".join(self.settings),
            "cells": len(self.cells),
            "least_epochs": least_epochs(self.cells),
        }

    @property
    def overrides(self) -> list[str]:
        """What the sweep is asked for."""
        every = tuple(sorted(path.stem for path in (CONF / "strategy").glob("*.yaml")))
        strategies = "glob(*)" if self.strategies == every else ",".join(self.strategies)
        epochs = ",".join(map(str, self.finetune_epochs))
        return [f"strategy={strategies}", f"finetune.epochs={epochs}", *self.common]


def whole(baseline_epochs: int) -> Work:
    """What the figures are about."""
    return Work(
        strategies=tuple(sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))),
        finetune_epochs=(1, 2, 4),
        baseline_epochs=baseline_epochs,
        settings=("dataset=mnist", "dataset.train_samples=10000", "latency.seconds=0.3"),
    )


def quick() -> Work:
    """Enough to see that it works."""
    samples = ("dataset.train_samples=500", "dataset.test_samples=100")
    return Work(("none", "prune", "prune_qat"), (1, 2), 1, ("dataset=mnist", *samples, "latency.seconds=0.3"))


def mean_pieces(bares: Sequence[Bare]) -> list[Piece]:
    """The pieces with the mean of their times in all passes."""
    passes = [bare.pieces for bare in bares]
    return [
        replace(same[0], seconds=float(np.mean([piece.seconds for piece in same])))
        for same in zip(*passes, strict=True)
    ]


def by_hand(way: str, done: Bare) -> dict[str, object]:
    """A row of the figures, for work done by hand."""
    return {
        "way": way,
        "epochs_trained": done.epochs,
        "seconds": done.seconds,
        "training_seconds": done.spent_on("epoch"),
        "conversion_seconds": done.spent_on("conversion"),
        "evaluation_seconds": done.spent_on("keras_evaluation", "tflite_evaluation"),
        "latency_seconds": 0.0,
    }


def by_sweep(seconds: float, comparison: pd.DataFrame) -> dict[str, object]:
    """A row of the figures, for the sweep."""
    return {
        "way": SWEEP,
        "epochs_trained": int(comparison["epochs_trained"].sum()),
        "seconds": seconds,
        "training_seconds": (comparison["train_seconds"] - comparison["train_seconds_reused"]).sum(),
        **{f"{part}_seconds": comparison[f"{part}_seconds"].sum() for part in ("conversion", "evaluation", "latency")},
    }


def pieces_table(bares: Sequence[Bare]) -> pd.DataFrame:
    """Every piece of both passes."""
    return pd.DataFrame(
        [{"bare_pass": i, **asdict(piece)} for i, bare in enumerate(bares, start=1) for piece in bare.pieces]
    )


def main() -> None:
    """Measure and write."""
    parser = options("benchmarks.once", __doc__)
    parser.add_argument("--baseline-epochs", type=int, default=10, metavar="N", help="of the baseline (default: 10)")
    parser.add_argument("--bare-once", action="store_true", help="measure the bare work before the sweep only")
    parser.add_argument("--in-full", action="store_true", help="do the plain way instead of reckoning it: hours")
    asked = parser.parse_args()
    results = Results("once")
    work = quick() if asked.quick else whole(asked.baseline_epochs)

    say(f"the work of {len(work.cells)} cells done bare, for the first time")
    bares = [in_own_process(work.cells, work.common, shared=True)]
    say(f"{bares[0].seconds:.0f} s; now {sweeps.command(work.overrides)}")
    with sweeps.fresh_folder() as folder:
        sweep_seconds = sweeps.sweep(folder, work.overrides)
        comparison = sweeps.table(folder)
    say(f"{sweep_seconds:.0f} s")
    if not asked.bare_once:
        say("the bare work again")
        bares.append(in_own_process(work.cells, work.common, shared=True))
        say(f"{bares[1].seconds:.0f} s")
    pieces = plain_pieces(mean_pieces(bares), work.cells)
    plain, plain_way = Bare(sum(piece.seconds for piece in pieces), tuple(pieces)), PLAIN_RECKONED
    if asked.in_full:
        say(f"the plain way, which should take {plain.seconds:.0f} s")
        plain, plain_way = in_own_process(work.cells, work.common, shared=False), PLAIN_MEASURED

    rows = [
        by_sweep(sweep_seconds, comparison),
        *(by_hand(way, bare) for way, bare in zip((BARE_BEFORE, BARE_AFTER), bares, strict=False)),
        by_hand(plain_way, plain),
    ]
    table = pd.DataFrame(rows).assign(**work.described, runs=len(comparison))
    more = {"pieces.csv": pieces_table(bares), "comparison.csv": comparison}
    results.finish(table, asked.quick, failures(table), sweeps.command(work.overrides), more)


def failures(table: pd.DataFrame) -> list[str]:
    """What is not as it should be."""
    bare, plain, least = bare_ratio(table), plain_ratio(table), table["least_epochs"].iloc[0]
    once = table[~table["way"].str.startswith(PLAIN)]
    return [
        *(f"{row.way}: {row.epochs_trained} epochs" for row in once.itertuples() if row.epochs_trained != least),
        *([f"sweep / bare {bare:.3f}"] if bare > BARE_AT_MOST else []),
        *([f"plain / sweep {plain:.2f}"] if plain < PLAIN_AT_LEAST else []),
    ]


if __name__ == "__main__":
    main()
