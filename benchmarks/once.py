"""Time saved by training once: `python -m benchmarks.once`.

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

from benchmarks.harness import sweeps
from benchmarks.harness.bare import Bare, in_own_process
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import Table, compared_in, own
from benchmarks.harness.results import Results, options
from benchmarks.harness.trajectories import Cell, Piece, least_epochs, plain_pieces
from benchmarks.overhead import NOT_OVERHEAD
from experiments.statistics.rounding import times, whole
from experiments.system.options import CONF
from experiments.system.progress import say
from experiments.tracking.schema import heading

SWEEP, BARE = "the sweep", "bare"
BARE_BEFORE, BARE_AFTER = f"{BARE}, before the sweep", f"{BARE}, after the sweep"
PLAIN = "the plain way"
PLAIN_RECKONED, PLAIN_MEASURED = f"{PLAIN}, reckoned from the pieces done bare", f"{PLAIN}, measured"
PLAIN_AT_LEAST, BARE_AT_MOST = 4.0, 1.15  # times
SHOWN = {
    SWEEP: "the sweep",
    BARE_BEFORE: "by hand, before the sweep",
    BARE_AFTER: "by hand, after the sweep",
    PLAIN_RECKONED: "every run from scratch, computed from the parts by hand",
    PLAIN_MEASURED: "every run from scratch, measured",
}


@dataclass(frozen=True)
class Work:
    """The sweep and its cells."""

    strategies: tuple[str, ...]
    finetune_epochs: tuple[int, ...]
    baseline_epochs: int
    settings: tuple[str, ...]  # of the sweep and of the work by hand

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
        """The description of the table."""
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
        """The arguments of the sweep."""
        every = tuple(sorted(path.stem for path in (CONF / "strategy").glob("*.yaml")))
        strategies = "glob(*)" if self.strategies == every else ",".join(self.strategies)
        epochs = ",".join(map(str, self.finetune_epochs))
        return [f"strategy={strategies}", f"finetune.epochs={epochs}", *self.common]


def full_work(baseline_epochs: int) -> Work:
    """Return what was measured."""
    return Work(
        strategies=tuple(sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))),
        finetune_epochs=(1, 2, 4),
        baseline_epochs=baseline_epochs,
        settings=("dataset=mnist", "dataset.train_samples=10000", "latency.seconds=0.3"),
    )


def small_work() -> Work:
    """Return a small version for --quick."""
    samples = ("dataset.train_samples=500", "dataset.test_samples=100")
    return Work(("none", "prune", "prune_qat"), (1, 2), 1, ("dataset=mnist", *samples, "latency.seconds=0.3"))


def mean_pieces(bares: Sequence[Bare]) -> list[Piece]:
    """Return the pieces with the mean of their times in all passes."""
    passes = [bare.pieces for bare in bares]
    return [
        replace(same[0], seconds=float(np.mean([piece.seconds for piece in same])))
        for same in zip(*passes, strict=True)
    ]


def by_hand(way: str, done: Bare) -> dict[str, object]:
    """Return a row of the table for work by hand."""
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
    """Return a row of the table for the sweep."""
    return {
        "way": SWEEP,
        "epochs_trained": int(comparison["epochs_trained"].sum()),
        "seconds": seconds,
        "training_seconds": (comparison["train_seconds"] - comparison["train_seconds_reused"]).sum(),
        **{f"{part}_seconds": comparison[f"{part}_seconds"].sum() for part in ("conversion", "evaluation", "latency")},
    }


def pieces_table(bares: Sequence[Bare]) -> pd.DataFrame:
    """Return every piece of both passes."""
    return pd.DataFrame(
        [{"bare_pass": i, **asdict(piece)} for i, bare in enumerate(bares, start=1) for piece in bare.pieces]
    )


def failures(table: pd.DataFrame) -> list[str]:
    """Return the missed targets."""
    bare, plain, least = bare_ratio(table), plain_ratio(table), table["least_epochs"].iloc[0]
    once = table[~table["way"].str.startswith(PLAIN)]
    return [
        *(f"{row.way}: {row.epochs_trained} epochs" for row in once.itertuples() if row.epochs_trained != least),
        *([f"sweep / bare {bare:.3f}"] if bare > BARE_AT_MOST else []),
        *([f"plain / sweep {plain:.2f}"] if plain < PLAIN_AT_LEAST else []),
    ]


def bare_ratio(table: pd.DataFrame) -> float:
    """Return the time of the sweep divided by the mean time of the same work by hand."""
    seconds = _seconds(table)
    return float(seconds[SWEEP] / np.mean([value for way, value in seconds.items() if way.startswith(BARE)]))


def plain_ratio(table: pd.DataFrame) -> float:
    """Return the time of training every run from scratch divided by that of the sweep."""
    seconds = _seconds(table)
    return next(value for way, value in seconds.items() if way.startswith(PLAIN)) / seconds[SWEEP]


def _seconds(table: pd.DataFrame) -> dict[str, float]:
    return {str(way): float(value) for way, value in zip(table["way"], table["seconds"], strict=True)}


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    rest = table["seconds"] - sum(table[f"{part}_seconds"] for part in NOT_OVERHEAD)
    shown = pd.DataFrame({"": table["way"].map(SHOWN), "epochs trained": table["epochs_trained"].astype(str)})
    for name, values in (
        ("in all, s", table["seconds"]),
        *((f"{part}, s", table[f"{part}_seconds"]) for part in NOT_OVERHEAD),
        ("the rest, s", rest),
    ):
        shown[name] = [f"{value:,.0f}" for value in values]
    row, missed = table.iloc[0], ", which is missed" if bare_ratio(table) > BARE_AT_MOST else ""
    return (
        f"{markdown(shown)}\n"
        f"sweep / by hand: {bare_ratio(table):.3f} (target: at most {BARE_AT_MOST:g}{missed}); "
        f"from scratch / sweep: {plain_ratio(table):.1f} (target: at least {PLAIN_AT_LEAST:g}); "
        f"smallest possible number of epochs: {row['least_epochs']}. "
        f"{row['cells']} combinations: {row['strategies']} strategies with finetune.epochs={row['finetune_epochs']} "
        f"after a baseline of {row['baseline_epochs']} epochs ({row['settings']}), which are {row['runs']} distinct "
        "runs.\n"
    )


def files_of_strategies(table: pd.DataFrame) -> str:
    """Return the file of each strategy, without its accuracy: of the longest training, smallest first."""
    trained = table["finetune_epochs"] == table["finetune_epochs"].max()
    table = table[trained | (table["finetune_epochs"] == 0)].sort_values(["tflite_bytes", "tflite_gzip_bytes"])
    shown = pd.DataFrame(
        {
            "strategy": table["strategy"],
            "bytes": table["tflite_bytes"].map(whole),
            "after gzip -9": table["tflite_gzip_bytes"].map(whole),
            heading("size_ratio"): table["size_ratio"].map(times),
            heading("arithmetic"): table["arithmetic"],
            heading("arena_bytes"): table["arena_bytes"].map(whole),
            "TensorFlow Lite Micro": table["runs_on_micro"],
        }
    )
    return markdown(shown)


BENCHMARK = Benchmark(
    name="once",
    title="Time saved by training once",
    minutes=40,
    tables=(
        own("once", published_table),
        Table("strategies", files_of_strategies, (compared_in("once"),)),
    ),
)


def main() -> None:
    """Measure, and write the results."""
    parser = options(BENCHMARK, __doc__)
    parser.add_argument("--baseline-epochs", type=int, default=10, metavar="N", help="of the baseline (default: 10)")
    parser.add_argument("--bare-once", action="store_true", help="measure the bare work before the sweep only")
    parser.add_argument("--in-full", action="store_true", help="do the plain way instead of reckoning it: hours")
    asked = parser.parse_args()
    results = Results(BENCHMARK)
    work = small_work() if asked.quick else full_work(asked.baseline_epochs)

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


if __name__ == "__main__":
    main()
