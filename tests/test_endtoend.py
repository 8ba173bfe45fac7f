"""The suite as a user meets it: the real command line, in an empty folder, on small data."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from benchmarks.harness.pages import pages
from experiments.compare import load
from experiments.comparison.columns import COLUMNS
from experiments.system.options import CONF
from experiments.tracking import Store, Tracking, connect
from tests.conftest import ENVIRONMENT, Done, own_option, run, run_from_scratch, save_images

pytestmark = pytest.mark.endtoend

SMALL = ("model=mlp", "dataset=npz", "dataset.path=images.npz", "training.batch_size=50", "latency.seconds=0.1")
STRATEGIES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))
ARTIFACTS = {
    "model.tflite", "record.json", "layers.csv", "fidelity.csv", "signal_to_noise.csv", "signal_to_noise.png",
    "latency_samples.csv.gz", "profile.csv", "profile.png", "predictions.csv", "changed.npz", "config.yaml",
    "classes.csv",
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


def test_a_sweep_says_nothing_on_standard_error(sweep: tuple[Path, Done]) -> None:
    assert sweep[1].stderr == ""


def test_each_job_is_a_finished_run(sweep: tuple[Path, Done]) -> None:
    rows = table(sweep[0])
    assert list(rows["strategy"]) == STRATEGIES
    assert set(rows["status"]) == {"FINISHED"}


def test_every_column_of_a_finished_run_is_filled(sweep: tuple[Path, Done]) -> None:
    rows = table(sweep[0]).drop(columns="error")
    # Microcontrollers run no hybrid files, and what is exact has no noise.
    assert list(rows.columns[rows.isna().any()]) == ["arena_bytes", "sqnr_min_db"]


def test_every_file_is_verified(sweep: tuple[Path, Done]) -> None:
    assert set(table(sweep[0])["verified"]) == {"true"}


def test_what_several_strategies_need_is_trained_once(sweep: tuple[Path, Done]) -> None:
    once = ["baseline", "annotate", "finetune", "qat", "prune", "cluster", "then qat", "then qat"]
    prune_cluster_qat = ["clustering of the pruned model", "then qat"]
    assert table(sweep[0])["epochs_trained"].sum() == len(once) + len(prune_cluster_qat)


def test_files_hold_what_their_strategy_says(sweep: tuple[Path, Done]) -> None:
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
        (["--require", "speed >= 1", "--csv", "never.csv"], 2, "holds words"),
        (["--columns", "strategy, tflite_bytes"], 0, "tflite_bytes"),
        (["--csv", "-"], 2, "give the name of a file"),
        (["--pivot", "strategy", "epochs", "tflite_bytes", "--csv", "x.csv"], 2, "--csv: has no effect with --pivot"),
    ],
)
def test_a_build_is_told_what_to_ship_by_the_exit_code(
    sweep: tuple[Path, Done], arguments: list[str], exit_code: int, told: str
) -> None:
    done = run(sweep[0], "experiments.compare", *arguments)
    assert done.returncode == exit_code
    assert told in done.stdout + done.stderr


def test_runs_are_timed_together_and_keep_the_session(sweep: tuple[Path, Done]) -> None:
    first, second = table(sweep[0])["run_id"].iloc[[0, 4]]
    done = run(sweep[0], "experiments.latency", first[:12], second, "--seconds", "1")
    assert (done.returncode, done.stderr) == (0, "")
    (session,) = (sweep[0] / "mlruns" / second / "artifacts" / "latency_sessions").iterdir()
    assert {path.name for path in session.iterdir()} == {"files.csv", "pairs.csv", "samples.csv.gz", "stamp.json"}


def test_every_run_keeps_its_artifacts(sweep: tuple[Path, Done]) -> None:
    for run_id in table(sweep[0])["run_id"]:
        kept = {path.name for path in (sweep[0] / "mlruns" / run_id / "artifacts").iterdir()}
        assert kept - {"latency_sessions"} == ARTIFACTS


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


def test_a_sweep_says_what_it_trained_and_what_it_was_spared(sweep: tuple[Path, Done]) -> None:
    assert re.search(r"Epochs trained: 10; reused: \d+, which saved .* of training\.", sweep[1].stdout)


def test_the_same_sweep_again_reuses_every_run(sweep: tuple[Path, Done]) -> None:
    folder, _ = sweep
    before = set(table(folder)["run_id"])
    done = run(folder, "experiments.run", "-m", "strategy=glob(*)", *SMALL)
    assert done.stdout.count("  reused:") == len(STRATEGIES)
    assert "Epochs trained: 0;" in done.stdout
    assert set(table(folder)["run_id"]) == before


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


def test_a_run_that_two_sweeps_share_stands_in_both_and_moves_to_the_newer_in_mlflow(folder: Path) -> None:
    for strategies in ("strategy=none", "strategy=none,ptq_dynamic"):
        assert run(folder, "experiments.run", "-m", strategies, *SMALL).returncode == 0
    newer, older = store(folder).find("tags.kind = 'sweep'")
    assert list(table(folder, older.info.run_id)["strategy"]) == ["none"]
    assert list(table(folder, newer.info.run_id)["strategy"]) == ["none", "ptq_dynamic"]
    children = store(folder).find(f"tags.`mlflow.parentRunId` = '{newer.info.run_id}'")
    assert len(children) == 2


def test_a_failed_run_does_not_hide_and_does_not_stop_the_others(folder: Path) -> None:
    done = run(folder, "experiments.run", "-m", "strategy=annotate", "strategy.layers=[LSTM],[Dense]", *SMALL)
    assert done.returncode == 1
    assert "1 of 2 runs failed" in done.stderr
    assert "Traceback" not in done.stderr
    rows = table(folder)
    assert list(rows["status"]) == ["FAILED", "FINISHED"]
    assert "'LSTM' chooses no layer" in rows["error"].iloc[0]
    assert (folder / "mlruns" / rows["run_id"].iloc[0] / "artifacts" / "traceback.txt").exists()


def test_a_stopped_sweep_goes_on_where_it_was(folder: Path) -> None:
    sweep = [sys.executable, "-m", "experiments.run", "-m", "strategy=none", "epochs=12", *SMALL]
    process = subprocess.Popen(
        ["env", "--default-signal=INT", *sweep],  # a test run in the background of a shell has Ctrl-C switched off
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob("cache/training/*/00002-*.npz")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert (process.returncode, b"Traceback" in errors) == (130, False), errors
    assert list(table(folder)["status"]) == ["KILLED"]

    assert run(folder, "experiments.run", *sweep[3:]).returncode == 0
    rows = table(folder)
    assert list(rows["status"]) == ["FINISHED"]
    assert rows["epochs_reused"].iloc[0] >= 2


def test_a_killed_sweep_leaves_no_run_that_seems_to_be_running(folder: Path) -> None:
    sweep = [sys.executable, "-m", "experiments.run", "-m", "strategy=none", "epochs=12", *SMALL]
    process = subprocess.Popen(sweep, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(folder.glob("cache/training/*/00001-*.npz")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(children, timeout=10)[1]  # nothing goes on training for nobody
    assert run(folder, "experiments.run", *sweep[3:]).returncode == 0
    assert not store(folder).find("attributes.status = 'RUNNING'")


def test_a_user_s_trained_model_is_the_baseline_without_training(folder: Path) -> None:
    save = "from experiments.model.mlp import MLP\nMLP().build((8, 8, 1), 2).save('mine.keras')"
    subprocess.run([sys.executable, "-c", save], cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    settings = (*SMALL[1:], "model=keras_file", "model.path=mine.keras", "epochs=0")
    done = run(folder, "experiments.run", "-m", "strategy=none,ptq_int8", *settings)
    assert done.returncode == 0, done.stderr
    assert set(table(folder)["epochs_trained"]) == {0}


def test_a_user_s_architecture_is_one_card(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "from pydantic.dataclasses import dataclass\n"
        "from experiments.model import Architecture\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Mine(Architecture):\n"
        "    units: int = 4\n"
        "    def build(self, input_shape, classes):\n"
        "        from experiments.system.tensorflow import keras\n"
        "        layers = [keras.layers.InputLayer(input_shape), keras.layers.Flatten(), keras.layers.Dense(classes)]\n"
        "        return keras.Sequential(layers)\n"
    )
    (folder / "options" / "model").mkdir(parents=True)
    (folder / "options" / "model" / "mine.yaml").write_text("# mine\n_target_: mine.Mine\nunits: 8\n")
    done = run(folder, "experiments.run", "--config-dir", "options", "model=mine", "strategy=ptq_int8", *SMALL[1:])
    assert done.returncode == 0, done.stderr
    assert table(folder)["model"].iloc[0] == "mine"


def example(part: str) -> str:
    """The pages' Python example with this part."""
    text = "\n".join(page.read_text() for page in pages())
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if part in each)
    return str(block)


