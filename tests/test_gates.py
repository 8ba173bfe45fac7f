"""Rows by a condition, and the run to ship."""

from typing import Any

import numpy as np
import pytest

from experiments.comparison.columns import frame
from experiments.comparison.gates import Decision, decide, decision_lines, requirement
from experiments.comparison.query import matrix, select_columns, select_rows, sort_rows
from experiments.statistics.estimates import proportion
from experiments.system.errors import UserError
from tests.rows import FAILED, row

RUNS = frame(
    [
        row("none", tflite_accuracy_low=0.985, tflite_bytes=600_000.0, latency_p50_us=400.0, verified="true"),
        row("qat", tflite_accuracy_low=0.981, tflite_bytes=150_000.0, latency_p50_us=110.0, verified="true"),
        row("ptq_int8", tflite_accuracy=0.99, tflite_accuracy_low=0.97, tflite_bytes=150_000.0, verified="true"),
        row("annotate", tflite_accuracy_low=0.99, latency_p50_us=1.0, tflite_bytes=1.0, verified="false"),
        FAILED,
    ]
)


def chosen(*requirements: str, minimize: str = "tflite_bytes") -> str | None:
    run = decide(RUNS, [requirement(text, RUNS) for text in requirements], minimize, lowest=True).chosen
    return None if run is None else str(run["strategy"])


def test_the_smallest_run_that_meets_all_requirements_is_shipped() -> None:
    assert chosen("tflite_accuracy >= 0.98") == "qat"


def test_a_requirement_is_judged_at_the_worse_end_of_the_interval() -> None:
    assert chosen("tflite_accuracy >= 0.98", "tflite_bytes <= 200_000") == "qat"  # ptq_int8 has 0.99, perhaps 0.97


def measured(strategy: str, hits: int, images: int = 1000, **changes: Any) -> dict[str, Any]:
    """A run that has so many images right."""
    return row(strategy, **proportion(hits, images).columns("tflite_accuracy"), verified="true", **changes)


def shipped(rows: list[dict[str, Any]], text: str) -> Decision:
    table = frame(rows)
    return decide(table, [requirement(text, table)], "tflite_bytes", lowest=True)


def test_one_run_is_judged_by_its_interval_alone_and_of_many_all_together() -> None:
    barely = [measured(f"s{n}", 989) for n in range(10)]  # its interval ends at 0.9804
    assert shipped(barely[:1], "tflite_accuracy >= 0.98").chosen is not None
    decision = shipped(barely, "tflite_accuracy >= 0.98")
    assert decision.chosen is None
    assert (
        "met by itself, but not at 95 % after Holm's correction for all 10 rows"
        in decision_lines(decision, "tflite_bytes", True)[0]
    )


def test_a_clearly_better_run_meets_a_requirement_among_many() -> None:
    rows = [measured("good", 998), *(measured(f"s{n}", 960) for n in range(14))]
    chosen = shipped(rows, "tflite_accuracy >= 0.98").chosen
    assert chosen is not None
    assert chosen["strategy"] == "good"


def test_of_many_runs_that_only_just_miss_a_bound_hardly_any_is_shipped() -> None:
    rng = np.random.default_rng(0)
    wrong = [
        shipped([measured(f"s{n}", hits) for n, hits in enumerate(rng.binomial(1000, 0.98, 15))],
                "tflite_accuracy > 0.98").chosen is not None
        for _ in range(60)
    ]  # fmt: skip
    assert np.mean(wrong) <= 0.1


def test_a_speedup_is_judged_on_its_logarithm() -> None:
    interval = {"speedup": 2.0, "speedup_low": 1.6, "speedup_high": 2.5, "verified": "true", "speed": "faster"}
    assert shipped([row("qat", **interval)], "speedup >= 1.6").chosen is not None
    assert shipped([row("qat", **interval)], "speedup >= 1.61").chosen is None


