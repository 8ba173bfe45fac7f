"""The paired bootstrap: its coverage in simulations, and what it agrees with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from experiments.dataset import Split
from experiments.dataset.rows import Rows
from experiments.statistics.bootstrap import RESAMPLES, difference_over_seeds, mean_over_seeds, resamples
from experiments.task.metrics import MeanAbsoluteError, OfMeans, RootMeanSquareError

Floats = npt.NDArray[np.float64]
TRIALS = 400
WEIGHTS = {examples: np.stack(list(resamples(examples))) for examples in (50, 100, 300)}


def replicates(parts: Floats, finish: Callable[[Any], Any]) -> Floats:
    means = WEIGHTS[len(parts)] @ parts / len(parts)
    return np.asarray(finish(means[:, np.newaxis]))


@pytest.mark.parametrize("examples", [100, pytest.param(300, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("metric", [MeanAbsoluteError(), RootMeanSquareError()])
def test_intervals_cover_95_percent_of_simulated_cases(metric: OfMeans, examples: int) -> None:
    """Two models whose errors correlate; the second has larger ones, of a skewed distribution."""
    rng = np.random.default_rng(0)

    def errors(count: int) -> tuple[Floats, Floats]:
        common, own = rng.gamma(2, size=count), rng.normal(size=count)
        return common, common + 0.3 * np.abs(own)

    power = 2 if metric.name == "rmse" else 1
    many = [np.mean(each**power) ** (1 / power) for each in errors(2_000_000)]
    covered = {"value": 0, "difference": 0}
    significant = 0
    for _ in range(TRIALS):
        one, other = (replicates(each**power, metric.finish) for each in errors(examples))
        value = mean_over_seeds(one[np.newaxis], examples)
        difference, p = difference_over_seeds(other[np.newaxis], one[np.newaxis], examples)
        covered["value"] += bool(value.low <= many[0] <= value.high)
        covered["difference"] += bool(difference.low <= many[1] - many[0] <= difference.high)
        significant += p < 0.05
        assert (p < 0.05) == (difference.low > 0 or difference.high < 0)
    assert 0.92 <= covered["difference"] / TRIALS <= 0.98
    assert 0.92 <= covered["value"] / TRIALS <= 0.98
    assert significant > 0.9 * TRIALS


def test_the_p_value_is_that_of_a_paired_t_test_for_means() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(0, 1, 300), rng.normal(0.1, 1, 300)
    first, second = (replicates(each, lambda means: means[:, 0])[np.newaxis] for each in (one, other))
    difference, p = difference_over_seeds(first, second, 300)
    exact = stats.ttest_rel(one, other)
    assert difference.value == pytest.approx((one - other).mean())
    assert p == pytest.approx(exact.pvalue, abs=0.003)


def test_intervals_over_seeds_are_wider_where_seeds_differ() -> None:
    rng = np.random.default_rng(2)
    examples = rng.gamma(2, size=300)
    alike = np.stack([replicates(examples + 0.01 * rng.normal(size=300), lambda m: m[:, 0]) for _ in range(3)])
    apart = alike + np.array([[-0.5], [0.0], [0.5]])
    narrow, wide = mean_over_seeds(alike, 300), mean_over_seeds(apart, 300)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_metrics_are_those_of_their_formulae() -> None:
    rng = np.random.default_rng(3)
    outputs, targets = (rng.normal(size=(40, 3)).astype(np.float32) for _ in range(2))
    test = Split(Rows(np.zeros((40, 1), np.float32)), targets)
    error = outputs.astype(np.float64) - targets
    for metric, expected in (
        (MeanAbsoluteError(), np.abs(error).mean()),
        (RootMeanSquareError(), np.sqrt((error**2).mean())),
    ):
        found = metric.replicates(outputs, test)
        assert found.shape == (1 + RESAMPLES,)
        assert metric.value(outputs, test) == found[0] == pytest.approx(expected)
        assert found[1:].mean() == pytest.approx(expected, rel=0.02)


def test_identical_models_do_not_differ() -> None:
    values = replicates(np.arange(50.0), lambda means: means[:, 0])[np.newaxis]
    difference, p = difference_over_seeds(values, values, 50)
    assert (difference.value, difference.low, difference.high, p) == (0, 0, 0, 1)
