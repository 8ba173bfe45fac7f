"""What a job costs beyond its work: `python -m benchmarks.overhead`.

A sweep of eight jobs on the article's network. Overhead of a job: from the start to the end of its MLflow run, less its
own training, conversion, evaluation and latency. The jobs' sum leaves out what happens before the first and after the
last one, so the whole sweep's time less all of that is given too, for each job.
Writes benchmarks/results/overhead/.
"""

import pandas as pd

from benchmarks import sweeps
from benchmarks.results import Results, options
from benchmarks.tables.overhead import OVERHEAD_AT_MOST, overhead_with_starting, with_overhead

STRATEGIES = ("none", "ptq_dynamic", "ptq_float16", "ptq_int8", "finetune", "qat", "annotate", "prune")
SETTINGS = ("model=article_cnn", "dataset=mnist", "dataset.train_samples=2000", "latency.seconds=0.5")
SMALL = ("dataset.test_samples=200",)
COLUMNS = ("strategy", "run_id", "conversion_seconds", "evaluation_seconds", "latency_seconds")


def measured(overrides: list[str]) -> pd.DataFrame:
    """The jobs of a sweep, with the seconds of each and of its parts, and those of the sweep."""
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


def main() -> None:
    """Measure and write."""
    asked = options("benchmarks.overhead", __doc__).parse_args()
    results = Results("overhead")
    strategies = STRATEGIES[:2] if asked.quick else STRATEGIES
    overrides = [f"strategy={','.join(strategies)}", *SETTINGS, *(SMALL if asked.quick else ())]
    jobs = measured(overrides)
    most = max(with_overhead(jobs)["overhead_seconds"].max(), overhead_with_starting(jobs))
    failures = [f"{most:.1f} s a job"] if most > OVERHEAD_AT_MOST else []
    results.finish(jobs, asked.quick, failures, sweeps.command(overrides))


if __name__ == "__main__":
    main()
