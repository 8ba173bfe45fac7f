"""Stores with many synthetic runs, for benchmarks and tests of reading."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from experiments.tracking import Store
from experiments.tracking.rows import NEEDED
from experiments.tracking.schema import SCHEMA, names

if TYPE_CHECKING:
    from mlflow.entities import Experiment

STRATEGIES = ("none", "finetune", "ptq_dynamic", "ptq_float16", "ptq_int8", "qat", "annotate", "prune", "cluster")
PARAMETERS = 30
METRICS = tuple(dict.fromkeys((*NEEDED, *names("metric"))))[:30]
BEGIN, SECOND = 1_750_000_000_000, 1000  # milliseconds
FAILING = 50  # one run in this many failed, and has no metric
A_BATCH = 250  # runs per insert


def fill(store: Store, runs: int) -> None:
    """Add runs to a store as MLflow would write them, but in bulk; one in FAILING failed."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
    from sqlalchemy import create_engine, insert

    database = store.address.tables
    engine = create_engine(f"sqlite:///{database}" if isinstance(database, Path) else str(database))
    experiment, sweep = store.client.get_experiment(store.experiment_id), store.open_sweep("generated", {})
    with engine.begin() as connection:
        for first in range(0, runs, A_BATCH):
            batch = [_generated(number, experiment, sweep) for number in range(first, min(first + A_BATCH, runs))]
            for table in (SqlRun, SqlTag, SqlParam, SqlMetric, SqlLatestMetric):
                rows = [row for run in batch for row in run[table.__tablename__]]
                connection.execute(insert(table), rows)
    engine.dispose()
    store.close(sweep, "FINISHED")


def _generated(number: int, experiment: "Experiment", sweep: str) -> Mapping[str, list[dict[str, Any]]]:
    """Return the rows of one run, whose settings no other run has, by the names of the tables."""
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
        "runs": [run],
        "tags": [{"run_uuid": run_id, "key": key, "value": value} for key, value in tags.items()],
        "params": [{"run_uuid": run_id, "key": key, "value": value} for key, value in params.items()],
        "metrics": values,
        "latest_metrics": values,
    }


def _value(name: str, number: int, place: int) -> float:
    """Return a value with many digits; an integer for counts."""
    counted = SCHEMA[name].kind == "count"
    return float(1000 * place + number) if counted else (number * 7919 % 1000 + place) / 1033
