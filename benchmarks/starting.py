"""How long a sweep checks its jobs before it starts the first: `python -m benchmarks.starting`.

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

from benchmarks import sweeps
from benchmarks.results import Results, options
from benchmarks.tables.starting import failures

STRATEGIES = ("none", "ptq_dynamic", "ptq_int8", "annotate", "qat")
SIZES, QUICK_SIZES = (30, 100, 300, 1000), (10,)
PATIENCE = 600  # seconds


def command(jobs: int) -> list[str]:
    """A sweep of so many jobs."""
    chosen = f"strategy={','.join(STRATEGIES)}"
    return [sys.executable, "-m", "experiments.run", "-m", chosen, f"seed=range(0,{jobs // len(STRATEGIES)})"]


def started(jobs: int, folder: Path) -> float:
    """Seconds from the command to the line that announces its first run."""
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
    """A row a sweep."""
    rows = []
    for jobs in sizes:
        with sweeps.fresh_folder() as folder:
            rows.append({"jobs": jobs, "seconds": started(jobs, folder)})
    return pd.DataFrame(rows)


def main() -> None:
    """Measure and write."""
    asked = options("benchmarks.starting", __doc__).parse_args()
    results = Results("starting")
    table = measured(QUICK_SIZES if asked.quick else SIZES)
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
