"""A sweep over every strategy by the real command line, and what can be asked of it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.compare import load
from experiments.comparison.columns import COLUMNS
from experiments.system.options import CONF
from experiments.tracking import Store, Tracking, connect
from experiments.tracking.schema import FURTHER, MODELS
from tests.conftest import ENVIRONMENT, Done, page_example, run, save_images
from tests.support.results import document

pytestmark = pytest.mark.endtoend
SMALL = ("model=mlp", "dataset=npz", "dataset.path=images.npz", "training.batch_size=50", "latency.seconds=0.1")
OF_CLASSES = ("balanced_accuracy", "macro_f1")  # recorded of two classes
STRATEGIES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))
ARTIFACTS = {
    "model.tflite", "record.json", "layers.csv", "fidelity.csv", "signal_to_noise.csv", "signal_to_noise.png",
    "latency_samples.csv.gz", "profile.csv", "profile.png", "predictions.csv", "changed.npz", "config.yaml",
    "classes.csv", "latency_rounds.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A finished sweep over all strategies."""
    folder = tmp_path_factory.mktemp("sweep")
    save_images(folder / "images.npz")
    return folder, run(folder, "experiments.run", "-m", "strategy=glob(*)", *SMALL)


def store(folder: Path) -> Store:
    return connect(Tracking(uri=f"sqlite:///{folder}/mlflow.db"), create=False)


def table(folder: Path, sweep: str = "latest") -> pd.DataFrame:
    return load(f"sqlite:///{folder}/mlflow.db", sweep=sweep)


def test_a_sweep_over_every_strategy_ends_well_and_shows_its_table(sweep: tuple[Path, Done]) -> None:
    _, done = sweep
    assert done.returncode == 0, done.stderr
    assert all(strategy in done.stdout for strategy in STRATEGIES)


def test_a_sweep_prints_nothing_on_standard_error(sweep: tuple[Path, Done]) -> None:
    assert sweep[1].stderr == ""


def test_each_job_is_a_finished_run(sweep: tuple[Path, Done]) -> None:
    rows = table(sweep[0])
    assert list(rows["strategy"]) == STRATEGIES
    assert set(rows["status"]) == {"FINISHED"}


def test_every_column_of_a_finished_run_is_filled(sweep: tuple[Path, Done]) -> None:
    rows = table(sweep[0]).drop(columns="error")
    # Microcontrollers run no hybrid files, and what is exact has no noise.
    may_be_empty = {"arena_bytes", "sqnr_min_db", "output_sqnr_db"}
    of_other_tasks = {f"{model}_{metric}" for metric in FURTHER for model in MODELS if metric not in OF_CLASSES}
    assert set(rows.columns[rows.isna().any()]) - may_be_empty == of_other_tasks


def test_every_file_is_verified(sweep: tuple[Path, Done]) -> None:
    assert set(table(sweep[0])["verified"]) == {"true"}


def test_what_several_strategies_need_is_trained_once(sweep: tuple[Path, Done]) -> None:
    once = ["baseline", "annotate", "finetune", "qat", "prune", "cluster", "then qat", "then qat"]
    prune_cluster_qat = ["clustering of the pruned model", "then qat"]
    assert table(sweep[0])["epochs_trained"].sum() == len(once) + len(prune_cluster_qat)


def test_files_have_the_types_of_their_strategy(sweep: tuple[Path, Done]) -> None:
    rows = table(sweep[0]).set_index("strategy")
    assert dict(rows["coverage_ops"][["qat", "ptq_int8", "none"]]) == {"qat": 1, "ptq_int8": 1, "none": 0}
    assert dict(rows["coverage_weights"][["annotate", "none", "ptq_float16"]]) == {
        "annotate": 1,
        "none": 0,
        "ptq_float16": 0,
    }
    assert rows["size_ratio"]["ptq_int8"] > 2


def test_predictions_give_the_recorded_accuracy(sweep: tuple[Path, Done]) -> None:
    row = table(sweep[0]).iloc[-1]
    predictions = pd.read_csv(sweep[0] / "mlruns" / row["run_id"] / "artifacts" / "predictions.csv")
    assert (predictions["tflite"] == predictions["truth"]).mean() == row["tflite_accuracy"]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "told"),
    [
        (["--require", "tflite_bytes < 1e9", "--minimize", "tflite_bytes"], 0, "Ship "),
        (["--where", "strategy == 'none'", "--require", "tflite_accuracy > 1"], 3, "No run meets all requirements."),
        (["--where", "strateg == 'none'"], 2, "Did you mean strategy"),
        (["--max-drop", "tflite_accuracy=0.1"], 2, "--max-drop: requires an earlier comparison"),
        (["--minimize", ""], 2, "--minimize: requires a value"),
        (["--require", "speed >= 1", "--csv", "never.csv"], 2, "requires a numeric column; this one has text"),
        (["--columns", "strategy, tflite_bytes"], 0, "tflite_bytes"),
        (["--csv", "-"], 2, "requires a file name"),
        (["--pivot", "strategy", "epochs", "tflite_bytes", "--csv", "x.csv"], 2, "--csv: has no effect with --pivot"),
    ],
)
def test_the_exit_code_says_whether_a_run_meets_the_requirements(
    sweep: tuple[Path, Done], arguments: list[str], exit_code: int, told: str
) -> None:
    done = run(sweep[0], "experiments.compare", *arguments)
    assert done.returncode == exit_code
    assert told in done.stdout + done.stderr


def rounds_of(folder: Path, run_id: str) -> set[str]:
    """The ids of the rounds of a run's timing."""
    text = (folder / "mlruns" / run_id / "artifacts" / "latency_rounds.json").read_text()
    return {each["id"] for each in json.loads(text)["rounds"]}


