"""Runs as rows: what a store holds of one, under the names that tables have."""

import re
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

from experiments.record.run_record import is_setting
from experiments.system.errors import UserError
from experiments.system.progress import warn_once
from experiments.tracking.schema import SCHEMA, names
from experiments.tracking.tables import Recorded

if TYPE_CHECKING:
    from mlflow.entities import Run

Row = Mapping[str, Any]

# Metrics of every finished run; without one of them there is nothing to compare.
NEEDED = ("keras_accuracy", "tflite_accuracy", "tflite_bytes")
MEASURED = {name: SCHEMA[name] for name in names("metric") if not SCHEMA[name].of}  # ends of intervals may be missing
LARGEST, WHOLE_BELOW = 1e300, 2**53
NAMED = 10  # runs that are left out and named


def recorded(run: "Run") -> Recorded:
    """A run that MLflow's API gives."""
    return Recorded(run.info.run_id, run.info.status, run.data.tags, run.data.params, run.data.metrics)


def row_of(run: Recorded) -> Row:
    """A run as a row, without the metrics that can be none, which is said.

    Raises:
        UserError: it is no run that this suite finished: a setting or, where it is finished, a result is missing.
    """
    tags = run.tags
    setting = {name: _text(run, name) for name in ("strategy", "model", "dataset")}
    whole = {name: _whole(run, name) for name in ("epochs", "finetune_epochs", "seed")}
    metrics = _metrics(run)
    if missing := [name for name in NEEDED if name not in metrics and run.status == "FINISHED"]:
        raise UserError(f"{_named(run)} is finished without {' and '.join(missing)}.")
    return {
        **{name: value for name, value in run.params.items() if is_setting(name) and "_target_" not in name},
        **setting,
        **whole,
        **metrics,
        **{name: tags.get(name) for name in names("verdict")},
        **{name: tags.get(name) for name in names("tag")},
        "run_key": tags.get("run_key"),
        "run_id": run.run_id,
        "status": run.status,
    }


def rows_of(runs: Iterable[Recorded]) -> list[Row]:
    """Runs as rows, without those that can be none: each is named once, with the reason."""
    rows, reasons = [], []
    for run in runs:
        try:
            rows.append(row_of(run))
        except UserError as error:
            reasons.append(f"{error} It is left out.")
    for reason in reasons[:NAMED]:
        warn_once(reason)
    if len(reasons) > NAMED:
        warn_once(f"{len(reasons) - NAMED:,} further runs are left out for such reasons.")
    return rows


def _text(run: Recorded, name: str) -> str:
    if not (value := run.tags.get(name)):
        raise UserError(f"{_named(run)} has no tag {name}.")
    return value


def _whole(run: Recorded, name: str) -> int:
    value = _text(run, name)
    if not re.fullmatch(r"[0-9]{1,18}", value):
        raise UserError(f"{_named(run)} has the tag {name}={value[:40]!r}, which is no whole number.")
    return int(value)


def _metrics(run: Recorded) -> dict[str, float]:
    """The metrics that are numbers; of those that a table needs, what they are not is said."""
    kept = {name: value for name, value in run.metrics.items() if _is_sound(name, value)}
    for name in sorted((run.metrics.keys() - kept.keys()) & MEASURED.keys()):
        warn_once(f"{_named(run)} has {name}={run.metrics[name]:g}, which is left out.")
    return kept


def _is_sound(name: str, value: float) -> bool:
    """Whether a metric can be what it says: MLflow writes the largest number there is for one that is infinite."""
    if not isfinite(value) or abs(value) >= LARGEST:
        return False
    match MEASURED[name].kind if name in MEASURED else "":
        case "share":
            return 0 <= value <= 1
        case "count":
            return value >= 0 and value == int(value) and value < WHOLE_BELOW
        case _:
            return True


def _named(run: Recorded) -> str:
    return f"Run {run.run_id}"
