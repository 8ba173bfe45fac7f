"""Whether the interval of a real sweep holds in later ones: `python -m benchmarks.later_sweeps`.

Every two and a half minutes, the real command runs a sweep: the article's network, hardly trained, in five strategies,
with the default timing. The first sweep trains; the others find training and conversion in the cache, so they time the
same files in new processes, with records of their own. For each speedup of each sweep: does its 95 % interval hold the
mean of the other sweeps?

The table is stored after each sweep: if the benchmark is interrupted, the same command continues. Writes
benchmarks/results/later_sweeps/.
"""

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd

from benchmarks.harness import sweeps
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import on_shared_host, own
from benchmarks.harness.results import Results, timing_options
from experiments.system.progress import bar, say

SWEEPS, QUICK_SWEEPS = 20, 2
EVERY = 150.0  # seconds between the starts of two sweeps
COVERED_AT_LEAST = 0.92
OVERRIDES = (
    "strategy=none,ptq_dynamic,ptq_float16,ptq_int8,annotate", "dataset.train_samples=500", "dataset.test_samples=200",
    "epochs=1", "resume=false",
)  # fmt: skip
QUICK = ("latency.seconds=0.3",)
COLUMNS = (
    "strategy", "latency_p50_us", "speedup", "speedup_low", "speedup_high", "speed", "latency_void", "latency_rounds",
    "latency_span_seconds", "latency_states", "latency_other_cores",
)  # fmt: skip


def figures_of(table: pd.DataFrame, number: int, started: float) -> pd.DataFrame:
    """Return the timings of a sweep with its number and start; `none` is the float file."""
    timed = table[table["strategy"] != "none"]
    return timed[list(COLUMNS)].assign(sweep=number, started=started).reset_index(drop=True)


def covered(timings: pd.DataFrame) -> pd.Series:
    """Return whether each interval of a file's valid timings, one per sweep, holds the mean of the other sweeps."""
    logs = np.log(timings["speedup"])
    others: pd.Series = np.exp((logs.sum() - logs) / (len(logs) - 1))
    return others.between(timings["speedup_low"], timings["speedup_high"])


def valid_by_file(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the valid timings of each file."""
    for strategy, timings in table.groupby("strategy", sort=False):
        yield str(strategy), timings[timings["speed"] != "void"]


def share_covered(table: pd.DataFrame) -> float:
    """Return the share of all valid intervals that hold the mean of the other sweeps."""
    return float(pd.concat([covered(timings) for _, timings in valid_by_file(table)]).mean())


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    shown = pd.DataFrame(
        [
            {
                "strategy": f"`{strategy}`",
                "sweeps": str(table["sweep"].nunique()),
                "valid": str(len(timings)),
                "interval holds the mean of the other sweeps": f"{covered(timings).sum()} of {len(timings)}",
                "speedup, median": f"{timings['speedup'].median():.3f}x",
                "5th to 95th percentile": " to ".join(f"{timings['speedup'].quantile(q):.3f}" for q in (0.05, 0.95)),
                "half of the interval, median": f"{_half(timings):.1f} %",
                "rounds that count, median": f"{timings['latency_rounds'].median():.0f}",
            }
            for strategy, timings in valid_by_file(table)
        ]
    )
    each = table.drop_duplicates("sweep")
    hours = (table["started"].max() - table["started"].min()) / 3600
    return (
        f"{markdown(shown)}\n{100 * share_covered(table):.0f} % of all intervals hold (target: "
        f"{100 * COVERED_AT_LEAST:.0f} %). {len(each)} sweeps within {hours:.1f} hours, in which other processes used "
        f"{each['latency_other_cores'].min():.1f} to {each['latency_other_cores'].max():.1f} cores. Two machine states "
        f"in {(each['latency_states'] > 1).sum()} of them.\n"
    )


def _half(timings: pd.DataFrame) -> float:
    return 100 * float((timings["speedup_high"] / timings["speedup_low"]).median() ** 0.5 - 1)


def failures(table: pd.DataFrame) -> list[str]:
    """Return the missed target."""
    share = share_covered(table)
    return [] if share >= COVERED_AT_LEAST else [f"{100 * share:.0f} % of the intervals hold in other sweeps"]


BENCHMARK = Benchmark(
    name="later_sweeps",
    title="Whether the interval of a real sweep holds in later sweeps",
    minutes=52,
    tables=(own("later_sweeps", published_table), on_shared_host("later_sweeps", published_table)),
)


def main() -> None:
    """Run the sweeps that are missing, and write the results."""
    parser = timing_options(BENCHMARK, __doc__)
    parser.add_argument("--sweeps", type=int, default=SWEEPS, help="number of sweeps (default: %(default)s)")
    parser.add_argument(
        "--every", type=float, default=EVERY, help="seconds between the starts of two (default: %(default)s)"
    )
    parser.add_argument("--again", action="store_true", help="discard stored sweeps")
    asked = parser.parse_args()
    results = Results(BENCHMARK, asked.shared_host)
    stored = None if asked.quick else results.folder / "later_sweeps.csv"
    if stored and asked.again:
        stored.unlink(missing_ok=True)
    table = pd.read_csv(stored, keep_default_na=False, na_values=[""]) if stored and stored.exists() else pd.DataFrame()
    done = 0 if table.empty else int(table["sweep"].max())
    wanted, every = (QUICK_SWEEPS, 0.0) if asked.quick else (asked.sweeps, asked.every)
    if done:
        say(f"continuing after {done} sweeps")
    overrides = [*OVERRIDES, *(QUICK if asked.quick else ())]
    with sweeps.fresh_folder() as folder, bar("Sweeps", total=wanted) as advance:
        advance(done)
        for number in range(done + 1, wanted + 1):
            started, due = time.time(), time.monotonic() + every
            sweeps.sweep(folder, overrides)
            table = pd.concat([table, figures_of(sweeps.table(folder), number, started)], ignore_index=True)
            if stored:
                table.to_csv(stored, index=False, lineterminator="\n")
            advance(1)
            if number < wanted:
                time.sleep(max(0.0, due - time.monotonic()))
    results.finish(table, asked.quick, failures(table), sweeps.command(overrides))


if __name__ == "__main__":
    main()
