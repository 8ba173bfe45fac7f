"""Runs pooled over seeds and other settings, and held against the runs of one strategy."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.comparison.baseline import trained_less, unmatched, with_baseline
from experiments.comparison.columns import COLUMNS, GROUPED, JUDGED_BY, cell_of, frame, without_internal_columns
from experiments.comparison.display import OF_RUNS, OF_SEEDS, TO_FLOAT, TO_STRATEGY, display_table, note
from experiments.comparison.gates import decide, decision_lines
from experiments.comparison.groups import group_runs, seeds_to_pool
from experiments.comparison.names import names
from experiments.comparison.terminal import style_cells
from experiments.record.evidence import Predictions
from experiments.statistics.estimates import Estimate, ratio_of_speedups
from experiments.system.errors import UserError
from tests.rows import FAILED, ROWS, digests, predictions, row, seeds


def known(wrong: Mapping[str, int], **changes: Any) -> Callable[[str], Predictions | None]:
    """What runs say: they err on so many images, by the beginning of their id."""
    return lambda run_id: next(
        (predictions(n, **changes) for begin, n in wrong.items() if run_id.startswith(begin)), None
    )


def pooled(rows: list[dict[str, Any]], wrong: Mapping[str, int], **changes: Any) -> pd.DataFrame:
    table = frame(rows)
    return group_runs(table, cell_of(table), known(wrong, **changes)).table


def test_runs_that_differ_in_their_seeds_only_are_one_row() -> None:
    table = pooled([*seeds("none", 3), *seeds("qat", 2)], {"none": 5, "qat": 3}, wrong_reference=4)
    assert list(zip(table["strategy"], table["seeds"], table["images"], strict=True)) == [
        ("none", 3, 100),
        ("qat", 2, 100),
    ]
    assert list(table["tflite_accuracy"]) == pytest.approx([0.95, 0.97])
    assert list(table["accuracy_change"]) == pytest.approx([-0.01, 0.01])
    assert (table["tflite_accuracy_low"] < table["tflite_accuracy"]).all()


def test_a_group_has_the_columns_of_runs_and_its_counts() -> None:
    assert list(without_internal_columns(pooled(seeds("qat", 2), {"qat": 3}))) == [*COLUMNS, *GROUPED]


def test_a_run_alone_keeps_its_own_row() -> None:
    table = pooled([*seeds("none", 2), row("qat", speedup=3.3)], {"none": 5, "qat": 3})
    alone = table.iloc[1]
    assert (alone["tflite_accuracy_low"], alone["speedup"], alone["run_id"]) == (
        0.9734,
        3.3,
        "run-qat",
    )


def test_a_speedup_over_seeds_is_a_geometric_mean_with_an_interval() -> None:
    rows = [row("qat", seed=n, run_id=f"qat-{n}", speedup=speedup) for n, speedup in enumerate([2.0, 4.0, 2.0, 4.0])]
    (group,) = pooled(rows, {"qat": 3}).to_dict("records")
    assert group["speedup"] == pytest.approx(math.sqrt(8))
    assert group["speedup_low"] < group["speedup"] < group["speedup_high"]
    assert group["speed"] == "faster"


def test_invalid_timings_are_not_pooled() -> None:
    rows = [*seeds("qat", 2, speedup=3.0), row("qat", seed=2, run_id="qat-2", speedup=9.0, speed="void")]
    assert pooled(rows, {"qat": 3})["speedup"].tolist() == pytest.approx([3.0])


def test_of_one_valid_timing_the_interval_and_the_verdict_are_its_own() -> None:
    lone = row("qat", speedup=3.0, speedup_low=0.5, speedup_high=9.0, speed="unclear")
    void = [row("qat", seed=n, run_id=f"qat-{n}", speed="void") for n in (1, 2)]
    (group,) = pooled([lone, *void], {"": 3}).to_dict("records")
    assert [group[name] for name in ("speedup", "speedup_low", "speedup_high", "speed")] == [3.0, 0.5, 9.0, "unclear"]


def test_an_invalid_timing_that_is_not_pooled_is_reported() -> None:
    table = frame([*seeds("qat", 2), row("qat", seed=2, run_id="qat-2", speed="void")])
    assert group_runs(table, cell_of(table), known({"qat": 3})).left_out == (
        "qat epochs=1 seed=2 (qat-2): its invalid timing is omitted from its group",
    )


def test_times_of_several_machines_are_not_pooled() -> None:
    rows = [row("qat", seed=n, run_id=f"qat-{n}", machine=machine) for n, machine in enumerate("ab")]
    (group,) = pooled(rows, {"qat": 3}).to_dict("records")
    assert math.isnan(group["latency_p50_us"])
    assert math.isnan(group["speedup_low"])


def test_a_fault_of_one_run_is_a_fault_of_its_group() -> None:
    rows = [*seeds("qat", 2), row("qat", seed=2, run_id="qat-2", verified="false", broken_promise="dense is float")]
    (group,) = pooled(rows, {"qat": 3}).to_dict("records")
    assert (group["verified"], group["broken_promise"]) == ("false", "dense is float")


def test_other_epochs_or_settings_are_other_groups() -> None:
    rows = [*seeds("qat", 2), *seeds("qat", 2, epochs=5), *seeds("qat", 2, **{"strategy.ranges": "calibrated"})]
    shown = display_table(pooled([{**each, "run_id": f"qat-{n}"} for n, each in enumerate(rows)], {"qat": 5}))
    assert list(shown["epochs"]) == ["1", "5", "1"]
    assert list(shown["strategy.ranges"]) == ["", "", "calibrated"]
    assert list(shown["seeds"]) == [2, 2, 2]
    assert "model" not in shown.columns


def test_a_setting_that_differs_between_seeds_keeps_runs_apart() -> None:
    rows = [row("qat", seed=n, **{"strategy.rest": rest}) for n, rest in enumerate(["none", "dynamic"])]
    assert not seeds_to_pool(frame(rows))


def test_one_seed_is_not_pooled() -> None:
    assert not seeds_to_pool(frame(ROWS))


def test_the_same_seed_twice_is_one_seed_and_its_newest_run_counts() -> None:
    rows = [row("qat", run_id="old", agreement=0.5), row("qat", run_id="new", agreement=0.9)]
    assert not seeds_to_pool(frame(rows))
    (group,) = pooled([*rows, row("qat", run_id="other", seed=1, agreement=0.8)], {"": 5}).to_dict("records")
    assert (group["seeds"], group["agreement"]) == (2, pytest.approx(0.85))


def test_a_failed_run_is_no_seed_and_is_reported() -> None:
    failed = {**FAILED, **digests()}
    table = frame([row("annotate", seed=1, finetune_epochs=1, run_id="other"), failed])
    assert not seeds_to_pool(table)
    assert group_runs(table, cell_of(table), known({})).left_out == (
        "annotate epochs=1 seed=0 (run-anno): omitted from its group, since it is FAILED",
    )


def test_a_group_of_failed_runs_keeps_a_row_with_empty_cells() -> None:
    shown = display_table(pooled([*seeds("qat", 2), FAILED], {"qat": 3}))
    assert shown.iloc[-1][["strategy", "bytes", "status"]].tolist() == ["annotate", "", "FAILED"]


def test_runs_without_predictions_or_on_other_images_are_left_out_with_a_note() -> None:
    table = frame(seeds("qat", 5))
    said = {
        "qat-0": predictions(5),
        "qat-1": predictions(5),
        "qat-3": predictions(5, truth=2),
        "qat-4": predictions(5, images=99),
    }
    groups = group_runs(table, cell_of(table), said.get)
    assert list(groups.table["seeds"]) == [2]
    missing, other, fewer = groups.left_out
    assert (
        missing
        == "qat epochs=1 seed=2 (qat-2): omitted from its group, since it has neither predictions.csv nor scores.npz"
    )
    assert "seed=3" in other
    assert "its test examples differ from those of the others" in fewer


def test_a_group_that_differs_in_more_than_seeds_has_means_without_intervals() -> None:
    rows = [row("qat", epochs=n, run_id=f"qat-{n}", tflite_accuracy=0.9 + n / 100) for n in (1, 3)]
    shown = display_table(group_runs(frame(rows), ["strategy"], known({"qat": 3})).table)
    assert shown["TFLite accuracy (%)"].tolist() == ["92.00"]
    assert shown["runs"].tolist() == [2]


def test_a_group_of_several_strategies_says_so() -> None:
    shown = display_table(group_runs(frame([row("none"), row("finetune")]), ["arithmetic"], known({})).table)
    assert shown["strategy"].tolist() == ["several"]


def test_grouping_by_run_id_leaves_every_run_as_it_is() -> None:
    table = frame(seeds("qat", 3))
    assert display_table(group_runs(table, ["run_id"], known({})).table)["seed"].tolist() == ["0", "1", "2"]


def test_what_is_below_a_table_of_groups_speaks_of_seeds() -> None:
    assert OF_SEEDS in note(pooled(seeds("qat", 2), {"qat": 3}))
    assert OF_RUNS in note(frame(ROWS))


def test_a_gate_judges_a_group_by_its_interval_over_seeds() -> None:
    table = pooled([*seeds("qat", 3), row("none")], {"qat": 3, "run": 3})
    (low, _) = table["tflite_accuracy_low"]
    assert low != 0.9734
    decision = decide(table, [], "tflite_accuracy", lowest=False)
    assert decision.chosen is not None
    assert decision.chosen["run_id"] == "run-none"


def test_of_a_group_the_run_of_the_lowest_seed_is_shipped() -> None:
    decision = decide(pooled(seeds("qat", 3), {"qat": 3}), [], "tflite_bytes", lowest=True)
    assert decision_lines(decision, "tflite_bytes", lowest=True)[-1].startswith(
        "Ship qat epochs=1 (3 runs): tflite_bytes"
    )
    assert decision_lines(decision, "tflite_bytes", lowest=True)[-1].endswith(
        "The file is that of the lowest seed, run qat-0."
    )


def relative(
    rows: list[dict[str, Any]], strategy: str = "finetune", wrong: Mapping[str, int] | None = None
) -> pd.DataFrame:
    return with_baseline(frame(rows), strategy, known({"": 5} if wrong is None else wrong))


def test_a_run_is_compared_with_the_baseline_of_its_epochs_and_seed() -> None:
    rows = [row("none", seed=n, epochs=e, run_id=f"none-{n}-{e}") for n in (0, 1) for e in (1, 5)]
    table = relative([*rows, row("qat", seed=1, epochs=5, finetune_epochs=5)], "none")
    assert table["against_run_id"].tolist() == [*(each["run_id"] for each in rows), "none-1-5"]


def test_a_difference_is_that_of_the_same_images() -> None:
    table = relative([row("finetune"), row("qat")], wrong={"run-fine": 10, "run-qat": 4})
    qat = table.iloc[1]
    assert qat["accuracy_difference"] == pytest.approx(0.06)
    assert qat["accuracy_difference_low"] < 0.06 < qat["accuracy_difference_high"]
    assert qat["accuracy_difference_p"] == pytest.approx(2 / 2**6)


def test_a_difference_without_predictions_has_no_interval() -> None:
    table = relative([row("finetune", tflite_accuracy=0.97), row("qat", tflite_accuracy=0.98)], wrong={})
    assert display_table(table)["Δ accuracy vs finetune (pp)"].tolist() == ["+0.00", "+1.00"]


def test_sizes_and_speeds_are_ratios_to_the_baseline() -> None:
    rows = [row("finetune", tflite_bytes=600.0, speedup=1.0), row("qat", tflite_bytes=150.0, speedup=3.0)]
    qat = relative(rows).iloc[1]
    assert (qat["size_against"], qat["speedup_against"]) == (4.0, 3.0)


def test_a_run_that_trains_is_compared_with_as_many_epochs() -> None:
    rows = [row("finetune", finetune_epochs=n, run_id=f"finetune-{n}") for n in (1, 4)]
    table = relative([*rows, row("qat", finetune_epochs=4), row("ptq_int8")])
    assert table["against_run_id"].tolist()[2] == "finetune-4"
    assert pd.isna(table["against_run_id"].iloc[3])
    (line,) = unmatched(table, "finetune")
    assert line.startswith("1 of 4 runs")


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_a_run_that_trains_is_never_compared_with_other_epochs(status: str) -> None:
    others = [row("finetune"), row("finetune", finetune_epochs=4, status=status)]
    table = relative([*others[status == "FINISHED" :], row("qat", finetune_epochs=1)])
    assert pd.isna(table["against_run_id"].iloc[-1])


def further(strategy: str, epochs: int, finetune_epochs: int, **changes: Any) -> dict[str, Any]:
    """A run of so many epochs after the baseline."""
    return row(strategy, finetune_epochs=finetune_epochs, epochs_trained=1.0 + epochs, **changes)


CONTROLS = [further("finetune", n, n, run_id=f"finetune-{n}") for n in (2, 4)]


def test_a_strategy_that_trains_twice_is_compared_with_as_many_total_epochs() -> None:
    table = relative([*CONTROLS, further("qat", 2, 2), further("prune_qat", 4, 2)])
    assert table["against_run_id"].tolist()[2:] == ["finetune-2", "finetune-4"]
    assert trained_less(table, table, "finetune") == []


def test_a_strategy_that_trains_longer_than_any_control_names_the_one_that_it_needs() -> None:
    table = relative([CONTROLS[0], further("qat", 2, 2), further("prune_qat", 4, 2), further("cluster_qat", 4, 2)])
    (line,) = trained_less(table, table, "finetune")
    assert line.startswith("prune_qat and cluster_qat trained for more epochs")
    assert line.endswith("add strategy=finetune finetune.epochs=4.")


def test_a_baseline_with_fewer_total_epochs_is_not_reported() -> None:
    table = relative([row("none"), further("qat", 2, 2)], "none")
    assert trained_less(table, table, "none") == []


def test_of_several_controls_the_one_of_the_same_further_training_fits() -> None:
    rates = ("0.001", "0.0001")
    rows = [further(name, 1, 1, run_id=f"{name}-{rate}", **{"finetune.learning_rate": rate})
            for name in ("finetune", "qat") for rate in rates]  # fmt: skip
    assert relative(rows)["against_run_id"].tolist() == [f"finetune-{rate}" for rate in rates] * 2


def test_runs_on_different_images_are_not_compared() -> None:
    table = relative(
        [row("finetune", **{"dataset.train_samples": "2000"}), row("qat", **{"dataset.train_samples": "None"})]
    )
    assert pd.isna(table["against_run_id"].iloc[1])


def test_a_run_that_does_not_train_is_compared_with_the_only_epochs_there_are() -> None:
    table = relative([row("finetune", finetune_epochs=4), row("ptq_int8")])
    assert table["against_run_id"].iloc[-1] == "run-finetune"


def test_a_setting_of_numbers_is_no_measurement_to_be_averaged() -> None:
    rows = [row("cluster", run_id=n, **{"strategy.clusters": n}) for n in ("8", "16")]
    table = frame([*rows, row("cluster_qat", **{"strategy.clusters": "4"}), row("none")])
    shown = display_table(group_runs(table, ["strategy"], known({})).table)
    assert shown["strategy.clusters"].tolist() == ["", "4", ""]


def test_counts_are_numbers_also_where_a_mean_is_not_whole_and_another_row_has_none() -> None:
    rows = [{**each, "tflite_gzip_bytes": 100 + n} for n, each in enumerate(seeds("qat", 2))]
    failed = {**FAILED, "strategy": "prune", "run_id": "failed"}
    table = pooled([*rows, failed], {"qat": 3})
    assert table["tflite_gzip_bytes"].iloc[0] == 100.5
    assert pd.api.types.is_numeric_dtype(table["tflite_gzip_bytes"])
    assert style_cells(table)


def test_a_setting_is_kept_over_seeds_whatever_its_name_ends_in() -> None:
    rows = [{**each, "model.dropout_p": "0.5"} for each in seeds("qat", 2)]
    table = pooled([*rows, row("none", **{"model.dropout_p": "0.1"})], {"qat": 3})
    assert table["model.dropout_p"].tolist() == [0.5, 0.1]


def test_over_seeds_no_predictions_on_other_images_are_compared() -> None:
    runs = relative([*seeds("finetune", 2), *seeds("qat", 2)])
    read_evidence = known({"finetune": 8, "qat": 3})

    def asked(run_id: str) -> Any:
        said = read_evidence(run_id)
        return replace(said, truth=said.truth + 1) if said and run_id.startswith("finetune") else said

    qat = group_runs(runs, cell_of(runs), asked).table.iloc[1]
    assert pd.isna(qat["accuracy_difference_low"])


def test_runs_on_other_threads_are_no_seeds_of_one_setting() -> None:
    assert not seeds_to_pool(frame([row("qat", seed=n, threads=str(n + 1)) for n in range(2)]))


def test_one_run_of_another_machine_leaves_the_others_their_ratios() -> None:
    table = relative([row("finetune", machine="a"), row("qat", machine="a"), row("prune", machine="b")])
    assert table["speedup_against"].notna().tolist() == [True, True, False]


def test_times_of_other_machines_give_no_ratio() -> None:
    table = relative([row("finetune", machine="a"), row("qat", machine="b")])
    assert pd.isna(table["speedup_against"].iloc[1])


def test_a_baseline_that_was_not_run_is_refused_with_those_that_were() -> None:
    with pytest.raises(
        UserError, match=r"--baseline finetun: no finished run has this strategy.*Did you mean finetune"
    ):
        relative([row("finetune")], "finetun")


def test_over_seeds_the_difference_to_a_strategy_has_an_interval_for_new_seeds() -> None:
    runs = relative([*seeds("finetune", 3), *seeds("qat", 3)], wrong={"finetune": 8, "qat": 3})
    qat = group_runs(runs, cell_of(runs), known({"finetune": 8, "qat": 3})).table.iloc[1]
    assert (qat["seeds"], qat["accuracy_difference"]) == (3, pytest.approx(0.05))
    assert qat["accuracy_difference_low"] < 0.05 < qat["accuracy_difference_high"]


def test_the_note_names_the_baseline_of_the_comparison() -> None:
    assert TO_STRATEGY in note(relative([row("finetune"), row("qat")]))
    assert TO_FLOAT in note(frame(ROWS))


def test_differences_that_may_be_chance_are_dimmed() -> None:
    table = frame([*ROWS, row("ptq_int8", speed="unclear", speedup_low=0.9)])
    assert style_cells(table)["Δ accuracy (pp)"] == ["dim", "", "dim"]
    assert style_cells(table)["speedup"] == ["dim", "bold green", "dim"]


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(1, 2), st.floats(1, 2))
def test_a_ratio_of_speedups_is_less_sure_than_either(one: float, other: float, spread: float, wider: float) -> None:
    ratio = ratio_of_speedups(Estimate(one, one / spread, one * spread), Estimate(other, other / wider, other * wider))
    assert ratio.value == pytest.approx(one / other)
    assert ratio.high / ratio.low >= max(spread, wider) ** 2 * (1 - 1e-9)


def test_row_names_have_the_settings_that_differ_and_each_once() -> None:
    rows = [row("qat", finetune_epochs=n, run_id=f"qat-{n}", **{"finetune.epochs": str(n)}) for n in (1, 4)]
    assert names(frame([*rows, row("none")])) == ["qat, +1 epoch", "qat, +4 epochs", "none"]


def test_a_strategy_that_trains_twice_is_called_by_the_epochs_of_both_trainings() -> None:
    twice = row("prune_qat", finetune_epochs=2, epochs_trained=5.0)
    assert names(frame([row("none"), twice, row("qat", finetune_epochs=2)])) == [
        "none", "prune_qat, +4 epochs", "qat, +2 epochs",
    ]  # fmt: skip


def test_a_group_of_seeds_is_not_called_by_a_seed() -> None:
    table = pooled([*seeds("qat", 2), row("none"), row("none", seed=1, epochs=5, run_id="run-5")], {"": 3})
    assert names(table) == ["qat, 1 epoch", "none, 1 epoch, seed 0", "none, 5 epochs, seed 1"]


@pytest.mark.parametrize("by", [["strategy"], ["model"]], ids=str)
def test_a_mean_over_several_files_is_not_shipped(by: list[str]) -> None:
    rows = [row("qat", finetune_epochs=n, run_id=f"qat-{n}", **{"finetune.epochs": str(n)}) for n in (1, 20)]
    table = group_runs(frame(rows), by, known({"": 3})).table
    with pytest.raises(UserError, match="requires rows of a single run"):
        decide(table, [], "tflite_bytes", lowest=True)


def test_rows_without_settings_of_a_task_are_judged_alike() -> None:
    table = frame([row("none"), row("qat")])
    assert [name for name in table.columns if name.startswith("task.")] == []
    assert list(table[JUDGED_BY]) == ["", ""]