def test_other_runs_with_the_file_to_ship_are_named() -> None:
    decision = shipped([measured(name, 999, tflite_sha256="a") for name in ("one", "two")], "tflite_accuracy > 0.9")
    assert decision_lines(decision, "tflite_bytes", True)[-1].endswith(
        "The same file, byte for byte: two epochs=1 seed=0 (run-two)."
    )


def test_runs_of_several_models_are_named_with_their_model() -> None:
    table = frame([measured("qat", 999), measured("qat", 900, model="mlp", run_id="other")])
    lines = decision_lines(
        decide(table, [requirement("tflite_accuracy > 0.95", table)], "tflite_bytes", True), "tflite_bytes", True
    )
    assert lines[0] == "not tflite_accuracy > 0.95: qat mlp epochs=1 seed=0 (other)"
    assert lines[1].startswith("Ship qat article_cnn epochs=1 seed=0 (run-qat): ")


INT8: dict[str, Any] = {"size_ratio": 3.8, "coverage_ops": 1.0, "verified": "true"}
INT8 |= {"speedup": 3.3, "speedup_low": 3.2, "speedup_high": 3.4, "speed": "faster"}


def test_of_files_that_no_test_tells_apart_the_gate_ships_the_simplest_and_names_the_others() -> None:
    """The most accurate by a hair is trained with fake quantization; its control is as good, and smaller."""
    table = frame(
        [
            row("ptq_int8", tflite_bytes=156_296.0, **proportion(960, 1000).columns("tflite_accuracy"), **INT8),
            row("finetune_ptq_int8", finetune_epochs=1, tflite_bytes=156_296.0,
                **proportion(988, 1000).columns("tflite_accuracy"), **INT8),
            row("qat", finetune_epochs=1, tflite_bytes=156_896.0,
                **proportion(989, 1000).columns("tflite_accuracy"), **INT8),
        ]
    )  # fmt: skip
    decision = decide(table, [], "tflite_accuracy", lowest=False)
    (line,) = decision_lines(decision, "tflite_accuracy", lowest=False)
    assert line == (
        "Ship finetune_ptq_int8 epochs=1 seed=0 (run-fine): tflite_accuracy 0.988 (at worst 0.979143) is not "
        "significantly different from the highest of the remaining runs (qat, 0.989). No winner: it is tied with qat "
        "epochs=1 seed=0 (run-qat), and the simplest of them (fewest bytes)."
    )
    fastest = decide(table, [requirement("tflite_bytes < 200_000", table)], "speedup", lowest=False)
    assert fastest.chosen is not None
    assert (fastest.chosen["strategy"], len(fastest.tied)) == ("ptq_int8", 2)


def test_a_file_that_is_not_verified_is_never_shipped() -> None:
    assert chosen(minimize="latency_p50_us") != "annotate"


def test_no_run_is_shipped_if_none_qualifies() -> None:
    assert chosen("tflite_accuracy > 0.999") is None


def test_a_run_without_a_measurement_meets_no_requirement() -> None:
    assert chosen("arena_bytes < 1e9") is None


def test_an_invalid_timing_meets_no_requirement_on_time() -> None:
    table = frame([row("qat", speed="void", speedup_low=3.0, verified="true")])
    assert decide(table, [requirement("speedup > 2", table)], "tflite_bytes", lowest=True).chosen is None
    assert decide(table, [], "tflite_bytes", lowest=True).chosen is not None


def test_runs_for_several_data_sets_do_not_compete() -> None:
    table = frame([row("qat", verified="true"), row("qat", dataset="cifar10", run_id="other", verified="true")])
    with pytest.raises(UserError, match=r"not of several \(mnist, cifar10\)"):
        decide(table, [], "tflite_bytes", lowest=True)


def test_files_of_one_option_with_different_images_do_not_compete() -> None:
    own = [row("qat", run_id=name, **{"dataset.path": name}) for name in ("a.npz", "b.npz")]
    with pytest.raises(UserError, match=r"not of several \(a, b\)"):
        decide(frame(own), [], "tflite_bytes", lowest=True)


