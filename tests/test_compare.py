"""The comparison table, for people and for files."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import openpyxl
import pandas as pd
import pytest
from rich.console import Console
from rich.measure import Measurement

from experiments.comparison import terminal
from experiments.comparison.columns import COLUMNS, NUMBERS, WHOLE, frame, label
from experiments.comparison.compared import Comparison, compare_runs
from experiments.comparison.display import MACHINES, SAME, display_table, note
from experiments.comparison.files import FORMS, form_of
from experiments.comparison.loading import newest
from experiments.comparison.names import names
from experiments.comparison.pairs import Examined, display_pairs, table_of_pairs
from experiments.comparison.terminal import MOST_ROWS, OPTIONAL, fit_columns, show, style_cells, terminal_table
from experiments.record.evidence import Scores
from experiments.record.metric import RecordedMetric
from experiments.system.errors import UserError, find_by_prefix
from experiments.tracking import Store, Tracking
from experiments.tracking.schema import heading
from tests.conftest import REPOSITORY
from tests.rows import FAILED, ROWS, predictions, row, seeds

GOLDEN = Path(__file__).parent / "golden"
BY_SPEEDUP = "compare rows by speedup, not by latency"


def test_the_markdown_table_is_the_golden_one(tmp_path: Path) -> None:
    FORMS["markdown"].write(frame(ROWS), tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text() == (GOLDEN / "comparison.md").read_text()


def test_the_csv_is_the_golden_one(tmp_path: Path) -> None:
    FORMS["csv"].write(frame([*ROWS, FAILED]), tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == (GOLDEN / "comparison.csv").read_text()


@pytest.mark.parametrize(("width", "name"), [(160, "comparison.txt"), (80, "comparison_narrow.txt")])
def test_the_printed_table_is_the_golden_one(width: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(width=width, file=io.StringIO())
    monkeypatch.setattr(terminal, "CONSOLE", screen)
    terminal.show(frame([*ROWS, row("ptq_int8", partial="true", speed="unclear", arithmetic="1 float32, 3 int8")]))
    assert isinstance(screen.file, io.StringIO)
    assert screen.file.getvalue() == (GOLDEN / name).read_text()


def test_an_invalid_timing_is_reported_with_its_reason() -> None:
    table = frame([row("none"), row("qat", speed="void", speedup=9.0, latency_void="other work kept 2 cores busy")])
    assert note(table).endswith(
        "Invalid timing: qat epochs=1 seed=0 (run-qat), other work kept 2 cores busy.\n"
        "To add rounds of timing, type the same command, if possible when the machine is less busy."
    )


def test_a_file_that_is_not_verified_is_reported_with_its_difference() -> None:
    table = frame([row("none"), row("qat", verified="false", broken_promise="dense computes in float32")])
    assert note(table).endswith("Not verified: qat epochs=1 seed=0 (run-qat), dense computes in float32.")


WARNED = "input scale: too dark. Type: dataset.scale=none"


def test_what_a_warning_says_to_type_ends_its_line() -> None:
    table = frame([row("none", warnings=WARNED), row("qat", warnings=f"{WARNED}\nat chance: train. Type: epochs=5")])
    assert note(table).splitlines()[-2:] == [
        f"Warning, none epochs=1 seed=0 (run-none), qat epochs=1 seed=0 (run-qat): {WARNED}",
        "Warning, qat epochs=1 seed=0 (run-qat): at chance: train. Type: epochs=5",
    ]


@pytest.mark.parametrize(("form", "end"), [("markdown", "\n\n"), ("html", "</p>")])
def test_what_a_warning_says_to_type_ends_a_paragraph_of_a_file(form: str, end: str, tmp_path: Path) -> None:
    table = frame([row("none", warnings=f"{WARNED}\nat chance: train."), row("qat")])
    FORMS[form].write(table, tmp_path / "table")
    assert f"Type: dataset.scale=none{end}" in (tmp_path / "table").read_text()


def test_runs_of_several_models_are_noted_with_their_model() -> None:
    table = frame([row("none"), row("qat", model="mlp", verified="false", broken_promise="dense computes in float32")])
    assert note(table).endswith("Not verified: qat mlp epochs=1 seed=0 (run-qat), dense computes in float32.")


def made(run_id: str, key: str | None = "k", **changes: Any) -> dict[str, Any]:
    return row("none", run_id=run_id, run_key=key, **changes)


def test_of_finished_runs_that_were_repeated_the_newest_counts() -> None:
    rows = [made("old"), made("failed", status="FAILED"), made("other", "other key"), made("new"), made("early", None)]
    assert [each["run_id"] for each in newest(rows)] == ["failed", "other", "new", "early"]


def test_the_runs_of_a_sweep_are_those_selected() -> None:
    rows = [made("one", reused=False), made("two", reused=False)]
    assert newest(rows) == rows


def test_a_file_that_is_not_verified_is_never_the_best() -> None:
    table = frame([row("none"), row("qat", verified="false", tflite_bytes=5.0)])
    assert style_cells(table)["bytes"] == ["bold green", ""]


def test_a_difference_without_an_interval_may_be_chance() -> None:
    nothing = {"accuracy_change": 0.01, "accuracy_change_low": None, "accuracy_change_high": None}
    assert style_cells(frame([row("none"), row("qat", **nothing)]))["Δ accuracy (pp)"] == ["dim", "dim"]


def test_rows_of_several_machines_say_so() -> None:
    table = frame([row("none", machine="a"), row("qat", machine="b")])
    assert list(display_table(table)["machine"]) == ["a", "b"]
    assert MACHINES in note(table)


def test_an_invalid_timing_is_never_the_fastest() -> None:
    table = frame(
        [
            row("none"),
            row("qat", speed="void", speedup=9.0),
            row("ptq_int8", speed="faster", speedup=3.0, speedup_low=2.9),
        ]
    )
    assert style_cells(table)["speedup"] == ["dim", "dim", "bold green"]


def test_the_best_of_each_column_is_marked() -> None:
    table = frame([*ROWS, row("ptq_float16", keras_accuracy=0.99, arena_bytes=5.0, agreement=0.9)])
    styles = style_cells(table).items()
    marked = {name: each.index("bold green") for name, each in styles if "bold green" in each}
    assert marked == {"TFLite accuracy (%)": 1, "bytes": 1, "size ratio": 1, "speedup": 1, "micro arena (bytes)": 2}


def test_only_files_of_one_model_and_data_set_compete_for_the_mark() -> None:
    table = frame([row("none", tflite_bytes=9.0), row("none", model="mlp", tflite_bytes=5.0, run_id="other")])
    assert style_cells(table)["bytes"] == ["bold green", "bold green"]


def test_none_is_the_fastest_where_machines_differ() -> None:
    table = frame([row("none", machine="a"), row("qat", machine="b", speedup=3.0, speed="faster")])
    assert "bold green" not in style_cells(table)["speedup"]


def test_rows_of_one_machine_do_not_name_it() -> None:
    table = frame([row("none", machine="a"), row("qat", machine="a")])
    assert "machine" not in display_table(table)


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
    assert display_table(frame([measured, row("qat", **facts)]))["micro arena (bytes)"].iloc[1] == shown


def test_the_csv_holds_every_column_in_full_precision(tmp_path: Path) -> None:
    FORMS["csv"].write(frame(ROWS), tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv")
    assert list(read.columns) == list(COLUMNS)
    assert read.loc[1, "speedup_low"] == 3.69


@pytest.mark.parametrize(
    ("ending", "read"), [(".csv", pd.read_csv), (".xlsx", pd.read_excel), (".parquet", pd.read_parquet)]
)
def test_a_file_has_every_column_in_the_format_of_its_suffix(tmp_path: Path, ending: str, read: Any) -> None:
    path = tmp_path / f"comparison{ending}"
    form_of(path).write(frame([*ROWS, FAILED]), path)
    table = read(path)
    assert list(table.columns) == list(COLUMNS)
    assert table["speedup_low"].iloc[1] == 3.69
    assert table["tflite_bytes"].isna().iloc[2]


def test_json_rounds_nothing(tmp_path: Path) -> None:
    FORMS["json"].write(frame([row("qat", accuracy_change_p=3.2e-13)]), tmp_path / "table.json")
    (kept,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert (kept["accuracy_change_p"], kept["latency_first_us"], kept["epochs"]) == (3.2e-13, None, 1)


def test_json_has_null_for_an_infinite_value(tmp_path: Path) -> None:
    FORMS["json"].write(frame([row("qat", speedup=float("inf"))]), tmp_path / "table.json")
    (kept,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert (kept["speedup"], kept["size_ratio"]) == (None, 1.0)


def test_the_json_file_has_the_form_that_the_published_schema_says(tmp_path: Path) -> None:
    rows = [*ROWS, FAILED, row("annotate", **{"strategy.layers": "['dense']"}), row("annotate", run_id="other")]
    FORMS["json"].write(frame(rows), tmp_path / "table.json")
    written = json.loads((tmp_path / "table.json").read_text())
    schema = json.loads((REPOSITORY / "docs" / "reference" / "comparison.schema.json").read_text())
    jsonschema.validate(written, schema)
    for broken in ({**written, "schema_version": 2}, {"schema_version": 1, "rows": [{"strategy": "qat"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_spreadsheet_has_a_filter_formats_by_kind_and_the_meaning_of_every_column(tmp_path: Path) -> None:
    path = tmp_path / "comparison.xlsx"
    FORMS["excel"].write(frame(ROWS), path)
    book = openpyxl.load_workbook(path)
    sheet, meanings = book["comparison"], book["columns"]
    first = {cells[0].value: cells for cells in sheet.iter_cols()}
    assert sheet.auto_filter.ref == sheet.dimensions
    assert [first[name][1].number_format for name in ("tflite_accuracy", "tflite_bytes", "speedup")] == [
        "0.00%", '#,##0" bytes"', '0.00"x"',
    ]  # fmt: skip
    assert first["tflite_accuracy"][1].value == 0.9765
    assert 8 < sheet.column_dimensions["A"].width <= 42
    assert {cell.value for cell in meanings["A"][1:]} == set(COLUMNS)


def test_a_bar_in_a_cell_does_not_end_it(tmp_path: Path) -> None:
    rows = [row("annotate", **{"strategy.layers": layers}) for layers in ("['conv|dense']", "['dense']")]
    FORMS["markdown"].write(frame(rows), tmp_path / "table.md")
    heading, _, first, *_ = (tmp_path / "table.md").read_text().splitlines()
    assert heading.count("|") == first.replace(r"\|", "").count("|")


def test_an_unknown_suffix_of_a_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"--out comparison\.xls: .*Did you mean \.xlsx"):
        form_of(Path("comparison.xls"))


def test_sizes_and_epochs_are_whole_numbers_in_the_csv(tmp_path: Path) -> None:
    FORMS["csv"].write(frame(ROWS), tmp_path / "table.csv")
    assert ",156664," in (tmp_path / "table.csv").read_text()


def test_a_failed_run_keeps_its_row_and_has_empty_cells() -> None:
    shown = display_table(frame([*ROWS, FAILED]))
    last = shown.iloc[-1]
    assert (last["strategy"], last["bytes"], last["status"]) == ("annotate", "", "FAILED")


def test_a_run_without_a_measurement_is_not_zero() -> None:
    assert pd.isna(frame([FAILED])["tflite_accuracy"].iloc[0])


@pytest.mark.parametrize("rows", [ROWS, [FAILED]])
def test_numbers_have_the_types_that_are_documented_whatever_is_missing(rows: list[dict[str, Any]]) -> None:
    table = frame(rows)
    assert {str(table[name].dtype) for name in WHOLE} == {"Int64"}
    assert {str(table[name].dtype) for name in NUMBERS} == {"float64"}


def test_a_setting_that_varies_becomes_a_column() -> None:
    shown = display_table(frame([*ROWS, row("none", epochs=5)]))
    assert list(shown["epochs"]) == ["1", "1", "5"]
    assert "seed" not in shown.columns


def test_runs_that_differ_in_one_setting_only_have_different_names() -> None:
    rows = [row("qat", **{"finetune.epochs": n, "tracking.uri": f"sqlite:///{n}.db"}) for n in ("1", "5")]
    shown = display_table(frame(rows))
    assert list(shown["finetune.epochs"]) == ["1", "5"]
    assert "tracking.uri" not in shown.columns


IMAGES = ({"dataset.train_samples": "2000"}, {"dataset.train_samples": "None"})


def test_a_setting_in_which_only_runs_of_other_strategies_differ_becomes_a_column() -> None:
    table = frame([row(strategy, **images) for strategy, images in zip(("finetune", "qat"), IMAGES, strict=True)])
    assert list(display_table(table)["dataset.train_samples"]) == ["2000", "None"]


def test_settings_of_one_strategy_only_do_not_become_columns() -> None:
    table = frame([row("prune", **{"strategy.sparsity": "0.8"}), row("qat", **{"strategy.rest": "float"})])
    assert not {"strategy.sparsity", "strategy.rest"} & set(table.columns)


def test_settings_of_further_training_distinguish_only_strategies_that_train() -> None:
    rates = [{"finetune.learning_rate": rate} for rate in ("0.001", "0.01")]
    qat = row("qat", finetune_epochs=1, **rates[0])
    assert "finetune.learning_rate" in frame([qat, row("finetune", finetune_epochs=1, **rates[1])])
    assert "finetune.learning_rate" not in frame([qat, row("none", **rates[1])])


def test_a_setting_that_follows_another_is_named_once() -> None:
    rows = [row("qat", **{f"{of}.learning_rate": rate for of in ("training", "finetune")}) for rate in ("0.1", "0.2")]
    assert names(frame(rows)) == ["qat, learning_rate=0.1", "qat, learning_rate=0.2"]


def test_settings_that_end_alike_are_named_in_full() -> None:
    rates = [("0.1", "0.2"), ("0.2", "0.1")]
    table = frame([row("qat", **{"training.learning_rate": one, "finetune.learning_rate": other})
                   for one, other in rates])  # fmt: skip
    assert names(table)[0] == "qat, training.learning_rate=0.1, finetune.learning_rate=0.2"


def test_equal_requests_have_equal_settings_wherever_they_are_stored() -> None:
    asked = [{"tracking.uri": "a"}, {"tracking.uri": "b"}, {"training.batch_size": "5"}]
    one, other, third = frame([row("none", **each) for each in asked])["settings"]
    assert (one == other, one == third) == (True, False)


TEXT = str(pd.Series(["text"]).dtype)  # str or object, by the version of pandas


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["16", "2", None], "Int64"),
        (["0", "0.5", "1e-05"], "float64"),
        (["None", "2"], TEXT),
        (["[1, 2]", "2"], TEXT),
        (["nan", "2"], TEXT),
    ],
)
def test_a_setting_that_varies_is_numbers_where_every_value_is_one_and_shown_as_typed(
    values: list[str | None], dtype: str
) -> None:
    table = frame([row("cluster", run_id=str(n), **{"strategy.clusters": each}) for n, each in enumerate(values)])
    assert str(table["strategy.clusters"].dtype) == dtype
    assert list(display_table(table)["strategy.clusters"]) == [each or "" for each in values]


def test_a_setting_of_numbers_names_runs_as_it_is_typed() -> None:
    table = frame([row("prune", run_id=share, **{"strategy.sparsity": share}) for share in ("0", "0.5")])
    assert names(table) == ["prune, sparsity=0", "prune, sparsity=0.5"]


def test_threads_that_vary_are_shown_as_they_are_recorded() -> None:
    rows = [recorded({"threads": threads, "resume": "True", "epochs": "1"}) for threads in ("None", "2")]
    shown = display_table(frame([{**row("qat"), **each} for each in rows]))
    assert list(shown["threads"]) == ["None", "2"]
    assert "resume" not in shown.columns


def recorded(parameters: dict[str, str]) -> dict[str, Any]:
    """What a row has of the parameters of a run."""

    class Client:
        def get_run(self, run_id: str) -> Any:
            values = row("qat")
            metrics = {name: value for name, value in values.items() if isinstance(value, float)}
            tags = {name: str(value) for name, value in values.items() if name not in metrics}
            data = SimpleNamespace(tags=tags, params=parameters, metrics=metrics)
            return SimpleNamespace(info=SimpleNamespace(run_id=run_id, status="FINISHED"), data=data)

    return dict(Store(Client(), "7", Tracking()).row("a run"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "told"),
    [({}, True), ({"machine": "b"}, False), ({"model": "mlp"}, False), ({"latency.threads": "2"}, False)],
)
def test_rows_are_ranked_by_their_speedup_where_these_have_one_denominator(changes: dict[str, str], told: bool) -> None:
    alike = {"machine": "a", "latency.threads": "1"}
    table = frame([row("qat", **alike), row("qat", **{**alike, **changes})])
    assert (BY_SPEEDUP in note(table)) == told


def test_a_note_explains_only_columns_that_are_shown() -> None:
    assert BY_SPEEDUP not in note(frame(ROWS), ["strategy", "speedup"])


@pytest.mark.parametrize(("value", "shown"), [(11718.4, "11,718"), (110.2, "110"), (53.04, "53.0"), (2.345, "2.35")])
def test_a_latency_keeps_three_digits(value: float, shown: str) -> None:
    assert display_table(frame([row("qat", latency_p50_us=value)]))["latency p50 (µs)"].iloc[0] == shown


@pytest.mark.parametrize("width", [200, 120, 100, 80])
def test_a_narrow_terminal_omits_no_more_columns_than_necessary(width: int) -> None:
    table = frame([*ROWS, row("qat", arithmetic="4 int8, 1 float32"), FAILED])
    shown = display_table(table)
    kept = fit_columns(shown, width)
    gone = [each for each in map(heading, OPTIONAL) if each in shown.columns and each not in kept.columns]
    assert drawn_width(kept) <= width
    assert not gone or drawn_width(shown.drop(columns=gone[:-1])) > width


def test_the_narrowest_table_still_has_size_ratio_and_speedup() -> None:
    rows = [row("finetune_ptq_int8", partial="true", runs_on_micro="yes", arena_bytes=78_304.0), *ROWS]
    kept = fit_columns(display_table(frame(rows)), 80)
    assert drawn_width(kept) <= 80
    assert {"strategy", "Δ accuracy (pp)", "size ratio", "speedup"} <= set(kept.columns)
    against = frame(rows).assign(against="finetune", score_difference=0.0, size_against=1.0, speedup_against=1.0)
    ends = {f"{name}_{end}": 1.0 for name in ("score_difference", "speedup_against") for end in ("low", "high")}
    kept = fit_columns(display_table(against.assign(**ends)), 80)
    assert {"size ratio vs finetune", "speedup vs finetune"} <= set(kept.columns)


def test_a_note_says_nothing_of_columns_that_are_not_shown() -> None:
    table = frame([row("none", speed="same file"), *ROWS])
    shown = note(table, list(fit_columns(display_table(table), 80).columns))
    assert "speed: " not in shown
    assert SAME not in shown


def drawn_width(shown: pd.DataFrame) -> int:
    console = Console(width=1000)
    return Measurement.get(console, console.options, terminal_table(shown, {})).maximum


@pytest.mark.parametrize("form", ["csv", "markdown", "html", "latex", "json"])
def test_every_form_of_text_is_written(form: str, tmp_path: Path) -> None:
    FORMS[form].write(frame([*ROWS, FAILED]), tmp_path / "table")
    assert "qat" in (tmp_path / "table").read_text()


def test_latex_writes_the_signs_of_headings_as_commands(tmp_path: Path) -> None:
    FORMS["latex"].write(frame(ROWS), tmp_path / "table.tex")
    text = (tmp_path / "table.tex").read_text()
    assert r"$\Delta$ accuracy (pp)" in text
    assert text.isascii()


def test_html_shows_what_users_named_as_text(tmp_path: Path) -> None:
    FORMS["html"].write(frame([row("<script>")]), tmp_path / "table.html")
    assert "<script>" not in (tmp_path / "table.html").read_text()


def examined(name: str, wrong: int, dataset: str = "mnist", **changes: Any) -> Examined:
    return Examined(name, dataset, predictions(wrong, **changes))


def test_a_pair_is_compared_image_by_image() -> None:
    (pair,) = table_of_pairs([examined("none", 10), examined("qat", 4)]).to_dict("records")
    assert (pair["run"], pair["against"], pair["gained"], pair["lost"]) == ("qat", "none", 6, 0)
    assert pair["difference"] == pytest.approx(0.06)
    assert pair["mcnemar_p"] == pytest.approx(2 / 2**6)
    assert pair["low"] < 0.06 < pair["high"]
    assert pair["bootstrap_low"] < 0.06 < pair["bootstrap_high"]


def test_the_verdict_on_a_pair_follows_its_corrected_p_value() -> None:
    runs = [examined("none", 10), examined("qat", 4), examined("again", 10)]
    assert table_of_pairs(runs[:2])["verdict"].tolist() == ["more accurate"]
    assert table_of_pairs(runs)["verdict"].tolist() == ["no significant difference"] * 3


def test_two_runs_with_the_same_file_are_reported_as_such() -> None:
    one, other = (Examined(name, "mnist", predictions(10), file="f") for name in ("one", "other"))
    assert display_pairs(table_of_pairs([one, other]))["verdict"].tolist() == ["same file"]


def test_a_file_identical_to_the_float_file_is_reported_as_such_and_is_never_faster() -> None:
    table = frame([row("none", speed="same file", speedup=1.2, speedup_low=1.1, speedup_high=1.3), row("qat")])
    assert style_cells(table)["speedup"][0] == "dim"
    assert SAME in note(table)


def test_of_rows_with_the_same_file_all_are_the_best_or_none() -> None:
    fast = {"speedup": 3.0, "speedup_low": 2.9, "speedup_high": 3.1, "speed": "faster"}
    rows = [row("a", tflite_sha256="f", **fast), row("b", tflite_sha256="f", speed="faster"), row("c")]
    rows[1] |= {"speedup": 2.0, "speedup_low": 1.9, "speedup_high": 2.1}  # another session timed the same file
    assert style_cells(frame(rows))["speedup"] == ["bold green", "bold green", "dim"]


def test_rows_tied_with_the_best_are_marked_too() -> None:
    best = {"tflite_accuracy": 0.98, "tflite_accuracy_low": 0.975, "tflite_accuracy_high": 0.985}
    tied = {"tflite_accuracy": 0.978, "tflite_accuracy_low": 0.973, "tflite_accuracy_high": 0.983}
    worse = {"tflite_accuracy": 0.9, "tflite_accuracy_low": 0.89, "tflite_accuracy_high": 0.91}
    table = frame([row("a", **best), row("b", **tied), row("c", **worse)])
    assert style_cells(table)["TFLite accuracy (%)"] == ["bold green", "bold green", ""]


def test_runs_of_another_task_are_compared_by_their_metric() -> None:
    lower = RecordedMetric("mae", "lower")
    resampled = np.random.default_rng(0).normal(2.0, 0.01, 2000)
    better, same = (Scores(50, *[values] * 3) for values in (resampled - 0.5, resampled))
    runs = [Examined(str(number), "prices", each, metric=lower) for number, each in enumerate((same, better, same))]
    table = table_of_pairs(runs)
    assert table["verdict"].tolist() == ["better", "no significant difference", "worse"]
    shown = display_pairs(table, lower)
    assert shown["Δ MAE"].tolist()[0].startswith("-0.5")
    assert "McNemar p" not in shown
    with pytest.raises(UserError, match=r"0 is judged by MAE, and none by accuracy\. A comparison requires the same"):
        table_of_pairs([runs[0], examined("none", 3)])


def test_several_runs_are_all_their_pairs_with_corrected_p() -> None:
    table = table_of_pairs([examined("none", 10), examined("qat", 4), examined("ptq_int8", 3)])
    assert list(zip(table["run"], table["against"], strict=True)) == [
        ("qat", "none"),
        ("ptq_int8", "none"),
        ("ptq_int8", "qat"),
    ]
    assert list(table["holm_p"]) == pytest.approx([2 * 2 / 2**6, 3 * 2 / 2**7, 1])
    assert list(display_pairs(table)["Holm p"]) == ["0.062", "0.047", "1"]


def test_a_single_pair_needs_no_correction() -> None:
    shown = display_pairs(table_of_pairs([examined("none", 10), examined("qat", 4)]))
    assert "Holm p" not in shown.columns
    assert shown["Δ accuracy (pp)"].iloc[0].startswith("+6.00 [+")


@pytest.mark.parametrize(
    "other", [examined("qat", 4, images=99), examined("qat", 4, truth=2), examined("qat", 4, dataset="fashion_mnist")]
)
def test_runs_on_different_images_are_not_compared(other: Examined) -> None:
    with pytest.raises(UserError, match="none and qat were tested on different examples"):
        table_of_pairs([examined("none", 10), other])


def test_a_run_is_found_by_a_prefix_of_its_id() -> None:
    known = ["abc123", "abd456", "abd4567"]
    assert find_by_prefix("abc", known) == "abc123"
    assert find_by_prefix("abd456", known) == "abd456"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ab", "2 run ids have this prefix"),
        ("abx123", "Did you mean abc123"),
        ("zzz", "no run has this id. Newest: abc123"),
    ],
)
def test_a_wrong_run_id_is_refused_with_similar_ids(given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_by_prefix(given, ["abc123", "abd456"])


def test_a_label_describes_a_run() -> None:
    assert label(row("qat", run_id="0123456789abcdef")) == "qat epochs=1 seed=0 (01234567)"


def relative(rows: list[dict[str, Any]], strategy: str, condition: str) -> Comparison:
    """Rows as compared with a strategy, of which those that a condition chooses; their predictions are unknown."""

    class Kept:
        def read_evidence(self, run_id: str) -> None:
            return None

        def content(self, run_id: str, artifact: str) -> None:
            return None

    return compare_runs(Kept(), frame(rows), strategy, condition)  # type: ignore[arg-type]


def test_selected_runs_are_compared_with_runs_outside_the_selection() -> None:
    rows = [row("finetune"), row("qat", tflite_accuracy=0.98)]
    (qat,) = relative(rows, "finetune", "strategy == 'qat'").table.to_dict("records")
    assert qat["against"] == "finetune"
    assert qat["accuracy_difference"] == pytest.approx(0.0035)


def test_the_table_says_if_no_run_has_a_counterpart() -> None:
    comparison = relative([row("qat"), row("none", epochs=5)], "qat", "epochs == 5")
    assert display_table(comparison.table)["Δ accuracy vs qat (pp)"].tolist() == [""]
    (line,) = comparison.remarks
    assert line.startswith("1 of 1 runs are not compared: no qat run, or more than one, has the same model, data")


def test_seeds_without_a_counterpart_are_pooled() -> None:
    rows = [row("finetune"), *seeds("qat", 2, tflite_accuracy=0.98)]
    comparison = relative(rows, "finetune", "strategy == 'qat'")
    assert display_table(comparison.table)["Δ accuracy vs finetune (pp)"].tolist() == ["+0.35"]


def test_a_comparison_can_be_sorted_by_the_baseline_columns() -> None:
    table = frame([row("none", run_id=name, tflite_bytes=size) for name, size in (("a", 2.0), ("b", 3.0), ("c", 1.0))])
    comparison = Comparison(table, table.assign(size_against=[1.0, 3.0, 2.0]), lambda _: None)
    assert list(comparison.in_order(["-size_against"]).table["run_id"]) == ["b", "c", "a"]


def test_runs_of_a_table_over_seeds_keep_the_requested_order() -> None:
    rows = [*seeds("qat", 2, tflite_bytes=9.0), *seeds("none", 2, tflite_bytes=5.0)]
    pooled = relative(rows, "none", "tflite_bytes > 0")
    in_order = pooled.in_order(["tflite_bytes", "-runs"])
    assert list(in_order.runs["strategy"]) == ["none", "none", "qat", "qat"]


def test_thousands_of_rows_are_cut_on_a_terminal_and_the_rest_is_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(frame([row("none", seed=number, run_id=f"run {number}") for number in range(MOST_ROWS + 200)]))
    assert "200 more rows are not shown. --csv FILE writes all, --where selects some." in capsys.readouterr().out


def test_runs_of_two_engines_are_distinguished_in_the_table() -> None:
    table = frame([row("none"), row("qat", engine="TFMOT"), row("qat", model="keras3", engine="own")])
    assert list(display_table(table)["engine"]) == ["", "TFMOT", "own"]


def test_one_engine_needs_no_column() -> None:
    assert "engine" not in display_table(frame([row("none"), row("qat", engine="TFMOT")]))


def test_a_table_of_several_metrics_names_each_with_its_unit() -> None:
    other = {"dataset": "houses", "metric": "mae", "metric_better": "lower", "tflite_score": 12.5, "run_id": "other"}
    shown = display_table(frame([row("none"), row("none", **other), FAILED]))
    assert shown["metric"].tolist() == ["accuracy (%)", "MAE", ""]
