"""The suite from Python: a sweep of a model and arrays in memory, its table, and the file to ship."""

import re
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest

from experiments import bench
from experiments.bench import Result, RunFailedError, run
from experiments.comparison.columns import frame
from experiments.comparison.compared import Comparison
from experiments.plots.comparison import PICTURES, PLOTS, Plot
from experiments.system.errors import UserError
from tests import conftest
from tests.rows import FAILED, row


@pytest.mark.parametrize(
    ("value", "typed"),
    [
        (["none", "qat"], "none,qat"),
        ([0, 1], "0,1"),
        (True, "true"),
        (None, "null"),
        (0.5, "0.5"),
        ("mnist", "mnist"),
    ],
)
def test_values_are_written_as_on_the_command_line(value: Any, typed: str) -> None:
    assert bench._as_override(value) == typed


def test_a_path_is_absolute_and_quoted(tmp_path: Path) -> None:
    assert bench._as_override(tmp_path / "a file") == f'"{tmp_path}/a file"'


def test_an_object_that_is_not_a_keras_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model: requires a Keras model .* not dict"):
        run(model={}, folder=tmp_path)


def test_three_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"four arrays \(x_train, y_train, x_test, y_test\), not 3"):
        run(data=[np.zeros(3)] * 3, folder=tmp_path)


def test_a_store_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mlflow\.db"):
        bench.load(folder=tmp_path)


def streamed(code: str, folder: Path) -> tuple[int, list[str]]:
    return bench._streamed([sys.executable, "-c", code], folder)


def test_why_nothing_was_run_is_not_printed_as_well_as_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert streamed("print('epoch: unknown setting.'); raise SystemExit(2)", tmp_path)[1] == ["epoch: unknown setting."]
    assert capsys.readouterr().out == ""
    streamed("print('one'); print('two')", tmp_path)
    streamed("print('reused')", tmp_path)
    assert capsys.readouterr().out == "one\ntwo\nreused\n"


def test_an_interrupt_of_this_process_alone_stops_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    # Background jobs of a shell start with this signal ignored, and so do their children.
    request.addfinalizer(
        partial(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
    )
    code = (
        "import os, signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "print('training', flush=True)\n"
        "try:\n    os.kill(os.getppid(), signal.SIGINT)\n    while True:\n        time.sleep(0.05)\n"
        "except KeyboardInterrupt:\n    print('closed')"
    )
    with pytest.raises(KeyboardInterrupt):
        streamed(code, tmp_path)
    assert capsys.readouterr().out.endswith("closed\n")


ROWS = [row("none"), row("ptq_int8", tflite_bytes=9.0, size_ratio=4.0)]
STORE: Any = SimpleNamespace(
    rows=lambda _: ROWS, read_evidence=lambda _: None, content=lambda *_: None, commands=lambda _: ()
)


def of_table(rows: list[dict[str, Any]]) -> Result:
    table = frame(rows)
    return Result(STORE, Comparison(table, table, lambda _: None))


def stored() -> Result:
    return of_table(ROWS)


def test_a_result_and_a_best_run_are_a_few_words_at_the_prompt() -> None:
    best = stored().best(minimize="tflite_bytes")
    assert re.match(r"<Result of 2 runs\. No winner: ", repr(stored()))
    assert re.match(r"<Best: ptq_int8, run run-ptq_int8\. Ship ", repr(best))


@pytest.mark.parametrize(
    ("require", "message"),
    [
        ("tflite_bytes <= 1", r"best: No run meets all requirements\. not tflite_bytes <= 1: none .*, ptq_int8 .*\)\."),
        ("bytes <= 1", r"require bytes: no column has this name"),
    ],
)
def test_requirements_that_cannot_be_met_or_read_are_errors(require: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        stored().best(require=[require])


@pytest.mark.parametrize(
    "ask",
    [
        lambda of: of.best(["tflite_bytes above 1"]),
        lambda of: of.best(["strategy >= 1"]),
        lambda of: of.best(minimize="tflite_byte"),
        lambda of: of.best(maximize="strategy"),
        lambda of: of.best(minimize="tflite_score"),
        lambda of: of.where("strateg == 'qat'"),
        lambda of: of.where("epochs"),
        lambda of: of.where("epochs > 9"),
        lambda of: several().best(),
        lambda of: several(dataset="cifar10").best(minimize="tflite_bytes"),
        lambda of: of_table([row("none", machine="a"), row("qat", machine="b")]).best(minimize="latency_p50_us"),
        lambda of: bench.load(margin=0),
    ],
)  # fmt: skip
def test_messages_have_the_names_of_arguments_not_those_of_the_command_s_options(ask: Any) -> None:
    with pytest.raises(UserError) as refused:
        ask(stored())
    assert "--" not in str(refused.value)


def several(**changes: Any) -> Result:
    """Runs of two models or data sets."""
    return of_table([row("none"), row("none", run_id="other", **(changes or {"model": "mlp"}))])


def test_of_several_models_one_is_selected() -> None:
    with pytest.raises(UserError, match=r"not of several \(article_cnn on mnist, mlp on mnist\)\. Select one first"):
        several().best()
    assert several().where("model == 'mlp'").best().run_id == "other"
    assert several().where("model == 'mlp'").table["run_id"].tolist() == ["other"]


def test_a_single_requirement_needs_no_list() -> None:
    assert stored().best("tflite_bytes <= 10").row["strategy"] == "ptq_int8"


def test_where_there_is_nothing_to_ship_yet_no_run_is_the_best_unless_the_caller_says_which() -> None:
    suspect = of_table([row("none", warnings="at chance: always the same")])
    with pytest.raises(UserError, match=r"best: Nothing to ship yet: the baseline is implausible .*give minimize"):
        suspect.best()
    assert "Warning: its baseline is implausible" in suspect.best(minimize="tflite_bytes").reasons[-1]


def test_the_margin_is_in_points_as_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "open_existing", lambda *_: STORE)
    assert bench.load(folder=tmp_path, margin=2).comparison.margin == 0.02
    assert bench.load(folder=tmp_path).comparison.margin == 0.005


def test_a_failed_sweep_says_which_runs_failed_and_why() -> None:
    runs = [row("none"), FAILED, row("qat", broken_promise="dense is float32", verified="false")]
    assert bench._why_failed(frame(runs)) == ("2 of 3 runs failed. annotate: no such layer; qat: dense is float32")
    assert bench._why_failed(frame(runs[:1])) == ""


def test_an_existing_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").touch()
    with pytest.raises(UserError, match=r"exists already\. Give overwrite=True to replace it"):
        stored().best().save(tmp_path / "model.tflite")


def small_model() -> Any:
    """A Keras 3 classifier of images of 8 by 8 pixels."""
    from experiments.system.tensorflow import keras_3

    keras = keras_3()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)],
        name="small",
    )


