"""The summary of a sweep: a few values for its parent run in the store."""

from experiments.comparison.choices import headline
from experiments.comparison.columns import may_be_shipped
from experiments.comparison.compared import Comparison
from experiments.comparison.names import names
from experiments.comparison.tasks import tasks

BEST = {"best_tflite_accuracy": ("tflite_accuracy", "max"), "smallest_tflite_bytes": ("tflite_bytes", "min"),
        "best_speedup": ("speedup", "max")}  # fmt: skip


def summary(comparison: Comparison) -> tuple[dict[str, float], dict[str, str]]:
    """Return metrics and tags: the best values of the runs that may be shipped, and the run to ship for each task."""
    runs = comparison.runs
    metrics = {"runs_finished": float((runs["status"] == "FINISHED").sum())}
    metrics["runs_failed"] = len(runs) - metrics["runs_finished"]
    for name, (column, best) in BEST.items():
        values = runs.loc[may_be_shipped(runs), column].dropna()
        if len(values):
            metrics[name] = float(values.agg(best))
    display = dict(zip(runs["run_id"], names(runs), strict=True))
    recommended = [found.run_id for found in map(headline, tasks(comparison)) if found.may_be_shipped]
    return metrics, {
        "recommended": "; ".join(display.get(run_id, run_id) for run_id in recommended),
        "recommended_run_id": ", ".join(recommended),
    }
