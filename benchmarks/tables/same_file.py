"""A file compared with itself: the published table, and how often it may be called different."""

import pandas as pd

from benchmarks.tables.markdown import markdown
from experiments.comparison.display import shown_speed

VERDICTS = ("faster", "slower", "equivalent", "unclear", "void")
QUIET, BUSY = "nothing", "one busy core"
WRONG_AT_MOST, WIDTH_AT_MOST, START_AT_MOST = 0.05, 0.03, 1.0  # share of comparisons, of the ratio, seconds


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.same_file found."""
    rows = []
    for load, trials in table.groupby("load", sort=False):
        counts = trials["speed"].value_counts()
        rows.append(
            {
                "beside it": load,
                "comparisons": str(len(trials)),
                **{shown_speed(verdict): str(counts.get(verdict, 0)) for verdict in VERDICTS},
                "width of the interval, median": f"{100 * _width(trials).median():.2f} %",
                "interval holds 1": f"{100 * _covers(trials).mean():.1f} %",
                "seconds each, median": f"{trials['seconds'].median():.1f}",
            }
        )
    return f"{markdown(pd.DataFrame(rows))}\nStart of the process that times: {table['start_seconds'].max():.2f} s.\n"


def failures(table: pd.DataFrame) -> list[str]:
    """What is not as it should be; beside other work, differing is as wrong as on a quiet machine."""
    wrongs = []
    for load in table["load"].unique():
        trials = table[table["load"] == load]
        wrong = float(trials["speed"].isin(["faster", "slower"]).mean())
        if wrong > WRONG_AT_MOST:
            wrongs.append(f"{load}: {100 * wrong:.1f} % called different")
        if load == QUIET and _width(trials).median() > WIDTH_AT_MOST:
            wrongs.append(f"{load}: median interval {100 * _width(trials).median():.2f} % wide")
    if table["start_seconds"].max() > START_AT_MOST:
        wrongs.append(f"the process that times took {table['start_seconds'].max():.2f} s to start")
    return wrongs


def _width(trials: pd.DataFrame) -> pd.Series:
    return trials["speedup_high"] - trials["speedup_low"]


def _covers(trials: pd.DataFrame) -> pd.Series:
    return (trials["speedup_low"] <= 1) & (trials["speedup_high"] >= 1)
