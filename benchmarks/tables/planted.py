"""How often a known difference is found: the published table, and how often it is to be."""

import pandas as pd

from benchmarks.tables.markdown import markdown
from benchmarks.tables.same_file import VERDICTS
from experiments.comparison.display import shown_speed

FOUND_AT_LEAST = {3.0: 0.80, 5.0: 0.95, 10.0: 0.99}  # share of the trials, by percent of work added


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.planted found."""
    rows = []
    for name, trials in table.groupby("added_percent"):
        added = float(str(name))
        counts = trials["speed"].value_counts()
        slowdown = 100 * (1 / trials["speedup"] - 1)
        rows.append(
            {
                "work added": f"{added:g} %",
                "trials": str(len(trials)),
                **{shown_speed(verdict): str(counts.get(verdict, 0)) for verdict in VERDICTS},
                "found": f"{100 * (trials['speed'] == 'slower').mean():.0f} %",
                "to be": f"{100 * FOUND_AT_LEAST[added]:.0f} %",
                "slower by, median": f"{slowdown.median():.2f} %",
                "5th to 95th percentile": f"{slowdown.quantile(0.05):.2f} to {slowdown.quantile(0.95):.2f} %",
                "seconds each, median": f"{trials['seconds'].median():.1f}",
            }
        )
    return markdown(pd.DataFrame(rows))


def failures(table: pd.DataFrame) -> list[str]:
    """Differences that were found less often than they should be."""
    found = table["speed"].eq("slower").groupby(table["added_percent"]).mean()
    return [
        f"{added:g} %: found in {100 * share:.0f} % of the trials"
        for added, share in zip(map(float, found.index), found, strict=True)
        if share < FOUND_AT_LEAST[added]
    ]
