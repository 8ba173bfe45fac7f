"""Which layers in int8 make the fastest file: the published table."""

import pandas as pd

from benchmarks.tables.markdown import markdown
from experiments.statistics.rounding import times

FLOAT, WHOLE = "none, the float file", "all four"


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.choices found, fastest first."""
    valid = table[table["void"] == ""]
    by_choice = {str(choice): rows for choice, rows in valid.groupby("choice")}
    fastest_first = sorted(by_choice, key=lambda choice: -by_choice[choice]["speedup"].median())
    shown = pd.DataFrame(
        [
            {
                "in int8": choice,
                "bytes": f"{by_choice[choice]['bytes'].iloc[0]:,}",
                "speedup vs float": _scatter(by_choice[choice]["speedup"]),
                "speedup vs all four in int8": _scatter(by_choice[choice]["against_whole"]),
                "that, in each session": "; ".join(_intervals(by_choice[choice])),
            }
            for choice in fastest_first
        ]
    )
    sessions, void = table["session"].nunique(), table.loc[table["void"] != "", "session"].nunique()
    return (
        f"{markdown(shown)}\nSessions in which all these files were timed together: {sessions}, of which invalid: "
        f"{void}. The median of the sessions, and in brackets the least and the most; then 95 % intervals.\n"
    )


def _scatter(ratios: pd.Series) -> str:
    return times(ratios.median(), ratios.min(), ratios.max())


def _intervals(rows: pd.DataFrame) -> list[str]:
    return [
        f"{low:.3f} to {high:.3f}"
        for low, high in zip(rows["against_whole_low"], rows["against_whole_high"], strict=True)
    ]
