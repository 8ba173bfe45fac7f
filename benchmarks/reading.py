"""Reading many runs: `python -m benchmarks.reading`.

Fills stores with 100 to 20,000 runs of 30 metrics and 30 parameters: SQLite files and, where PostgreSQL is installed,
databases of a server of its own. Reads all runs of each with `mlflow.search_runs` and as the comparison does, sees
whether the values are equal, and times the commands that print them all, write them as CSV, and make the report of
them, for which runs in SQLite files have the answers of 10,000 test images. Writes benchmarks/results/reading/, a row a
store.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Experiment
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
from sqlalchemy import create_engine, insert

from benchmarks import postgres, sweeps
from benchmarks.results import Results, options
from benchmarks.tables.reading import failures
from experiments.compare import load
from experiments.record.artifacts import PREDICTED, PREDICTIONS
from experiments.system.progress import say
from experiments.tracking import Row, Store, Tracking, connect

SIZES, QUICK_SIZES = (100, 1000, 5000, 20_000), (100, 300)
# Runs a command, and says last what it took at most. A process begins with the peak of the one that it was forked from,
# and this benchmark holds gigabytes: so a small process stands between the two.
WATCHED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""
SEARCHED = REPORTED = 5000  # runs: MLflow's own way takes minutes for more, and nobody reads a report of more
IMAGES, CLASSES, WRONG = 10_000, 10, 0.02  # of the answers of each run
TIMES = 3  # of each way; the median counts
RUNS = "tags.kind = 'run'"
STRATEGIES = ("none", "finetune", "ptq_dynamic", "ptq_float16", "ptq_int8", "qat", "annotate", "prune", "cluster")
WHOLE = ("tflite_bytes", "tflite_gzip_bytes", "arena_bytes", "epochs_trained", "epochs_reused")
METRICS = (
    *WHOLE, "keras_accuracy", "tflite_accuracy", "tflite_accuracy_low", "tflite_accuracy_high", "accuracy_change",
    "accuracy_change_low", "accuracy_change_high", "agreement", "size_ratio", "latency_p50_us", "latency_p90_us",
    "latency_p99_us", "speedup", "speedup_low", "speedup_high", "sentinel", "memory_peak_kib", "coverage_ops",
    "coverage_weights", "logit_rmse", "train_seconds", "conversion_seconds", "evaluation_seconds", "latency_seconds",
    "profile_seconds",
)  # fmt: skip
PARAMETERS = 30
BEGIN, SECOND = 1_750_000_000_000, 1000  # milliseconds
FAILING = 50  # every so manieth run failed, and has no metric
A_BATCH = 250  # runs that are written together


def fill(store: Store, runs: int) -> None:
    """Put runs into a store as MLflow would have written them, but many at once; one in FAILING failed."""
    database = store.address.tables
    engine = create_engine(f"sqlite:///{database}" if isinstance(database, Path) else str(database))
    experiment, sweep = store.client.get_experiment(store.experiment_id), store.open_sweep("generated", {})
    with engine.begin() as connection:
        for first in range(0, runs, A_BATCH):
            batch = [_generated(number, experiment, sweep) for number in range(first, min(first + A_BATCH, runs))]
            for table in (SqlRun, SqlTag, SqlParam, SqlMetric, SqlLatestMetric):
                connection.execute(insert(table), [row for run in batch for row in run[table]])
    engine.dispose()
    store.close(sweep, "FINISHED")


def _generated(number: int, experiment: Experiment, sweep: str) -> Mapping[type, list[dict[str, Any]]]:
    """What the tables hold of one run, of which no other has the same settings."""
    run_id, failed, start = uuid4().hex, number % FAILING == FAILING - 1, BEGIN + number * SECOND
    others, strategy = number // len(STRATEGIES), STRATEGIES[number % len(STRATEGIES)]
    tags = {
        "strategy": strategy, "model": "article_cnn", "dataset": "mnist", "epochs": str(1 + others % 10),
        "finetune_epochs": "1", "seed": "0", "kind": "run", "machine": "0a1b2c3d", "cpu": "a CPU",
        "git_commit": 40 * "0", "mlflow.runName": f"{strategy} {number}", "mlflow.parentRunId": sweep,
        f"sweep_{sweep}": f"{number:05d}", "process": "1@1", "host": "somewhere", "python": "3.11.7", "run_key": run_id,
        **({"error": "it failed"} if failed else {"verified": "true", "partial": "false", "arithmetic": "4 int8"}),
    }  # fmt: skip
    varied = {"training.learning_rate": f"0.{others // 10 + 1:04d}", "finetune.epochs": tags["epochs"]}
    params = {**{f"setting.number_{i}": str(i) for i in range(PARAMETERS - len(varied))}, **varied}
    metrics = {} if failed else {name: _value(name, number, place) for place, name in enumerate(METRICS, start=1)}
    values = [
        {"run_uuid": run_id, "key": key, "value": value, "timestamp": start, "step": 0, "is_nan": False}
        for key, value in metrics.items()
    ]
    run = {
        "run_uuid": run_id, "name": tags["mlflow.runName"], "source_type": "UNKNOWN", "source_name": "",
        "entry_point_name": "", "user_id": "unknown", "status": "FAILED" if failed else "FINISHED",
        "start_time": start, "end_time": start + SECOND, "source_version": "", "lifecycle_stage": "active",
        "experiment_id": int(experiment.experiment_id),
        "artifact_uri": f"{experiment.artifact_location}/{run_id}/artifacts",
    }  # fmt: skip
    return {
        SqlRun: [run],
        SqlTag: [{"run_uuid": run_id, "key": key, "value": value} for key, value in tags.items()],
        SqlParam: [{"run_uuid": run_id, "key": key, "value": value} for key, value in params.items()],
        SqlMetric: values,
        SqlLatestMetric: values,
    }


def _value(name: str, number: int, place: int) -> float:
    """Some value with many digits; a whole one of what is counted."""
    return float(1000 * place + number) if name in WHOLE else (number * 7919 % 1000 + place) / 1033


def _give_answers(store: Store, file: Path) -> None:
    """Let every finished run have the answers in one file, which takes their room once."""
    rng = np.random.default_rng(0)
    truth = rng.integers(CLASSES, size=IMAGES)
    said = [np.where(rng.random(IMAGES) < WRONG, rng.integers(CLASSES, size=IMAGES), truth) for _ in range(3)]
    np.savetxt(file, np.stack([truth, *said], 1), "%d", delimiter=",", header=PREDICTED, comments="")
    for row in store.rows("all"):
        if row["status"] == "FINISHED":
            folder = file.parent / "mlruns" / row["run_id"] / "artifacts"
            folder.mkdir(parents=True)
            (folder / PREDICTIONS).hardlink_to(file)


def databases() -> Iterator[tuple[str, Callable[[Path, int], str]]]:
    """Each kind of database that there is, and how one of so many runs comes to its address."""
    yield "SQLite", lambda folder, runs: f"sqlite:///{folder}/runs-{runs}.db"
    if lacks := postgres.missing():
        say(f"Only SQLite is measured: {lacks}")
        return
    with postgres.running() as cluster:
        yield "PostgreSQL", lambda _, runs: cluster.fresh(f"runs_{runs}")


@dataclass(frozen=True)
class Filled:
    """A store with so many runs, and the ways of reading them all."""

    uri: str
    runs: int
    store: Store

    @classmethod
    def at(cls, uri: str, runs: int) -> "Filled":
        """A new store."""
        store = connect(Tracking(uri=uri))
        fill(store, runs)
        if runs <= REPORTED and isinstance(database := store.address.tables, Path):
            _give_answers(store, database.with_suffix(".csv"))
        return cls(uri, runs, store)

    def searched(self) -> pd.DataFrame:
        """As MLflow reads them."""
        mlflow.set_tracking_uri(self.uri)
        return mlflow.search_runs([self.store.experiment_id], RUNS, max_results=10 * self.runs)

    def loaded(self) -> pd.DataFrame:
        """As the comparison reads them."""
        return load(self.uri, sweep="all")

    def printed(self) -> None:
        """What a person waits for."""
        self._compare()

    def written(self) -> None:
        """The table, and the CSV of it."""
        self._compare("--csv", "runs.csv")

    def reported(self) -> float:
        """The report; MiB that it took at most."""
        return self._compare("--out", "report.html")

    def _compare(self, *options: str) -> float:
        """Run the command to its end; MiB of memory that it took at most."""
        command = [sys.executable, "-m", "experiments.compare", "--uri", self.uri, "--sweep", "all", *options]
        environment = {**os.environ, "PYTHONPATH": str(sweeps.ROOT)}
        with tempfile.TemporaryDirectory() as folder:
            watched = [sys.executable, "-c", WATCHED, *command]
            done = subprocess.run(watched, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
        return int(done.stderr.split()[-1]) / 1024  # KiB on Linux

    def ways(self) -> "list[Callable[[], object]]":
        """How this store is read, each of which is timed."""
        ways: list[Callable[[], object]] = [self.loaded, self.printed, self.written]
        if self.runs <= SEARCHED:
            ways.append(self.searched)
        if self.runs <= REPORTED and isinstance(self.store.address.tables, Path):
            ways.append(self.reported)
        return ways


def measured(kind: str, stores: Sequence[Filled]) -> Iterator[dict[str, object]]:
    """Read each store in each way, in turns: what disturbs a while then disturbs small and large stores alike."""
    found = {store.runs: store.searched() for store in stores}
    for store in stores:
        store.loaded()  # the first time sets things up
    seconds: dict[tuple[int, str], list[float]] = defaultdict(list)
    memory: dict[int, list[float]] = defaultdict(list)
    for _ in range(TIMES):
        for store in stores:
            for read in store.ways():
                begin = time.perf_counter()
                got = read()
                seconds[store.runs, read.__name__].append(time.perf_counter() - begin)
                if isinstance(got, float):
                    memory[store.runs].append(got)
    for store in stores:
        taken = {way: seconds[store.runs, way] for way in ("searched", "loaded", "printed", "written", "reported")}
        yield {
            "store": kind, "runs": store.runs, "metrics": len(METRICS), "parameters": PARAMETERS,
            **{f"{way}_seconds": median(each) if each else nan for way, each in taken.items()},
            "reported_mib": max(memory[store.runs], default=nan),
            "equal": equal(store.store.rows("all"), found[store.runs]),
        }  # fmt: skip


def equal(rows: list[Row], found: pd.DataFrame) -> bool:
    """Whether rows, the oldest first, hold what `mlflow.search_runs` found, digit for digit, and nothing else."""
    names = {"run_id": "run_id", "status": "status", **{f"tags.{name}": name for name in _of_tags(rows)}}
    for kind in ("metrics", "params"):
        names |= {name: name.partition(".")[2] for name in found.columns if name.startswith(f"{kind}.")}
    expected = found[::-1].reset_index(drop=True).reindex(columns=list(names)).rename(columns=names)
    given = pd.DataFrame([dict(row) for row in rows]).dropna(axis="columns", how="all")
    if set(given.columns) != set(expected.dropna(axis="columns", how="all").columns):
        return False
    return all(_same(given[name], expected[name]) for name in given.columns)


def _of_tags(rows: list[Row]) -> list[str]:
    taken = {*METRICS, "run_id", "status"}
    return [name for name in rows[0] if name not in taken and "." not in name]


def _same(given: pd.Series, expected: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(given):  # search_runs has the numbers among the tags as text
        expected = pd.to_numeric(expected)
    return bool((given.eq(expected) | (given.isna() & expected.isna())).all())


def main() -> None:
    """Measure and write."""
    asked = options("benchmarks.reading", __doc__).parse_args()
    results = Results("reading")
    sizes = QUICK_SIZES if asked.quick else SIZES
    rows: list[dict[str, object]] = []
    with sweeps.fresh_folder() as folder:
        for kind, address in databases():
            stores = [Filled.at(address(folder, runs), runs) for runs in sizes]
            say(f"{kind}: filled")
            rows += measured(kind, stores)
    table = pd.DataFrame(rows)
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
