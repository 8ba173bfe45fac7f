"""Confidence intervals, always at 95 %, and paired tests, on plain arrays."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

CONFIDENCE = 0.95
SIGNIFICANT = 1 - CONFIDENCE  # p-values below it, adjusted for multiple comparisons, are evidence of a difference
TINY = 1e-12  # lower bound of reported p-values
NORMAL_QUANTILE = float(stats.norm.ppf((1 + CONFIDENCE) / 2))


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, float]:
        """Return the numbers by column: `name`, `name_low`, `name_high`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def proportion(hits: int, trials: int) -> Estimate:
    """Return the share of successes with Wilson's score interval (Wilson, JASA 22, 1927)."""
    interval = stats.binomtest(hits, trials).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(hits / trials, float(interval.low), float(interval.high))


def paired_difference(after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> Estimate:
    """Return the difference of two paired proportions, mean(after) - mean(before), with its interval.

    The interval is Bonett and Price's adjusted Wald interval (J. Educ. Behav. Stat. 37, 2012), which Fagerland,
    Lydersen and Laake recommend for paired proportions (Stat. Med. 33, 2014). Its width is positive even if no pair
    differs.
    """
    gained, lost = discordant(after, before)
    interval = _bonett_price(gained / len(after), lost / len(after), len(after), NORMAL_QUANTILE)
    return Estimate(float(after.mean() - before.mean()), *interval)


def paired_bootstrap(
    after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_], seed: int = 0, resamples: int = 9999
) -> Estimate:
    """Return the difference of two paired proportions with a bootstrap interval, which resamples pairs.

    This is the percentile interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). A pair
    is gained, lost or unchanged, so resampling pairs means drawing from a multinomial distribution. If only the
    observed pairs were resampled, the interval would have zero width when no pair differs, and a coverage of 73 % when
    two pairs are expected to differ. Therefore one pseudo-observation each of a gained and a lost pair is added, as in
    Bonett and Price's interval, and uniform noise of half a pair is added to each resample (the smoothed bootstrap:
    Silverman and Young, Biometrika 74, 1987).

    In simulations its coverage is 95 % +- 1.5 points if 30 or more pairs are expected to differ, and higher, up to
    100 %, if fewer are. Tables show `paired_difference`, which requires no resampling; this interval validates it
    without a variance formula.
    """
    gained, lost = (count + 1 for count in discordant(after, before))
    cases = len(after) + 2
    chances = [gained / cases, lost / cases, (cases - gained - lost) / cases]
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(cases, chances, resamples)
    differences = (drawn[:, 0] - drawn[:, 1] + rng.uniform(-0.5, 0.5, resamples)) / cases
    low, high = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(after.mean() - before.mean()), float(low), float(high))


