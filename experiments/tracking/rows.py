"""Runs as rows: what a store holds of one, under the names that tables have."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from experiments.identity import DIGESTS
from experiments.record import Setting, is_setting
from experiments.tracking.tables import Recorded

if TYPE_CHECKING:
    from mlflow.entities import Run

Row = Mapping[str, Any]

# Tags that RunRecord.verdict makes.
VERDICT = (
    "speed", "latency_void", "runs_on_micro", "arithmetic", "verified", "broken_promise", "partial", "left_float",
    "xnnpack_refusal", "warnings",
)  # fmt: skip


def recorded(run: "Run") -> Recorded:
    """A run that MLflow's API gives."""
    return Recorded(run.info.run_id, run.info.status, run.data.tags, run.data.params, run.data.metrics)


def row_of(run: Recorded) -> Row:
    """A run as a row."""
    tags = run.tags
    whole = ("epochs", "finetune_epochs", "seed")
    setting = {field.name: tags.get(field.name) for field in fields(Setting)}
    return {
        **{name: value for name, value in run.params.items() if is_setting(name) and "_target_" not in name},
        **setting,
        **{name: int(tags[name]) for name in whole if name in tags},
        **run.metrics,
        **{name: tags.get(name) for name in VERDICT},
        **{name: tags.get(name) for name in (*DIGESTS, "tflite_sha256")},
        "machine": tags.get("machine"),
        "cpu": tags.get("cpu"),
        "git_commit": tags.get("git_commit"),
        "run_id": run.run_id,
        "status": run.status,
        "error": tags.get("error"),
    }