def small_data() -> list[Any]:
    """Images of three classes that differ in brightness."""
    rng = np.random.default_rng(0)
    found = []
    for count in (300, 90):
        labels = np.arange(count) % 3
        images = rng.integers(0, 60, (count, 8, 8, 1)) + 80 * labels[:, None, None, None]
        found += [images.astype(np.uint8), labels]
    return found


SETTINGS: dict[str, Any] = {"strategy": ["none", "ptq_int8"], "epochs": 3}
MORE = ("latency.seconds=0.3", "training.batch_size=30", "training.learning_rate=0.01")


def forked(command: Sequence[str], folder: Path) -> tuple[int, list[str]]:
    """What `bench._streamed` does, without the time of imports; the notebook of test_notebook.py has the real one."""
    _, _, module, *arguments = command
    done = conftest.run(folder, module, *arguments, measured=False)
    return done.returncode, [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Two runs of a model and arrays in memory."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "_streamed", forked)
        return run(*MORE, folder=folder, model=small_model(), data=small_data(), **SETTINGS)


@pytest.mark.endtoend
def test_the_table_has_a_row_for_each_strategy(result: Result) -> None:
    assert dict(zip(result.table["strategy"], result.table["status"], strict=True)) == {
        "none": "FINISHED",
        "ptq_int8": "FINISHED",
    }


@pytest.mark.endtoend
def test_the_answer_names_what_to_ship(result: Result) -> None:
    assert "Ship" in result.answer


@pytest.mark.endtoend
def test_the_best_run_is_saved_with_its_description(result: Result, tmp_path: Path) -> None:
    best = result.best(["tflite_bytes <= 1_000_000"], maximize="tflite_accuracy")
    path = best.save(tmp_path / "model.tflite")
    assert path.read_bytes()[4:8] == b"TFL3"
    assert path.with_suffix(".json").exists()
    assert best.row["run_id"] == best.run_id


@pytest.mark.endtoend
def test_a_requirement_that_no_run_meets_is_an_error(result: Result) -> None:
    with pytest.raises(UserError, match="tflite_bytes"):
        result.best(["tflite_bytes <= 1"])


@pytest.mark.endtoend
def test_a_notebook_shows_the_table_and_the_answer(result: Result) -> None:
    shown = result._repr_html_()
    assert "<table" in shown
    assert "Ship" in shown
    assert "<p><b>" in result.best()._repr_html_()


@pytest.mark.endtoend
def test_the_report_is_a_page(result: Result, tmp_path: Path) -> None:
    assert "<html" in result.report(tmp_path / "report.html").read_text()


@pytest.mark.endtoend
def test_a_plot_is_a_figure_and_an_unknown_one_is_refused_with_the_names(result: Result) -> None:
    assert result.plot("size").get_axes()
    with pytest.raises(UserError, match=r"'sizes' is not the name of a plot\. Did you mean size"):
        result.plot("sizes")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'download' cannot be drawn, since nothing is pruned or clustered"):
        result.plot("download")


def test_every_picture_has_a_name() -> None:
    assert set(PLOTS.values()) == set(PICTURES)
    assert set(PLOTS) == set(get_args(Plot))


@pytest.mark.endtoend
def test_an_invalid_setting_is_the_error_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="qta") as raised:
        run(folder=tmp_path, strategy="qta")
    assert not isinstance(raised.value, RunFailedError)
    assert not (tmp_path / "mlflow.db").exists()
