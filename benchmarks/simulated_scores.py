"""Whether the intervals of scores hold, by simulation: `python -m benchmarks.simulated_scores`.

Test sets are drawn from a population, with the outputs of a model and of its quantized copy. Counted is how often the
95 % intervals of the paired bootstrap (experiments/statistics/bootstrap.py) hold the value of the population: that of
the score, and that of the difference between the two models. Writes benchmarks/results/simulated_scores/ and its table
in docs/.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.dataset import Split
from experiments.dataset.rows import rows_of
from experiments.dataset.values import Scaling
from experiments.statistics.bootstrap import difference_over_seeds, mean_over_seeds
from experiments.system.progress import bar
from experiments.task.boxes import Decoding
from experiments.task.metrics import Auc, MacroF1, MeanAveragePrecision, MeanIntersectionOverUnion, Metric

Array = npt.NDArray[Any]
Drawn = tuple[Array, Array, Array]  # targets of test examples, outputs of the model, and of its quantized copy
Draw = Callable[[int, np.random.Generator], Drawn]

SIZES = (100, 300)  # test examples
TRIALS = 300
PROMISED = 0.9  # of intervals of differences; nominally 0.95
SHARES = (0.4, 0.3, 0.15, 0.1, 0.05)  # of the classes of macro-F1
EDGE = 8  # pixels of the images of mIoU


def two_classes(examples: int, rng: np.random.Generator) -> Drawn:
    """Draw logits of two classes, a quarter of them positive; quantization adds noise."""
    y = (rng.random(examples) < 0.25).astype(np.int64)
    logits = 1.5 * y + rng.normal(size=examples)
    return y, logits[:, np.newaxis], (logits + rng.normal(0, 0.3, examples))[:, np.newaxis]


def rare_classes(examples: int, rng: np.random.Generator) -> Drawn:
    """Draw outputs for classes of unequal frequency; quantization changes 5 % of them."""
    y = rng.choice(len(SHARES), examples, p=SHARES)
    before = np.where(rng.random(examples) < 0.8, y, rng.integers(len(SHARES), size=examples))
    after = np.where(rng.random(examples) < 0.95, before, rng.integers(len(SHARES), size=examples))
    return y, np.eye(len(SHARES))[before], np.eye(len(SHARES))[after]


def pixels(examples: int, rng: np.random.Generator) -> Drawn:
    """Draw images with a rectangle of one of three classes, whose share of right pixels differs between images."""
    y = np.zeros((examples, EDGE, EDGE), np.int64)
    for each, kind, (row, column, height, width) in zip(
        y, rng.choice(3, examples, p=(0.5, 0.35, 0.15)), rng.integers(2, 6, (examples, 4)), strict=True
    ):
        each[row : row + height, column : column + width] = kind + 1
    wrong = rng.beta(1, 6, (examples, 1, 1))
    before = np.where(rng.random(y.shape) < wrong, rng.integers(4, size=y.shape), y)
    after = np.where(rng.random(y.shape) < 0.03, rng.integers(4, size=y.shape), before)
    return y, np.eye(4)[before], np.eye(4)[after]


def boxes(examples: int, rng: np.random.Generator) -> Drawn:
    """Draw boxes of three classes, most of them found, and false ones; quantization moves and loses some."""
    y = np.full((examples, 3, 5), -1.0)
    before = np.full((examples, 6, 6), -1.0)
    for image in range(examples):
        count = int(rng.integers(1, 4))
        corners = rng.uniform(0, 40, (count, 2))
        edges = rng.uniform(10, 24, (count, 2))
        y[image, :count] = np.column_stack([rng.choice(3, count, p=(0.6, 0.3, 0.1)), corners, corners + edges])
        found = y[image, :count][rng.random(count) < 0.85]
        near = found[:, 1:] + rng.normal(0, 1.5, (len(found), 4))
        before[image, : len(found)] = np.column_stack([near, rng.beta(5, 2, len(found)), found[:, 0]])
        false = int(rng.integers(0, 4))
        corners = rng.uniform(0, 40, (false, 2))
        rows = [corners, corners + rng.uniform(10, 24, (false, 2)), rng.beta(2, 4, false), rng.integers(3, size=false)]
        before[image, 3 : 3 + false] = np.column_stack(rows)
    after = before.copy()
    after[..., :4] += rng.normal(0, 0.6, after[..., :4].shape)
    after[..., 4] = np.where(
        rng.random(after.shape[:2]) < 0.03, -1, after[..., 4] + rng.normal(0, 0.03, after.shape[:2])
    )
    return y, before, after


@dataclass(frozen=True)
class Population:
    """A metric, test sets for it, and how many examples give its value in the population."""

    metric: Metric
    draw: Draw
    all: int


POPULATIONS = (
    Population(Auc(), two_classes, 4_000_000),
    Population(MacroF1(), rare_classes, 4_000_000),
    Population(MeanIntersectionOverUnion(), pixels, 200_000),
    Population(MeanAveragePrecision(Decoding(layout="detections")), boxes, 40_000),
)


def split(y: Array) -> Split:
    """Return a split with these targets."""
    return Split(rows_of(np.zeros((len(y), 1), np.uint8), Scaling()), y)


def covered(population: Population, examples: int, trials: int, truth: tuple[float, float]) -> dict[str, float]:
    """Return how often intervals hold the true score of the quantized model, and its true difference."""
    scores, differences = [], []
    for trial in range(trials):
        y, *outputs = population.draw(examples, np.random.default_rng([1, examples, trial]))
        before, after = (population.metric.replicates(each, split(y))[np.newaxis] for each in outputs)
        score, (change, _) = mean_over_seeds(after, examples), difference_over_seeds(after, before, examples)
        scores.append(score.low <= truth[1] <= score.high)
        differences.append(change.low <= truth[1] - truth[0] <= change.high)
    return {"score": float(np.mean(scores)), "difference": float(np.mean(differences))}


def true_values(population: Population, examples: int) -> tuple[float, float]:
    """Return the scores of both models in the population, from so many examples."""
    y, before, after = population.draw(examples, np.random.default_rng(0))
    first, second = (population.metric.value(each, split(y)) for each in (before, after))
    return first, second


def simulated(trials: int, part: float = 1) -> Iterator[dict[str, object]]:
    """Yield the coverage of each metric and size; `part` of the population's examples give its value."""
    with bar("Simulated", total=len(POPULATIONS) * len(SIZES)) as advance:
        for population in POPULATIONS:
            truth = true_values(population, int(population.all * part))
            for examples in SIZES:
                found = covered(population, examples, trials, truth)
                yield {
                    "metric": population.metric.title,
                    "examples": examples,
                    "trials": trials,
                    "true_score": truth[1],
                    "true_change": truth[1] - truth[0],
                    "coverage_score": found["score"],
                    "coverage_change": found["difference"],
                }
                advance(1)


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    shown = pd.DataFrame(
        {
            "metric": table["metric"],
            "test examples": table["examples"],
            "score": [f"{value:.3f}" for value in table["true_score"]],
            "its interval holds it": [f"{100 * share:.0f} %" for share in table["coverage_score"]],
            "difference": [f"{value:.3f}" for value in table["true_change"]],
            "its interval holds it ": [f"{100 * share:.0f} %" for share in table["coverage_change"]],
        }
    )
    return f"{markdown(shown)}\n{int(table['trials'].iloc[0]):,} test sets of each size.\n"


def failures(table: pd.DataFrame) -> list[str]:
    """Return the metrics whose intervals of differences contain the true ones too rarely."""
    few = table[table["coverage_change"] < PROMISED]
    return [
        f"{metric}, {examples} examples: the interval holds the difference in {100 * share:.0f} %"
        for metric, examples, share in zip(few["metric"], few["examples"], few["coverage_change"], strict=True)
    ]


BENCHMARK = Benchmark(
    name="simulated_scores",
    title="Whether intervals of AUC, F1, mIoU and mAP hold, by simulation",
    minutes=20,
    tables=(own("simulated_scores", published_table),),
)


def main() -> None:
    """Simulate, write, publish."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    table = pd.DataFrame(simulated(20, 0.05) if asked.quick else simulated(TRIALS))
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
