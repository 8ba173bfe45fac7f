"""What became worse since an earlier sweep."""

import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import compare
from experiments.comparison.columns import frame
from experiments.comparison.files import FORMS
from experiments.comparison.regressions import Allowance, allowance, read_earlier, regressions, remarks
from experiments.system.errors import UserError
from tests.rows import FAILED, row

BEFORE = frame([row("none", machine="a"), row("qat", machine="a", tflite_accuracy=0.98, latency_p50_us=100.0)])


def drop(text: str) -> Allowance:
    return allowance(text, "drop", BEFORE)


def growth(text: str) -> Allowance:
    return allowance(text, "growth", BEFORE)


@pytest.mark.parametrize(("accuracy", "worse"), [(0.981, 0), (0.976, 0), (0.974, 1)])
def test_a_drop_is_allowed_up_to_its_amount(accuracy: float, worse: int) -> None:
    now = frame([row("none"), row("qat", tflite_accuracy=accuracy)])
    assert len(regressions(BEFORE, now, [drop("tflite_accuracy=0.005")])) == worse


def test_exactly_what_is_allowed_is_allowed_whatever_floating_point_makes_of_it() -> None:
    before = frame([row("qat", tflite_accuracy=0.99)])
    now = frame([row("qat", tflite_accuracy=0.985)])
    assert 0.99 - 0.985 > 0.005
    assert regressions(before, now, [drop("tflite_accuracy=0.005")]) == []


@pytest.mark.parametrize(("latency", "worse"), [(50.0, 0), (109.0, 0), (111.0, 1)])
def test_a_growth_is_allowed_up_to_its_share(latency: float, worse: int) -> None:
    now = frame([row("none", machine="a"), row("qat", machine="a", latency_p50_us=latency)])
    assert len(regressions(BEFORE, now, [growth("latency_p50_us=10%")])) == worse


def test_a_regression_of_one_of_several_models_names_its_model() -> None:
    before, now = (frame([row("qat", run_id="a"), row("qat", model="mlp", run_id="b", tflite_accuracy=accuracy)])
                   for accuracy in (0.98, 0.9))  # fmt: skip
    (line,) = regressions(before, now, [drop("tflite_accuracy=0.005")])
    assert line.startswith("qat mlp epochs=1 seed=0: tflite_accuracy was 0.98")


def test_a_regression_shows_both_values() -> None:
    now = frame([row("qat", tflite_accuracy=0.9)])
    assert regressions(BEFORE, now, [drop("tflite_accuracy=0.005")]) == [
        "qat epochs=1 seed=0: tflite_accuracy was 0.98 and is 0.9; the allowed drop is 0.005"
    ]


def test_a_value_that_is_gone_is_worse() -> None:
    now = frame([row("none", tflite_accuracy=None)])
    (told,) = regressions(BEFORE, now, [drop("tflite_accuracy=0.5")])
    assert "and is missing" in told


def test_latencies_of_different_machines_are_refused() -> None:
    with pytest.raises(UserError, match="different machines"):
        regressions(BEFORE, frame([row("none", machine="b")]), [growth("latency_p50_us=10%")])


def test_accuracies_of_different_machines_are_compared() -> None:
    assert regressions(BEFORE, frame([row("none", machine="b")]), [drop("tflite_accuracy=0.005")]) == []


def test_sweeps_without_a_common_setting_are_refused() -> None:
    with pytest.raises(UserError, match="no earlier run has the settings"):
        regressions(BEFORE, frame([FAILED]), [drop("tflite_accuracy=0.005")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tflite_accuracy", "as in tflite_accuracy=0.005"),
        ("accuracy=1", "Did you mean"),
        ("strategy=1", "requires a numeric column"),
        ("epochs=1", "is a setting"),
    ],
)
def test_an_allowance_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        drop(text)


ERRORS: dict[str, Any] = {
    **{name: None for name in row("none") if "accuracy" in name},
    "task": "regression", "metric": "mae", "metric_better": "lower", "tflite_score": 2.0,
}  # fmt: skip


def test_only_the_direction_in_which_a_score_becomes_worse_is_limited() -> None:
    before, now = (frame([row("qat", **{**ERRORS, "tflite_score": score})]) for score in (2.0, 3.0))
    assert len(regressions(before, now, [allowance("tflite_score=10%", "growth", now)])) == 1
    with pytest.raises(UserError, match=r"is MAE, and lower values are better. Type --max-growth tflite_score=10%"):
        allowance("tflite_score=10%", "drop", now)
    with pytest.raises(UserError, match=r"is accuracy, and higher values are better. Type --max-drop"):
        growth("tflite_score=0.1")


