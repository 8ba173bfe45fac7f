"""Intervals and paired tests, on plain arrays. Every interval is at 95 %."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

CONFIDENCE = 0.95
SIGNIFICANT = 1 - CONFIDENCE  # p-values below it, corrected for how many were compared, are evidence of a difference
TINY = 1e-12  # smaller p-values are given as this
NORMAL_QUANTILE = float(stats.norm.ppf((1 + CONFIDENCE) / 2))


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, float]:
        """The three numbers as tables and MLflow call them: `name`, `name_low`, `name_high`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def proportion(hits: int, trials: int) -> Estimate:
    """A share of successes with Wilson's score interval (Wilson, JASA 22, 1927)."""
    interval = stats.binomtest(hits, trials).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(hits / trials, float(interval.low), float(interval.high))


def paired_difference(after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> Estimate:
    """The difference of two shares seen on the same cases: mean(after) - mean(before).

    The interval is Bonett and Price's adjusted Wald interval (J. Educ. Behav. Stat. 37, 2012), which Fagerland,
    Lydersen and Laake recommend for paired proportions (Stat. Med. 33, 2014). It stays open when the two never differ.
    """
    gained, lost = discordant(after, before)
    interval = _bonett_price(gained / len(after), lost / len(after), len(after), NORMAL_QUANTILE)
    return Estimate(float(after.mean() - before.mean()), *interval)


def paired_bootstrap(
    after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_], seed: int = 0, resamples: int = 9999
) -> Estimate:
    """The difference of two shares seen on the same cases, with a bootstrap interval that resamples cases as pairs.

    The percentile interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13), from counts: a
    pair is gained, lost or alike, so resampling pairs is drawing from a multinomial. Resampling just what was observed
    gives an interval of no width where no pair differs, and covers 73 % where two are expected to. So one imaginary
    gained and one lost pair are resampled with the rest, as in Bonett and Price's interval, and each resample is moved
    at random within half a pair (the smoothed bootstrap: Silverman and Young, Biometrika 74, 1987).

    In simulation it covers 95 % +- 1.5 points where 30 or more pairs are expected to differ. Where fewer are, it is
    too wide rather than too narrow, up to 100 %. Tables show `paired_difference`, which takes no resampling; this
    interval rests on no formula for the variance, and so is a check of that one.
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
    """How many cases were gained, and how many lost."""
    return int(np.count_nonzero(after & ~before)), int(np.count_nonzero(before & ~after))


def mcnemar(after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> float:
    """Exact two-sided p-value of McNemar's test that two classifiers err equally often on the same cases."""
    gained, lost = discordant(after, before)
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(p: npt.NDArray[np.float64], family: int | None = None) -> npt.NDArray[np.float64]:
    """Adjusted p-values in the order given: below 0.05 they are, all together, wrong in 5 % of cases at most.

    Holm's step-down procedure (Scand. J. Stat. 6, 1979), which needs no independence. `family` is how many hypotheses
    there are where these are only some of them, and the others' p-values are not known: it cannot be too small then.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    left = np.arange(len(p) if family is None else family, 0, -1)[: len(p)]
    adjusted[order] = np.maximum.accumulate(p[order] * left).clip(max=1)
    return adjusted


def pairs_among(rows: int) -> int:
    """How many pairs there are among so many rows.

    They are the family of a comparison with the best of these rows: it was chosen by the same data, so that any two of
    them might have been compared. Where 15 models are equally good, comparing each with the best as if it were one of
    14 comparisons calls some model worse in 13 % of cases, as one of all 105 pairs in 1 % (in simulation).
    """
    return rows * (rows - 1) // 2


def over_seeds(right: npt.NDArray[np.bool_]) -> Estimate:
    """The mean accuracy of models trained from several seeds, all tested on the same images: `right` (seeds, images).

    The interval speaks of new seeds and of new images: both are random, and crossed. It is Wilson's, with the number
    of images that would be as informative if nothing else varied, and a wider quantile (as Franco, Little, Louis and
    Slud do for surveys, J. Surv. Stat. Methodol. 7, 2019); see `_Crossed`. Where every answer is the same, and for
    one seed, it is the interval of `proportion`, which speaks of the images only.

    In simulation it covers 95 % +- 1.5 points from three seeds on: 2,000 to 10,000 images, accuracies of 0.95 to 0.99,
    standard deviations between seeds of 0 to 0.5 points. Two seeds tell too little of how seeds scatter: with them it
    covers between 91 % (seeds scatter far more than images explain) and 97 %.
    """
    if len(right) == 1 or right.all() or not right.any():
        return proportion(int(np.count_nonzero(right[0])), right.shape[1])
    crossed = _Crossed.of(right)
    return Estimate(crossed.mean, *_wilson(crossed.mean, crossed.informative_images, crossed.quantile))


def difference_over_seeds(after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> Estimate:
    """The mean difference of two accuracies over several seeds, on the same images: two arrays (seeds, images).

    The interval speaks of new seeds and of new images, as that of `over_seeds` does, and is Bonett and Price's with
    as many images as are as informative. For one seed it is the interval of `paired_difference`, which speaks of the
    images only, and so it is where no answer of any seed differs.

    In simulation it covers 95 % +- 1.5 points from three seeds on, where 20 or more images are expected to differ in
    each seed, and more where fewer do. With two seeds it is as rough as that of `over_seeds`.
    """
    if len(after) == 1 or np.array_equal(after, before):
        return paired_difference(after[0], before[0])
    gained, lost = float((after & ~before).mean()), float((before & ~after).mean())
    crossed = _Crossed.of(after.astype(np.int8) - before.astype(np.int8))
    interval = _bonett_price(gained, lost, crossed.informative_images, crossed.quantile)
    return Estimate(crossed.mean, *interval)


def difference_p(after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> float:
    """Two-sided p-value that two models, each from several seeds, are equally accurate: two arrays (seeds, images).

    For one seed it is McNemar's exact test; for several it is below 0.05 exactly where the interval of
    `difference_over_seeds` leaves 0 out.
    """
    if len(after) == 1 or np.array_equal(after, before):
        return mcnemar(after[0], before[0])
    gained, lost = float((after & ~before).mean()), float((before & ~after).mean())
    crossed = _Crossed.of(after.astype(np.int8) - before.astype(np.int8))
    low, high = _bonett_price(gained, lost, crossed.informative_images, crossed.quantile)
    return crossed.p_value(abs(low + high) / (high - low) * crossed.quantile)


def examples_needed(gained: float, lost: float, margin: float) -> int:
    """How many test examples would show that no more than `margin` is lost, if the shares stay as they were seen.

    `gained` and `lost` are the shares of the examples that one model has right and the other wrong, and the reverse.
    It is the least number with which the interval of `paired_difference` ends above -margin; where more than the margin
    seems to be lost, with which it ends below. A difference that seems to be the margin itself is never told from it:
    then it is with which the interval is as narrow as the margin.
    """
    room = abs(gained - lost + margin)

    def enough(examples: int) -> bool:
        low, high = _bonett_price(gained, lost, examples, NORMAL_QUANTILE)
        if room < margin / 10:
            return (high - low) / 2 <= margin
        return low >= -margin if gained - lost > -margin else high < -margin

    few, many = 0, 1
    while not enough(many):
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def share_p(share: float, end: float, bound: float) -> float:
    """Two-sided p-value that a share is `bound`, by the score test that Wilson's interval is the inverse of.

    `end` is that of its 95 % interval on the side of the bound, from which the number of cases follows: for a bound at
    the end itself the p-value is 0.05.
    """
    if not 0 < bound < 1 or share == end:
        return 1.0 if bound <= 0 or bound >= 1 else 0.0
    scale = np.sqrt(end * (1 - end) / (bound * (1 - bound)))
    return float(2 * stats.norm.sf(NORMAL_QUANTILE * abs((share - bound) / (share - end)) * scale))


def interval_p(low: float, high: float, bound: float, freedom: int | None = None) -> float:
    """Two-sided p-value that a value with this symmetric 95 % interval is `bound`; for an end of it, it is 0.05.

    `freedom` are the degrees of freedom of an interval by Student's t; None stands for the normal distribution.
    """
    if low == high:
        return float(low == bound)
    distance = abs(2 * bound - low - high) / (high - low)
    if freedom is None:
        return float(2 * stats.norm.sf(distance * NORMAL_QUANTILE))
    return float(2 * stats.t.sf(distance * stats.t.ppf((1 + CONFIDENCE) / 2, freedom), freedom))


@dataclass(frozen=True)
class _Crossed:
    """The mean of values (seeds, images), and how far it can be trusted where seeds and images are both random."""

    mean: float
    informative_images: float  # so many independent images, of one model, would give a mean of the same variance
    weight: float  # of Student's quantile in the one of the interval, beside the normal one
    freedom: int

    @property
    def quantile(self) -> float:
        """Half the width of the 95 % interval, in standard errors."""
        return self._quantile(CONFIDENCE)

    def _quantile(self, confidence: float) -> float:
        student = float(special.stdtrit(self.freedom, (1 + confidence) / 2)) if self.weight else 0.0
        return float(self.weight * student + (1 - self.weight) * special.ndtri((1 + confidence) / 2))

    def p_value(self, errors: float) -> float:
        """The p-value of a mean that lies so many standard errors from what is tested."""
        if errors == 0:
            return 1.0
        if self._quantile(1 - TINY) < errors:
            return TINY
        return float(optimize.brentq(lambda p: self._quantile(1 - p) - errors, TINY, 1.0))

    @classmethod
    def of(cls, values: "npt.NDArray[np.bool_] | npt.NDArray[np.int8]") -> "_Crossed":
        """The variance of the mean has two parts, as in Cameron, Gelbach and Miller (J. Bus. Econ. Stat. 29, 2011).

        One is seen in how the seeds' means scatter, with seeds - 1 degrees of freedom. The other, of images that are
        hard for every seed, is the covariance of two seeds' answers, and well known. The quantile lies between
        Student's and the normal one, as Cochran and Cox have it (Experimental Designs, 1950): the nearer to Student's,
        the larger the seeds' share of the variance. Weighted by that share, as there, the interval covers up to 97 %
        with three seeds; with its power of 1.5, found by numerical integration, it is nearest to 95 % at any number.
        Satterthwaite's degrees of freedom, (seeds - 1) / share**2, take the estimated share for the true one, and
        cover down to 92 % with three seeds and 87 % with two.
        """
        seeds, images = values.shape
        of_seeds, of_images = values.mean(axis=1), values.mean(axis=0)
        covariance = (seeds * of_images.var(ddof=1) - values.var(axis=1, ddof=1).mean()) / (seeds - 1)
        from_seeds, from_images = of_seeds.var(ddof=1) / seeds, max(covariance, 0.0) / images
        variance = from_seeds + from_images
        return cls(
            mean=float(values.mean()),
            informative_images=float(values.var() / variance) if variance else float(values.size),
            weight=float((from_seeds / variance) ** 1.5) if variance else 0.0,
            freedom=seeds - 1,
        )


def _wilson(share: float, cases: float, quantile: float) -> tuple[float, float]:
    squared = quantile**2 / cases
    centre = (share + squared / 2) / (1 + squared)
    half = np.sqrt(squared * (share * (1 - share) + squared / 4)) / (1 + squared)
    return float(centre - half), float(centre + half)


def _bonett_price(gained: float, lost: float, cases: float, quantile: float) -> tuple[float, float]:
    """From the shares of cases that were gained and lost; one of each is imagined."""
    gained, lost = (gained * cases + 1) / (cases + 2), (lost * cases + 1) / (cases + 2)
    centre = gained - lost
    half = quantile * np.sqrt((gained + lost - centre**2) / (cases + 2))
    return float(centre - half), float(centre + half)


def ratio_of_medians(numerators: npt.NDArray[np.float64], denominators: npt.NDArray[np.float64]) -> Estimate:
    """The typical ratio of pairs, one pair a replicate: geometric mean with a t-interval over the replicates' logs.

    Replicates, not single timings, are what varies independently (Kalibera and Jones, ISMM 2013).
    """
    mean, error, freedom = _of_logs(numerators, denominators)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error if freedom else np.inf
    return Estimate(*(float(np.exp(value)) for value in (mean, mean - half, mean + half)))


def ratio_of_speedups(one: Estimate, other: Estimate) -> Estimate:
    """How many times faster one file is than another, each timed together with a float file of the same ops.

    The two timings are independent, so the half-widths of the logs add as squares.
    """
    value = one.value / other.value
    half = np.sqrt(sum((np.log(each.high / each.low) / 2) ** 2 for each in (one, other)))
    return Estimate(value, float(value / np.exp(half)), float(value * np.exp(half)))


def t_quantiles(most: int) -> list[float]:
    """Half-widths of 95 % t-intervals in standard errors, for 1, 2, ... `most` degrees of freedom.

    Student, Biometrika 6, 1908.
    """
    quantiles: list[float] = stats.t.ppf((1 + CONFIDENCE) / 2, np.arange(1, most + 1)).tolist()
    return quantiles


def t_test_of_logs(numerators: npt.NDArray[np.float64], denominators: npt.NDArray[np.float64]) -> float:
    """Two-sided p-value of Student's t-test (Biometrika 6, 1908), on the logs, that the typical ratio of pairs is 1.

    It is below 0.05 exactly where the interval of `ratio_of_medians` leaves 1 out. One pair is evidence of nothing: 1.
    """
    mean, error, freedom = _of_logs(numerators, denominators)
    if not freedom:
        return 1.0
    if not error:
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / error, freedom))


def _of_logs(numerators: npt.NDArray[np.float64], denominators: npt.NDArray[np.float64]) -> tuple[float, float, int]:
    """Mean of the logs of the ratios, its standard error (0 for a single pair) and degrees of freedom."""
    logs = np.log(numerators / denominators)
    return float(logs.mean()), float(stats.sem(logs)) if len(logs) > 1 else 0.0, len(logs) - 1