def test_a_file_of_an_implausible_baseline_is_named_with_a_warning() -> None:
    table = frame(
        [row("none"), row("ptq_int8", tflite_bytes=9.0, warnings="at chance: always the same. Type: epochs=5")]
    )
    lines = decision_lines(decide(table, [], "tflite_bytes", lowest=True), "tflite_bytes", True)
    assert "Warning: its baseline is implausible (at chance). Check it before you ship this file." in lines[-1]


BINARY = {"task": "binary", "metric": "accuracy", "metric_better": "higher"}


def test_runs_that_are_judged_by_other_settings_of_the_task_do_not_compete() -> None:
    rows = [row("none", **BINARY, **{"task.threshold": limit}, run_id=limit) for limit in ("0.5", "0.7")]
    with pytest.raises(UserError, match=r"several settings of the task \(threshold=0.5; threshold=0.7\)") as refusal:
        decide(frame(rows), [], "tflite_bytes", lowest=True)
    _, quote, rest = str(refusal.value).partition("--where '")
    assert quote
    assert select_rows(frame(rows), rest.partition("'")[0])["run_id"].tolist() == ["0.5"]


def test_a_decision_lists_what_was_excluded() -> None:
    faster = RUNS["strategy"] == "qat"
    table = RUNS.assign(**{f"speedup{end}": RUNS[f"speedup{end}"].mask(faster, 3.7) for end in ("", "_low", "_high")})
    decision = decide(table, [requirement("tflite_accuracy >= 0.98", table)], "latency_p50_us", lowest=True)
    assert decision_lines(decision, "latency_p50_us", lowest=True) == [
        "not finished: annotate epochs=1 seed=0 (run-anno)",
        "not verified: annotate epochs=1 seed=0 (run-anno)",
        "not tflite_accuracy >= 0.98: ptq_int8 epochs=1 seed=0 (run-ptq_)",
        "Ship qat epochs=1 seed=0 (run-qat): latency_p50_us 110 is the lowest of the remaining runs.",
    ]


def test_of_many_excluded_runs_the_first_are_named_and_the_others_counted() -> None:
    table = frame([row("none", run_id=f"{n:08d}") for n in range(25)])
    (line, _) = decision_lines(
        decide(table, [requirement("tflite_accuracy >= 1", table)], "tflite_bytes", True), "tflite_bytes", True
    )
    assert line.count("none epochs=1") == 20
    assert line.endswith(" and 5 more")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy above 98", "requires a column, one of"),
        ("tflite_acuracy >= 0.98", "Did you mean tflite_accuracy"),
        ("tflite_accuracy >= 1e", "requires a column, one of"),
        ("strategy >= 1", "requires a numeric column"),
    ],
)
def test_a_requirement_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        requirement(text, RUNS)


