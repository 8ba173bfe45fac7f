"""The report: what to ship under which priority, what it shows of runs, and a page that needs nothing else."""

import io
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from markupsafe import escape

from benchmarks.harness.mlflow_pages import chromium
from experiments import compare
from experiments.comparison.choices import UNDECIDED, Choice, choices
from experiments.comparison.columns import cell_of, frame
from experiments.comparison.compared import Comparison
from experiments.comparison.groups import group_runs
from experiments.comparison.tasks import tasks
from experiments.measure.changes import EACH, LONGEST, changed_images
from experiments.plots.comparison import Pictures, PlotData, comparison_pictures
from experiments.record.artifacts import CHANGED, CLASSES, LAYERS, class_table
from experiments.record.evidence import Predictions
from experiments.report.details import confusion, worst_classes
from experiments.report.page import report, write_report
from experiments.system.errors import UserError
from experiments.tracking.schema import SCHEMA
from tests.rows import FAILED, ROWS, five_rounds, predictions, row, seeds
from tests.support.pdf import pages_of, text_of

LAYER_TABLE = (
    b"index,op,layer,input_type,weights_type,output_type,per_channel,weights,weights_bytes,macs,sparsity,clusters,"
    b"arithmetic,xnnpack\n0,CONV_2D,conv2d,int8,int8,int8,True,576,576,451584,0.0,9,int8,True\n"
)


@dataclass(frozen=True)
class Recorded:
    """A store in memory."""

    wrong: Mapping[str, int]
    images: int = 2000

    def read_evidence(self, run_id: str) -> Predictions | None:
        return predictions(self.wrong[run_id], images=self.images) if run_id in self.wrong else None

    def content(self, run_id: str, artifact: str) -> bytes | None:
        if run_id not in self.wrong:
            return None
        file = io.BytesIO()
        np.savez_compressed(file, places=np.array([1, 2]), images=np.full((2, 28, 28, 1), 200, np.uint8))
        return {LAYERS: LAYER_TABLE, CHANGED: file.getvalue()}.get(artifact)

    def stamp(self, run_id: str) -> dict[str, str]:
        return {"cpu": "a CPU", "git_commit": f"commit of {run_id}"}

    ui_command = "mlflow ui --backend-store-uri sqlite:///mlflow.db"

    def page(self, run_id: str) -> str:
        return f"http://127.0.0.1:5000/#/experiments/1/runs/{run_id}"


def ptq(strategy: str = "ptq_int8", **changes: Any) -> dict[str, Any]:
    return row(
        strategy,
        **{
            "tflite_bytes": 156000.0, "size_ratio": 3.84, "speed": "faster",
            "speedup": 3.3, "speedup_low": 3.29, "speedup_high": 3.31, **changes,
        },
    )  # fmt: skip


def found(
    rows: list[dict[str, Any]], wrong: Mapping[str, int], images: int = 2000, margin: float = 0.005
) -> dict[str, Choice]:
    table = frame(rows)
    (task,) = tasks(Comparison(table, table, Recorded(wrong, images).read_evidence, margin=margin))
    return {choice.priority: choice for choice in choices(task)}


def test_the_smallest_download_has_an_entry_where_it_is_not_that_of_the_smallest_file() -> None:
    rows = [ptq(tflite_gzip_bytes=126_000.0), ptq("prune_qat", tflite_bytes=157_000.0, tflite_gzip_bytes=50_000.0)]
    wrong = {"run-ptq_int8": 40, "run-prune_qat": 40}
    choice = found(rows, wrong)["Download first"]
    assert (choice.name, choice.evidence[:20]) == ("prune_qat", "50,000 bytes after g")
    assert "Download first" not in found(rows[:1], wrong)


def test_the_simplest_of_those_that_are_tied_in_accuracy_is_named_with_the_others() -> None:
    best = found(
        [row("qat", tflite_accuracy=0.98), row("finetune", tflite_accuracy=0.9795), row("none", tflite_accuracy=0.9)],
        {"run-qat": 40, "run-finetune": 41, "run-none": 200},
    )["Accuracy first"]
    assert (best.name, best.tied) == ("qat", ("finetune",))


