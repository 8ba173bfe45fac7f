"""How far a speedup scatters: the published table, and how much further that of other ways is to."""

import pandas as pd

from benchmarks.tables.markdown import markdown

SUITE, LITERT, LOOP = "this suite", "litert-benchmark", "a plain loop"
LONG_LOOP = f"{LOOP}, for as long as the suite"
SPREAD_AT_LEAST = 3.0  # times the suite's, of what people use


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.spread found."""
    ours = _spread(table, SUITE)
    shown = pd.DataFrame(
        [
            {
                "measured by": way,
                "repetitions": str(len(trials)),
                "speedup, median": f"{trials['speedup'].median():.3f}x",
                "5th to 95th percentile": " to ".join(f"{trials['speedup'].quantile(q):.3f}" for q in (0.05, 0.95)),
                "spread": f"{_spread(table, str(way)):.3f}",
                "times the suite's": "" if way == SUITE else f"{_spread(table, str(way)) / ours:.1f}",
                "seconds each, median": f"{trials['seconds'].median():.1f}",
            }
            for way, trials in table.groupby("way", sort=False)
        ]
    )
    return (
        f"{markdown(shown)}\n{LITERT} reports hundredths of a millisecond: of files as fast as these, most of its "
        "spread is that rounding.\n"
    )


def failures(table: pd.DataFrame) -> list[str]:
    """Rivals whose spread is not so much larger."""
    ours = _spread(table, SUITE)
    times = {way: _spread(table, way) / ours for way in (LITERT, LOOP)}
    return [f"{way}: {value:.1f} times the suite's spread" for way, value in times.items() if value < SPREAD_AT_LEAST]


def _spread(table: pd.DataFrame, way: str) -> float:
    speedups = table.loc[table["way"] == way, "speedup"]
    return float(speedups.quantile(0.95) - speedups.quantile(0.05))
