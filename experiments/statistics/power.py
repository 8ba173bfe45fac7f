"""The power of the paired tests: how many test examples or seeds would separate two models."""

from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
from scipy import special

from experiments.statistics.estimates import SIGNIFICANT, Estimate

POWER = 0.8  # share of repetitions in which a difference as large as the observed one is significant
MOST_EXAMPLES = 10_000_000  # if more are needed, the difference is about 0
MOST_SEEDS = 1_000


@dataclass(frozen=True)
class Needed:
    """The number of examples, and that of seeds, that would separate two models, each with the other unchanged."""

    examples: int | None  # None if no number would
    seeds: int | None  # None also for a single seed, which does not show how much seeds vary


def needed(differences: npt.NDArray[np.float64], hypotheses: int = 1) -> Needed:
    """Return how many test examples, or seeds, would make a difference significant with a probability of 80 %.

    `differences` (seeds, examples) are the scores of one model minus those of another; for classification -1, 0 or 1.
    Their mean and variances are assumed to stay the same. The significance level is 5 % divided by the number of
    `hypotheses`, the strictest level in Holm's procedure. The variance of the mean over seeds and examples has the
    parts of crossed random effects: of seeds, of examples that are hard for every seed, and of the rest. For a single
    seed this is the sample size of a paired z-test; for McNemar's test, see Connor (Biometrics 43, 1987).
    """
    seeds, examples = differences.shape
    mean = abs(float(differences.mean()))
    if mean == 0:
        return Needed(None, None)
    level, power = 1 - SIGNIFICANT / hypotheses / 2, float(special.ndtri(POWER))
    normal = float(special.ndtri(level))
    allowed = (mean / (normal + power)) ** 2  # variance of the mean
    if seeds == 1:
        return Needed(_ceiling(float(differences.var(ddof=1)), allowed, MOST_EXAMPLES), None)
    between = float(differences.mean(axis=1).var(ddof=1))  # of the means of seeds
    within = float(differences.var(axis=1, ddof=1).mean())
    hard = (seeds * float(differences.mean(axis=0).var(ddof=1)) - within) / (seeds - 1)
    hard = max(hard, 0.0)
    rest = max(within - hard, 0.0)
    of_seeds = max(between - rest / examples, 0.0)
    enough_examples = _ceiling(rest / seeds + hard, allowed - of_seeds / seeds, MOST_EXAMPLES)

    def is_enough(count: int) -> bool:
        student = float(special.stdtrit(count - 1, level))
        total = between / count + hard / examples
        weight = (between / count / total) ** 1.5 if total else 0.0
        quantile = weight * student + (1 - weight) * normal
        return bool(total <= (mean / (quantile + power)) ** 2)

    enough_seeds = next((count for count in range(2, MOST_SEEDS) if is_enough(count)), None)
    return Needed(enough_examples, enough_seeds)


def needed_by_interval(difference: Estimate, examples: int, hypotheses: int = 1) -> Needed:
    """Return the same as `needed`, from the interval of a difference on this number of examples.

    Intervals narrow with the square root of the number of examples.
    """
    if difference.value == 0:
        return Needed(None, None)
    error = (difference.high - difference.low) / 2 / float(special.ndtri(1 - SIGNIFICANT / 2))
    quantiles = float(special.ndtri(1 - SIGNIFICANT / hypotheses / 2)) + float(special.ndtri(POWER))
    return Needed(_ceiling(examples * error**2, (difference.value / quantiles) ** 2, MOST_EXAMPLES), None)


def _ceiling(variance: float, allowed: float, most: int) -> int | None:
    """Return how many observations of this variance have a mean of the allowed variance; None if too many."""
    if allowed <= 0 or variance / allowed > most:
        return None
    return max(ceil(variance / allowed), 1)
