"""Single runs and small sweeps by the real command line, each in a folder of its own."""

import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import psutil
import pytest

from experiments.compare import load
from experiments.tracking import Store, Tracking, connect
from tests import conftest
from tests.conftest import ENVIRONMENT, own_option, page_example, save_images

pytestmark = pytest.mark.endtoend
run, start = partial(conftest.run, measured=False), partial(conftest.start, measured=False)
SMALL = (
    "model=mlp",
    "dataset=npz",
    "dataset.path=images.npz",
    "training.batch_size=50",
    "latency.seconds=0.1",
    "latency.rounds=1",
)


def store(folder: Path) -> Store:
    return connect(Tracking(uri=f"sqlite:///{folder}/mlflow.db"), create=False)


def table(folder: Path, sweep: str = "latest") -> pd.DataFrame:
    return load(f"sqlite:///{folder}/mlflow.db", sweep=sweep)


def test_a_run_that_two_sweeps_share_is_in_both_and_belongs_to_the_newer_in_mlflow(folder: Path) -> None:
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
    assert "'LSTM' selects no layer" in rows["error"].iloc[0]
    assert (folder / "mlruns" / rows["run_id"].iloc[0] / "artifacts" / "traceback.txt").exists()


def test_a_stopped_sweep_goes_on_where_it_was(folder: Path) -> None:
    sweep = ("-m", "strategy=none", "epochs=12", *SMALL)
    process = start(folder, "experiments.run", *sweep)
    deadline = time.monotonic() + 120
    while not list(folder.glob("cache/training/*/00002-*.npz")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert (process.returncode, "Traceback" in errors) == (130, False), errors
    assert list(table(folder)["status"]) == ["KILLED"]

    assert run(folder, "experiments.run", *sweep).returncode == 0
    rows = table(folder)
    assert list(rows["status"]) == ["FINISHED"]
    assert rows["epochs_reused"].iloc[0] >= 2


def test_a_killed_sweep_leaves_no_run_that_seems_to_be_running(folder: Path) -> None:
    sweep = ("-m", "strategy=none", "epochs=12", *SMALL)
    process = start(folder, "experiments.run", *sweep)
    deadline = time.monotonic() + 120
    while not list(folder.glob("cache/training/*/00001-*.npz")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(children, timeout=60)[1]  # nothing goes on training for nobody
    assert run(folder, "experiments.run", *sweep).returncode == 0
    assert not store(folder).find("attributes.status = 'RUNNING'")


def test_a_user_s_trained_model_is_the_baseline_without_training(folder: Path) -> None:
    save = "from experiments.model.mlp import MLP\nMLP().build((8, 8, 1), 2).save('mine.keras')"
    subprocess.run([sys.executable, "-c", save], cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    settings = (*SMALL[1:], "model=keras_file", "model.path=mine.keras", "epochs=0")
    done = run(folder, "experiments.run", "-m", "strategy=none,ptq_int8", *settings)
    assert done.returncode == 0, done.stderr
    assert set(table(folder)["epochs_trained"]) == {0}


def test_a_user_s_architecture_is_one_option(folder: Path) -> None:
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


def test_the_pages_own_strategy_works_as_it_stands(folder: Path) -> None:
    own_option(folder, "strategy/mine", "FinetuneThenInt16", page_example("class FinetuneThenInt16"))
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
    both = [start(tmp_path, "experiments.run", "-m", "strategy=none", *SMALL) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert table(tmp_path, "all")["epochs_trained"].sum() == 1


def test_a_file_that_differs_from_its_strategy_is_marked_and_is_an_error(folder: Path) -> None:
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
    assert re.search(r"liar .* NOT (.*\n.*)?VERIFIED", done.stdout)  # the column may break between the words
    assert "Not verified: liar epochs=1 seed=0" in done.stdout
    assert "of the weights are zero instead of 90.0%" in done.stderr
    assert list(table(folder)["verified"]) == ["true", "false"]