def test_the_smallest_counts_among_those_that_lose_half_a_point_at_most() -> None:
    rows = [row("none", tflite_accuracy=0.98), ptq(tflite_accuracy=0.98), row("tiny", tflite_bytes=1.0)]
    smallest = found(rows, {"run-none": 40, "run-ptq_int8": 40, "run-tiny": 100})["Size first"]
    assert smallest.name == "ptq_int8"
    assert smallest.evidence.startswith("156,000 bytes, 3.84x smaller than float; ")


def test_a_file_that_may_have_lost_more_does_not_count_as_equally_accurate() -> None:
    rows = [
        row("none", tflite_accuracy=0.98),
        ptq(tflite_accuracy=0.976),
        ptq("ptq_float16", size_ratio=1.9, tflite_bytes=3e5),
    ]
    wrong = {"run-none": 40, "run-ptq_int8": 48, "run-ptq_float16": 40}
    assert found(rows, wrong)["Size first"].name == "ptq_float16"


@pytest.mark.parametrize("priority", ["Size first", "Speed first"])
def test_the_float_file_is_no_answer_for_want_of_test_examples(priority: str) -> None:
    rows = [row("none", tflite_accuracy=0.98), ptq(tflite_accuracy=0.98)]
    choice = found(rows, {"run-none": 40, "run-ptq_int8": 40}, images=200)[priority]
    assert (choice.name, choice.run_id, choice.undecided) == (UNDECIDED, "", ("ptq_int8",))
    assert "The test set is too small to show that a file" in choice.evidence
    assert "200 test examples are too few to show whether it loses more than 0.5 points: about 560" in choice.advice


def test_the_float_file_is_not_the_fastest_for_want_of_timings_that_count() -> None:
    choice = found([row("none"), ptq(speed="void")], dict.fromkeys(("run-none", "run-ptq_int8"), 40))["Speed first"]
    assert (choice.name, choice.undecided) == (UNDECIDED, ("ptq_int8",))
    assert "type the command of the sweep again" in choice.advice


def test_with_the_estimated_number_of_test_examples_the_smaller_file_is_the_answer() -> None:
    rows = [row("none", tflite_accuracy=0.98), ptq(tflite_accuracy=0.98)]
    assert found(rows, {"run-none": 40, "run-ptq_int8": 40}, images=560)["Size first"].name == "ptq_int8"


def test_where_every_smaller_file_loses_too_much_for_sure_the_float_file_is_the_answer() -> None:
    rows = [row("none", tflite_accuracy=0.98), ptq(tflite_accuracy=0.5)]
    assert found(rows, {"run-none": 4, "run-ptq_int8": 100}, images=200)["Size first"].name == "none"


def test_the_margin_is_a_setting_that_decides_and_is_named() -> None:
    rows = [row("none", tflite_accuracy=0.98), ptq(tflite_accuracy=0.976)]
    wrong = {"run-none": 40, "run-ptq_int8": 48}
    assert found(rows, wrong, margin=0.02)["Size first"].name == "ptq_int8"
    assert "at most 0.1 points" in found(rows, wrong, margin=0.001)["Size first"].evidence


def test_rows_with_the_same_file_are_reported_as_such_and_do_not_compete() -> None:
    rows = [row("none", tflite_sha256="a"), row("finetune", tflite_sha256="b"), row("again", tflite_sha256="a")]
    best = found(rows, {"run-none": 40, "run-finetune": 41, "run-again": 40})["Accuracy first"]
    assert (best.same, best.tied) == (("again",), ("finetune",))


def test_what_may_be_as_good_is_what_a_pair_does_not_tell_apart() -> None:
    """Alone, 40 and 47 wrong of 2,000 on nested images differ (p = 0.016); as one of 28 pairs they do not."""
    rows = [row(f"s{n}", tflite_accuracy=0.98 if n == 0 else 0.9765) for n in range(8)]
    best = found(rows, {f"run-s{n}": 40 if n == 0 else 47 for n in range(8)})["Accuracy first"]
    assert len(best.tied) == 7
    assert found(rows[:2], {"run-s0": 40, "run-s1": 47})["Accuracy first"].tied == ()


