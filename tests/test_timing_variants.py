"""The benchmark of variants of timing: its figures from made-up rounds, and that it leaves the process as it was."""

import os
import platform
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import timing_variants
from benchmarks.timing_variants import HUGE_PAGES, USUAL, VARIANTS, Variant, environment, pinned
from experiments.measure.latency import STOPWATCH

QUIETER = "huge pages for malloc"
BLOCKS = 40


def rounds(scatters: dict[str, float], state: float = 0.02) -> pd.DataFrame:
    """A round of each variant in each block: the state of the machine moves all of a block, the scatter each one.

    Variants without a scatter are not available.
    """
    rng = np.random.default_rng(0)
    moves = rng.normal(0, state, BLOCKS)
    rows = [
        {
            "block": block, "variant": variant.name, "unavailable": "", "float_us": 300.0, "other_cores": 0.1,
            "log_speedup": 1.2 + 0.1 * place + moves[block] + rng.normal(0, scatters[variant.name]),
        }
        for block in range(BLOCKS)
        for place, variant in enumerate(VARIANTS)
        if variant.name in scatters
    ]  # fmt: skip
    missing = [variant.name for variant in VARIANTS if variant.name not in scatters]
    return pd.DataFrame([*({"variant": name, "unavailable": "no such kernel"} for name in missing), *rows])


def test_a_variant_with_a_third_of_the_scatter_is_found() -> None:
    table = rounds({**{variant.name: 0.01 for variant in VARIANTS}, QUIETER: 0.003}, state=0)
    assert timing_variants.narrower(table) == [QUIETER]
    assert timing_variants.failures(table) == [f"{QUIETER} scatters less, and the suite does not use it"]
    found = timing_variants.figures(table).set_index("variant").loc[QUIETER]
    assert found["ratio_low"] < found["ratio"] < found["ratio_high"] < 0.7


def test_another_mean_or_a_state_of_the_machine_is_no_scatter_of_a_variant() -> None:
    table = rounds({variant.name: 0.005 for variant in VARIANTS})
    found = timing_variants.figures(table).set_index("variant").drop(USUAL)
    assert timing_variants.failures(table) == []
    assert (found["p_holm"] > 0.05).all()
    assert found["ratio"].between(found["ratio_low"], found["ratio_high"]).all()


def test_a_pairing_shows_less_than_independent_rounds_would() -> None:
    """Both meet the same states, so even an interval of 40 blocks is narrow."""
    table = rounds({variant.name: 0.002 for variant in VARIANTS})
    found = timing_variants.figures(table).set_index("variant").drop(USUAL)
    assert (found["ratio_high"] / found["ratio_low"]).max() < 1.15


def test_a_variant_that_this_machine_cannot_do_is_named_with_the_reason() -> None:
    possible = [variant.name for variant in VARIANTS if variant.name != QUIETER]
    table = rounds(dict.fromkeys(possible, 0.01))
    assert f"Not available: {QUIETER} (no such kernel)." in timing_variants.published_table(table)


def test_p_values_are_uniform_if_nothing_differs() -> None:
    rng = np.random.default_rng(1)
    p = [timing_variants.scatter_against(*rng.normal(0, 1, (2, 20)))[3] for _ in range(60)]
    assert np.mean(np.array(p) < 0.05) < 0.15
    assert 0.35 < np.mean(p) < 0.65


def test_the_code_of_a_variant_differs_in_the_length_of_its_blocks_only(tmp_path: Path) -> None:
    assert Variant(USUAL).stopwatch(tmp_path) == STOPWATCH
    changed = Variant("finer", block_ns=1).stopwatch(tmp_path).read_text()
    assert changed.replace("BLOCK_NS = 1  #", "BLOCK_NS = 1_000_000  #") == STOPWATCH.read_text() != changed


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity of processes")
def test_pinning_and_environment_end_with_the_round() -> None:
    cores = os.sched_getaffinity(0)
    with pytest.raises(KeyboardInterrupt), pinned(), environment(HUGE_PAGES):
        assert len(os.sched_getaffinity(0)) == 1
        assert HUGE_PAGES.items() <= os.environ.items()
        raise KeyboardInterrupt
    assert os.sched_getaffinity(0) == cores
    assert not HUGE_PAGES.keys() & os.environ.keys()


def test_a_machine_without_affinity_or_huge_pages_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert timing_variants.pinning_unavailable() == f"{sys.platform} has no affinity of processes"
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.31"))
    assert timing_variants.huge_pages_unavailable() == "requires glibc 2.35, not glibc 2.31"
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(timing_variants, "ENABLED", tmp_path / "enabled")
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    assert timing_variants.huge_pages_unavailable() == "the kernel's transparent huge pages are off"
