"""The paired bootstrap over test examples, for metrics that are not shares of correct predictions.

Every model is measured on the same resamples of the test examples, which depend only on their number. The values of a
metric on all examples and on each resample, `replicates` (1 + RESAMPLES,), are all that later comparisons require: the
replicates of two models belong together in pairs.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import stats

from experiments.statistics.estimates import CONFIDENCE, TINY, Estimate

RESAMPLES = 2000
SEED = 0

Replicates = npt.NDArray[np.float64]  # (1 + RESAMPLES,): the value on all examples, and on each resample


def resamples(examples: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield how often each example counts, (n,): once each, and then as often as each resample draws it."""
    yield np.ones(examples, np.int64)
    rng = np.random.default_rng([SEED, examples])
    for _ in range(RESAMPLES):
        yield np.bincount(rng.integers(examples, size=examples), minlength=examples)


def mean_over_seeds(seeds: npt.NDArray[np.float64], examples: int) -> Estimate:
    """Return the mean of a metric over seeds, from replicates (seeds, 1 + RESAMPLES).

    For a single seed, the interval is the expanded percentile interval (Hesterberg, Am. Stat. 69, 2015), which corrects
    the percentile interval for few examples. For several seeds, see `difference_over_seeds`.
    """
    if len(seeds) > 1:
        return _with_interval(seeds, examples)[0]
    tail = float(stats.norm.cdf(-np.sqrt(examples / max(examples - 1, 1)) * _student(max(examples - 1, 1))))
    low, high = np.quantile(seeds[0, 1:], [tail, 1 - tail])
    return Estimate(float(seeds[0, 0]), float(low), float(high))


def difference_over_seeds(
    after: npt.NDArray[np.float64], before: npt.NDArray[np.float64], examples: int
) -> tuple[Estimate, float]:
    """Return the mean difference of a metric over seeds with its interval, and the p-value that it is 0.

    Both arrays are replicates (seeds, 1 + RESAMPLES). The interval is Student's with the bootstrap's standard error
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 12), corrected for few examples by n / (n -
    1). It generalizes to new examples; for several seeds to new seeds as well, as crossed random effects: the variance
    between seeds, and the covariance of their replicates, which is what they share. The p-value is below 0.05 if and
    only if the interval excludes 0.

    tests/test_bootstrap.py simulates skewed errors of 100 and 300 examples and requires a coverage of 92 to 98 % for
    differences of mean absolute and of root mean square errors.
    """
    return _with_interval(after - before, examples)


def _with_interval(seeds: npt.NDArray[np.float64], examples: int) -> tuple[Estimate, float]:
    values, drawn = seeds[:, 0], seeds[:, 1:]
    count, mean, few = len(seeds), float(values.mean()), examples / max(examples - 1, 1)
    covariance = np.atleast_2d(np.cov(drawn)) * few
    if count == 1:
        return _student_interval(mean, float(np.sqrt(covariance[0, 0])), max(examples - 1, 1))
    from_seeds = float(values.var(ddof=1)) / count
    shared = max(float((covariance.sum() - np.trace(covariance)) / (count * (count - 1))), 0.0)
    variance = from_seeds + shared
    if not variance:
        return _student_interval(mean, 0.0, count - 1)
    # Welch and Satterthwaite: the part between seeds has few degrees of freedom, the part of the examples has many.
    freedom = variance**2 / (from_seeds**2 / (count - 1) + shared**2 / max(examples - 1, 1))
    return _student_interval(mean, float(np.sqrt(variance)), freedom)


def _student_interval(mean: float, error: float, freedom: float) -> tuple[Estimate, float]:
    if error == 0:
        return Estimate(mean, mean, mean), 1.0 if mean == 0 else TINY
    half = _student(freedom) * error
    return Estimate(mean, mean - half, mean + half), max(float(2 * stats.t.sf(abs(mean) / error, freedom)), TINY)


def _student(freedom: float) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