@pytest.mark.parametrize(
    ("priority", "undecided"),
    [("Size first", ("ptq_int8",)), ("Speed first", ("ptq_int8",)), ("For a microcontroller", ("ptq_int8",))],
)
def test_what_may_have_lost_too_much_and_may_not_is_undecided(priority: str, undecided: tuple[str, ...]) -> None:
    micro: dict[str, Any] = {"runs_on_micro": "yes", "arena_bytes": 9.0}
    rows = [row("none", tflite_accuracy=0.98, **micro), ptq(tflite_accuracy=0.976, **micro)]
    choice = found(rows, {"run-none": 40, "run-ptq_int8": 48})[priority]
    assert (choice.name, choice.undecided) == (UNDECIDED, undecided)


def test_what_was_timed_on_another_machine_is_not_undecided_in_speed() -> None:
    rows = [row("none", tflite_accuracy=0.98, machine="a"), ptq(tflite_accuracy=0.976, machine="b")]
    assert found(rows, {"run-none": 40, "run-ptq_int8": 48})["Speed first"].undecided == ()


def test_what_has_lost_too_much_for_sure_is_not_undecided() -> None:
    rows = [row("none", tflite_accuracy=0.98), ptq(tflite_accuracy=0.9)]
    assert found(rows, {"run-none": 40, "run-ptq_int8": 200})["Size first"].undecided == ()


def test_the_fastest_is_a_valid_timing() -> None:
    rows = [row("none"), ptq(speedup=9.0, speed="void", run_id="void"), ptq(strategy="qat")]
    fastest = found(rows, {"run-none": 40, "void": 40, "run-qat": 40})["Speed first"]
    assert fastest.name == "qat"


def test_files_whose_speedups_are_not_distinguishable_are_named() -> None:
    rows = [row("none"), ptq(), ptq(strategy="qat", speedup=3.305, run_id="qat")]
    fastest = found(rows, dict.fromkeys(("run-none", "run-ptq_int8", "qat"), 40))["Speed first"]
    assert (fastest.name, fastest.tied) == ("ptq_int8", ("qat",))


def test_of_files_whose_float_files_differ_the_one_that_takes_the_least_time_is_the_fastest() -> None:
    rows = [ptq(run_id="large", latency_p50_us=200.0, speedup=3.31, **{"latency.threads": "2"}),
            ptq(run_id="small", latency_p50_us=100.0, **{"latency.threads": "1"})]  # fmt: skip
    fastest = found(rows, {"large": 40, "small": 40})["Speed first"]
    assert (fastest.run_id, fastest.tied) == ("small", ())


def test_times_of_several_machines_name_no_fastest() -> None:
    rows = [row("none", machine="a"), ptq(machine="b")]
    assert "Speed first" not in found(rows, dict.fromkeys(("run-none", "run-ptq_int8"), 40))


def test_on_a_microcontroller_counts_what_file_and_arena_need() -> None:
    rows = [row("none", runs_on_micro="yes", arena_bytes=300_000.0), ptq(runs_on_micro="yes", arena_bytes=70_000.0),
            row("small", runs_on_micro="hybrid", tflite_bytes=1.0)]  # fmt: skip
    wrong = dict.fromkeys(("run-none", "run-ptq_int8", "run-small"), 40)
    assert found(rows, wrong)["For a microcontroller"].name == "ptq_int8"
    assert "For a microcontroller" not in found(ROWS, {"run-none": 40, "run-qat": 40})


@pytest.mark.parametrize("fault", [{"status": "FAILED"}, {"verified": "false"}])
def test_what_failed_or_is_not_verified_is_never_shipped(fault: dict[str, Any]) -> None:
    rows = [row("none"), ptq(tflite_accuracy=0.999, **fault)]
    names = {choice.name for choice in found(rows, {"run-none": 40, "run-ptq_int8": 2}).values()}
    assert names == {"none"}