def test_scores_of_different_metrics_are_refused() -> None:
    before, now = (frame([row("qat", **{**ERRORS, "metric": metric})]) for metric in ("mae", "rmse"))
    limit = allowance("tflite_score=10%", "growth", now)
    with pytest.raises(UserError, match=r"the same metric in both sweeps; it was mae and is rmse"):
        regressions(before, now, [limit], by_name=True)
    with pytest.raises(UserError, match="no earlier run has the settings"):
        regressions(before, now, [limit])


def test_a_failed_run_of_another_task_is_compared_with_equal_runs() -> None:
    failed = {"metric": None, "metric_better": None, "task": None, "tflite_score": None, "status": "FAILED"}
    before = frame([row("none", **ERRORS), row("qat", **ERRORS)])
    now = frame([row("none", **ERRORS), row("qat", **{**ERRORS, **failed})])
    (told,) = regressions(before, now, [allowance("tflite_score=10%", "growth", now)])
    assert told.startswith("qat epochs=1 seed=0: tflite_score was 2 and is missing")


def test_an_earlier_comparison_is_read_as_it_was_written(tmp_path: Path) -> None:
    FORMS["csv"].write(BEFORE, tmp_path / "previous.csv")
    assert regressions(read_earlier(tmp_path / "previous.csv"), BEFORE, [drop("tflite_accuracy=0")]) == []


@pytest.mark.parametrize("machine", ["12345678", "12e45678"])
def test_a_machine_whose_name_looks_like_a_number_is_the_same_machine(tmp_path: Path, machine: str) -> None:
    table = frame([row("none", machine=machine)])
    FORMS["csv"].write(table, tmp_path / "previous.csv")
    assert regressions(read_earlier(tmp_path / "previous.csv"), table, [growth("latency_p50_us=10%")]) == []


@pytest.mark.parametrize("values", [("None", "0.5"), ("1", "0.5"), ("2", "4")])
def test_every_setting_of_an_earlier_comparison_is_found_again(tmp_path: Path, values: tuple[str, str]) -> None:
    rows = [row("prune", **{"strategy.end": value, "tflite_bytes": 9.0}) for value in values]
    FORMS["csv"].write(frame(rows), tmp_path / "previous.csv")
    larger = frame([{**each, "tflite_bytes": 10.0} for each in rows])
    assert len(regressions(read_earlier(tmp_path / "previous.csv"), larger, [growth("tflite_bytes=0")])) == 2


def test_a_setting_is_found_again_where_it_is_written_in_another_way() -> None:
    words, numbers = (
        frame([row("prune", **{"strategy.end": value}) for value in ("2", other)]) for other in ("None", "0.5")
    )
    assert regressions(words, numbers, [growth("tflite_bytes=0")]) == []


@pytest.mark.parametrize("earlier_varies", [True, False])
def test_runs_that_differ_in_a_setting_of_one_side_only_are_refused(earlier_varies: bool) -> None:
    alone = frame([row("qat")])
    varied = frame([row("qat", **{"latency.threads": threads}) for threads in ("1", "2")])
    before, now = (varied, alone) if earlier_varies else (alone, varied)
    with pytest.raises(
        UserError, match=r"latency\.threads varies in only one of the two .* --where '`latency\.threads` =="
    ):
        regressions(before, now, [growth("latency_p50_us=10%")])


def test_a_setting_of_one_side_that_tells_no_paired_runs_apart_is_no_obstacle() -> None:
    varied = [row("annotate", **{"strategy.layers": layers}) for layers in LAYERS]
    assert regressions(frame([row("none"), *varied]), frame([row("none")]), [growth("tflite_bytes=0")]) == []


def test_of_runs_with_the_same_settings_the_newest_counts() -> None:
    runs = frame([row("none", tflite_bytes=9.0), row("none", tflite_bytes=8.0)])
    before = frame([row("none", tflite_bytes=8.0)])
    assert regressions(before, runs.sort_values("tflite_bytes"), [growth("tflite_bytes=0")]) == []


def test_a_failed_run_counts_only_where_no_other_has_its_settings() -> None:
    failed = {**FAILED, "strategy": "none", "finetune_epochs": 0}
    assert regressions(frame([row("none")]), frame([row("none"), failed]), [drop("tflite_bytes=0")]) == []


