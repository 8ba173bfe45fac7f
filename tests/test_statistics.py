"""Intervals and tests against known tables, by simulation, and by their properties."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from experiments.statistics import mcnemar, paired_difference, proportion, ratio_of_medians

Bools = npt.NDArray[np.bool_]

TRIALS = 4000


def paired(both: int, gained: int, lost: int, neither: int) -> tuple[Bools, Bools]:
    after = np.repeat([True, True, False, False], [both, gained, lost, neither])
    before = np.repeat([True, False, True, False], [both, gained, lost, neither])
    return after, before


def test_wilson_interval_of_a_known_table() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, method 3.
    estimate = proportion(81, 263)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.2553, 0.3662)


def test_mcnemar_of_a_known_table() -> None:
    # Exact two-sided binomial on 1 and 9 discordant pairs: 2 * (1 + 10) / 2**10.
    assert mcnemar(*paired(50, 1, 9, 40)) == pytest.approx(22 / 1024)


def test_mcnemar_of_equal_answers_finds_nothing() -> None:
    assert mcnemar(*paired(10, 0, 0, 2)) == 1.0


def test_bonett_price_interval_worked_by_hand() -> None:
    # The data of Bentur et al. in Fagerland, Lydersen and Laake (2014): 1, 1, 7, 12 of 21.
    # (1+1)/23 - (7+1)/23 = -0.2609, and 1.95996 * sqrt((10/23 - 0.2609**2) / 23) = 0.2475.
    estimate = paired_difference(*paired(1, 1, 7, 12))
    assert (round(estimate.low, 3), round(estimate.high, 3)) == (-0.508, -0.013)


def test_an_interval_stays_open_when_two_models_never_differ() -> None:
    estimate = paired_difference(*paired(90, 0, 0, 10))
    assert estimate.low < 0 < estimate.high


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


@given(hnp.arrays(bool, 50), hnp.arrays(bool, 50))
def test_swapping_two_models_turns_the_difference_round(after: Bools, before: Bools) -> None:
    there, back = paired_difference(after, before), paired_difference(before, after)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_share_lies_in_its_interval(case: tuple[int, int]) -> None:
    estimate = proportion(*case)
    assert 0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1