def test_groups_of_runs_are_compared_seed_by_seed() -> None:
    runs = frame([*seeds("none", 3, tflite_accuracy=0.98), *seeds("qat", 3, tflite_accuracy=0.98, tflite_bytes=9.0)])
    store = Recorded({**{f"none-{n}": 40 for n in range(3)}, **{f"qat-{n}": 41 for n in range(3)}})
    table = group_runs(runs, cell_of(runs), store.read_evidence).table
    (task,) = tasks(Comparison(runs, table, store.read_evidence, over_seeds=True))
    assert [choice.name for choice in choices(task)[:2]] == ["qat", "qat"]
    assert choices(task)[0].tied == ("none",)  # the smaller of two that three seeds do not tell apart


def test_each_model_and_data_set_has_an_answer_of_its_own() -> None:
    table = frame([row("none"), row("none", model="mlp", run_id="other")])
    found = tasks(Comparison(table, table, lambda _: None))
    assert [task.title for task in found] == ["article_cnn on mnist", "mlp on mnist"]


def test_a_setting_that_varies_is_part_of_the_name() -> None:
    rows = [row("none", epochs=n, run_id=f"run-{n}", tflite_accuracy=0.9 + n / 100) for n in (1, 5)]
    assert found(rows, {"run-1": 180, "run-5": 40})["Accuracy first"].name == "none, 5 epochs"


def test_a_confusion_matrix_counts_predictions_by_true_class() -> None:
    matrix = confusion(Predictions(*(np.array(each) for each in ([0, 0, 1], [0, 0, 1], [0, 1, 1], [0, 0, 1]))))
    assert matrix is not None
    assert matrix.counts.tolist() == [[1, 1], [0, 1]]


def test_more_classes_than_can_be_read_have_no_matrix() -> None:
    many = np.arange(100)
    assert confusion(Predictions(many, many, many, many)) is None


def test_the_worst_class_is_named_with_what_it_is_taken_for() -> None:
    truth = np.repeat([0, 1], 50)
    said = np.where(np.arange(100) < 10, 1, truth)
    (line,) = worst_classes(Predictions(truth, said, said, truth), {})
    assert line.startswith("class 0: 80.0 % [")
    assert line.endswith("most often predicted as 1 (10 of 50)")


def test_images_that_were_lost_and_gained_are_kept() -> None:
    truth, before, after = np.array([0, 0, 0, 0]), np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    changed = changed_images(np.zeros((4, 5, 5, 1), np.float32), truth, before, after)
    assert changed.places.tolist() == [2, 1]  # lost before gained; still wrong is neither


def test_the_number_of_kept_images_is_limited() -> None:
    truth = np.zeros(100, np.int64)
    changed = changed_images(np.zeros((100, 5, 5, 1), np.float32), truth, truth, truth + 1)
    assert len(changed.places) == len(changed.images) == EACH


def test_large_images_become_small() -> None:
    truth = np.zeros(1, np.int64)
    changed = changed_images(np.ones((1, 300, 200, 3), np.float32), truth, truth, truth + 1)
    assert max(changed.images.shape[1:3]) <= LONGEST


def test_data_that_are_no_pictures_leave_none() -> None:
    truth = np.zeros(1, np.int64)
    assert not len(changed_images(np.ones((1, 16), np.float32), truth, truth, truth + 1).images)


def page(rows: list[dict[str, Any]], wrong: Mapping[str, int], commands: tuple[str, ...] = (), **evidence: Any) -> str:
    table, store = frame(rows), Recorded(wrong)
    comparison = Comparison(table, table, store.read_evidence)
    return report(store, comparison, comparison_pictures(PlotData(table, **evidence)), commands)  # type: ignore[arg-type]


WRONG = {"run-none": 40, "run-qat": 41}


