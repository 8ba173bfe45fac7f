"""The example of each task in docs/how-to/try-each-task.md: trained, quantized, recorded, compared and reported.

Commands and data are those of the page. The runs are made in this process, which spares them the start of several
others; test_endtoend.py has a sweep by the real command line.
"""

import html
import io
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from experiments import compare
from experiments.record.evidence import Predictions, Scores
from experiments.runs import configuration, job, pipeline
from experiments.runs.configuration import compose_request
from experiments.system.options import CONF
from experiments.tracking import Store, Tracking, connect
from tests.conftest import REPOSITORY, page_example
from tests.support.measurements import MADE_UP

pytestmark = pytest.mark.tensorflow
PAGE = REPOSITORY / "docs" / "how-to" / "try-each-task.md"
START = "python -m experiments.run -m "
# Less training than on the page. A detector learns nothing in seconds anyway.
LESS = {
    "detection": ["dataset.train_samples=40", "dataset.test_samples=20", "epochs=1", "finetune.epochs=1"],
    "own": [],
}
FEW_EPOCHS = ["epochs=4"]


@dataclass(frozen=True)
class Expected:
    """How a task is judged, as its users read it."""

    metric: str
    heading: str  # of the difference
    gate: str  # that the files pass
    wrong_way: str  # an option that asks for the worst file


EXPECTED = {
    "classification": Expected("accuracy", "Δ accuracy (pp)", "tflite_score >= 0.7", "--minimize"),
    "binary": Expected("auc", "Δ AUC (pp)", "tflite_score >= 0.9", "--minimize"),
    "multilabel": Expected("micro_f1", "Δ micro-F1 (pp)", "tflite_score >= 0.7", "--minimize"),
    "regression": Expected("mae", "Δ MAE", "tflite_score <= 0.6", "--maximize"),
    "reconstruction": Expected("auc", "Δ AUC (pp)", "tflite_score >= 0.9", "--minimize"),
    "segmentation": Expected("miou", "Δ mIoU (pp)", "tflite_score >= 0.5", "--minimize"),
    "detection": Expected("map", "Δ mAP (pp)", "tflite_score >= 0", "--minimize"),
    "own": Expected("within_10_percent", "Δ within_10_percent", "tflite_score >= 0.8", "--minimize"),
}


@dataclass(frozen=True)
class Example:
    """A finished sweep of a task."""

    task: str
    expected: Expected
    store: Store
    uri: str
    rows: pd.DataFrame
    printed: str
    exit_code: int
    report: str  # its text

    def row(self, strategy: str) -> pd.Series:
        (found,) = (row for _, row in self.rows.iterrows() if row["strategy"] == strategy)
        return found


def commands() -> dict[str, list[str]]:
    """The arguments of each sweep of the page, by the name of its data."""
    found = [shlex.split(line.removeprefix(START)) for line in PAGE.read_text().splitlines() if line.startswith(START)]
    names = [re.findall(r"dataset\.path=(\w+)\.npz", " ".join(each)) or ["detection"] for each in found]
    return {name: arguments for (name,), arguments in zip(names, found, strict=True)}


def swept(arguments: list[str], store: Store) -> None:
    """Do what a sweep does with its runs."""
    (strategies,) = (each for each in arguments if each.startswith("strategy="))
    others = [each for each in arguments if each not in (strategies, "--config-dir", "options")]
    sweep = store.open_sweep("sweep", {})
    for number, strategy in enumerate(strategies.removeprefix("strategy=").split(",")):
        request = compose_request([*others, f"strategy={strategy}", f"sweep={sweep}", "latency.rounds=1"])
        job.run_job(request, number, timed_by_sweep=True)


def compared(*arguments: str) -> tuple[int, str]:
    """The exit code and the output of `python -m experiments.compare`."""
    out = io.StringIO()
    with redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["compare", *arguments])
        try:
            compare.main()
        except SystemExit as ended:
            return int(ended.code or 0), out.getvalue()
    return 0, out.getvalue()