def test_runs_that_differ_in_a_setting_are_compared_with_equal_runs(tmp_path: Path) -> None:
    rows = [row("annotate", **{"strategy.layers": layers, "tflite_bytes": size}) for layers, size in LAYERS.items()]
    FORMS["csv"].write(frame(rows), tmp_path / "previous.csv")
    assert regressions(read_earlier(tmp_path / "previous.csv"), frame(rows), [growth("tflite_bytes=0")]) == []


LAYERS = {"['dense']": 200_000.0, "2": 300_000.0}


LATENCY = growth("latency_p50_us=10%")


def test_a_timing_that_is_invalid_now_is_worse_than_a_valid_one() -> None:
    before, now = frame([row("none", machine="a")]), frame([row("none", machine="a", speed="void")])
    (line,) = regressions(before, now, [LATENCY])
    assert "is unknown, since the timing is invalid" in line


def test_an_earlier_timing_that_is_invalid_judges_nothing_and_is_named() -> None:
    before = frame([row("none", machine="a", speed="void")])
    now = frame([row("none", machine="a", latency_p50_us=9000.0)])
    assert regressions(before, now, [LATENCY]) == []
    assert remarks(before, now, [LATENCY]) == [
        "none epochs=1 seed=0: the earlier timing is invalid, so latencies are not compared."
    ]


def test_a_comparison_with_runs_that_were_never_timed_is_judged(tmp_path: Path) -> None:
    table = frame([row("none", machine="a"), {**FAILED, "machine": "a"}])
    FORMS["csv"].write(table, tmp_path / "previous.csv")
    before = read_earlier(tmp_path / "previous.csv")
    assert [regressions(before, table, [LATENCY]), remarks(before, table, [LATENCY])] == [[], []]


@pytest.mark.parametrize("samples", ["None", "2000"])
def test_runs_requested_with_other_settings_are_named(samples: str) -> None:
    before, now = (frame([row("none", **{"training.batch_size": each})]) for each in ("None", samples))
    assert len(remarks(before, now, [])) == (samples == "2000")


def test_settings_that_differ_for_every_run_are_one_remark() -> None:
    before, now = (
        frame([row(name, **{"training.batch_size": size}) for name in ("none", "qat")]) for size in ("1", "2")
    )
    (line,) = remarks(before, now, [])
    assert line.startswith("All 2 runs: the settings differ,")


class Kept:
    """A store with one run, from which nothing may be registered."""

    def rows(self, _: str) -> list[dict[str, Any]]:
        return [row("none", tflite_bytes=10.0)]

    def count_others(self) -> int:
        return 0

    def read_evidence(self, _: str) -> None:
        return None


@pytest.mark.parametrize(("required", "exit_code"), [("tflite_bytes <= 10", 4), ("tflite_bytes <= 9", 3)])
def test_what_a_gate_refuses_is_not_registered(
    required: str, exit_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FORMS["csv"].write(frame([row("none", tflite_bytes=9.0)]), tmp_path / "previous.csv")
    gates = ["--require", required, "--against", str(tmp_path / "previous.csv"), "--max-growth", "tflite_bytes=0"]
    monkeypatch.setattr(compare, "open_existing", lambda *_: Kept())
    monkeypatch.setattr(sys, "argv", ["compare", "--register", "shipped", *gates])

    with pytest.raises(SystemExit) as ended:
        compare.main()

    assert ended.value.code == exit_code
    assert "tflite_bytes was 9 and is 10" in capsys.readouterr().out


@pytest.mark.parametrize(("content", "message"), [(None, "cannot be read"), ("a,b\n1,2\n", "the columns strategy")])
def test_a_file_that_is_not_a_comparison_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "previous.csv"
    if content:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_earlier(path)


def test_earlier_runs_without_a_counterpart_are_counted() -> None:
    lines = remarks(BEFORE, frame([row("none", machine="a")]), [drop("tflite_accuracy=0.1")])
    assert lines == ["1 of 2 earlier runs were compared; no run here has the settings of the rest."]


@pytest.mark.parametrize("column", ["seed", "tflite_bytes"])
def test_text_where_a_number_is_needed_is_named(column: str, tmp_path: Path) -> None:
    BEFORE.assign(**{column: "97%"}).to_csv(tmp_path / "previous.csv", index=False)
    with pytest.raises(UserError, match=f"{column}=97% in the earlier comparison is not a number"):
        regressions(read_earlier(tmp_path / "previous.csv"), BEFORE, [growth("tflite_bytes=1%")])