def test_a_page_needs_no_other_files() -> None:
    shown = page(ROWS, WRONG)
    links = re.findall(r"<a href=\"([^\"]*)\"", shown)
    assert [link for link in links if not link.startswith(("#", "http://127.0.0.1:5000/#/experiments/1/runs/"))] == []
    shown = re.sub(r"<a [^>]*>", "", shown)
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", shown) + re.findall(r"url\(([^)]*)\)", shown)
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "@import" not in shown


def test_a_page_says_what_to_type() -> None:
    assert "experiments.run -m &#39;strategy=glob(*)&#39;" in page(
        ROWS, WRONG, ("python -m experiments.run -m 'strategy=glob(*)'",)
    )


def test_a_page_hides_passwords() -> None:
    shown = page(ROWS, WRONG, ("python -m experiments.run -m tracking.uri=postgresql://me:secret@db/mlflow",))
    assert "secret" not in shown
    assert "postgresql://***@db/mlflow" in shown


def test_a_page_shows_where_a_file_differs_from_its_strategy() -> None:
    broken = row("qat", verified="false", broken_promise="dense computes in float32 instead of int8")
    label = escape(SCHEMA["broken_promise"].doc.rstrip("."))
    shown = page([row("none"), broken], WRONG)
    assert f"<dt>{label}</dt><dd>dense computes in float32 instead of int8</dd>" in shown


def test_a_page_shows_the_ops_of_a_run_and_the_images_that_changed() -> None:
    shown = page(ROWS, WRONG)
    assert "451,584" in shown
    assert shown.count("data:image/png;base64,") == 4


def test_classes_have_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {CLASSES: class_table({1: "cat, grey", 9: "=dog"}).encode()}
    monkeypatch.setattr(
        Recorded, "content", lambda _, run_id, artifact: files.get(artifact) if run_id in WRONG else None
    )
    shown = page(ROWS, WRONG)
    assert "class cat, grey: 98.0 % [" in shown
    assert "most often predicted as =dog (40 of 2000)" in shown
    assert '<th scope="row">cat, grey</th>' in shown
    assert '<th scope="row">2</th>' in shown  # a class without a name


def test_a_page_shows_what_users_named_as_text() -> None:
    assert "<script>alert" not in page([row("<script>alert(1)</script>"), row("none")], WRONG)


def test_a_page_of_failed_runs_says_that_nothing_can_be_shipped() -> None:
    assert "there is nothing to ship" in page([FAILED], {})


def test_a_page_of_runs_without_artifacts_has_its_tables() -> None:
    assert "599,620" in page(ROWS, {})


def test_the_engine_of_a_run_is_among_its_facts() -> None:
    text = page([row("none"), row("qat", engine="own")], {})
    assert re.search(r"Engine of quantization-aware training, pruning and clustering\W.{0,60}own", text, re.DOTALL)


def test_trained_strategies_are_compared_with_the_control() -> None:
    rows = [row("finetune", finetune_epochs=1), row("qat", finetune_epochs=1)]
    assert "Against the control" in page(rows, {"run-finetune": 40, "run-qat": 40})
    assert "Against the control" not in page(ROWS, WRONG)


def test_the_control_that_a_longer_training_needs_is_named() -> None:
    rows = [row("finetune", finetune_epochs=1), row("prune_qat", finetune_epochs=1, epochs_trained=3.0)]
    assert "add strategy=finetune finetune.epochs=2." in page(rows, {})


def test_of_groups_of_different_epochs_it_is_a_run_that_is_shipped() -> None:
    rows = [ptq("none", epochs=epochs, run_id=f"none-{epochs}") for epochs in (1, 5)]
    rows += [ptq(epochs=epochs, run_id=f"ptq-{epochs}", tflite_bytes=156_000.0) for epochs in (1, 5)]
    assert "ptq_int8, 5 epochs" in grouped_page(rows, by=["strategy"], wrong={each["run_id"]: 40 for each in rows})


