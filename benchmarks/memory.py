"""Whether memory grows over a long sweep: `python -m benchmarks.memory`.

A sweep of 50 small jobs. Once a second the resident memory of the sweep's own process is read, and that of all its
children together (memory that they share is counted in each of them). Compared is the most in the first ten jobs with
the most in the last ten. Writes benchmarks/results/memory/ (memory.csv with every sample, memory.png).
"""

import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from benchmarks.harness import sweeps
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.plots import BLUE, ORANGE
from experiments.system.errors import UserError

COMPARED = 10  # jobs at either end of a long sweep
GROWTH_AT_MOST, GROWTH_AT_MOST_MIB = 0.03, 20.0  # share of the memory, and MiB; the larger one counts
MIB = 2**20
INTERVAL = 1.0  # seconds
SETTINGS = (
    "strategy=qat", "model=article_cnn", "dataset=mnist", "dataset.train_samples=500", "dataset.test_samples=200",
    "epochs=1", "latency.seconds=0.2",
)  # fmt: skip


def sampled(overrides: list[str]) -> pd.DataFrame:
    """Return a sweep's memory, one row per sample; job 0 is the time before the first and after the last.

    After the last the sweep makes its tables, which is no memory that jobs have left behind.
    """
    samples = []
    with sweeps.fresh_folder() as folder:
        process = sweeps.start(folder, overrides)
        began, main = time.time(), psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                samples.append((time.time(), _resident(main), sum(map(_resident, main.children(recursive=True)))))
            time.sleep(INTERVAL)
        if process.returncode != 0:
            raise UserError(f"{sweeps.command(overrides)} ended with {process.returncode}; see {sweeps.LOG} there.")
        runs = [run.info for run in sweeps.store(folder).find("tags.kind = 'run'")]
    starts, end = sorted(run.start_time / 1000 for run in runs), max(run.end_time / 1000 for run in runs)
    table = pd.DataFrame(samples, columns=["seconds", "main_mib", "children_mib"])
    jobs = np.searchsorted(starts, table["seconds"], side="right")
    table.insert(1, "job", np.where(table["seconds"] <= end, jobs, 0))
    return table.assign(seconds=table["seconds"] - began).round(2)


def _resident(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / MIB
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return 0.0


def save_picture(path: Path, samples: pd.DataFrame) -> None:
    """Plot memory over time, with the maximum of each job, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    minutes = samples["seconds"] / 60
    names = {"children_mib": ("all children together", ORANGE), "main_mib": ("the sweep's own process", BLUE)}
    for column, (name, colour) in names.items():
        axes.plot(minutes, samples[column], color=colour, linewidth=1.1)
        end = by_job(samples)[column].tail(COMPARED).median()
        slope = float(memory_ends(samples)["slope"][column])
        label = f"{name}\n{slope:+.2f} MiB a job"
        axes.annotate(label, (minutes.iloc[-1], end), (6, 0), textcoords="offset points", color=colour, va="center")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0, right=minutes.iloc[-1])
    axes.set_xlabel("minutes since the command")
    axes.set_ylabel("resident memory in MiB")
    axes.set_title(f"A sweep of {samples['job'].max()} jobs", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def by_job(samples: pd.DataFrame) -> pd.DataFrame:
    """Return the maximum of memory during each job, in MiB."""
    return samples[samples["job"] > 0].groupby("job")[["main_mib", "children_mib"]].max()


def memory_ends(samples: pd.DataFrame) -> pd.DataFrame:
    """Return the maximum of memory in the first and last jobs, in MiB, and the slope in MiB per job."""
    jobs = by_job(samples)
    return pd.DataFrame(
        {
            "first": jobs.head(COMPARED).max(),
            "last": jobs.tail(COMPARED).max(),
            "slope": [round(np.polyfit(jobs.index, jobs[name], 1)[0], 2) + 0.0 for name in jobs.columns],  # never -0.00
        }
    )


def is_flat(ends: pd.Series) -> bool:
    """Whether memory has grown by no more than is allowed."""
    first, last = float(ends["first"]), float(ends["last"])
    return last - first <= max(GROWTH_AT_MOST * first, GROWTH_AT_MOST_MIB)


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    names = {"main_mib": "the sweep's own process", "children_mib": "all child processes together"}
    ends = memory_ends(table)
    shown = pd.DataFrame(
        {
            "resident memory, MiB": [names[str(name)] for name in ends.index],
            f"maximum in the first {COMPARED} jobs": [f"{value:,.0f}" for value in ends["first"]],
            f"maximum in the last {COMPARED} of {len(by_job(table))}": [f"{value:,.0f}" for value in ends["last"]],
            "slope per job": [f"{value:+.2f}" for value in ends["slope"]],
        }
    )
    return markdown(shown)


BENCHMARK = Benchmark(
    name="memory",
    title="Whether memory grows over a long sweep",
    minutes=10,
    tables=(own("memory", published_table),),
)


def main() -> None:
    """Measure, and write the results."""
    parser = options(BENCHMARK, __doc__)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write the picture there, too")
    asked = parser.parse_args()
    results = Results(BENCHMARK)
    overrides = [*SETTINGS, f"seed=range({3 if asked.quick else 50})"]
    samples = sampled(overrides)
    if asked.picture:
        save_picture(asked.picture, samples)
    if not asked.quick:
        save_picture(results.folder / "memory.png", samples)
    flat = is_flat(memory_ends(samples).T["main_mib"])
    failures = [] if flat else ["the sweep's own process has grown"]
    results.finish(samples, asked.quick, failures, sweeps.command(overrides))


if __name__ == "__main__":
    main()
