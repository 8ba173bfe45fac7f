"""The schema of columns: every recorded value has a column, and the column describes it correctly."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.comparison.columns import COLUMNS, NUMBERS, WHOLE, WORDS, frame, timed
from experiments.comparison.display import display_table
from experiments.measure.latency import SAME_FILE
from experiments.record.evidence import Evidence, Predictions, Scores
from experiments.record.identity import Identity
from experiments.record.run_record import AFTER, FINAL, RunRecord, Setting
from experiments.statistics.bootstrap import RESAMPLES
from experiments.statistics.estimates import Estimate
from experiments.system.machine import Conditions
from experiments.tflite.expectation import Expectation
from experiments.tracking.schema import FURTHER, MODELS, SCHEMA, heading, names
from tests.rows import row


def record(evidence: Evidence | None = None, **changes: Any) -> RunRecord:
    """A record that has every measurement, of things that have no more than it reads."""
    ones = np.zeros(4, np.int64)
    ratio = Estimate(1.0, 0.9, 1.1)
    timings = SimpleNamespace(percentile_us=float, min_us=1.0, first_us=1.0, load_us=1.0, medians=[1.0])
    session = SimpleNamespace(sentinel=ratio, conditions=Conditions(1, 0.0, 0.0, 0.0, 0.0), void="")
    stage = SimpleNamespace(seconds=1.0, seconds_reused=0.0, epochs_trained=1, epochs_reused=0)
    found: Any = object.__new__(RunRecord)
    found.__dict__.update(
        evidence=evidence or Predictions(ones, ones, ones, ones),
        task="classification",
        metric="accuracy",
        metric_better="higher",
        further={},
        tflite=SimpleNamespace(bytes=10, gzip_bytes=5, content=b""),
        reference=SimpleNamespace(bytes=20),
        latency=SimpleNamespace(own=timings, session=session, speedup=ratio, verdict=SAME_FILE),
        memory=SimpleNamespace(peak_kib=1.0, model_kib=1.0),
        arena=SimpleNamespace(bytes=1, reason=""),
        ops=(),
        delegated=frozenset(),
        gaps=(SimpleNamespace(first=AFTER, second=FINAL, rms_logit_error=0.0, sqnr_db=30.0),),
        op_noise=(SimpleNamespace(sqnr_db=30.0),),
        baseline=stage,
        own_training=stage,
        seconds=dict.fromkeys(("conversion", "evaluation", "latency", "profile", "memory"), 1.0),
        expectation=Expectation("float32"),
        xnnpack_refusal="",
        warnings=(),
    )
    found.__dict__.update(changes)
    return found  # type: ignore[no-any-return]


def test_metrics_of_runs_are_exactly_the_metric_columns() -> None:
    further = {f"{model}_{metric}": 1.0 for model in MODELS for metric in FURTHER}
    assert set(record(further=further).metrics()) == set(names("metric"))


def test_a_run_without_right_and_wrong_predictions_has_scores_and_no_accuracy() -> None:
    values = np.linspace(1, 2, 1 + RESAMPLES)
    found = record(Scores(50, values, values, values)).metrics()
    assert [found[name] for name in ("keras_score", "tflite_score", "score_change", "score_change_p")] == [1, 1, 0, 1]
    assert not [name for name in found if "accuracy" in name or name == "agreement"]


def test_verdicts_of_a_run_are_exactly_the_verdict_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunRecord, "broken", ())
    assert set(record().verdict()) == set(names("verdict"))


def test_every_setting_and_digest_of_a_run_has_a_column() -> None:
    assert set(names("setting")) == set(Setting.__dataclass_fields__)
    assert set(Identity("model", "data", "m", "t", "e").tags()) >= {
        name for name in names("tag") if name.endswith("_digest")
    }


def test_dtype_of_a_column_follows_from_its_kind() -> None:
    assert sorted([*WHOLE, *WORDS, *NUMBERS]) == sorted(COLUMNS)


def test_unit_in_the_name_equals_the_unit_of_the_column() -> None:
    units = {"_us": "µs", "_bytes": "bytes", "_kib": "KiB", "_seconds": "s", "_seconds_reused": "s", "_db": "dB"}
    for name, column in SCHEMA.items():
        for ending, unit in units.items():
            assert not name.endswith(ending) or column.unit == unit, name


def test_interval_ends_have_the_kind_of_their_column() -> None:
    for column in SCHEMA.values():
        if column.of and not column.name.endswith("_p"):
            assert (column.kind, column.unit) == (SCHEMA[column.of].kind, SCHEMA[column.of].unit)
    assert timed("speedup_low")
    assert not timed("size_ratio")


def test_every_column_has_a_description() -> None:
    assert all(re.fullmatch(r"[A-Z].+\.", column.doc) for column in SCHEMA.values())


def test_headings_name_the_strategy_that_runs_are_compared_with() -> None:
    assert heading("accuracy_change") == "Δ accuracy (pp)"
    assert heading("speedup_against", "finetune") == "speedup vs finetune"
    headings = [heading(name, "other") for name in SCHEMA if SCHEMA[name].heading]
    assert len(set(headings)) == len(headings)


def test_a_void_timing_is_shown_as_invalid() -> None:
    assert display_table(frame([row("qat", speed="void")]))["speed"].tolist() == ["invalid"]
