"""The benchmark of the seconds that timing takes: its verdict from made-up seconds."""

import pandas as pd
import pytest

from benchmarks import timing_cost


@pytest.mark.parametrize(("rounds", "missed"), [(20.0, 0), (40.0, 1)])
def test_rounds_are_to_take_no_longer_than_one_moment(rounds: float, missed: int) -> None:
    rows = [
        {"timed": timed, "repetition": number, "runs": 7, "seconds": seconds + number}
        for number in range(3)
        for timed, seconds in ((timing_cost.ROUNDS, rounds), (timing_cost.ONE_MOMENT, 30.0))
    ]
    table = pd.DataFrame(rows)
    assert len(timing_cost.failures(table)) == missed
    assert f"| {rounds + 1:.0f} " in timing_cost.published_table(table)
