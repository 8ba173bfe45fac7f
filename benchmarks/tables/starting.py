"""How long sweeps take to start: the published table, and how long they may take."""

import pandas as pd

from benchmarks.tables.markdown import markdown

AT_MOST, JOBS = 20.0, 300  # seconds for so many jobs


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.starting found."""
    shown = pd.DataFrame(
        {
            "jobs": [f"{jobs:,}" for jobs in table["jobs"]],
            "until the first starts, s": [f"{seconds:.1f}" for seconds in table["seconds"]],
            "a job, ms": [f"{1000 * each:.0f}" for each in table["seconds"] / table["jobs"]],
        }
    )
    return markdown(shown)


def failures(table: pd.DataFrame) -> list[str]:
    """Sweeps that start too late."""
    late = table[(table["jobs"] <= JOBS) & (table["seconds"] > AT_MOST)]
    return [f"{row['jobs']:.0f} jobs: started after {row['seconds']:.1f} s" for _, row in late.iterrows()]
