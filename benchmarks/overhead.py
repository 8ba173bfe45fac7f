"""Overhead of a job: `python -m benchmarks.overhead`.

A sweep of eight jobs on the article's network. Overhead of a job: from the start to the end of its MLflow run, less its
own training, conversion, evaluation and latency. The jobs' sum leaves out what happens before the first and after the
last one, so the whole sweep's time less all of that is given too, for each job.
Writes benchmarks/results/overhead/.
"""

import pandas as pd

from benchmarks.harness import sweeps
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options

NOT_OVERHEAD = ("training", "conversion", "evaluation", "latency")  # parts of a job, in columns like training_seconds
OVERHEAD_AT_MOST = 6.0  # seconds a job
STRATEGIES = ("none", "ptq_dynamic", "ptq_float16", "ptq_int8", "finetune", "qat", "annotate", "prune")
SETTINGS = ("model=article_cnn", "dataset=mnist", "dataset.train_samples=2000", "latency.seconds=0.5")
SMALL = ("dataset.test_samples=200",)
COLUMNS = ("strategy", "run_id", "conversion_seconds", "evaluation_seconds", "latency_seconds")


def measured(overrides: list[str]) -> pd.DataFrame:
    """Return the jobs of a sweep, with the seconds of each and of its parts, and those of the sweep."""
    with sweeps.fresh_folder() as folder:
        sweep_seconds = sweeps.sweep(folder, overrides)
        rows = sweeps.table(folder)
        infos = [run.info for run in sweeps.store(folder).find("tags.kind = 'run'")]
    took = {info.run_id: (info.end_time - info.start_time) / 1000 for info in infos}
    return rows[list(COLUMNS)].assign(
        training_seconds=rows["train_seconds"] - rows["train_seconds_reused"],
        seconds=rows["run_id"].map(took),
        sweep_seconds=sweep_seconds,
    )


def with_overhead(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return the jobs with the seconds that each took beyond its parts."""
    return jobs.assign(overhead_seconds=jobs["seconds"] - sum(jobs[f"{part}_seconds"] for part in NOT_OVERHEAD))


def overhead_with_starting(jobs: pd.DataFrame) -> float:
    """Return the seconds per job beyond its parts, over the whole sweep."""
    parts = sum(jobs[f"{part}_seconds"].sum() for part in NOT_OVERHEAD)
    return float((jobs["sweep_seconds"].iloc[0] - parts) / len(jobs))


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    parts = (*NOT_OVERHEAD, "overhead")
    jobs = with_overhead(table)
    shown = pd.DataFrame({"strategy": jobs["strategy"], "job, s": [f"{value:.1f}" for value in jobs["seconds"]]})
    for part in parts:
        shown[f"{part}, s"] = [f"{value:.1f}" for value in jobs[f"{part}_seconds"]]
    return (
        f"{markdown(shown)}\nOverhead of a job: {jobs['overhead_seconds'].mean():.1f} s on average, "
        f"{jobs['overhead_seconds'].max():.1f} s at most; with the sweep's start and end, "
        f"{overhead_with_starting(jobs):.1f} s per job (at most {OVERHEAD_AT_MOST:g}).\n"
    )


BENCHMARK = Benchmark(
    name="overhead",
    title="Overhead of a job",
    minutes=3,
    tables=(own("overhead", published_table),),
)


def main() -> None:
    """Measure, and write the results."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    strategies = STRATEGIES[:2] if asked.quick else STRATEGIES
    overrides = [f"strategy={','.join(strategies)}", *SETTINGS, *(SMALL if asked.quick else ())]
    jobs = measured(overrides)
    most = max(with_overhead(jobs)["overhead_seconds"].max(), overhead_with_starting(jobs))
    failures = [f"{most:.1f} s a job"] if most > OVERHEAD_AT_MOST else []
    results.finish(jobs, asked.quick, failures, sweeps.command(overrides))


if __name__ == "__main__":
    main()