def test_of_groups_of_several_models_something_can_be_shipped() -> None:
    rows = [row("none", model=model, run_id=model) for model in ("resnet8", "ds_cnn")]
    assert "there is nothing to ship" not in grouped_page(rows, by=["strategy"], wrong={})


def test_a_file_whose_predictions_are_lost_is_undecided() -> None:
    assert "Undecided: ptq_int8" in page([row("none"), ptq(tflite_bytes=156_000.0, tflite_accuracy=0.9)], {})


def grouped_page(rows: list[dict[str, Any]], by: list[str], wrong: Mapping[str, int]) -> str:
    table, store = frame(rows), Recorded(wrong)
    comparison = Comparison(table, group_runs(table, by, store.read_evidence).table, store.read_evidence)
    return report(store, comparison, comparison_pictures(PlotData(table)), ())  # type: ignore[arg-type]


def test_the_description_of_a_run_of_one_seed_has_its_own_figures() -> None:
    rows = [ptq(seed=n, run_id=f"run-{n}", tflite_gzip_bytes=1000.0 * (n + 1)) for n in (0, 1)]
    table, store = frame(rows), Recorded({"run-0": 40, "run-1": 41})
    means = group_runs(table, cell_of(table), store.read_evidence).table
    comparison = Comparison(table, means, store.read_evidence, over_seeds=True)
    shown = report(store, comparison, comparison_pictures(PlotData(table)), ())  # type: ignore[arg-type]
    assert f"<dt>{SCHEMA['tflite_gzip_bytes'].doc.rstrip('.')} (bytes)</dt><dd>1,000</dd>" in shown


def test_details_are_limited_to_a_maximum_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.report.page.MOST_RUNS", 2)
    rows = [row("none", seed=0, run_id=f"run-{n}", epochs=n) for n in range(4)]
    assert page(rows, {}).count("<details>") == 2


def test_a_page_that_cannot_be_written_is_a_message(tmp_path: Path) -> None:
    table = frame(ROWS)
    comparison = Comparison(table, table, lambda _: None)
    drawn = comparison_pictures(PlotData(table))
    with pytest.raises(UserError, match="cannot be written"):
        write_report(Recorded({}), comparison, drawn, (), tmp_path / "no" / "report.html")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prefer", "size,sped"], "sped is not a criterion. Did you mean speed"),
        (["--prefer", "size,size"], "requires each criterion once"),
        (["--margin", "1", "--pivot", "strategy", "epochs", "tflite_bytes"], "--margin: has no effect with --pivot"),
        (["--margin", "-1", "--out", "report.html"], "--margin -1: requires points between"),
        (["--margin", "nan", "--out", "report.html"], "--margin nan: requires points between"),
        (["--by-name"], "--by-name: requires an earlier comparison"),
    ],
)
def test_a_setting_of_the_comparison_that_decides_nothing_is_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = SimpleNamespace(rows=lambda _: [row("none")], read_evidence=lambda _: None)
    monkeypatch.setattr(compare, "open_existing", lambda *_: store)
    monkeypatch.setattr(sys, "argv", ["compare", *arguments])
    with pytest.raises(SystemExit) as ended:
        compare.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_page_names_the_margin_that_it_goes_by() -> None:
    table = frame([row("none"), ptq()])
    comparison = Comparison(table, table, Recorded({"run-none": 40, "run-ptq_int8": 40}).read_evidence, margin=0.02)
    page = report(Recorded({}), comparison, Pictures({}, {}), [])  # type: ignore[arg-type]
    assert "lose at most 2 points" in page


TYPED = "python -m experiments.run -m strategy=none,qat"


