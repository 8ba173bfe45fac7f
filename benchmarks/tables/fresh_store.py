"""Sweeps that start at once where there is no store yet: the published table."""

import pandas as pd

from benchmarks.tables.markdown import markdown


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.fresh_store found."""
    well = (table["exit_code"] == 0) & (table["finished_rows"] == table["expected_rows"])
    shown = pd.DataFrame(
        {
            "times": [table["time"].nunique()],
            "sweeps at once": [table.groupby("time").size().max()],
            "succeeded, with complete tables": [f"{well.sum()} of {len(table)}"],
            "seconds of a sweep": [f"{table['seconds'].min():.0f} to {table['seconds'].max():.0f}"],
        }
    )
    return markdown(shown)
