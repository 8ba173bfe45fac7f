"""Sweeps whose jobs run side by side: the real command line with joblib and with Ray, on small data."""

import time
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from experiments.compare import load
from experiments.system.machine import usable_cores
from experiments.tracking import Tracking, connect, open_existing
from tests.conftest import own_option, run, save_images, start

pytestmark = pytest.mark.endtoend

SMALL = (
    "model=mlp", "dataset=npz", "dataset.path=images.npz", "training.batch_size=50", "latency.seconds=0.1",
    "latency.rounds=1",
)  # fmt: skip
JOBLIB = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *SMALL)
RAY = ("-m", "hydra/launcher=ray", "hydra.launcher.ray.remote.num_cpus=1", *SMALL)
FAILING = """
from experiments.strategy.none import Nothing
from experiments.system.errors import UserError
class Failing(Nothing):
    def scheme(self, model):
        raise UserError("it fails")
"""
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None or find_spec("hydra_plugins.hydra_ray_launcher") is None,
    reason="Ray is not installed: pip install -c constraints.txt -e '.[ray]'",
)


def table(folder: Path) -> pd.DataFrame:
    return load(f"sqlite:///{folder}/mlflow.db")


def test_joblib_runs_every_job_and_the_table_is_in_their_order(folder: Path) -> None:
    own_option(folder, "strategy/failing", "Failing", FAILING)
    chosen = "strategy=ptq_dynamic,failing,ptq_int8"
    done = run(folder, "experiments.run", "--config-dir", "options", *JOBLIB, chosen, measured=False)
    assert done.returncode == 1
    assert "1 of 3 runs failed" in done.stderr
    assert "Traceback" not in done.stderr
    rows = table(folder)
    assert list(rows["strategy"]) == ["ptq_dynamic", "failing", "ptq_int8"]
    assert list(rows["status"]) == ["FINISHED", "FAILED", "FINISHED"]
    assert "it fails" in rows["error"].iloc[1]
    assert rows["epochs_trained"].sum() == 1  # jobs that need the same training wait for the one that does it
    share = str(max(1, usable_cores() // 2))
    assert {row["threads"] for row in open_existing(f"sqlite:///{folder}/mlflow.db").rows("all")} == {share}
    assert all(f"{number}/3 strategy=" in done.stdout for number in (1, 2, 3))


def test_a_stopped_sweep_leaves_no_run_that_seems_to_be_running(folder: Path) -> None:
    process = start(folder, "experiments.run", *JOBLIB, "strategy=none", "seed=0,1", "epochs=12", measured=False)
    deadline = time.monotonic() + 120
    while not list(folder.glob("cache/training/*/00002-*.npz")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.interrupt()
    _, errors = process.communicate()
    assert (process.returncode, "Traceback" in errors) == (130, False), errors
    store = connect(Tracking(uri=f"sqlite:///{folder}/mlflow.db"), create=False)
    assert not store.find("attributes.status = 'RUNNING'")


def test_a_process_of_jobs_that_is_killed_is_one_message(folder: Path) -> None:
    end = (
        "import multiprocessing, os, signal\n"
        "from experiments.strategy.none import Nothing as Deadly\n"
        "if multiprocessing.current_process().name.startswith('LokyProcess'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    own_option(folder, "strategy/deadly", "Deadly", end)
    done = run(folder, "experiments.run", "--config-dir", "options", *JOBLIB, "strategy=none,deadly", measured=False)
    assert done.returncode == 1, done.stderr
    assert "a worker process died" in done.stderr
    assert "run the same command again to continue" in done.stderr
    assert "Traceback" not in done.stderr


# A cluster takes minutes of a core. What is particular to Ray is in test_sweep.py, and joblib pickles the same jobs.
@needs_ray
@pytest.mark.nightly
@pytest.mark.parametrize("cpus", [1, 2])
def test_ray_runs_every_job_and_the_table_is_in_their_order(cpus: int, folder: Path) -> None:
    ray = f"+hydra.launcher.ray.init.num_cpus={cpus}"
    done = run(folder, "experiments.run", *RAY, ray, "strategy=ptq_dynamic,none")
    assert done.returncode == 0, done.stderr
    rows = table(folder)
    assert list(rows["strategy"]) == ["ptq_dynamic", "none"]
    assert set(rows["status"]) == {"FINISHED"}
    assert rows["epochs_trained"].sum() == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["hydra/launcher=ray", "hydra.launcher.ray.init.address=127.0.0.1:9"],
            "hydra.launcher.ray.init.address=127.0.0.1:9: no Ray cluster answers at this address",
            marks=needs_ray,
        ),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs=0: requires the number of jobs"),
        (["hydra/launcher=jobllib"], "unknown option in conf/hydra/launcher. Did you mean joblib"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_launcher_that_cannot_work_is_one_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    save_images(tmp_path / "images.npz")
    done = run(tmp_path, "experiments.run", "-m", *arguments, *SMALL)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mlflow.db").exists()
