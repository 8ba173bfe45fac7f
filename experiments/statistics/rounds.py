"""Ratios of latencies that were measured in rounds: at several moments, between which the machine changes its state.

Within a round, replicates scatter little; between rounds, the logarithm of a ratio moves by one or two percent, slowly.
So the round is the outer level (Kalibera and Jones, ISMM 2013), and rounds that follow each other are no independent
evidence. The logarithms of a ratio, one a round, are modelled as their mean plus a stationary process with

- correlation `(1 - share) * exp(-seconds / STATE) + share * exp(-seconds / LONG)` between two rounds, and
- a variance that is estimated from the rounds and from a prior, PRIOR_SCATTER with PRIOR_FREEDOM degrees of freedom.

The mean is estimated by generalized least squares, with a t-interval of rounds - 1 + PRIOR_FREEDOM degrees of freedom.
The share is a constant or, if the rounds are hours apart, the most probable of a few (restricted likelihood).
Without the correlation, the intervals of five rounds in a minute contain the long-run mean of a drifting machine in
50 to 75 % of simulated cases instead of 90 % or more; without the prior, they are too narrow if the machine stayed in
one state. The price is that the interval of five rounds in a minute is never narrower than 1.6 % to either side, even
on a quiet machine. tests/test_rounds.py has the simulations.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from experiments.statistics.estimates import CONFIDENCE, Estimate

STATE = 30.0  # seconds: time constant of the states of a machine
LONG = 3600.0  # seconds: a part of the variance changes only within hours
LONG_SHARES = (0.1, 0.5, 0.9)  # this part; the first, if the rounds are too close to show it
PRIOR_SCATTER = 0.015  # standard deviation of a log ratio between rounds, as on an ordinary cloud machine
PRIOR_FREEDOM = 2  # the number of rounds that this prior is worth
FEWEST = 3  # rounds: if fewer are undisturbed, disturbed ones count as well
LEAST_IN_STATE = 2  # rounds
APART, LEAST_GAP = 3.0, 0.03  # of two states: scatters within them, and difference of the log times


@dataclass(frozen=True)
class Mean:
    """A mean of logarithms with its standard error and degrees of freedom."""

    value: float
    error: float
    freedom: float

    @property
    def ratio(self) -> Estimate:
        """The ratio whose logarithm this is, with its interval."""
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom)) * self.error
        return Estimate(*(float(np.exp(value)) for value in (self.value, self.value - half, self.value + half)))

    @property
    def p_value(self) -> float:
        """Two-sided p-value that the ratio is 1; below 0.05 if and only if the interval excludes 1."""
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))


def mean_over_rounds(logs: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64]) -> Mean:
    """Return the mean of logarithms of a ratio: one per round, and the time at which each round started."""
    shares = LONG_SHARES if np.ptp(seconds) > LONG else LONG_SHARES[:1]
    return max((_fit(logs, correlation(seconds, share)) for share in shares), key=lambda fit: fit[0])[1]


def _fit(logs: npt.NDArray[np.float64], correlations: npt.NDArray[np.float64]) -> tuple[float, Mean]:
    """Return the restricted log likelihood of these correlations, and the mean."""
    precision = np.linalg.inv(correlations)
    weights = precision.sum(axis=0) / precision.sum()
    mean = float(weights @ logs)
    squares = float((logs - mean) @ precision @ (logs - mean)) + PRIOR_FREEDOM * PRIOR_SCATTER**2
    freedom = len(logs) - 1 + PRIOR_FREEDOM
    error = float(np.sqrt(squares / freedom / precision.sum()))
    determinants = np.linalg.slogdet(correlations)[1] + np.log(precision.sum())
    return float(-(determinants + freedom * np.log(squares)) / 2), Mean(mean, error, float(freedom))


def counting(disturbed: npt.NDArray[np.bool_], threads: int) -> npt.NDArray[np.bool_]:
    """Return which rounds count, from whether other processes used the cores that they needed.

    On a busy machine, ratios of one thread scatter more between rounds, around the same mean (benchmarks.coverage), so
    the interval over such rounds is wider, and still valid. They count if fewer than three rounds are undisturbed. With
    several threads, one waits for another, and only undisturbed rounds count.
    """
    undisturbed = ~disturbed
    all_count = threads == 1 and undisturbed.sum() < FEWEST <= len(disturbed)
    return np.ones_like(disturbed) if all_count else undisturbed


def mean_of_one_round(logs: npt.NDArray[np.float64]) -> Mean:
    """Return the mean of the logarithms of a ratio of one round: one per replicate.

    The scatter between rounds is only known from the prior, so the interval is wide: about 6.5 %.
    """
    error = np.hypot(PRIOR_SCATTER, stats.sem(logs) if len(logs) > 1 else 0.0)
    return Mean(float(np.median(logs)), float(error), float(PRIOR_FREEDOM))


def correlation(seconds: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.float64]:
    """Return the correlations (n, n) between rounds that started at these times; `share` of the variance is slow."""
    apart = np.abs(np.subtract.outer(seconds, seconds))
    matrix = (1 - share) * np.exp(-apart / STATE) + share * np.exp(-apart / LONG)
    return np.asarray(matrix + 1e-6 * np.eye(len(seconds)))  # two rounds of the same moment


def states(log_times: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the state of the machine in each round, 0 or 1, from the logarithm of the reference's own time.

    There are two states, 0 the faster one, if the times form two groups of two or more rounds that lie further apart
    than three times the scatter within them, and than 3 %. Otherwise all rounds are in state 0.
    """
    order = np.argsort(log_times, kind="stable")
    ordered = log_times[order]
    found = np.zeros(len(log_times), np.int64)
    splits = range(LEAST_IN_STATE, len(ordered) - LEAST_IN_STATE + 1)
    if not splits:
        return found
    split = min(splits, key=lambda at: _within(ordered[:at], ordered[at:]))
    fast, slow = ordered[:split], ordered[split:]
    within = np.sqrt(_within(fast, slow) / max(1, len(ordered) - 2))
    if slow.mean() - fast.mean() > max(LEAST_GAP, APART * within):
        found[order[split:]] = 1
    return found


def _within(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Return the sum of squares within two groups."""
    return float(((one - one.mean()) ** 2).sum() + ((other - other.mean()) ** 2).sum())
