"""Intervals and tests, checked against published tables, by simulation, and by their properties."""

from collections.abc import Iterator
from functools import cache
from math import comb
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from experiments.statistics.estimates import (
    SIGNIFICANT,
    Estimate,
    difference_over_seeds,
    difference_p,
    discordant,
    examples_needed,
    holm,
    interval_p,
    mcnemar,
    over_seeds,
    paired_bootstrap,
    paired_difference,
    pairs_among,
    proportion,
    ratio_of_medians,
    share_p,
    t_test_of_logs,
)
from experiments.statistics.power import Needed, needed

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

TRIALS = 4000
TRIALS_OF_SEEDS = {3: 8000}  # three come nearest to the limits


def paired(both: int, gained: int, lost: int, neither: int) -> tuple[Bools, Bools]:
    after = np.repeat([True, True, False, False], [both, gained, lost, neither])
    before = np.repeat([True, False, True, False], [both, gained, lost, neither])
    return after, before


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_of_published_tables(hits: int, trials: int, low: float, high: float) -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    estimate = proportion(hits, trials)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)


def test_mcnemar_of_a_published_table() -> None:
    # Exact two-sided binomial on 1 and 9 discordant pairs: 2 * (1 + 10) / 2**10.
    assert mcnemar(*paired(50, 1, 9, 40)) == pytest.approx(22 / 1024)


def test_mcnemar_of_equal_predictions_is_not_significant() -> None:
    assert mcnemar(*paired(10, 0, 0, 2)) == 1.0


def test_mcnemar_of_a_textbook_table() -> None:
    # Agresti, Categorical Data Analysis, table 10.1 (2nd edition): approval in two surveys, z = -4.17 in large samples.
    exact = 2 * sum(comb(236, changed) for changed in range(86 + 1)) / 2**236
    assert mcnemar(*paired(794, 86, 150, 570)) == pytest.approx(exact, rel=1e-9)
    assert exact == pytest.approx(2 * 1.5e-5, rel=0.5)


def test_bonett_price_interval_of_a_textbook_table() -> None:
    # The same table: Agresti gives -0.04 [-0.06, -0.02], without adjustment.
    estimate = paired_difference(*paired(794, 86, 150, 570))
    assert [round(value, 2) for value in (estimate.value, estimate.low, estimate.high)] == [-0.04, -0.06, -0.02]