def test_runs_of_a_sweep_share_the_rounds_of_its_end(sweep: tuple[Path, Done]) -> None:
    rounds = [rounds_of(sweep[0], run_id) for run_id in table(sweep[0])["run_id"]]
    assert len(set.intersection(*rounds)) >= 5
    assert all(len(each) > 5 for each in rounds)  # and each run has one of its own


def test_runs_are_timed_together_and_keep_the_session(sweep: tuple[Path, Done]) -> None:
    first, second = table(sweep[0])["run_id"].iloc[[0, 4]]
    before = rounds_of(sweep[0], second)
    done = run(sweep[0], "experiments.latency", first[:12], second, "--seconds", "1", "--span", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert len(document(done.stdout)["files"]) == 2
    (session,) = (sweep[0] / "mlruns" / second / "artifacts" / "latency_sessions").iterdir()
    assert {path.name for path in session.iterdir()} == {"files.csv", "pairs.csv", "samples.csv.gz", "stamp.json"}
    added = rounds_of(sweep[0], second) - before
    assert len(added) == 5
    assert added <= rounds_of(sweep[0], first)


def test_every_run_keeps_its_artifacts(sweep: tuple[Path, Done]) -> None:
    for run_id in table(sweep[0])["run_id"]:
        kept = {path.name for path in (sweep[0] / "mlruns" / run_id / "artifacts").iterdir()}
        rounds = json.loads((sweep[0] / "mlruns" / run_id / "artifacts" / "latency_rounds.json").read_text())
        own = set() if rounds["own"] == rounds["reference"] else {"reference.tflite"}
        assert kept - {"latency_sessions", "reference.tflite"} == ARTIFACTS
        assert own <= kept


def test_the_record_carries_the_stamp(sweep: tuple[Path, Done]) -> None:
    run_id = table(sweep[0])["run_id"].iloc[0]
    record = json.loads((sweep[0] / "mlruns" / run_id / "artifacts" / "record.json").read_text())
    assert {"cpu", "governor", "machine", "git_commit", "tensorflow", "python"} <= record["stamp"].keys()
    assert {"load_before", "load_after", "steal_cores", "other_cores"} <= record["conditions"].keys()


def test_the_parent_run_carries_the_comparison(sweep: tuple[Path, Done]) -> None:
    (parent,) = store(sweep[0]).find("tags.kind = 'sweep'")
    kept = sweep[0] / "mlruns" / parent.info.run_id / "artifacts"
    assert {path.name for path in kept.iterdir()} == {"comparison.csv", "comparison.md", "plots", "report.html"}
    assert "| qat" in parent.data.tags["mlflow.note.content"]


def test_children_belong_to_their_parent_and_have_training_curves(sweep: tuple[Path, Done]) -> None:
    opened = store(sweep[0])
    (parent,) = opened.find("tags.kind = 'sweep'")
    children = opened.find(f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert len(children) == len(STRATEGIES)
    assert all("baseline/val_accuracy" in child.data.metrics for child in children)


def test_a_sweep_reports_trained_and_reused_epochs(sweep: tuple[Path, Done]) -> None:
    assert re.search(r"Epochs trained: 10; reused: \d+, which saved .* of training\.", sweep[1].stdout)


def test_a_sweep_ends_with_the_command_that_writes_the_recommended_file(sweep: tuple[Path, Done]) -> None:
    hint = "To write the recommended file: python -m experiments.compare --save model.tflite\n"
    assert (hint in sweep[1].stdout) == ("Ship " in sweep[1].stdout)


def test_runs_of_the_same_sweep_again_are_reused(sweep: tuple[Path, Done]) -> None:
    folder, _ = sweep
    again = ["none", "prune_cluster_qat", "ptq_int8"]
    before = table(folder).set_index("strategy")["run_id"]
    done = run(folder, "experiments.run", "-m", f"strategy={','.join(again)}", *SMALL)
    assert done.stdout.count("  reused:") == len(again)
    assert "Epochs trained: 0;" in done.stdout
    assert list(table(folder)["run_id"]) == list(before[again])


def test_compare_writes_every_form(sweep: tuple[Path, Done], tmp_path: Path) -> None:
    forms = ("csv", "markdown", "html", "latex", "json")
    options = [option for form in forms for option in (f"--{form}", str(tmp_path / form))]
    assert run(sweep[0], "experiments.compare", *options).returncode == 0
    assert list(pd.read_csv(tmp_path / "csv").columns) == list(COLUMNS)
    assert all((tmp_path / form).stat().st_size > 500 for form in forms)


def test_two_runs_are_compared_image_by_image(sweep: tuple[Path, Done]) -> None:
    first, second = table(sweep[0])["run_id"][:2]
    done = run(sweep[0], "experiments.compare", "--pair", first, second[:16])
    assert (done.returncode, done.stderr) == (0, "")
    assert f"({second[:8]})" in done.stdout
    assert "McNemar" in done.stdout


def test_the_pages_notebook_example_works_as_it_stands(sweep: tuple[Path, Done]) -> None:
    script = [sys.executable, "-c", f"{page_example('compare.load')}\nprint(len(runs))"]
    done = subprocess.run(script, cwd=sweep[0], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert int(done.stdout) == len(table(sweep[0])), done.stderr


def test_an_unknown_sweep_is_refused_with_the_known_ones(sweep: tuple[Path, Done]) -> None:
    done = run(sweep[0], "experiments.compare", "--sweep", "yesterday")
    assert done.returncode == 2
    assert "--sweep yesterday: not in sqlite:///mlflow.db" in done.stderr


def test_an_output_file_that_cannot_be_written_is_exit_code_2(sweep: tuple[Path, Done]) -> None:
    done = run(sweep[0], "experiments.compare", "--csv", os.devnull + "/x.csv")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
