"""The benchmark of the coverage of timings: its figures from made-up rounds, and that it continues where it stopped."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import coverage

ROUNDS = 176  # 22 minutes


def rounds(scatter: float, slow: float = 0.0) -> pd.DataFrame:
    """Rounds every 7.5 s whose log ratios scatter independently; `slow` is added to those of the second half."""
    rng = np.random.default_rng(0)
    started = 1.8e9 + coverage.GAP * np.arange(ROUNDS)
    means = {
        "int8": 1.2,
        "int8 weights": 0.9,
        **{f"{added} %": np.log(100 / (100 + added)) for added in coverage.ADDED},
    }
    logs = {
        name: means.get(name, 0.0) + rng.normal(0, scatter, ROUNDS) + slow * (np.arange(ROUNDS) >= ROUNDS // 2)
        for name in coverage.RATIOS
    }
    return pd.DataFrame({"started": started, "disturbed": False, **logs})


def loops(scatter: float) -> pd.DataFrame:
    """Plain loops whose speedup scatters by this share."""
    speedups = np.exp(1.2 + np.random.default_rng(1).normal(0, scatter, 22))
    return pd.DataFrame({"started": 1.8e9 + 60 * np.arange(22), "speedup": speedups})


def test_all_figures_are_reached_on_a_machine_without_states() -> None:
    table = coverage.figures(rounds(0.004), loops(0.01))
    assert coverage.failures(table) == []
    claims = coverage.summary(table).set_index("claim")
    assert claims["sweeps"].min() > 100
    assert claims["distinct"].min() >= 14


def test_a_lasting_change_of_the_machine_is_not_covered() -> None:
    missed = coverage.failures(coverage.figures(rounds(0.004, slow=0.08), loops(0.01)))
    assert any("holds the mean of later rounds" in each for each in missed)


def test_loops_that_vary_as_little_as_sweeps_miss_the_target() -> None:
    missed = coverage.failures(coverage.figures(rounds(0.004), loops(0.001)))
    assert any("a plain loop varies" in each for each in missed)


def test_a_sweep_is_five_rounds_over_a_minute_of_one_sitting() -> None:
    two = pd.concat([rounds(0.004), rounds(0.004).assign(started=lambda table: table["started"] + 86_400)])
    found = coverage.sweeps(two.reset_index(drop=True))
    assert len(found) == 2 * (ROUNDS - 8)
    assert {len(sweep.rounds) for sweep in found} == {5}
    assert {float(np.ptp(sweep.rounds["started"])) for sweep in found} == {60.0}


def test_stored_rounds_are_continued(tmp_path: Path) -> None:
    path, frame = tmp_path / "rounds.csv", pd.DataFrame(columns=["started"])
    for row in rounds(0.004).head(3).to_dict("records"):
        frame = coverage._append(path, frame, {str(name): value for name, value in row.items()})
    stored = coverage._stored(path, ["started"])
    pd.testing.assert_frame_equal(stored, frame, check_dtype=False)
    assert coverage.measured_seconds(stored) == pytest.approx(15)