def test_bonett_price_interval_of_a_published_table() -> None:
    # The data of Bentur et al. in Fagerland, Lydersen and Laake (2014), table V: 1, 1, 7, 12 of 21. By hand:
    # (1+1)/23 - (7+1)/23 = -0.2609, and 1.95996 * sqrt((10/23 - 0.2609**2) / 23) = 0.2475.
    estimate = paired_difference(*paired(1, 1, 7, 12))
    assert (round(estimate.low, 3), round(estimate.high, 3)) == (-0.508, -0.013)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),  # as R's p.adjust gives them
        ([0.6, 0.9], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm_of_worked_examples(p: list[float], adjusted: list[float]) -> None:
    assert list(holm(np.array(p))) == pytest.approx(adjusted)


def test_t_test_of_students_sleep_data() -> None:
    # Student, Biometrika 6 (1908): ten differences in hours of sleep, t = 4.0621, p = 0.002833.
    hours = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    assert t_test_of_logs(np.exp(hours), np.ones(10)) == pytest.approx(0.002833, abs=5e-7)


def test_t_test_of_equal_ratios_and_of_a_single_ratio() -> None:
    assert t_test_of_logs(np.full(5, 2.0), np.full(5, 2.0)) == 1.0
    assert t_test_of_logs(np.full(4, 2.0), np.full(4, 1.0)) == 0.0
    assert t_test_of_logs(np.array([2.0]), np.array([1.0])) == 1.0


def test_interval_has_positive_width_if_two_models_never_differ() -> None:
    for estimate in (paired_difference(*paired(90, 0, 0, 10)), paired_bootstrap(*paired(90, 0, 0, 10))):
        assert estimate.low < 0 < estimate.high


def test_bootstrap_agrees_with_the_formula_if_many_pairs_differ() -> None:
    pair = paired(9000, 300, 200, 500)
    formula, bootstrap = paired_difference(*pair), paired_bootstrap(*pair)
    assert bootstrap.value == formula.value == pytest.approx(0.01)
    assert (bootstrap.low, bootstrap.high) == pytest.approx((formula.low, formula.high), abs=0.0002)


def test_bootstrap_is_reproducible() -> None:
    pair = paired(90, 6, 2, 2)
    assert paired_bootstrap(*pair) == paired_bootstrap(*pair)
    assert paired_bootstrap(*pair, resamples=99) != paired_bootstrap(*pair, seed=1, resamples=99)


def test_paired_intervals_cover_95_percent_of_simulated_cases() -> None:
    rng = np.random.default_rng(0)
    chances = np.array([0.93, 0.03, 0.02, 0.02])  # both right, gained, lost, neither: a difference of 0.01
    tables = rng.multinomial(1000, chances, TRIALS)
    covered = [(e := paired_difference(*paired(*table))).low <= 0.01 <= e.high for table in tables]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_mcnemar_rejects_at_most_5_percent_under_the_null() -> None:
    rng = np.random.default_rng(1)
    tables = rng.multinomial(2000, [0.9, 0.04, 0.04, 0.02], TRIALS)
    rejected = [mcnemar(*paired(*table)) < 0.05 for table in tables]
    assert 0.02 < np.mean(rejected) <= 0.055  # an exact test of a discrete value stays below its level


def test_ratio_intervals_cover_95_percent_of_simulated_cases() -> None:
    rng = np.random.default_rng(2)
    pairs = rng.lognormal(0, 0.02, (TRIALS, 2, 10)) * np.array([[3.0], [1.0]])
    covered = [(e := ratio_of_medians(*pair)).low <= 3 <= e.high for pair in pairs]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def bootstrap_coverage(differing: float, share_gained: float, seed: int, plain: bool = False) -> float:
    """How often the interval holds the true difference, of 2,000 images of which so many are expected to differ."""
    images, gained = 2000, differing * share_gained
    chances = np.array([gained, differing - gained, images - differing]) / images
    tables = np.random.default_rng(seed).multinomial(images, chances, TRIALS)

    @cache  # few tables, each of them often
    def interval(gained: int, lost: int) -> tuple[float, float]:
        pair = paired(images - gained - lost, gained, lost, 0)
        estimate = resampled_as_observed(*pair) if plain else paired_bootstrap(*pair, resamples=1999)
        return estimate.low, estimate.high

    truth = chances[0] - chances[1]
    covered = [(i := interval(int(g), int(lost)))[0] - 1e-9 <= truth <= i[1] + 1e-9 for g, lost, _ in tables]
    return float(np.mean(covered))


def resampled_as_observed(after: Bools, before: Bools) -> Estimate:
    """The percentile bootstrap without imaginary pairs, not smoothed."""
    gained, lost = discordant(after, before)
    chances = np.array([gained, lost, len(after) - gained - lost]) / len(after)
    drawn = np.random.default_rng(0).multinomial(len(after), chances, 1999)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / len(after), [0.025, 0.975])
    return Estimate((gained - lost) / len(after), low, high)


@pytest.mark.parametrize("share_gained", [0.5, 0.7, 1.0])
@pytest.mark.parametrize("differing", [30, 60])
def test_bootstrap_intervals_cover_95_percent_from_30_differing_images_on(differing: int, share_gained: float) -> None:
    assert bootstrap_coverage(differing, share_gained, seed=3) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("share_gained", [0.5, 0.7, 1.0])
@pytest.mark.parametrize("differing", [2, 5, 10])
def test_bootstrap_intervals_are_conservative_if_few_images_differ(differing: int, share_gained: float) -> None:
    assert bootstrap_coverage(differing, share_gained, seed=4) >= 0.935


def test_bootstrap_without_pseudo_observations_would_be_too_narrow() -> None:
    assert bootstrap_coverage(2, 0.7, seed=5, plain=True) < 0.8


def errors_of_seeds(
    rng: np.random.Generator, shape: tuple[int, int], error: float, spread: float, overlap: float, trials: int
) -> Iterator[Bools]:
    """Simulated errors (seeds, images) where seeds and images are crossed.

    Each seed has an error rate of its own (standard deviation `spread`; normal, cut off at 1.95 so that none is
    negative) and errs at random on images that are hard for all. The fewer these are, the more often two seeds err on
    the same one: `overlap` is that share where it leaves room for the spread.
    """
    seeds, images = shape
    errors = error + spread * rng.normal(size=(trials, seeds)).clip(-1.95, 1.95)
    hard = max(error / overlap, error + 2 * spread)
    patterns = (np.arange(2**seeds)[:, None] >> np.arange(seeds) & 1).astype(bool)
    chances = np.where(patterns, errors[:, None, :] / hard, 1 - errors[:, None, :] / hard).prod(axis=2)
    counts = rng.multinomial(rng.binomial(images, hard, trials), chances / chances.sum(axis=1, keepdims=True))
    counts[:, 0] += images - counts.sum(axis=1)
    for count in counts:
        yield np.repeat(patterns.T, count, axis=1)