def text_of(page: Path) -> str:
    """What a reader of a report sees, with the texts of its plots."""
    without = re.sub(r"<(style|script).*?</\1>", "", page.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", without)).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """The data and the options of the page, and a store."""
    folder = tmp_path_factory.mktemp("tasks")
    shutil.copy(empty_store, folder)
    shutil.copytree(CONF, folder / "options")
    (folder / "options" / "task" / "within.yaml").write_text("_target_: mytasks.WithinTenPercent\n")
    (folder / "mytasks.py").write_text(page_example("# mytasks.py"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(page_example("# make_data.py"), {})
    return folder


# By night classification as well, which test_endtoend.py has at each change, and the detector of Keras 2: convolutions
# with BatchNorm and ReLU, as test_conversion.py has them.
NIGHTLY = ("classification", "detection keras=2")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(task, marks=pytest.mark.nightly if task in NIGHTLY else ()) for task in (*EXPECTED, NIGHTLY[1])
    ],
)
def example(request: pytest.FixtureRequest, folder: Path) -> Iterator[Example]:
    (task, *more), uri = request.param.split(), f"sqlite:///{folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setattr(configuration, "CONF", folder / "options")
        patch.setattr(job, "run_in_process", pipeline.run)
        for name, function in MADE_UP.items():
            patch.setattr(pipeline, name, function)
        store = connect(Tracking(uri=uri))
        with redirect_stdout(io.StringIO()):
            swept([*commands()[task], *LESS.get(task, FEW_EPOCHS), *more, f"tracking.uri={uri}"], store)
        expected = EXPECTED[task]
        gates = ("--require", expected.gate, "--minimize", "tflite_bytes")
        code, printed = compared("--uri", uri, *gates, "--out", "report.html")
        found, page = compare.load(uri), text_of(Path("report.html"))
        yield Example(task, expected, store, uri, found, printed, code, page)


def test_runs_are_judged_by_the_metric_of_the_task(example: Example) -> None:
    assert set(example.rows["task"]) == {example.task}
    assert set(example.rows["metric"]) == {example.expected.metric}
    for model in ("keras", "tflite") if example.task != "own" else ():  # a user's metric has no column of its own
        own = example.rows[f"{model}_{example.expected.metric}"]
        assert list(example.rows[f"{model}_score"]) == pytest.approx(list(own))


def test_a_score_lies_in_its_interval(example: Example) -> None:
    for _, row in example.rows.iterrows():
        assert row["tflite_score_low"] <= row["tflite_score"] <= row["tflite_score_high"]


def test_files_compute_what_their_strategies_promise(example: Example) -> None:
    assert set(example.rows["verified"]) == {"true"}
    assert example.rows.set_index("strategy")["coverage_ops"].to_dict() == {"none": 0, "ptq_int8": 1, "qat": 1}


def test_a_file_answers_like_its_model(example: Example) -> None:
    row = example.row("qat")
    if example.task == "classification":
        assert row["agreement"] > 0.95
    else:
        assert pd.isna(row["output_sqnr_db"]) or row["output_sqnr_db"] > 15  # what is exact has no noise


def test_files_are_compared_by_paired_statistics_of_the_task(example: Example) -> None:
    kind = Predictions if example.expected.metric == "accuracy" else Scores
    assert {type(example.store.read_evidence(run_id)) for run_id in example.rows["run_id"]} == {kind}


def test_the_difference_from_float_lies_in_its_interval(example: Example) -> None:
    row = example.row("qat")
    assert row["score_change_low"] <= row["score_change"] <= row["score_change_high"]
    assert row["score_change"] == pytest.approx(row["tflite_score"] - example.row("none")["tflite_score"])


def test_the_difference_is_named_by_the_metric(example: Example) -> None:
    assert f"If the interval of {example.expected.heading.partition(' (')[0]} includes 0" in " ".join(
        example.printed.split()
    )


def test_a_file_is_good_enough_to_ship(example: Example) -> None:
    assert example.exit_code == 0, example.printed


def test_the_worst_file_is_not_asked_for(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = compared("--uri", example.uri, example.expected.wrong_way, "tflite_score")
    right = {"--minimize": "--maximize", "--maximize": "--minimize"}[example.expected.wrong_way]
    assert (code, f"Type {right} tflite_score." in printed + capsys.readouterr().err) == (2, True)


def test_the_report_names_the_metric_of_the_task(example: Example) -> None:
    assert example.expected.heading in example.report


def test_the_report_has_no_words_of_other_tasks(example: Example) -> None:
    words = {
        "classification": ("MAE", "score"),
        "binary": ("class(es)?\\b", "prediction"),  # the accuracy at the threshold is what training curves show
    }.get(example.task, ("class(es)?\\b", "prediction", "accura"))
    assert not re.search(rf"\b({'|'.join(words)})", example.report)
