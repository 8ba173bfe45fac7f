"""Time to check the jobs of a sweep before the first one starts: `python -m benchmarks.starting`.

Starts sweeps of 30, 100, 300 and 1,000 jobs, each in a new folder, until the first run is announced, and stops them
there. Writes benchmarks/results/starting/, a row a sweep.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.harness import sweeps
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options

AT_MOST, JOBS = 20.0, 300  # seconds for this number of jobs
STRATEGIES = ("none", "ptq_dynamic", "ptq_int8", "annotate", "qat")
SIZES, QUICK_SIZES = (30, 100, 300, 1000), (10,)
PATIENCE = 600  # seconds


def command(jobs: int) -> list[str]:
    """Return the command of a sweep with this number of jobs."""
    chosen = f"strategy={','.join(STRATEGIES)}"
    return [sys.executable, "-m", "experiments.run", "-m", chosen, f"seed=range(0,{jobs // len(STRATEGIES)})"]


def started(jobs: int, folder: Path) -> float:
    """Return the seconds from the command to the line that announces its first run."""
    begin = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(sweeps.ROOT)}
    with subprocess.Popen(command(jobs), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"1/{jobs} "):
                break
        seconds = time.perf_counter() - begin
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    return seconds


def measured(sizes: Sequence[int]) -> pd.DataFrame:
    """Return one row per sweep."""
    rows = []
    for jobs in sizes:
        with sweeps.fresh_folder() as folder:
            rows.append({"jobs": jobs, "seconds": started(jobs, folder)})
    return pd.DataFrame(rows)


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    shown = pd.DataFrame(
        {
            "jobs": [f"{jobs:,}" for jobs in table["jobs"]],
            "until the first job starts, s": [f"{seconds:.1f}" for seconds in table["seconds"]],
            "per job, ms": [f"{1000 * each:.0f}" for each in table["seconds"] / table["jobs"]],
        }
    )
    return markdown(shown)


def failures(table: pd.DataFrame) -> list[str]:
    """Return the sweeps that start too late."""
    late = table[(table["jobs"] <= JOBS) & (table["seconds"] > AT_MOST)]
    return [f"{row['jobs']:.0f} jobs: started after {row['seconds']:.1f} s" for _, row in late.iterrows()]


BENCHMARK = Benchmark(
    name="starting",
    title="Time to check the jobs of a sweep before the first one starts",
    minutes=3,
    tables=(own("starting", published_table),),
)


def main() -> None:
    """Measure, and write the results."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    table = measured(QUICK_SIZES if asked.quick else SIZES)
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