def nightly(*cases: tuple[float, ...]) -> list[Any]:
    """Further cases, which are simulated every night."""
    return [pytest.param(*case, marks=pytest.mark.nightly) for case in cases]


def coverage_over_seeds(shape: tuple[int, int], error: float, spread: float, overlap: float, seed: int) -> float:
    trials = TRIALS_OF_SEEDS.get(shape[0], TRIALS)
    wrong = errors_of_seeds(np.random.default_rng(seed), shape, error, spread, overlap, trials)
    return float(np.mean([(e := over_seeds(~errors)).low <= 1 - error <= e.high for errors in wrong]))


@pytest.mark.parametrize(
    ("seeds", "images", "error", "spread", "overlap"),
    [
        (3, 2000, 0.01, 0, 0.5), (3, 2000, 0.05, 0.005, 0.3), (3, 10000, 0.03, 0.001, 0.5),
        (5, 2000, 0.03, 0.0025, 0.3), (10, 2000, 0.01, 0, 0.7),
        *nightly(
            (3, 2000, 0.05, 0, 0.3), (3, 2000, 0.03, 0.0025, 0.7), (3, 2000, 0.03, 0.005, 0.1),
            (3, 10000, 0.01, 0.005, 0.5), (5, 2000, 0.01, 0, 0.5), (5, 2000, 0.01, 0.005, 0.7),
            (5, 10000, 0.05, 0.005, 0.5), (10, 2000, 0.03, 0.0025, 0.3), (10, 2000, 0.05, 0.005, 0.5),
        ),
    ],
)  # fmt: skip
def test_intervals_over_seeds_cover_95_percent_of_simulated_cases(
    seeds: int, images: int, error: float, spread: float, overlap: float
) -> None:
    covered = coverage_over_seeds((seeds, images), error, spread, overlap, seed=6)
    assert covered == pytest.approx(0.95, abs=0.015)


def test_intervals_over_two_seeds_are_approximate() -> None:
    alike = coverage_over_seeds((2, 2000), 0.03, 0, 0.7, seed=7)
    scattered = coverage_over_seeds((2, 10000), 0.01, 0.005, 0.7, seed=7)
    assert 0.935 < alike < 0.98
    assert 0.90 < scattered < 0.935


def difference_coverage(
    shape: tuple[int, int], gained: float, lost: float, spread: float, overlap: float, seed: int
) -> float:
    rng = np.random.default_rng(seed)
    trials = TRIALS_OF_SEEDS.get(shape[0], TRIALS)
    gains = errors_of_seeds(rng, shape, gained, spread, overlap, trials)
    losses = errors_of_seeds(rng, shape, lost, 0, overlap, trials)
    # What is never gained stands first, and what is never lost is put last: no image is both.
    pairs = ((~gain, ~loss[:, ::-1]) for gain, loss in zip(gains, losses, strict=True))
    return float(np.mean([(e := difference_over_seeds(a, b)).low <= gained - lost <= e.high for b, a in pairs]))


@pytest.mark.parametrize(
    ("seeds", "gained", "lost", "spread", "overlap"),
    [
        (3, 0.02, 0.01, 0, 0.3), (3, 0.01, 0.01, 0.0025, 0.1), (5, 0.02, 0.01, 0.005, 0.5), (10, 0.006, 0.004, 0, 0.3),
        *nightly(
            (3, 0.02, 0.01, 0.005, 0.5), (5, 0.006, 0.004, 0, 0.3), (5, 0.01, 0.01, 0.0025, 0.1),
            (10, 0.02, 0.01, 0.005, 0.5),
        ),
    ],
)  # fmt: skip
def test_intervals_of_differences_over_seeds_cover_95_percent_of_simulated_cases(
    seeds: int, gained: float, lost: float, spread: float, overlap: float
) -> None:
    covered = difference_coverage((seeds, 2000), gained, lost, spread, overlap, seed=8)
    assert covered == pytest.approx(0.95, abs=0.015)


def test_intervals_of_differences_over_seeds_are_conservative_if_few_images_differ() -> None:
    assert difference_coverage((3, 2000), 0.001, 0.0005, 0, 0.5, seed=9) >= 0.935