def test_the_pages_notebook_example_works_as_it_stands(sweep: tuple[Path, Done]) -> None:
    script = [sys.executable, "-c", f"{example('compare.load')}\nprint(len(runs))"]
    done = subprocess.run(script, cwd=sweep[0], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert int(done.stdout) == len(table(sweep[0])), done.stderr


def test_the_pages_own_strategy_works_as_it_stands(folder: Path) -> None:
    own_option(folder, "strategy/mine", "FinetuneThenInt16", example("class FinetuneThenInt16"))
    done = run(folder, "experiments.run", "--config-dir", "options", "strategy=mine", *SMALL)
    assert done.returncode == 0, done.stderr
    row = table(folder).iloc[0]
    assert (row["strategy"], row["finetune_epochs"], row["arithmetic"]) == ("mine", 1, "3 int16x8")


def test_one_run_is_recorded_at_its_own_tracking_address(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    shutil.copy(folder / "mlflow.db", folder / "elsewhere" / "runs.db")
    address, settings = f"sqlite:///{folder}/elsewhere/runs.db", ("strategy=ptq_int8", "epochs=2", *SMALL)
    done = run(folder, "experiments.run", f"tracking.uri={address}", "tracking.experiment=mine", *settings)
    assert done.returncode == 0, done.stderr
    (row,) = load(address, "mine").to_dict("records")
    assert (row["strategy"], row["epochs"], row["finetune_epochs"]) == ("ptq_int8", 2, 0)
    assert (folder / "elsewhere" / "mlruns").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["strategy=qatt"], "strategy=qatt: unknown option in conf/strategy. Did you mean qat?"),
        (["-m", "strategy=none,qatt"], "strategy=qatt: unknown option"),
        (["model=resnet"], "Did you mean resnet8?"),
        (["dataset=minst"], "Did you mean mnist?"),
        (["epohcs=3"], "epohcs: unknown setting. Did you mean epochs?"),
        (["-m", "epohcs=3,4"], "epohcs: unknown setting. Did you mean epochs?"),
        (["strategy=annotate", "strategy.layer=[a]"], "Did you mean strategy.layers"),
        (["-m", "strategy=none,annotate", "strategy.layers=[Dense]"], "type ++strategy.layers=VALUE"),
        (["epochs=-1"], "training.epochs=-1: input should be greater than or equal to 0"),
        (["-m", "epochs=1,-1"], "no run was started"),
        (["-m", "strategy=glob(ptq_int9*)"], "strategy=glob(ptq_int9*): the sweep has no job"),
        (["-m", "strategy=none", "seed=range(0)"], "seed=range(0): the sweep has no job"),
        (["epochs=many"], "training.epochs=many: input should be a valid integer"),
        (["seed=-1"], "seed=-1: input should be greater than or equal to 0"),
        (["seed=4294967296"], "seed=4294967296: input should be less than 4294967296"),
        (["+epohcs=3"], "epohcs: unknown setting. Did you mean epochs?"),
        (["~latency"], "latency: this setting is required"),
        (["strategy=null"], "strategy=null: strategy requires the name of an option. Did you mean none?"),
        (["cache.dir="], "cache.dir=: requires the name of a file or folder"),
        (["tracking=server", "tracking.uri=http://host:port"], "http://host:port: not usable"),
        (["tracking.uri=postgresql://me:secret@127.0.0.1:9/db"], "postgresql://***@127.0.0.1:9/db: not usable"),
        (["strategy=qat", "epochs=0"], "finetune.epochs=0: strategy=qat learns its ranges while it trains"),
        (["training.precision=bfloat16"], "training.precision=bfloat16"),
        (["+finetune.precision=mixed_bfloat16"], "only the baseline can train in another precision"),
        (["strategy=annotate", "strategy.layers=[last:0]"], "'last:0' chooses no layer"),
        (["strategy=annotate", "strategy.layers=[]"], "strategy.layers=[]: "),
        (["strategy=ptq_int8", "strategy.interface=int4"], "input should be 'float32' or 'int8'"),
        (["dataset=npz"], "dataset.path: requires a value"),
        (["dataset=npz", "dataset.path=nothing.npz"], "dataset.path=nothing.npz: cannot be read (No such file"),
        (["-m", "dataset=npz", "dataset.path=nothing.npz"], "dataset.path=nothing.npz: cannot be read (No such file"),
        (["model=keras_file", "model.path=nothing.keras"], "model.path=nothing.keras: cannot be read (No such file"),
        (["dataset.validation_split=1"], "dataset.validation_split=1: input should be less than 1"),
        (["tracking.uri=mlflow.db"], "requires sqlite:///FILE.db, http://HOST:PORT"),
        (["tracking=server", "tracking.uri=http://127.0.0.1:9"], "http://127.0.0.1:9: no server answers"),
        (["-m", "tracking=server", "tracking.uri=http://127.0.0.1:9"], "http://127.0.0.1:9: no server answers"),
        (["tracking.uri=sqlite:////dev/null/mlflow.db"], "sqlite:////dev/null/mlflow.db: not usable"),
        (["strategy"], "strategy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_configuration_is_one_message_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = run(tmp_path, "experiments.run", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a .npz file"), (b"PK\x03\x04 cut", "not a .npz file, or a truncated one")],
)
def test_a_bad_data_file_is_refused_before_tensorflow_is_imported_and_anything_is_made(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    watch = "import sys; from experiments.run import main\ntry: main()\nfinally: print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", watch, "dataset=npz", "dataset.path=bad.npz"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()[-1]) == (2, "False"), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "mlflow.db").exists()


