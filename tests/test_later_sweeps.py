"""The benchmark of later sweeps: its figures from made-up sweeps."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import later_sweeps

SWEEPS = 20


def sweep(number: int, speedup: float, half: float, speed: str = "faster") -> pd.DataFrame:
    """The table of a sweep with one file beside the float file."""
    timing = {
        "latency_p50_us": 50.0, "latency_void": "", "latency_rounds": 6, "latency_span_seconds": 60.0,
        "latency_states": 1, "latency_other_cores": 0.1,
    }  # fmt: skip
    row = {"speedup": speedup, "speedup_low": speedup / (1 + half), "speedup_high": speedup * (1 + half), **timing}
    table = pd.DataFrame(
        [{"strategy": "none", **row, "speed": "same file"}, {"strategy": "qat", **row, "speed": speed}]
    )
    return later_sweeps.figures_of(table, number, 1.8e9 + 150 * number)


def sweeps(scatter: float, half: float) -> pd.DataFrame:
    """Sweeps whose speedups scatter by this share, with intervals of this half width."""
    speedups = 3 * np.exp(np.random.default_rng(0).normal(0, scatter, SWEEPS))
    return pd.concat([sweep(number, speedup, half) for number, speedup in enumerate(speedups)])


def test_each_interval_is_compared_with_the_mean_of_the_other_sweeps() -> None:
    table = pd.concat([sweep(number, speedup, 0.02) for number, speedup in enumerate([3.0, 3.0, 3.3])])
    assert later_sweeps.covered(table).tolist() == [False, False, False]  # the others: 3.146, 3.146, 3
    assert later_sweeps.covered(table.assign(speedup_high=3.4, speedup_low=2.9)).all()


@pytest.mark.parametrize(("half", "missed"), [(0.03, 0), (0.005, 1)])
def test_intervals_that_are_too_narrow_miss_the_target(half: float, missed: int) -> None:
    assert len(later_sweeps.failures(sweeps(0.01, half))) == missed


def test_invalid_timings_are_left_out_and_counted() -> None:
    table = pd.concat([sweeps(0.01, 0.03), sweep(SWEEPS, 9.0, 0.01, "void")])
    assert later_sweeps.failures(table) == []
    assert "| `qat`      | 21       | 20      |" in later_sweeps.published_table(table)