def test_wilson_intervals_cover_95_percent_of_simulated_cases() -> None:
    hits = np.random.default_rng(10).binomial(2000, 0.97, TRIALS)
    covered = [(e := proportion(int(h), 2000)).low <= 0.97 <= e.high for h in hits]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_t_test_rejects_5_percent_under_the_null() -> None:
    pairs = np.random.default_rng(11).lognormal(0, 0.02, (TRIALS, 2, 10))
    assert np.mean([t_test_of_logs(*pair) < 0.05 for pair in pairs]) == pytest.approx(0.05, abs=0.015)


def test_holm_keeps_the_family_wise_error_rate_at_5_percent() -> None:
    several = np.random.default_rng(12).uniform(size=(TRIALS, 6))
    wrong = np.mean([holm(p).min() < 0.05 for p in several])
    assert wrong == pytest.approx(0.05, abs=0.015)


def equal_models(rng: np.random.Generator, models: int, images: int = 1000) -> Bools:
    """Answers (models, images) of models that are equally accurate, and mostly err on the same images."""
    difficulty = rng.random(images) + rng.normal(0, 0.03, (models, images))
    return np.asarray(difficulty < 0.95)


@pytest.mark.parametrize("models", [3, 15])
def test_equally_good_models_are_rarely_worse_than_the_best_after_correction(models: int) -> None:
    rng, wrong = np.random.default_rng(13), []
    for _ in range(400):
        right = equal_models(rng, models)
        best = right.sum(axis=1).argmax()
        p = np.array([mcnemar(each, right[best]) for place, each in enumerate(right) if place != best])
        wrong.append(holm(p, pairs_among(models)).min() < SIGNIFICANT)
    assert np.mean(wrong) <= 0.05


def test_partial_family_is_corrected_for_its_total_size() -> None:
    p = np.random.default_rng(14).uniform(size=10) / 100
    assert (holm(p[:4], 10) >= holm(p)[:4]).all()
    assert holm(p, 10) == pytest.approx(holm(p))


@given(st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_difference_over_seeds_is_significant_if_its_interval_excludes_0(seeds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = rng.random((seeds, 300)) < 0.9
    after = before ^ (rng.random((seeds, 300)) < rng.uniform(0, 0.1))
    interval = difference_over_seeds(after, before)
    if min(abs(interval.low), abs(interval.high)) > 1e-9:
        excluded = interval.low > 0 or interval.high < 0
        one_seed = np.array_equal(after, before)
        assert one_seed or (difference_p(after, before) < SIGNIFICANT) == excluded


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (20, 20), (30, 10), (20, 22), (20, 30)])
def test_examples_needed_is_the_smallest_number_that_separates_loss_and_margin(gained: int, lost: int) -> None:
    margin, needed = 0.005, examples_needed(gained / 1000, lost / 1000, 0.005)

    def told(examples: int) -> bool:
        more, fewer = (round(count / 1000 * examples) for count in (gained, lost))
        after, before = paired(examples - more - fewer, more, fewer, 0)
        interval = paired_difference(after, before)
        return interval.low >= -margin or interval.high < -margin

    assert told(round(needed * 1.02) + 2)
    assert not told(round(needed * 0.95) - 2)


def test_with_the_examples_that_are_needed_a_difference_is_found_four_times_out_of_five() -> None:
    rng, gained, lost = np.random.default_rng(0), 0.03, 0.015
    observed = np.repeat([[1.0, -1.0, 0.0]], 1, axis=0).repeat([300, 150, 9550], axis=1)
    examples = needed(observed, hypotheses=10).examples
    assert examples is not None
    counts = rng.multinomial(examples, (gained, lost, 1 - gained - lost), size=400)
    p = np.array([stats.binomtest(more, more + fewer).pvalue for more, fewer, _ in counts.tolist()])
    assert 0.72 < float((p < 0.05 / 10).mean()) < 0.88


def test_with_the_seeds_that_are_needed_a_difference_is_found_four_times_out_of_five() -> None:
    rng, examples, spread, mean = np.random.default_rng(0), 2000, 0.004, 0.004

    def differences(seeds: int) -> Any:
        of_seeds = rng.normal(mean, spread, seeds)
        gained = rng.random((seeds, examples)) < 0.01 + of_seeds[:, None].clip(-0.01)
        return gained.astype(float) - (rng.random((seeds, examples)) < 0.01)

    found = [needed(differences(60)).seeds for _ in range(5)]
    seeds = int(np.median([each for each in found if each]))
    repeated = [differences(seeds) for _ in range(300)]
    share = np.mean([difference_p(each > 0, each < 0) < 0.05 for each in repeated])
    assert 0.68 < float(share) < 0.92


def test_models_that_err_equally_often_are_separated_by_no_number() -> None:
    assert needed(np.array([[1.0, -1.0, 0.0]])) == Needed(None, None)