@pytest.fixture(scope="module")
def browsed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A page of a browser with a report of long names, in the dark."""
    program = chromium()
    if program is None:
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    path = tmp_path_factory.mktemp("report") / "report.html"
    long = ptq("a_strategy_with_a_name_that_is_long", warnings="at chance: always the same", arithmetic="4 hybrid int8")
    rows = [
        *ROWS,
        long,
        ptq("ptq_int16x8", arithmetic="3 float32, 2 hybrid int8", runs_on_micro="yes", arena_bytes=9.0),
        ptq("qat", epochs=5, finetune_epochs=5, run_id="longer"),
    ]
    ids = [each["run_id"] for each in rows]
    curve = {
        f"{stage}/{metric}": [0.6, 0.8] for stage in ("baseline", "finetune") for metric in ("accuracy", "val_accuracy")
    }
    timed = {name: np.array([90_000, 100_000, 400_000]) for name in ("model", "reference")}
    measured = {"histories": curve, "timings": timed, "rounds": five_rounds()}
    wrong = {**WRONG, f"run-{long['strategy']}": 42, "longer": 41}
    evidence = {name: dict.fromkeys(ids, each) for name, each in measured.items()}
    path.write_text(page(rows, wrong, (TYPED,), **evidence), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        shown = browser.new_page(color_scheme="dark")
        shown.goto(path.as_uri())
        yield shown
        browser.close()


OUTSIDE = """() => [...document.querySelectorAll("main *")].filter(each => {
    const box = each.getBoundingClientRect();
    return box.width && (box.left < -1 || box.right > innerWidth + 1) && !each.closest("svg");
}).map(each => `${each.tagName} ${each.textContent.slice(0, 30)}`)"""


@pytest.mark.parametrize(("width", "display"), [(1600, "table-row"), (1280, "table-row"), (390, "block")])
def test_nothing_is_outside_the_screen_and_on_a_phone_a_table_is_cards(browsed: Any, width: int, display: str) -> None:
    browsed.set_viewport_size({"width": width, "height": 900})
    browsed.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert browsed.evaluate("document.documentElement.scrollWidth") == width
    assert browsed.evaluate(OUTSIDE) == []
    assert browsed.evaluate("getComputedStyle(document.querySelector('.sortable tbody tr')).display") == display


def test_a_point_shows_its_values_on_hover_and_a_phone_enlarges_a_plot(browsed: Any) -> None:
    browsed.set_viewport_size({"width": 1280, "height": 900})
    point = browsed.locator("#accuracy_size .value").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    browsed.mouse.move(box["x"] + 2, box["y"] + 2)
    told = browsed.locator("#tip").inner_text().splitlines()
    assert told[0].startswith("strategy: ")
    assert re.fullmatch(r"accuracy of the TFLite file \(%\): 97\.65 \[97\.34, 97\.93\]", told[1])
    browsed.set_viewport_size({"width": 390, "height": 900})
    figure = browsed.locator("#accuracy_size")
    assert figure.evaluate("each => each.scrollWidth <= each.clientWidth")
    figure.locator("figcaption").click()
    assert figure.evaluate("each => each.scrollWidth > each.clientWidth")


@pytest.mark.parametrize(
    "name",
    [
        "accuracy_size",
        "accuracy_latency",
        "accuracy_epochs",
        "training_histories",
        "latency_distributions",
        "latency_rounds",
    ],
)
def test_the_last_point_of_every_plot_shows_its_values_within_the_window(browsed: Any, name: str) -> None:
    browsed.set_viewport_size({"width": 1280, "height": 900})
    point = browsed.locator(f"#{name} .value").last
    point.scroll_into_view_if_needed()
    browsed.wait_for_timeout(100)  # milliseconds; values disappear when the page is scrolled
    box = point.bounding_box()
    browsed.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = browsed.locator("#tip")
    assert all(": " in line for line in tip.inner_text().splitlines() if line and not line.endswith(" more"))
    shown = tip.bounding_box()
    assert shown["x"] >= 0
    assert shown["x"] + shown["width"] <= 1280
    assert shown["y"] + shown["height"] <= 900


def test_a_printed_report_is_light_and_nothing_is_cut(browsed: Any) -> None:
    browsed.set_viewport_size({"width": 680, "height": 960})  # A4 within its margins: 18 cm
    browsed.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    browsed.emulate_media(media="print")
    look = browsed.evaluate("(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))")
    assert look == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert browsed.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")  # of the screen
    assert browsed.evaluate("document.documentElement.scrollWidth") <= 680
    assert browsed.evaluate(OUTSIDE) == []
    printed = browsed.pdf(format="A4")
    browsed.emulate_media(media="null")
    assert 3 <= pages_of(printed) <= 20
    text = text_of(printed)
    assert "Whichquantizationtoship:article_cnnonmnist" in text
    assert "Chosenby" in text
    assert "a_strategy_with_a_name_that_is_long" in text
    assert TYPED.replace(" ", "") in text


def test_a_report_is_printed_with_what_decided_and_without_closed_details(browsed: Any) -> None:
    browsed.evaluate("document.querySelectorAll('details').forEach(each => { each.open = false; })")
    text = text_of(browsed.pdf(format="A4"))
    assert "Oftiedsettings,thesimplestisnamed" in text
    assert "Aprintedreporthasthedetailsoftherunsthatwereopenedinthepage." in text
    assert "Whatthefilecomputes" not in text


def test_a_plot_of_two_points_is_a_table() -> None:
    table = frame(ROWS)
    drawn = comparison_pictures(PlotData(table, fewest=3))
    shown = report(Recorded({}), Comparison(table, table, lambda _: None), drawn, [])  # type: ignore[arg-type]
    assert "accuracy_size" not in drawn.drawn
    assert "As a table, since a plot would have only 2 points." in shown
    assert re.search(r'data-name="accuracy of the TFLite file \(%\)">98\.12 <span class="interval">\[', shown)


def test_a_page_ships_nothing_on_an_implausible_baseline() -> None:
    shown = page([row("none", warnings="at chance: always the same")], {"run-none": 40})
    assert "Nothing to ship yet: the baseline is implausible" in shown
    assert "<p>Best so far</p>" in shown
    assert "<p>Ship</p>" not in shown


def test_a_page_says_how_many_examples_would_separate_what_is_tied() -> None:
    shown = page([row("none"), ptq(tflite_accuracy=0.98)], {"run-none": 42, "run-ptq_int8": 40})
    assert "Each of these is tied with ptq_int8, the most accurate, on 2,000 test examples and 1 seed." in shown
    assert re.search(r'data-name="test examples needed">7,\d00<', shown)
    assert "seeds needed" not in shown  # one seed does not show how much training varies
    assert "is tied with no other setting: these test examples" in page(ROWS, {"run-none": 140, "run-qat": 40})
    assert "none is the only setting." in page(ROWS[:1], {"run-none": 40})
    alone = page([row("none"), row("qat", tflite_accuracy_low=None, tflite_accuracy_high=None)], {})
    assert "none is tied with no other setting.</p>" in alone
    assert "Not compared with it, since predictions are missing: qat." in alone


def test_with_several_seeds_a_page_says_how_many_would_separate_what_is_tied() -> None:
    rows = [*seeds("none", 3), *seeds("qat", 3, tflite_accuracy=0.98)]
    table, wrong = frame(rows), {"none-0": 48, "none-1": 44, "none-2": 40, "qat-0": 40, "qat-1": 41, "qat-2": 40}
    store = Recorded(wrong)
    means = group_runs(table, cell_of(table), store.read_evidence).table
    comparison = Comparison(table, means, store.read_evidence, over_seeds=True)
    shown = report(store, comparison, Pictures({}, {}), ())  # type: ignore[arg-type]
    assert "on 2,000 test examples and 3 seeds. Either number alone would be enough" in shown
    assert re.search(r'data-name="seeds needed">\d+<', shown)


def test_a_row_links_to_its_details_and_these_to_mlflow() -> None:
    shown = page(ROWS, WRONG)
    assert '<a href="#run-run-qat">qat</a>' in shown
    assert re.search(
        r'<div id="run-run-qat">\s*<p class="soft"><a href="http://127.0.0.1:5000/#/experiments/1/runs/run-qat">', shown
    )
    assert "<code>mlflow ui --backend-store-uri sqlite:///mlflow.db</code>" in shown
