"""Sweeps that start at the same time without a store: `python -m benchmarks.fresh_store`.

Ten times, four processes start the same small sweep at the same moment in a new folder. Each must end with 0, and its
table must hold every run, finished. Writes benchmarks/results/fresh_store/, a row a sweep.
"""

import re
import time
from pathlib import Path

import pandas as pd

from benchmarks.harness import sweeps
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.system.progress import say

TIMES, AT_ONCE = 10, 4
STRATEGIES = ("none", "ptq_dynamic")
OVERRIDES = (
    f"strategy={','.join(STRATEGIES)}", "dataset=mnist", "dataset.train_samples=500", "dataset.test_samples=100",
    "epochs=1", "latency.seconds=0.3",
)  # fmt: skip


def at_once(number: int, processes: int) -> list[dict[str, object]]:
    """Start sweeps at the same time in a new folder, and return their results. The folder is kept if one fails."""
    folder, started = sweeps.new_folder(), time.perf_counter()
    running = {i: sweeps.start(folder, OVERRIDES, f"log-{i}.txt") for i in range(1, processes + 1)}
    seconds: dict[int, float] = {}
    while len(seconds) < processes:
        for i in running.keys() - seconds.keys():
            if running[i].poll() is not None:
                seconds[i] = time.perf_counter() - started
        time.sleep(0.05)
    rows: list[dict[str, object]] = [
        {
            "time": number,
            "process": i,
            "exit_code": running[i].returncode,
            "finished_rows": finished_rows(folder, (folder / f"log-{i}.txt").read_text(errors="replace")),
            "expected_rows": len(STRATEGIES),
            "seconds": round(seconds[i], 2),
        }
        for i in sorted(running)
    ]
    if all(is_well(row) for row in rows):
        sweeps.discard(folder)
    else:
        say(f"kept, to see what happened: {folder}")
    return rows


def finished_rows(folder: Path, log: str) -> int:
    """Return the number of finished runs in the table of the sweep that wrote this log."""
    found = re.findall(r"/runs/([0-9a-f]{32})", log)
    return int((sweeps.table(folder, found[-1])["status"] == "FINISHED").sum()) if found else 0


def is_well(row: dict[str, object]) -> bool:
    """Return whether a sweep succeeded with a complete table."""
    return row["exit_code"] == 0 and row["finished_rows"] == row["expected_rows"]


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
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


BENCHMARK = Benchmark(
    name="fresh_store",
    title="Sweeps that start at the same time without a store",
    minutes=10,
    tables=(own("fresh_store", published_table),),
)


def main() -> None:
    """Measure, and write the results."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    rows: list[dict[str, object]] = []
    for number in range(1, 2 if asked.quick else TIMES + 1):
        these = at_once(number, 2 if asked.quick else AT_ONCE)
        rows += these
        times = ", ".join(f"{row['seconds']} s" for row in these)
        say(f"time {number}: {sum(map(is_well, these))} of {len(these)} ({times})")
    table = pd.DataFrame(rows)
    failed = [row for row in rows if not is_well(row)]
    failures = [f"{len(failed)} of {len(rows)} failed"] if failed else []
    results.finish(table, asked.quick, failures, sweeps.command(OVERRIDES))


if __name__ == "__main__":
    main()