def test_examples_needed_for_a_loss_equal_to_the_margin_limits_the_interval_width() -> None:
    needed = examples_needed(0.02, 0.02, 0.005)
    differing = round(0.02 * needed)
    rounded = paired_difference(*paired(needed - 2 * differing, differing, differing, 0))
    assert (rounded.high - rounded.low) / 2 == pytest.approx(0.005, rel=0.01)


@given(st.integers(1, 999), st.floats(0.01, 0.99))
def test_p_value_of_a_share_is_that_of_the_score_test(hits: int, bound: float) -> None:
    share = proportion(hits, 1000)
    z = (share.value - bound) / np.sqrt(bound * (1 - bound) / 1000)
    end = share.low if share.value > bound else share.high
    assert share_p(share.value, end, bound) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-6)


@pytest.mark.parametrize("freedom", [None, 2])
def test_p_value_is_5_percent_at_the_interval_end_and_1_at_its_center(freedom: int | None) -> None:
    assert interval_p(-1, 3, 3, freedom) == pytest.approx(0.05)
    assert interval_p(-1, 3, 1, freedom) == pytest.approx(1)


def test_one_seed_has_the_interval_of_a_single_run() -> None:
    after, before = paired(900, 30, 20, 50)
    assert over_seeds(after[None]) == proportion(930, 1000)
    assert difference_over_seeds(after[None], before[None]) == paired_difference(after, before)


def test_equal_predictions_have_the_interval_of_a_single_run() -> None:
    right = np.ones((3, 100), bool)
    assert over_seeds(right) == proportion(100, 100)
    assert over_seeds(~right) == proportion(0, 100)
    assert difference_over_seeds(right, right) == paired_difference(right[0], right[0])


def test_seeds_with_equal_predictions_count_as_one() -> None:
    after, before = paired(9000, 300, 200, 500)
    three_after, three_before = np.stack([after] * 3), np.stack([before] * 3)
    one, three = proportion(9300, 10000), over_seeds(three_after)
    assert (three.low, three.high) == pytest.approx((one.low, one.high), abs=1e-5)
    one, three = paired_difference(after, before), difference_over_seeds(three_after, three_before)
    assert (three.low, three.high) == pytest.approx((one.low, one.high), abs=1e-5)


seeds_and_images = hnp.arrays(bool, st.tuples(st.integers(1, 5), st.integers(2, 40)))


@given(seeds_and_images)
def test_mean_over_seeds_is_within_its_interval(right: Bools) -> None:
    estimate = over_seeds(right)
    assert estimate.value == pytest.approx(right.mean())
    assert -1e-9 <= estimate.low <= estimate.value + 1e-9
    assert estimate.value - 1e-9 <= estimate.high <= 1 + 1e-9


@given(seeds_and_images, st.randoms(use_true_random=False))
def test_the_order_of_seeds_and_of_images_does_not_matter(right: Bools, random: Random) -> None:
    seeds, images = (random.sample(range(n), n) for n in right.shape)
    here, there = over_seeds(right), over_seeds(right[seeds][:, images])
    assert (here.low, here.high) == pytest.approx((there.low, there.high))


@given(hnp.arrays(bool, (2, 3, 30)))
def test_swapping_two_strategies_over_seeds_negates_the_difference(both: Bools) -> None:
    there, back = difference_over_seeds(*both), difference_over_seeds(*both[::-1])
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


@given(hnp.arrays(float, st.integers(0, 20), elements=st.floats(0, 1)))
def test_holm_keeps_the_order_and_stays_between_p_and_bonferroni(p: Floats) -> None:
    adjusted = holm(p)
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, p * len(p)) + 1e-12).all()


ratios = hnp.arrays(float, st.integers(1, 8), elements=st.floats(0.5, 2))


@given(ratios)
def test_t_test_rejects_if_the_interval_excludes_1(ratio: Floats) -> None:
    ones = np.ones(len(ratio))
    estimate, p = ratio_of_medians(ratio, ones), t_test_of_logs(ratio, ones)
    if abs(p - 0.05) > 1e-9:
        assert (p < 0.05) == (not estimate.low - 1e-12 <= 1 <= estimate.high + 1e-12)


@given(hnp.arrays(bool, 50), hnp.arrays(bool, 50))
def test_swapping_two_models_negates_the_difference(after: Bools, before: Bools) -> None:
    there, back = paired_difference(after, before), paired_difference(before, after)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_share_is_within_its_interval(case: tuple[int, int]) -> None:
    estimate = proportion(*case)
    assert 0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1
