"""The comparison table, for people and for files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from rich.measure import Measurement

from experiments.comparison.columns import COLUMNS, frame, label
from experiments.comparison.files import FORMS, form_of
from experiments.comparison.pairs import Examined, pairs_for_people, table_of_pairs
from experiments.comparison.people import MACHINES, OPTIONAL, fastest, for_people, narrowed, note, picture
from experiments.comparison.seeds import over_seeds_for_people, repeated, table_over_seeds
from experiments.errors import UserError, by_beginning
from experiments.record import Answers

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
    FORMS["markdown"].write(frame(ROWS), tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text() == GOLDEN.read_text()


def test_a_void_timing_is_told_with_its_reason() -> None:
    table = frame([row("none"), row("qat", speed="void", speedup=9.0, latency_void="other work kept 2 cores busy")])
    assert note(table).endswith("Void: qat (run run-qat), other work kept 2 cores busy.")


def test_rows_of_several_machines_say_so() -> None:
    table = frame([row("none", machine="a"), row("qat", machine="b")])
    assert list(for_people(table)["machine"]) == ["a", "b"]
    assert MACHINES in note(table)


def test_a_void_timing_is_never_the_fastest() -> None:
    table = frame([row("none"), row("qat", speed="void", speedup=9.0), row("ptq_int8", speed="faster", speedup=3.0)])
    assert list(fastest(table)) == [False, False, True]


def test_none_is_the_fastest_where_machines_differ() -> None:
    assert not fastest(frame([row("none", machine="a"), row("qat", machine="b", speedup=3.0)])).any()


def test_rows_of_one_machine_do_not_name_it() -> None:
    table = frame([row("none", machine="a"), row("qat", machine="a")])
    assert "machine" not in for_people(table)


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({"arena_bytes": 78208.0, "runs_on_micro": "yes"}, "78,208"),
        ({"arena_bytes": None, "runs_on_micro": "CONV_2D (op 1): Hybrid models are not supported"}, "no"),
        ({"arena_bytes": None, "runs_on_micro": "not measured"}, "not measured"),
    ],
)
def test_what_a_microcontroller_needs_is_a_number_no_or_not_measured(facts: dict[str, Any], shown: str) -> None:
    measured = row("none", arena_bytes=303760.0, runs_on_micro="yes")
    assert for_people(frame([measured, row("qat", **facts)]))["micro arena, bytes"].iloc[1] == shown


def test_the_csv_holds_every_column_in_full_precision(tmp_path: Path) -> None:
    FORMS["csv"].write(frame(ROWS), tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv")
    assert list(read.columns) == list(COLUMNS)
    assert read.loc[1, "speedup_low"] == 3.69


@pytest.mark.parametrize(
    ("ending", "read"), [(".csv", pd.read_csv), (".xlsx", pd.read_excel), (".parquet", pd.read_parquet)]
)
def test_a_file_holds_every_column_in_the_form_that_its_ending_names(tmp_path: Path, ending: str, read: Any) -> None:
    path = tmp_path / f"comparison{ending}"
    form_of(path).write(frame([*ROWS, FAILED]), path)
    table = read(path)
    assert list(table.columns) == list(COLUMNS)
    assert table["speedup_low"].iloc[1] == 3.69
    assert table["tflite_bytes"].isna().iloc[2]


def test_an_ending_that_names_no_form_is_refused() -> None:
    with pytest.raises(UserError, match=r"--out comparison\.xls: .*Did you mean \.xlsx"):
        form_of(Path("comparison.xls"))


def test_sizes_and_epochs_are_whole_numbers_in_the_csv(tmp_path: Path) -> None:
    FORMS["csv"].write(frame(ROWS), tmp_path / "table.csv")
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


@pytest.mark.parametrize("width", [200, 120, 100, 80])
def test_a_narrow_terminal_does_without_some_columns_and_with_no_more_than_it_must(width: int) -> None:
    shown = for_people(frame([*ROWS, row("qat", arithmetic="4 int8, 1 float32"), FAILED]))
    kept = narrowed(shown, width)
    gone = [name for name in OPTIONAL if name in shown.columns and name not in kept.columns]
    assert drawn_width(kept) <= width
    assert not gone or drawn_width(shown.drop(columns=gone[:-1])) > width


def drawn_width(shown: pd.DataFrame) -> int:
    console = Console(width=1000)
    return Measurement.get(console, console.options, picture(shown, {})).maximum


@pytest.mark.parametrize("form", ["csv", "markdown", "html", "latex", "json"])
def test_every_form_of_text_is_written(form: str, tmp_path: Path) -> None:
    FORMS[form].write(frame([*ROWS, FAILED]), tmp_path / "table")
    assert "qat" in (tmp_path / "table").read_text()


def test_html_shows_what_users_named_as_text(tmp_path: Path) -> None:
    FORMS["html"].write(frame([row("<script>")]), tmp_path / "table.html")
    assert "<script>" not in (tmp_path / "table.html").read_text()


def answers(wrong: int, wrong_reference: int = 0, images: int = 100, truth: int = 1) -> Answers:
    """Answers of a file that errs on the first images, and of a reference that errs on the last."""
    true = np.full(images, truth)
    place = np.arange(images)
    tflite, reference = np.where(place < wrong, 9, true), np.where(place >= images - wrong_reference, 9, true)
    return Answers(true, true, tflite, reference)


def seeds(strategy: str, count: int, **changes: Any) -> list[dict[str, Any]]:
    return [row(strategy, seed=n, run_id=f"{strategy}-{n}", **changes) for n in range(count)]


def test_runs_that_differ_in_their_seeds_only_are_one_row_over_seeds() -> None:
    runs = repeated(frame([*seeds("none", 3), *seeds("qat", 2), row("ptq_int8")]))
    said = {run_id: answers(5 if run_id.startswith("none") else 3, 4) for run_id in runs["run_id"]}
    table, _ = table_over_seeds(runs, said.get)
    assert list(zip(table["strategy"], table["seeds"], table["images"], strict=True)) == [
        ("none", 3, 100),
        ("qat", 2, 100),
    ]
    assert list(table["tflite_accuracy"]) == pytest.approx([0.95, 0.97])
    assert list(table["accuracy_change"]) == pytest.approx([-0.01, 0.01])
    assert (table["tflite_accuracy_low"] < table["tflite_accuracy"]).all()


def test_other_epochs_or_settings_are_other_rows_over_seeds() -> None:
    rows = [*seeds("qat", 2), *seeds("qat", 2, epochs=5), *seeds("qat", 2, **{"strategy.ranges": "calibrated"})]
    rows = [{**each, "run_id": str(n)} for n, each in enumerate(rows)]
    runs = repeated(frame(rows))
    table, _ = table_over_seeds(runs, lambda _: answers(5))
    shown = over_seeds_for_people(table)
    assert list(shown["epochs"]) == ["1", "5", "1"]
    assert list(shown["strategy.ranges"]) == ["", "", "calibrated"]
    assert "model" not in shown.columns


def test_a_setting_that_differs_between_seeds_keeps_runs_apart() -> None:
    rows = [row("qat", seed=n, **{"strategy.rest": rest}) for n, rest in enumerate(["none", "dynamic"])]
    assert repeated(frame(rows)).empty


def test_the_same_seed_twice_is_one_seed_and_its_newest_run_counts() -> None:
    rows = [row("qat", run_id="old"), row("qat", run_id="new"), row("qat", run_id="other", seed=1)]
    assert list(repeated(frame(rows))["run_id"]) == ["new", "other"]
    assert repeated(frame(rows[:2])).empty


def test_a_failed_run_is_no_seed() -> None:
    assert repeated(frame([row("annotate", seed=1), FAILED])).empty


def test_runs_without_answers_or_on_other_images_are_left_out_with_a_note() -> None:
    runs = repeated(frame(seeds("qat", 5)))
    said = {"qat-0": answers(5), "qat-1": answers(5), "qat-3": answers(5, truth=2), "qat-4": answers(5, images=99)}
    table, (missing, other, fewer) = table_over_seeds(runs, said.get)
    assert list(table["seeds"]) == [2]
    assert missing == "qat epochs=1 seed=2 (qat-2): left out over seeds, for it has no predictions.csv"
    assert "seed=3" in other
    assert "its test images are not those of the others" in fewer


def test_one_seed_with_answers_is_no_row_over_seeds() -> None:
    runs = repeated(frame(seeds("qat", 2)))
    assert table_over_seeds(runs, {"qat-0": answers(5)}.get)[0].empty
    assert table_over_seeds(repeated(frame(ROWS)), lambda _: None)[0].empty


def examined(name: str, wrong: int, dataset: str = "mnist", **changes: Any) -> Examined:
    return Examined(name, dataset, answers(wrong, **changes))


def test_a_pair_is_compared_image_by_image() -> None:
    (pair,) = table_of_pairs([examined("none", 10), examined("qat", 4)]).to_dict("records")
    assert (pair["run"], pair["against"], pair["gained"], pair["lost"]) == ("qat", "none", 6, 0)
    assert pair["difference"] == pytest.approx(0.06)
    assert pair["mcnemar_p"] == pytest.approx(2 / 2**6)
    assert pair["low"] < 0.06 < pair["high"]
    assert pair["bootstrap_low"] < 0.06 < pair["bootstrap_high"]


def test_several_runs_are_all_their_pairs_with_corrected_p() -> None:
    table = table_of_pairs([examined("none", 10), examined("qat", 4), examined("ptq_int8", 3)])
    assert list(zip(table["run"], table["against"], strict=True)) == [
        ("qat", "none"),
        ("ptq_int8", "none"),
        ("ptq_int8", "qat"),
    ]
    assert list(table["holm_p"]) == pytest.approx([2 * 2 / 2**6, 3 * 2 / 2**7, 1])
    assert list(pairs_for_people(table)["Holm p"]) == ["0.062", "0.047", "1"]


def test_a_single_pair_needs_no_correction() -> None:
    shown = pairs_for_people(table_of_pairs([examined("none", 10), examined("qat", 4)]))
    assert "Holm p" not in shown.columns
    assert shown["difference, points"].iloc[0].startswith("+6.00 [+")


@pytest.mark.parametrize(
    "other", [examined("qat", 4, images=99), examined("qat", 4, truth=2), examined("qat", 4, dataset="fashion_mnist")]
)
def test_runs_on_different_images_are_not_compared(other: Examined) -> None:
    with pytest.raises(UserError, match="none and qat were tested on different images"):
        table_of_pairs([examined("none", 10), other])


def test_a_run_is_known_by_a_beginning_of_its_id() -> None:
    known = ["abc123", "abd456", "abd4567"]
    assert by_beginning("abc", known) == "abc123"
    assert by_beginning("abd456", known) == "abd456"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ab", "2 run ids begin so"),
        ("abx123", "Did you mean abc123"),
        ("zzz", "no run has this id. The newest: abc123"),
    ],
)
def test_a_wrong_run_id_names_those_that_are_near(given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        by_beginning(given, ["abc123", "abd456"])


def test_a_label_says_what_a_run_is() -> None:
    assert label(row("qat", run_id="0123456789abcdef")) == "qat epochs=1 seed=0 (01234567)"
