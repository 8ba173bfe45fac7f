"""Identity is content: runs are matched, pooled and gated by digests, never by file names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.comparison.baseline import with_baseline
from experiments.comparison.columns import cell_of, frame, without_internal_columns
from experiments.comparison.compared import Comparison, compare_runs
from experiments.comparison.display import display_table
from experiments.comparison.files import FORMS
from experiments.comparison.gates import decide
from experiments.comparison.groups import group_runs, seeds_to_pool
from experiments.comparison.names import display_names, names, subjects_of, task_titles
from experiments.comparison.pairs import Examined, table_of_pairs
from experiments.comparison.query import matrix
from experiments.comparison.regressions import allowance, read_earlier, regressions, remarks
from experiments.comparison.tasks import tasks
from experiments.comparison.terminal import style_cells
from experiments.record.evidence import Predictions
from experiments.record.identity import DIGESTS, Identity, name_of
from experiments.record.run_record import Setting
from experiments.system.errors import UserError
from experiments.tracking import run_name
from tests.rows import FAILED, predictions, row

A, B = "3f2a91" + "0" * 10, "9be044" + "0" * 10


def of(strategy: str, model: str = A, training: str = A, test: str = A, **changes: Any) -> dict[str, Any]:
    """A run of the file my.keras on data.npz, whatever these hold."""
    return row(
        strategy,
        **{
            "model": "keras_file", "dataset": "npz", "model.path": "my.keras", "dataset.path": "data.npz",
            "model_digest": model, "training_digest": training, "test_digest": test,
            "run_id": f"{strategy}-{model[:2]}{training[:2]}{test[:2]}", **changes,
        },
    )  # fmt: skip


def early(strategy: str, **changes: Any) -> dict[str, Any]:
    """A run of an earlier version, which recorded no digests."""
    return {**row(strategy, **changes), **dict.fromkeys(DIGESTS)}


def said(wrong: int = 5) -> Callable[[str], Predictions | None]:
    return lambda _: predictions(wrong)


def held_by(rows: list[dict[str, Any]], strategy: str = "finetune") -> list[Any]:
    return with_baseline(frame(rows), strategy, said())["against_run_id"].tolist()


def test_control_with_another_model_of_the_same_name_does_not_match() -> None:
    old, new = of("ptq_int8", model=A), of("ptq_int8", model=B)
    found = held_by([old, of("finetune", model=B), new])
    assert pd.isna(found[0])
    assert found[2] == of("finetune", model=B)["run_id"]


@pytest.mark.parametrize("part", ["training", "test"])
def test_control_has_the_same_training_and_test_examples(part: str) -> None:
    assert pd.isna(held_by([of("finetune"), of("qat", **{part: B})])[1])


def test_same_file_at_two_paths_is_one_model() -> None:
    found = held_by([of("finetune"), of("qat", **{"model.path": "copies/other.keras", "dataset.path": "d.npz"})])
    assert found[1] == of("finetune")["run_id"]


def test_models_with_the_same_name_are_not_pooled_as_seeds() -> None:
    assert not seeds_to_pool(frame([of("qat", model=A, seed=0), of("qat", model=B, seed=1)]))
    assert seeds_to_pool(frame([of("qat", seed=0), of("qat", seed=1, **{"model.path": "copy.keras"})]))


def test_seeds_are_pooled_only_with_equal_test_examples() -> None:
    assert not seeds_to_pool(frame([of("qat", test=A, seed=0), of("qat", test=B, seed=1)]))


def test_settings_digest_depends_on_content_not_on_paths() -> None:
    one, other, copy = frame([of("qat"), of("qat", model=B), of("qat", **{"model.path": "copy.keras"})])["settings"]
    assert (one == other, one == copy) == (False, True)


def test_data_sets_with_the_same_name_have_separate_answers() -> None:
    table = frame([of("none"), of("qat"), of("none", test=B, training=B), of("qat", test=B, training=B)])
    found = tasks(Comparison(table, table, said()))
    assert [(task.title, len(task.rows)) for task in found] == [
        ("my on data (3f2a91)", 2), ("my on data (9be044)", 2),
    ]  # fmt: skip


def test_models_of_two_trainings_on_the_same_test_examples_compete() -> None:
    table = frame([of("none"), of("none", training=B)])
    (task,) = tasks(Comparison(table, table, said()))
    assert [task.name_of_row(each) for _, each in task.rows.iterrows()] == [
        "none, data (3f2a91)",
        "none, data (9be044)",
    ]


def test_unique_name_has_no_digest() -> None:
    table = frame([of("none"), of("none", model=B, run_id="other", **{"model.path": "b.keras"})])
    assert display_names(table, "model").tolist() == ["my", "b"]


def test_copies_of_a_file_share_a_name() -> None:
    table = frame([of("none"), of("qat", **{"model.path": "copy.keras"})])
    assert display_names(table, "model").tolist() == ["my", "my"]


def test_no_digest_is_shown_if_a_setting_distinguishes_contents() -> None:
    table = frame([row("none", **{"dataset.test_samples": each}, run_id=each) for each in ("100", "200")])
    assert display_names(table, "dataset").tolist() == ["mnist", "mnist"]
    assert task_titles(table).tolist() == [f"article_cnn on mnist, test_samples={each}" for each in ("100", "200")]


def test_printed_table_shows_digests_of_files_with_the_same_name() -> None:
    shown = display_table(frame([of("none"), of("none", model=B)]))
    assert shown["model"].tolist() == ["my (3f2a91)", "my (9be044)"]
    assert not {"model.path", "dataset.path", "dataset"} & set(shown.columns)


def test_run_without_digests_is_listed_but_not_pooled() -> None:
    unknown = {**of("qat", seed=1, status="FAILED", run_id="failed"), **dict.fromkeys(DIGESTS)}
    table = frame([of("qat", seed=0), of("qat", seed=2, run_id="other"), unknown])
    pooled = group_runs(table, cell_of(table), said()).table
    assert pooled[["seeds", "status"]].to_numpy().tolist() == [[2, "FINISHED"], [1, "FAILED"]]
    assert display_table(pooled)["status"].tolist() == ["FINISHED", "FAILED"]


def test_best_value_is_marked_per_content() -> None:
    table = frame([of("none", tflite_bytes=5.0), of("none", test=B, tflite_bytes=9.0)])
    assert style_cells(table)["bytes"] == ["bold green", "bold green"]


def test_gate_requires_one_set_of_test_examples() -> None:
    table = frame([of("none"), of("none", test=B)])
    with pytest.raises(UserError, match=rf"not of several \(data \(3f2a91\), data \(9be044\)\).*test_digest == '{A}'"):
        decide(table, [], "tflite_bytes", lowest=True)


def test_copies_of_a_data_file_have_the_same_test_examples() -> None:
    table = frame([of("none"), of("qat", **{"dataset.path": "copy.npz"}, tflite_bytes=5.0)])
    chosen = decide(table, [], "tflite_bytes", lowest=True).chosen
    assert chosen is not None
    assert chosen["strategy"] == "qat"


def test_pivot_does_not_average_over_data_sets() -> None:
    table = frame([of("none"), of("none", test=B, tflite_accuracy=0.5)])
    with pytest.raises(UserError, match="runs of several data sets share a cell"):
        matrix(table, "strategy", "epochs", "tflite_accuracy")
    cells = matrix(table, "dataset", "strategy", "tflite_accuracy")
    assert cells.index.tolist() == ["data (3f2a91)", "data (9be044)"]


@pytest.mark.parametrize(("by", "rows"), [(["dataset"], 2), (["model"], 1), (["strategy"], 1)])
def test_grouping_by_name_groups_by_content(by: list[str], rows: int) -> None:
    class Kept:
        read_evidence = staticmethod(said())

    comparison = compare_runs(Kept(), frame([of("none"), of("none", test=B)]), by=by)  # type: ignore[arg-type]
    assert len(comparison.table) == rows
    assert any("several models, data sets or tasks" in line for line in comparison.remarks) == (rows == 1)


def examined(test: str | None, dataset: str = "npz") -> Examined:
    return Examined("a run", dataset, predictions(5), test)


def test_pair_requires_equal_test_examples_not_equal_file_names() -> None:
    assert len(table_of_pairs([examined(A), examined(A, "another name")])) == 1
    with pytest.raises(UserError, match="were tested on different examples"):
        table_of_pairs([examined(A), examined(B)])


@pytest.fixture
def previous(tmp_path: Path) -> pd.DataFrame:
    """What an earlier sweep wrote of a model and its data."""
    FORMS["csv"].write(frame([of("none"), of("qat")]), tmp_path / "previous.csv")
    return read_earlier(tmp_path / "previous.csv")


def growth(table: pd.DataFrame) -> list[Any]:
    return [allowance("tflite_bytes=0", "growth", table)]


def test_replaced_model_is_not_compared_with_the_earlier_one(previous: pd.DataFrame) -> None:
    now = frame([of("none", model=B, tflite_bytes=10.0)])
    with pytest.raises(UserError, match=rf"model my has changed \(model_digest {A} then, {B} now\); --by"):
        regressions(previous, now, growth(now))


def test_matching_by_name_is_offered_only_if_it_would_match(previous: pd.DataFrame) -> None:
    now = frame([of("none", model=B, seed=7)])
    with pytest.raises(UserError) as refused:
        regressions(previous, now, growth(now))
    assert "--by-name" not in str(refused.value)


def test_replaced_model_is_compared_by_name_on_request(
    previous: pd.DataFrame,
) -> None:
    now = frame([of("none", model=B, tflite_bytes=700_000.0)])
    assert len(regressions(previous, now, growth(now), by_name=True)) == 1
    assert any("has changed" in line for line in remarks(previous, now, growth(now), by_name=True))


def test_renamed_file_is_compared_with_itself(previous: pd.DataFrame) -> None:
    now = frame([of("none", tflite_bytes=700_000.0, **{"model.path": "renamed.keras"})])
    assert len(regressions(previous, now, growth(now))) == 1


@pytest.mark.filterwarnings("error")
def test_early_failure_is_worse_than_the_earlier_run_of_the_same_name(previous: pd.DataFrame) -> None:
    failed = {**of("qat", status="FAILED", tflite_bytes=None), **dict.fromkeys(DIGESTS)}
    now = frame([of("none"), failed])
    (line,) = regressions(previous, now, growth(now))
    assert "tflite_bytes was 599,620 and is missing" in line


def test_earlier_csv_without_digests_is_matched_by_name_with_one_message(tmp_path: Path) -> None:
    old = without_internal_columns(frame([early("none"), early("qat")])).drop(
        columns=[*DIGESTS, "model_name", "dataset_name"]
    )
    old.to_csv(tmp_path / "old.csv", index=False)
    before, now = read_earlier(tmp_path / "old.csv"), frame([row("none"), row("qat", tflite_bytes=700_000.0)])
    assert len(regressions(before, now, growth(now))) == 1
    assert len([line for line in remarks(before, now, growth(now)) if "by names" in line]) == 1


def test_runs_of_earlier_versions_are_matched_by_name_with_one_message() -> None:
    class Kept:
        read_evidence = staticmethod(said())

    table = frame([early("finetune"), early("qat"), early("none", model="mlp")])
    assert with_baseline(table, "finetune", said())["against_run_id"].tolist()[1] == "run-finetune"
    comparison = compare_runs(Kept(), table)  # type: ignore[arg-type]
    assert [line for line in comparison.remarks if "earlier version" in line] == [
        "3 of 3 runs were recorded by an earlier version without digests of model and data: they are matched by the "
        "names of model and data, whatever the content of their files."
    ]


def test_run_without_digests_never_matches_one_with_digests() -> None:
    assert pd.isna(held_by([early("finetune"), row("qat")])[1])


def test_failed_runs_of_two_files_with_the_same_name_are_separate() -> None:
    rows = [
        {**FAILED, "dataset": "npz", "dataset.path": f"{place}/data.npz", "run_id": place, "seed": 0} for place in "ab"
    ]
    table = frame(rows)
    assert len(group_runs(table, cell_of(table), said()).table) == 2
    assert table["dataset.path"].tolist() == ["a/data.npz", "b/data.npz"]


def test_early_failure_is_named_by_its_file() -> None:
    failed = {**FAILED, "strategy": "none", "dataset": "npz", "dataset.path": "b/data.npz", "model.path": "my.keras"}
    assert names(frame([of("none"), {**failed, "model": "keras_file", "finetune_epochs": 0}])) == [
        "none, path=data.npz", "none, path=b/data.npz",
    ]  # fmt: skip


def test_run_name_has_files_and_digests() -> None:
    setting = Setting("qat", "keras_file", "npz", 0, 1, 0)
    assert run_name(setting, Identity("my", "data", A, A, B)) == "qat my (3f2a91) data (9be044) epochs=0+1 seed=0"
    assert run_name(setting, Identity("my", "data")) == "qat my data epochs=0+1 seed=0"
    bundled = Setting("qat", "mlp", "mnist", 1, 1, 0)
    assert run_name(bundled, Identity("mlp", "mnist", A, A, B)) == "qat mlp mnist epochs=1+1 seed=0"


@pytest.mark.parametrize(("file", "name"), [(Path("a/my.keras"), "my"), (None, "npz"), ("d.e/x.y.npz", "x.y")])
def test_display_name_is_the_file_stem(file: object, name: str) -> None:
    assert name_of("npz", file) == name


def test_title_names_all_models_and_data_sets() -> None:
    assert subjects_of(frame([of("none"), of("none", test=B)])) == "my on data (3f2a91) and data (9be044)"


def test_row_names_have_digests_of_ambiguous_names() -> None:
    assert names(frame([of("none"), of("none", model=B)])) == ["none, my (3f2a91)", "none, my (9be044)"]
