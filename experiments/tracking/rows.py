"""Runs as rows: the recorded values of a run, under the column names of the tables."""

import json
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

# Metrics of every finished run; without one of them there is nothing to compare. Earlier versions, which had no other
# task than classification, recorded the first two as accuracies only.
NEEDED = {"keras_score": "keras_accuracy", "tflite_score": "tflite_accuracy", "tflite_bytes": "tflite_bytes"}
MEASURED = {name: SCHEMA[name] for name in names("metric") if not SCHEMA[name].of}  # bounds of intervals may be missing
SETTINGS = "mlflow.quantization.settings"  # tag: all settings, as JSON; MLflow's pages do not list tags of its own
LARGEST, INTEGER_LIMIT = 1e300, 2**53  # larger floats are not valid; floats up to 2**53 are exact integers
LISTED = 10  # omitted runs to report one by one


def from_mlflow(run: "Run") -> Recorded:
    """Convert a run of MLflow's API."""
    return Recorded(run.info.run_id, run.info.status, run.data.tags, run.data.params, run.data.metrics)


def to_row(run: Recorded) -> Row:
    """Convert a run to a row; invalid metrics are omitted with a warning.

    Raises:
        UserError: a setting or, in a finished run, a result is missing, so this suite did not record the run.
    """
    tags = run.tags
    setting = {name: _text(run, name) for name in ("strategy", "model", "dataset")}
    integers = {name: _integer(run, name) for name in ("epochs", "finetune_epochs", "seed")}
    metrics = _metrics(run)
    missing = [old for name, old in NEEDED.items() if metrics.keys().isdisjoint((name, old))]
    if missing and run.status == "FINISHED":
        raise UserError(f"{_named(run)} is finished, but has no {' or '.join(missing)}.")
    return {
        **{name: value for name, value in _settings(run).items() if is_setting(name) and "_target_" not in name},
        **setting,
        **integers,
        **metrics,
        **{name: tags.get(name) for name in names("verdict")},
        **{name: tags.get(name) for name in names("tag")},
        "run_key": tags.get("run_key"),
        "run_id": run.run_id,
        "status": run.status,
    }


def _settings(run: Recorded) -> Mapping[str, str]:
    """Return all settings of a run: its tag has them; runs of earlier versions have them as parameters."""
    try:
        every = json.loads(run.tags.get(SETTINGS, "{}"))
    except ValueError:
        return run.params
    known = {name: value for name, value in every.items() if isinstance(value, str)} if isinstance(every, dict) else {}
    return {**run.params, **known}


def to_rows(runs: Iterable[Recorded]) -> list[Row]:
    """Convert runs to rows; invalid runs are omitted, each with one warning."""
    rows, reasons = [], []
    for run in runs:
        try:
            rows.append(to_row(run))
        except UserError as error:
            reasons.append(f"{error} It is omitted.")
    for reason in reasons[:LISTED]:
        warn_once(reason)
    if len(reasons) > LISTED:
        warn_once(f"{len(reasons) - LISTED:,} more runs are omitted for similar reasons.")
    return rows


def _text(run: Recorded, name: str) -> str:
    if not (value := run.tags.get(name)):
        raise UserError(f"{_named(run)} has no tag {name}.")
    return value


def _integer(run: Recorded, name: str) -> int:
    value = _text(run, name)
    if not re.fullmatch(r"[0-9]{1,18}", value):
        raise UserError(f"{_named(run)} has the tag {name}={value[:40]!r}, which is not an integer.")
    return int(value)


def _metrics(run: Recorded) -> dict[str, float]:
    """Return the valid metrics; warns about invalid ones that a table needs."""
    kept = {name: value for name, value in run.metrics.items() if _is_valid(name, value)}
    for name in sorted((run.metrics.keys() - kept.keys()) & MEASURED.keys()):
        warn_once(f"{_named(run)} has {name}={run.metrics[name]:g}, which is invalid and omitted.")
    return kept


def _is_valid(name: str, value: float) -> bool:
    """Whether a metric's value is valid: MLflow records infinity as the largest float."""
    if not isfinite(value) or abs(value) >= LARGEST:
        return False
    match MEASURED[name].kind if name in MEASURED else "":
        case "share":
            return 0 <= value <= 1
        case "count":
            return value >= 0 and value == int(value) and value < INTEGER_LIMIT
        case _:
            return True


def _named(run: Recorded) -> str:
    return f"Run {run.run_id}"