def discordant(after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return the numbers of cases that were gained and lost."""
    return int(np.count_nonzero(after & ~before)), int(np.count_nonzero(before & ~after))


def mcnemar(after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> float:
    """Return the two-sided p-value of McNemar's exact test that two classifiers have the same error rate."""
    gained, lost = discordant(after, before)
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(p: npt.NDArray[np.float64], family: int | None = None) -> npt.NDArray[np.float64]:
    """Return p-values adjusted by Holm's step-down procedure (Scand. J. Stat. 6, 1979), in the same order.

    If adjusted values below 0.05 are called significant, the family-wise error rate is at most 5 %; the tests need not
    be independent. `family` is the total number of hypotheses if the p-values of some are unknown (default: len(p)).
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    left = np.arange(len(p) if family is None else family, 0, -1)[: len(p)]
    adjusted[order] = np.maximum.accumulate(p[order] * left).clip(max=1)
    return adjusted


def pairs_among(rows: int) -> int:
    """Return the number of pairs of rows, which is the number of hypotheses when each row is compared with the best.

    The best row is selected with the same data, so any pair might have been compared. In simulations with 15 equally
    good models, counting only the 14 comparisons with the best finds a false difference in 13 % of cases; counting all
    105 pairs, in 1 %.
    """
    return rows * (rows - 1) // 2


def over_seeds(right: npt.NDArray[np.bool_]) -> Estimate:
    """Return the mean accuracy over seeds, tested on the same images: `right` (seeds, images).

    The interval generalizes to new seeds and new images, which are crossed random effects. It is Wilson's interval
    with the effective number of images and a wider quantile, like that of Franco, Little, Louis and Slud for surveys
    (J. Surv. Stat. Methodol. 7, 2019); see `_Crossed`. For a single seed, or if all predictions are right or all are
    wrong, it is the interval of `proportion`, which generalizes to new images only.

    In simulations its coverage is 95 % +- 1.5 points for three or more seeds: 2,000 to 10,000 images, accuracies of
    0.95 to 0.99, standard deviations between seeds of 0 to 0.5 points. Two seeds are too few to estimate the variance
    between seeds: the coverage is between 91 %, if that variance dominates, and 97 %.
    """
    if len(right) == 1 or right.all() or not right.any():
        return proportion(int(np.count_nonzero(right[0])), right.shape[1])
    crossed = _Crossed.of(right)
    return Estimate(crossed.mean, *_wilson(crossed.mean, crossed.effective_images, crossed.quantile))


def difference_over_seeds(after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> Estimate:
    """Return the mean difference of two accuracies over seeds, on the same images: two arrays (seeds, images).

    The interval generalizes to new seeds and new images, like that of `over_seeds`, and is Bonett and Price's with the
    effective number of images. For a single seed, or if no prediction differs, it is the interval of
    `paired_difference`, which generalizes to new images only.

    In simulations its coverage is 95 % +- 1.5 points for three or more seeds if 20 or more images are expected to
    differ in each seed, and higher if fewer are. With two seeds it is as inaccurate as that of `over_seeds`.
    """
    if len(after) == 1 or np.array_equal(after, before):
        return paired_difference(after[0], before[0])
    gained, lost = float((after & ~before).mean()), float((before & ~after).mean())
    crossed = _Crossed.of(after.astype(np.int8) - before.astype(np.int8))
    interval = _bonett_price(gained, lost, crossed.effective_images, crossed.quantile)
    return Estimate(crossed.mean, *interval)


def difference_p(after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> float:
    """Return the two-sided p-value of equal mean accuracy over seeds: two arrays (seeds, images).

    For a single seed it is that of McNemar's exact test. For several seeds it is below 0.05 if and only if the
    interval of `difference_over_seeds` excludes 0.
    """
    if len(after) == 1 or np.array_equal(after, before):
        return mcnemar(after[0], before[0])
    gained, lost = float((after & ~before).mean()), float((before & ~after).mean())
    crossed = _Crossed.of(after.astype(np.int8) - before.astype(np.int8))
    low, high = _bonett_price(gained, lost, crossed.effective_images, crossed.quantile)
    return crossed.p_value(abs(low + high) / (high - low) * crossed.quantile)


def unpaired_difference(one: Estimate, other: Estimate) -> Estimate:
    """Return the difference of two values of which only the intervals are known.

    Newcombe's square-and-add interval (method 10; Stat. Med. 17, 1998). For shares of the same cases it is wider than
    that of `paired_difference` if both models tend to err on the same cases.
    """
    value = one.value - other.value
    low = np.hypot(one.value - one.low, other.high - other.value)
    high = np.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, float(value - low), float(value + high))


def unpaired_p(one: Estimate, other: Estimate) -> float:
    """Return the two-sided p-value that two values are equal; below 0.05 if `unpaired_difference` excludes 0."""
    difference = unpaired_difference(one, other)
    towards_none = difference.value - (difference.low if difference.value > 0 else difference.high)
    if difference.value == 0 or towards_none == 0:
        return 1.0 if difference.value == 0 else TINY
    return float(2 * stats.norm.sf(NORMAL_QUANTILE * abs(difference.value / towards_none)))


def examples_needed(gained: float, lost: float, margin: float) -> int:
    """Return the number of test examples that would show whether more than `margin` is lost.

    `gained` and `lost` are the observed shares of examples that only the first, or only the second model classifies
    correctly; they are assumed to stay the same. With the returned number, the interval of `paired_difference` is
    just entirely above -margin or, if the observed loss exceeds the margin, below it. No number of examples can
    separate a loss from an equal margin, so if they are close, half the width of the interval is `margin` instead.
    """
    distance = abs(gained - lost + margin)

    def is_enough(examples: int) -> bool:
        low, high = _bonett_price(gained, lost, examples, NORMAL_QUANTILE)
        if distance < margin / 10:
            return (high - low) / 2 <= margin
        return low >= -margin if gained - lost > -margin else high < -margin

    return _least(is_enough)


def _least(is_enough: Callable[[int], bool]) -> int:
    """Return the least number that is enough, where every larger one is, too."""
    too_few, enough = 0, 1
    while not is_enough(enough):
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if is_enough(middle) else (middle, enough)
    return enough


def share_p(share: float, end: float, bound: float) -> float:
    """Return the two-sided p-value of the score test that a share equals `bound`.

    Wilson's interval is the inverse of this test. `end` is the end of the share's 95 % interval on the side of
    `bound`; it determines the number of cases. The p-value is 0.05 if `bound` equals `end`.
    """
    if not 0 < bound < 1 or share == end:
        return 1.0 if bound <= 0 or bound >= 1 else 0.0
    scale = np.sqrt(end * (1 - end) / (bound * (1 - bound)))
    return float(2 * stats.norm.sf(NORMAL_QUANTILE * abs((share - bound) / (share - end)) * scale))


def interval_p(low: float, high: float, bound: float, freedom: int | None = None) -> float:
    """Return the two-sided p-value that a value with this symmetric 95 % interval equals `bound`.

    The p-value is 0.05 if `bound` is an end of the interval. `freedom` are the degrees of freedom of a t-interval;
    None means the normal distribution.
    """
    if low == high:
        return float(low == bound)
    distance = abs(2 * bound - low - high) / (high - low)
    if freedom is None:
        return float(2 * stats.norm.sf(distance * NORMAL_QUANTILE))
    return float(2 * stats.t.sf(distance * stats.t.ppf((1 + CONFIDENCE) / 2, freedom), freedom))


@dataclass(frozen=True)
class _Crossed:
    """The mean of values (seeds, images), and its uncertainty with seeds and images as crossed random effects."""

    mean: float
    effective_images: float  # independent images for which the mean of a single model has the same variance
    weight: float  # of Student's quantile; the rest is that of the normal quantile
    freedom: int  # degrees of freedom

    @property
    def quantile(self) -> float:
        """Half the width of the 95 % interval, in standard errors."""
        return self._quantile(CONFIDENCE)

    def _quantile(self, confidence: float) -> float:
        student = float(special.stdtrit(self.freedom, (1 + confidence) / 2)) if self.weight else 0.0
        return float(self.weight * student + (1 - self.weight) * special.ndtri((1 + confidence) / 2))

    def p_value(self, errors: float) -> float:
        """Return the p-value of a mean at a distance of `errors` standard errors from the hypothesis."""
        if errors == 0:
            return 1.0
        if self._quantile(1 - TINY) < errors:
            return TINY
        return float(optimize.brentq(lambda p: self._quantile(1 - p) - errors, TINY, 1.0))

    @classmethod
    def of(cls, values: "npt.NDArray[np.bool_] | npt.NDArray[np.int8]") -> "_Crossed":
        """Estimate both parts of the mean's variance (Cameron, Gelbach and Miller, J. Bus. Econ. Stat. 29, 2011).

        The first part is the variance between the means of seeds, with seeds - 1 degrees of freedom. The second part
        comes from images that are hard for every seed: the covariance between seeds, which is estimated precisely.
        The quantile is a weighted mean of Student's and the normal quantile, as proposed by Cochran and Cox
        (Experimental Designs, 1950); the larger the share of the variance between seeds, the closer it is to
        Student's. With their weight, which is that share, the coverage is up to 97 % for three seeds. The power of 1.5
        of it was found by numerical integration; its coverage is closest to 95 % for any number of seeds.
        Satterthwaite's degrees of freedom, (seeds - 1) / share**2, ignore the error of the estimated share; their
        coverage is as low as 92 % for three seeds and 87 % for two.
        """
        seeds, images = values.shape
        of_seeds, of_images = values.mean(axis=1), values.mean(axis=0)
        covariance = (seeds * of_images.var(ddof=1) - values.var(axis=1, ddof=1).mean()) / (seeds - 1)
        from_seeds, from_images = of_seeds.var(ddof=1) / seeds, max(covariance, 0.0) / images
        variance = from_seeds + from_images
        return cls(
            mean=float(values.mean()),
            effective_images=float(values.var() / variance) if variance else float(values.size),
            weight=float((from_seeds / variance) ** 1.5) if variance else 0.0,
            freedom=seeds - 1,
        )


def _wilson(share: float, cases: float, quantile: float) -> tuple[float, float]:
    squared = quantile**2 / cases
    centre = (share + squared / 2) / (1 + squared)
    half = np.sqrt(squared * (share * (1 - share) + squared / 4)) / (1 + squared)
    return float(centre - half), float(centre + half)


def _bonett_price(gained: float, lost: float, cases: float, quantile: float) -> tuple[float, float]:
    """Return the interval from the shares of gained and lost cases, after adding a pseudo-observation of each."""
    gained, lost = (gained * cases + 1) / (cases + 2), (lost * cases + 1) / (cases + 2)
    centre = gained - lost
    half = quantile * np.sqrt((gained + lost - centre**2) / (cases + 2))
    return float(centre - half), float(centre + half)


def ratio_of_medians(numerators: npt.NDArray[np.float64], denominators: npt.NDArray[np.float64]) -> Estimate:
    """Return the geometric mean of the ratios of pairs, with a t-interval of their logarithms; a pair per replicate.

    Replicates are independent, single timings are not (Kalibera and Jones, ISMM 2013).
    """
    mean, error, freedom = _of_logs(numerators, denominators)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error if freedom else np.inf
    return Estimate(*(float(np.exp(value)) for value in (mean, mean - half, mean + half)))


def ratio_of_speedups(one: Estimate, other: Estimate) -> Estimate:
    """Return the speedup of one file over another, from their speedups over float files with the same ops.

    The two timings are independent, so the squares of the logarithmic half-widths add up.
    """
    value = one.value / other.value
    half = np.sqrt(sum((np.log(each.high / each.low) / 2) ** 2 for each in (one, other)))
    return Estimate(value, float(value / np.exp(half)), float(value * np.exp(half)))


def t_quantiles(most: int) -> list[float]:
    """Return the 97.5 % quantiles of Student's t-distribution for 1, 2, ... `most` degrees of freedom.

    They are the half-widths of 95 % intervals in standard errors (Student, Biometrika 6, 1908).
    """
    quantiles: list[float] = stats.t.ppf((1 + CONFIDENCE) / 2, np.arange(1, most + 1)).tolist()
    return quantiles


def t_test_of_logs(numerators: npt.NDArray[np.float64], denominators: npt.NDArray[np.float64]) -> float:
    """Return the two-sided p-value of Student's t-test that the geometric mean of the ratios of pairs is 1.

    It is below 0.05 if and only if the interval of `ratio_of_medians` excludes 1. For a single pair it is 1.
    """
    mean, error, freedom = _of_logs(numerators, denominators)
    if not freedom:
        return 1.0
    if not error:
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / error, freedom))


def _of_logs(numerators: npt.NDArray[np.float64], denominators: npt.NDArray[np.float64]) -> tuple[float, float, int]:
    """Return the mean logarithm of the ratios, its standard error (0 for a single pair) and degrees of freedom."""
    logs = np.log(numerators / denominators)
    return float(logs.mean()), float(stats.sem(logs)) if len(logs) > 1 else 0.0, len(logs) - 1
