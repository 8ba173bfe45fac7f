"""How often the better of several settings is named, by simulation: `python -m benchmarks.recommendation`.

Of some settings one is better by d points; it alone trains, so that wherever it is tied another one is shipped. All are
right or wrong on the same simulated test images, as files of one model are: each agrees with a common model on most
images, and predicts the others independently. What the rule of experiments/comparison/recommendation.py says of them is
counted: the better one is named alone; it is tied with others; it is not even among those that are tied. Writes
benchmarks/results/recommendation/ and its table in docs/.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.comparison.recommendation import Candidate, most_accurate, recommend
from experiments.statistics.estimates import Estimate, mcnemar, paired_difference
from experiments.system.progress import bar

ACCURACY = 0.95  # of the equal settings
OWN_ANSWERS = 0.1  # share of images whose prediction is drawn per setting: two settings differ in 1.8 % of the images
EQUAL = (1, 4, 9)  # settings beside the better one
POINTS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
IMAGES = (200, 1_000, 10_000)
TRIALS = 500
BETTER = "better"
FALSE_ALARMS = 0.05  # at most, besides the uncertainty from the number of trials
Right = Mapping[str, npt.NDArray[np.bool_]]  # which images each setting has right


@dataclass(frozen=True)
class Simulated:
    """The evidence from predictions."""

    right: Right

    def p_value(self, one: str, other: str) -> float:
        """McNemar's exact test."""
        return mcnemar(self.right[one], self.right[other])

    def difference(self, one: str, other: str) -> Estimate:
        """Return the paired difference."""
        return paired_difference(self.right[one], self.right[other])


def simulate_predictions(rng: np.random.Generator, equal: int, points: float, images: int) -> Right:
    """Simulate which images are classified correctly by `equal` equal settings and by a better one."""
    common = rng.random(images) < ACCURACY
    names = [*(f"equal {number}" for number in range(equal)), BETTER]
    by_itself = rng.random((len(names), images)) < OWN_ANSWERS
    right = np.where(by_itself, rng.random((len(names), images)) < ACCURACY, common)
    right[-1] |= rng.random(images) < points / 100 / (1 - ACCURACY)
    return dict(zip(names, right, strict=True))


def outcome(right: Right) -> str:
    """Return what the rule says: named, tied, wrong (another is named, or the better one is not among the tied)."""
    candidates = [Candidate(name, float(each.mean()), trains=name == BETTER) for name, each in right.items()]
    found = recommend(*most_accurate(candidates, Simulated(right)))
    if BETTER not in [each.key for each in found.tied]:
        return "wrong"
    return "named" if found.is_won else "tied"


def simulated(trials: int) -> Iterator[dict[str, float]]:
    """Yield the share of each outcome, by settings, points and images."""
    cells = list(product(EQUAL, POINTS, IMAGES))
    with bar("Simulated", total=len(cells)) as advance:
        for equal, points, images in cells:
            rng = np.random.default_rng([equal, round(10 * points), images])
            said = [outcome(simulate_predictions(rng, equal, points, images)) for _ in range(trials)]
            shares = {each: said.count(each) / trials for each in ("named", "tied", "wrong")}
            yield {"equal": equal, "points": points, "images": images, "trials": trials, **shares}
            advance(1)


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    rows = []
    for (equal, points), cells in table.groupby(["equal", "points"]):
        by_images = {f"{int(cell['images']):,} images": cell for _, cell in cells.iterrows()}
        rows.append(
            {
                "equal settings": f"{equal}",
                "one better by (pp)": f"{points:g}",
                **{name: _shares(cell) for name, cell in by_images.items()},
                **{f"accuracy lost (pp), {name}": f"{_given_up(cell):.2f}" for name, cell in by_images.items()},
            }
        )
    trials = int(table["trials"].iloc[0])
    return (
        f"{markdown(pd.DataFrame(rows))}\nIn % of {trials} simulated sweeps each: the best setting is named alone / "
        "it is tied with others / another one is named, or it is not among the tied. accuracy lost: on average, by "
        "shipping the simplest of the tied settings.\n"
    )


def _shares(cell: pd.Series) -> str:
    return " / ".join(f"{100 * cell[each]:.0f}" for each in ("named", "tied", "wrong"))


def _given_up(cell: pd.Series) -> float:
    return float(cell["points"] * (1 - cell["named"]))


def failures(table: pd.DataFrame) -> list[str]:
    """Return the cells with more than 5 % of wrong names, and those in which a large difference is not found."""
    bound = FALSE_ALARMS + 3 * np.sqrt(FALSE_ALARMS * (1 - FALSE_ALARMS) / table["trials"])
    without = table["points"] == 0
    false_alarms = table[table["wrong"] + table["named"].where(without, 0.0) > bound]
    plain = table[(table["points"] >= 1) & (table["images"] >= 10_000) & (table["named"] < 0.95)]
    return [
        f"{int(cell['equal'])} equal, {cell['points']:g} points, {int(cell['images']):,} images: {what}"
        for cells, what in ((false_alarms, "false alarms"), (plain, "not named"))
        for _, cell in cells.iterrows()
    ]


BENCHMARK = Benchmark(
    name="recommendation",
    title="How often the best setting is named or tied, by simulation",
    minutes=3,
    tables=(own("recommendation", published_table),),
)


def main() -> None:
    """Simulate, write, publish."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    table = pd.DataFrame(simulated(20 if asked.quick else TRIALS))
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
