"""What a job takes beyond its parts: the published table, and what it may be at most."""

import pandas as pd

from benchmarks.tables.markdown import markdown

NOT_OVERHEAD = ("training", "conversion", "evaluation", "latency")  # parts of a job, in columns like training_seconds
OVERHEAD_AT_MOST = 6.0  # seconds a job


def with_overhead(jobs: pd.DataFrame) -> pd.DataFrame:
    """Jobs with what each took beyond its parts."""
    return jobs.assign(overhead_seconds=jobs["seconds"] - sum(jobs[f"{part}_seconds"] for part in NOT_OVERHEAD))


def overhead_with_starting(jobs: pd.DataFrame) -> float:
    """Seconds a job beyond its parts, of the whole sweep, from the command to its end."""
    parts = sum(jobs[f"{part}_seconds"].sum() for part in NOT_OVERHEAD)
    return float((jobs["sweep_seconds"].iloc[0] - parts) / len(jobs))


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.overhead found."""
    parts = (*NOT_OVERHEAD, "overhead")
    jobs = with_overhead(table)
    shown = pd.DataFrame({"strategy": jobs["strategy"], "job, s": [f"{value:.1f}" for value in jobs["seconds"]]})
    for part in parts:
        shown[f"{part}, s"] = [f"{value:.1f}" for value in jobs[f"{part}_seconds"]]
    return (
        f"{markdown(shown)}\nOverhead of a job: {jobs['overhead_seconds'].mean():.1f} s on average, "
        f"{jobs['overhead_seconds'].max():.1f} s at most; with the sweep's start and end, "
        f"{overhead_with_starting(jobs):.1f} s a job (at most {OVERHEAD_AT_MOST:g}).\n"
    )