def test_help_lists_every_card_without_importing_anything_heavy() -> None:
    watch = (
        "import sys; sys.argv = ['run', '--help']; from experiments.run import main; main()\n"
        "print([name for name in ('tensorflow', 'mlflow', 'hydra', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", watch], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
    assert all(name in done.stdout for name in (*STRATEGIES, "article_cnn", "keras_file", "cifar10", "smoke"))


@pytest.mark.parametrize(
    "module", ["experiments.run", "experiments.compare", "experiments.latency", "experiments.sensitivity", "benchmarks"]
)
def test_ctrl_c_while_a_command_is_still_imported_shows_no_traceback(module: str, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt\n")  # found before the library

    done = run_from_scratch(tmp_path, module)

    assert done.stderr.startswith("interrupted.") and done.stderr.count("\n") == 1
    assert done.returncode in {130, -signal.SIGINT}


@pytest.mark.parametrize("mode", [[], ["-m"]], ids=["a run", "a sweep"])
def test_a_cache_that_cannot_be_written_is_found_before_anything_runs(mode: list[str], folder: Path) -> None:
    (folder / "file").write_text("not a folder")
    done = run(folder, "experiments.run", *mode, "cache.dir=file/cache", *SMALL)
    assert done.returncode == 2
    assert "Use another: cache.dir=FOLDER" in done.stderr
    assert not (folder / "mlruns").exists()


def test_a_crash_in_native_code_is_a_failed_run_and_not_the_end_of_the_sweep(folder: Path) -> None:
    crash = (
        "import os, signal\n"
        "from experiments.strategy.none import Nothing\n"
        "class Hostile(Nothing):\n"
        "    def prepare(self, model, fit, calibration):\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    own_option(folder, "strategy/hostile", "Hostile", crash)
    done = run(folder, "experiments.run", "--config-dir", "options", "-m", "strategy=hostile,none", *SMALL)
    assert done.returncode == 1
    assert "crashed with SIGSEGV in native code" in done.stderr
    assert list(table(folder)["status"]) == ["FAILED", "FINISHED"]


def test_two_sweeps_that_start_at_once_without_a_store_both_succeed_and_share_their_work(tmp_path: Path) -> None:
    save_images(tmp_path / "images.npz")
    sweep = [sys.executable, "-m", "experiments.run", "-m", "strategy=none", *SMALL]
    both = [subprocess.Popen(sweep, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert table(tmp_path, "all")["epochs_trained"].sum() == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no file "),
        (["--uri", "mlflow.db"], "requires sqlite:///FILE.db"),
        (["--uri", "http://127.0.0.1:9"], "no server answers"),
    ],
)
def test_comparing_nothing_is_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run(tmp_path, "experiments.compare", *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert message in done.stderr


def test_a_sweep_that_is_not_there_names_those_that_are(sweep: tuple[Path, Done]) -> None:
    done = run(sweep[0], "experiments.compare", "--sweep", "yesterday")
    assert done.returncode == 2
    assert "--sweep yesterday: not in sqlite:///mlflow.db" in done.stderr


def test_an_output_file_that_cannot_be_written_is_exit_code_2(sweep: tuple[Path, Done]) -> None:
    done = run(sweep[0], "experiments.compare", "--csv", os.devnull + "/x.csv")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_a_file_that_breaks_its_strategy_s_promise_is_marked_and_is_an_error(folder: Path) -> None:
    lie = (
        "from experiments.strategy import Compression, Float32, Strategy\n"
        "class Liar(Strategy):\n"
        "    def scheme(self, model):\n"
        "        return Float32()\n"
        "    def compression(self, model):\n"
        "        return Compression(sparsity=0.9)\n"
    )
    own_option(folder, "strategy/liar", "Liar", lie)
    done = run(folder, "experiments.run", "--config-dir", "options", "-m", "strategy=none,liar", *SMALL)
    assert done.returncode == 1
    assert "NOT VERIFIED" in done.stdout
    assert "of the weights are zero instead of 90.0%" in done.stderr
    assert list(table(folder)["verified"]) == ["true", "false"]
