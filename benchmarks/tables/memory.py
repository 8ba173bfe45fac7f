"""Whether memory grows with the jobs of a sweep: the published table, and how far it may."""

import numpy as np
import pandas as pd

from benchmarks.tables.markdown import markdown

COMPARED = 10  # jobs at either end of a long sweep
GROWTH_AT_MOST, GROWTH_AT_MOST_MIB = 0.03, 20.0  # of the memory; whichever allows more


def by_job(samples: pd.DataFrame) -> pd.DataFrame:
    """The most memory during each job, MiB."""
    return samples[samples["job"] > 0].groupby("job")[["main_mib", "children_mib"]].max()


def memory_ends(samples: pd.DataFrame) -> pd.DataFrame:
    """The most memory in the first jobs and in the last, MiB, and the slope over all jobs, MiB a job."""
    jobs = by_job(samples)
    return pd.DataFrame(
        {
            "first": jobs.head(COMPARED).max(),
            "last": jobs.tail(COMPARED).max(),
            "slope": [round(np.polyfit(jobs.index, jobs[name], 1)[0], 2) + 0.0 for name in jobs.columns],  # never -0.00
        }
    )


def is_flat(ends: pd.Series) -> bool:
    """Whether memory has not grown by more than is allowed."""
    first, last = float(ends["first"]), float(ends["last"])
    return last - first <= max(GROWTH_AT_MOST * first, GROWTH_AT_MOST_MIB)


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.memory found."""
    names = {"main_mib": "the sweep's own process", "children_mib": "all its children together"}
    ends = memory_ends(table)
    shown = pd.DataFrame(
        {
            "resident memory, MiB": [names[str(name)] for name in ends.index],
            f"most in the first {COMPARED} jobs": [f"{value:.0f}" for value in ends["first"]],
            f"most in the last {COMPARED} of {len(by_job(table))}": [f"{value:.0f}" for value in ends["last"]],
            "slope a job": [f"{value:+.2f}" for value in ends["slope"]],
        }
    )
    return markdown(shown)
