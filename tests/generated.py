"""A store with every kind of run that can lie in one, and its rows as MLflow's API gives them."""

from collections.abc import Sequence
from math import inf, nan

from mlflow import MlflowClient
from mlflow.entities import Metric

from benchmarks.harness.generated_runs import FAILING, fill
from experiments.tracking import Row, Store
from experiments.tracking.tables import StoreTables

RUNS = FAILING + 10  # one of them failed
OTHERS = 3


class ThroughTheAPI(Store):
    """The same store, but read as a remote server is."""

    def _tables(self) -> StoreTables | None:
        return None


def through_the_api(store: Store) -> Store:
    return ThroughTheAPI(store.client, store.experiment_id, store.address)


def fill_variously(store: Store) -> None:
    """Two sweeps; and runs that are running, deleted, reused, of strange values, or of other programs."""
    fill(store, RUNS)
    client, experiment = store.client, store.experiment_id
    sweep = store.open_sweep("the newest", {})
    for job, name in ((1, "strange"), (0, "plain"), (3, "deleted")):
        own = {
            "kind": "run",
            "strategy": name,
            "model": "mlp",
            "dataset": "mnist",
            "epochs": "1",
            "finetune_epochs": "0",
            "seed": "0",
            "mlflow.parentRunId": sweep,
            f"sweep_{sweep}": f"{job:05d}",
        }
        run_id = client.create_run(experiment, start_time=1, tags=own).info.run_id
        client.log_param(run_id, "strategy.layers", "['é\"%', 'dense']")
        client.log_metric(run_id, "tflite_accuracy", 0.1 + 0.2)
        if name == "strange":
            values = {"sqnr_min_db": nan, "speedup": inf, "logit_rmse": -inf, "train_seconds": 5e-324}
            client.log_batch(run_id, [Metric(key, value, 0, 0) for key, value in values.items()])
            log_curve(client, run_id)
        if name == "deleted":
            client.delete_run(run_id)
    reused = next(row["run_id"] for row in store.rows("all") if row["strategy"] == "qat")
    client.set_tag(reused, f"sweep_{sweep}", "00002 reused")
    for _ in range(OTHERS):
        client.create_run(experiment, tags={"mlflow.runName": "of another program"})
    client.delete_run(client.create_run(experiment).info.run_id)
    elsewhere = client.create_experiment("another experiment")
    client.create_run(elsewhere, tags={"kind": "run", f"sweep_{sweep}": "00000"})


def log_curve(client: MlflowClient, run_id: str) -> None:
    """A metric of several steps, written out of order."""
    for step, value in ((3, 0.7), (1, 0.9), (2, 0.8)):
        client.log_metric(run_id, "baseline/loss", value, step=step)


def exactly(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Rows with values that compare digit for digit and type for type, NaN too."""
    return [{name: repr(value) for name, value in row.items()} for row in rows]
