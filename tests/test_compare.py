"""The comparison table, for people and for files."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.compare import COLUMNS, WRITERS, for_people, frame

GOLDEN = Path(__file__).parent / "golden" / "comparison.md"


def row(strategy: str, **changes: Any) -> dict[str, Any]:
    return {
        "strategy": strategy, "model": "article_cnn", "dataset": "mnist", "epochs": 1, "finetune_epochs": 0, "seed": 0,
        "keras_accuracy": 0.9765, "tflite_accuracy": 0.9765,
        "tflite_accuracy_low": 0.9734, "tflite_accuracy_high": 0.9793,
        "accuracy_change": 0.0, "accuracy_change_low": -0.0003, "accuracy_change_high": 0.0003,
        "accuracy_change_p": 1.0, "agreement": 1.0,
        "tflite_bytes": 599620.0, "tflite_gzip_bytes": 553386.0, "size_ratio": 1.0,
        "latency_p50_us": 410.4, "latency_p90_us": 420.0, "latency_p99_us": 500.0, "latency_min_us": 400.0,
        "speedup": 1.001, "speedup_low": 0.992, "speedup_high": 1.011, "speed": "equivalent",
        "arithmetic": "4 float32", "coverage_ops": 0.0, "coverage_weights": 0.0, "coverage_macs": 0.0,
        "train_seconds": 60.0, "epochs_trained": 1.0, "epochs_reused": 0.0, "cpu": "a CPU", "git_commit": "abc",
        "run_id": f"run-{strategy}", "status": "FINISHED", "error": None,
        **changes,
    }  # fmt: skip


ROWS = [
    row("none"),
    row("qat", finetune_epochs=1, tflite_accuracy=0.9812, accuracy_change=0.0047, accuracy_change_low=0.0021,
        accuracy_change_high=0.0073, tflite_bytes=156664.0, size_ratio=3.827, latency_p50_us=110.2, speedup=3.72,
        speedup_low=3.69, speedup_high=3.75, speed="faster", arithmetic="4 int8"),
]  # fmt: skip
FAILED = {"strategy": "annotate", "model": "article_cnn", "dataset": "mnist", "epochs": 1, "finetune_epochs": 1,
          "seed": 0, "run_id": "run-annotate", "status": "FAILED", "error": "no such layer"}  # fmt: skip


def test_the_markdown_table_is_the_golden_one(tmp_path: Path) -> None:
    WRITERS["markdown"](frame(ROWS), tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text() == GOLDEN.read_text()


def test_the_csv_holds_every_column_in_full_precision(tmp_path: Path) -> None:
    WRITERS["csv"](frame(ROWS), tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv")
    assert list(read.columns) == list(COLUMNS)
    assert read.loc[1, "speedup_low"] == 3.69


def test_sizes_and_epochs_are_whole_numbers_in_the_csv(tmp_path: Path) -> None:
    WRITERS["csv"](frame(ROWS), tmp_path / "table.csv")
    assert ",156664," in (tmp_path / "table.csv").read_text()


def test_a_failed_run_keeps_its_row_and_has_empty_cells() -> None:
    shown = for_people(frame([*ROWS, FAILED]))
    last = shown.iloc[-1]
    assert (last["strategy"], last["bytes"], last["status"]) == ("annotate", "", "FAILED")


def test_a_run_without_a_measurement_is_not_zero() -> None:
    assert pd.isna(frame([FAILED])["tflite_accuracy"].iloc[0])


def test_a_setting_that_varies_becomes_a_column() -> None:
    shown = for_people(frame([*ROWS, row("none", epochs=5)]))
    assert list(shown["epochs"]) == ["1", "1", "5"]
    assert "seed" not in shown.columns


def test_runs_that_differ_in_one_setting_only_are_told_apart() -> None:
    rows = [row("qat", **{"finetune.epochs": n, "tracking.uri": f"sqlite:///{n}.db"}) for n in ("1", "5")]
    shown = for_people(frame(rows))
    assert list(shown["finetune.epochs"]) == ["1", "5"]
    assert "tracking.uri" not in shown.columns


@pytest.mark.parametrize(("value", "shown"), [(11718.4, "11,718"), (110.2, "110"), (53.04, "53.0"), (2.345, "2.35")])
def test_a_latency_keeps_three_digits(value: float, shown: str) -> None:
    assert for_people(frame([row("qat", latency_p50_us=value)]))["latency p50 us"].iloc[0] == shown


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_is_written(form: str, tmp_path: Path) -> None:
    WRITERS[form](frame([*ROWS, FAILED]), tmp_path / "table")
    assert "qat" in (tmp_path / "table").read_text()


def test_html_shows_what_users_named_as_text(tmp_path: Path) -> None:
    WRITERS["html"](frame([row("<script>")]), tmp_path / "table.html")
    assert "<script>" not in (tmp_path / "table.html").read_text()