def test_rows_are_those_of_the_condition() -> None:
    assert list(select_rows(RUNS, "strategy == 'qat' and epochs >= 1")["strategy"]) == ["qat"]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("strateg == 'qat'", "Did you mean strategy"),
        ("`finetune.epoch` == 1", r"no column is named 'finetune.epoch'. Did you mean finetune"),
        ("strategy.layers == 1", "attributes are not supported.*names with a dot in backquotes"),
        ("strategy ==", "Write it as in"),
        ("epochs > 'five'", "Write it as in"),
        ("1 + 1", "--where"),
        ("epochs", "this is a value, not a condition"),
        ("strategy", "this is a value, not a condition"),
    ],
)
def test_a_condition_that_cannot_be_read_is_refused(condition: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select_rows(RUNS, condition)


def test_rows_have_the_requested_order() -> None:
    assert list(sort_rows(RUNS, ["-latency_p50_us", "strategy"])["strategy"]) == [
        "ptq_int8", "none", "qat", "annotate", "annotate",
    ]  # fmt: skip


def test_an_order_by_an_unknown_column_is_refused() -> None:
    with pytest.raises(UserError, match="Did you mean speedup"):
        sort_rows(RUNS, ["speedu"])


def test_times_of_different_machines_decide_nothing() -> None:
    table = frame([row("none", machine="a"), row("qat", machine="b")])
    for ask in (
        lambda: decide(table, [], "latency_p50_us", lowest=True),
        lambda: decide(table, [requirement("speedup > 1", table)], "tflite_bytes", lowest=True),
        lambda: matrix(table, "strategy", "epochs", "latency_p50_us"),
    ):
        with pytest.raises(UserError, match="different machines"):
            ask()


def test_a_matrix_holds_a_value_by_two_settings() -> None:
    rows = [row(name, epochs=epochs, seed=seed, tflite_accuracy=0.9 + epochs / 100 + seed / 1000)
            for name in ("qat", "none") for epochs in (5, 1) for seed in (0, 1)]  # fmt: skip
    found = matrix(frame(rows), "strategy", "epochs", "tflite_accuracy")
    assert list(found.index) == ["qat", "none"]
    assert [int(str(epochs)) for epochs in found.columns] == [1, 5]
    assert found.loc["qat", 1] == pytest.approx(0.9105)  # of two seeds, the mean


def test_a_setting_of_numbers_is_compared_and_ordered_by_value() -> None:
    table = frame([row("cluster", run_id=n, **{"strategy.clusters": n}) for n in ("16", "2", "8", "4")])
    assert list(select_rows(table, "`strategy.clusters` > 4")["run_id"]) == ["16", "8"]
    columns = matrix(table, "strategy", "strategy.clusters", "tflite_bytes").columns
    assert list(map(str, columns)) == ["2", "4", "8", "16"]


def test_an_invalid_timing_counts_in_no_mean() -> None:
    table = frame([row("qat", speedup=3.0), row("qat", seed=1, speedup=50.0, speed="void")])
    assert matrix(table, "strategy", "epochs", "speedup").to_numpy().tolist() == [[3.0]]


def test_runs_without_a_setting_are_listed_under_an_empty_one() -> None:
    layers = [{"strategy.layers": "['dense']"}, {"strategy.layers": "['conv']"}]
    table = frame([row("qat"), *(row("annotate", **each) for each in layers)])
    assert list(matrix(table, "strategy.layers", "epochs", "tflite_bytes").index) == ["", "['dense']", "['conv']"]


@pytest.mark.parametrize("text", ["tflite_accuracy >= 0.5", "speedup >= 1"])
def test_a_value_without_an_interval_is_judged_itself(text: str) -> None:
    ends = ("tflite_accuracy_low", "tflite_accuracy_high", "speedup_low", "speedup_high")
    table = frame([row("qat", **dict.fromkeys(ends, float("nan")))])
    decision = decide(table, [requirement(text, table)], "tflite_bytes", lowest=True)
    assert decision.chosen is not None
    assert not any("nan" in line for line in decision_lines(decision, "speedup", lowest=False))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("strategy", "epoch", "tflite_accuracy"), "Did you mean epochs"),
        (("strategy", "epochs", "arithmetic"), "requires a numeric"),
        (("epochs", "epochs", "tflite_accuracy"), "three different columns"),
        (("strategy", "epochs", "epochs"), "three different columns"),
    ],
)
def test_a_matrix_that_cannot_be_made_is_refused(asked: tuple[str, str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        matrix(RUNS, *asked)


def test_a_matrix_without_any_value_is_refused() -> None:
    with pytest.raises(UserError, match="no run has a value in arena_bytes"):
        matrix(RUNS.assign(arena_bytes=float("nan")), "strategy", "epochs", "arena_bytes")


def test_columns_have_the_requested_order() -> None:
    assert list(select_columns(RUNS, ["tflite_bytes", "strategy"]).columns) == ["tflite_bytes", "strategy"]


def test_a_table_keeps_its_columns() -> None:
    assert list(select_rows(RUNS, "epochs == 1").columns) == list(RUNS.columns)
