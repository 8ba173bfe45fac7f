"""Intervals and paired tests, on plain arrays. Every interval is at 95 %."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


def proportion(hits: int, trials: int) -> Estimate:
    """A share of successes with Wilson's score interval (Wilson, JASA 22, 1927)."""
    interval = stats.binomtest(hits, trials).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(hits / trials, float(interval.low), float(interval.high))


def paired_difference(after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> Estimate:
    """The difference of two shares seen on the same cases: mean(after) - mean(before).

    The interval is Bonett and Price's adjusted Wald interval (J. Educ. Behav. Stat. 37, 2012), which Fagerland,
    Lydersen and Laake recommend for paired proportions (Stat. Med. 33, 2014). It stays open when the two never differ.
    """
    n = len(after)
    gained, lost = (
        (np.count_nonzero(after & ~before) + 1) / (n + 2),
        (np.count_nonzero(before & ~after) + 1) / (n + 2),
    )
    centre = gained - lost
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((gained + lost - centre**2) / (n + 2))
    return Estimate(float(after.mean() - before.mean()), float(centre - half), float(centre + half))


def mcnemar(after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> float:
    """Exact two-sided p-value of McNemar's test that two classifiers err equally often on the same cases."""
    gained, lost = int(np.count_nonzero(after & ~before)), int(np.count_nonzero(before & ~after))
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def ratio_of_medians(numerators: npt.NDArray[np.float64], denominators: npt.NDArray[np.float64]) -> Estimate:
    """The typical ratio of pairs, one pair a replicate: geometric mean with a t-interval over the replicates' logs.

    Replicates, not single timings, are what varies independently (Kalibera and Jones, ISMM 2013).
    """
    logs = np.log(numerators / denominators)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1) * stats.sem(logs) if len(logs) > 1 else np.inf
    mean = logs.mean()
    return Estimate(*(float(np.exp(value)) for value in (mean, mean - half, mean + half)))


def t_quantiles(most: int) -> list[float]:
    """Half-widths of 95 % t-intervals in standard errors, for 1, 2, ... `most` degrees of freedom."""
    return [float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees)) for degrees in range(1, most + 1)]
