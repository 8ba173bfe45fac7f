"""PostgreSQL read directly, and an MLflow server on it: parallel sweeps, a race, a crash."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy.exc import InternalError

from benchmarks.harness.loopback import wait_until
from benchmarks.harness.postgres import Database
from experiments.compare import load
from experiments.tracking import Store, Tracking, connect
from tests.conftest import bare, run, save_images, start
from tests.generated import OTHERS, exactly, fill_variously, through_the_api
from tests.support.commands import Command
from tests.support.mlflow_server import Server

pytestmark = [pytest.mark.endtoend, pytest.mark.usefixtures("database")]

SMALL = (
    "model=mlp", "dataset=npz", "dataset.path=images.npz", "training.batch_size=50", "latency.seconds=0.1",
    "latency.rounds=1",
)  # fmt: skip
Begin = Callable[..., Command]


@pytest.fixture(scope="module")
def filled(database: Database) -> Store:
    store = connect(Tracking(uri=database.fresh("filled")))
    fill_variously(store)
    return store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_images(tmp_path / "images.npz")
    return tmp_path


def sweep_at(server: Server, *arguments: str) -> tuple[str, ...]:
    return ("-m", "tracking=server", f"tracking.uri={server.uri}", *SMALL, *arguments)


def store(server: Server) -> Store:
    return connect(Tracking(uri=server.uri), create=False)


@pytest.fixture
def begin(folder: Path, server: Server) -> Iterator[Begin]:
    """Starts sweeps that are ended with the test, whatever becomes of it."""
    sweeps: list[Command] = []

    def started(*arguments: str, **environment: str) -> Command:
        if not server.answers():  # a test before this one failed
            server.start()
        command = sweep_at(server, *arguments)
        sweeps.append(start(folder, "experiments.run", *command, measured=False, **environment))
        return sweeps[-1]

    yield started
    for sweep in sweeps:
        sweep.kill()
        sweep.wait()


@pytest.mark.parametrize("sweep", ["all", "latest"])
def test_rows_from_the_tables_are_those_of_the_api(filled: Store, sweep: str) -> None:
    assert exactly(filled.rows(sweep)) == exactly(through_the_api(filled).rows(sweep))


def test_runs_of_other_programs_are_counted(filled: Store) -> None:
    assert filled.count_others() == through_the_api(filled).count_others() == str(OTHERS)


def test_tables_are_read_only(filled: Store) -> None:
    tables = filled._tables()
    assert tables is not None
    with tables._reading() as connection, pytest.raises(InternalError, match="read-only transaction"):
        connection.exec_driver_sql("DELETE FROM tags")


# The first test that knows the server by this name of an experiment, which is not there yet.
def test_two_sweeps_that_start_at_once_on_an_empty_server_both_succeed(server: Server, begin: Begin) -> None:
    sweeps = [begin(f"strategy={strategy}") for strategy in ("none", "ptq_dynamic")]
    outcomes = [(sweep.communicate()[1], sweep.returncode) for sweep in sweeps]
    assert outcomes == [("", 0), ("", 0)]
    assert len(store(server).find("tags.kind = 'sweep'")) == 2


# Sweeps that write at the same time are those of the test before this one; joblib is that of test_launchers.py.
@pytest.mark.parametrize(("launcher", "seed"), [("basic", 1), pytest.param("joblib", 4, marks=pytest.mark.nightly)])
def test_a_sweep_keeps_everything_on_the_server(
    launcher: str, seed: int, server: Server, folder: Path, tmp_path: Path
) -> None:
    chosen = (f"hydra/launcher={launcher}", "strategy=none,ptq_int8", f"seed={seed}")
    done = run(folder, "experiments.run", *sweep_at(server, *chosen), measured=False)
    assert (done.returncode, done.stderr) == (0, "")
    rows = load(server.uri)
    assert list(rows["strategy"]) == ["none", "ptq_int8"]
    assert set(rows["status"]) == {"FINISHED"}
    assert set(rows["verified"]) == {"true"}
    assert not (folder / "mlruns").exists()
    assert not (folder / "mlflow.db").exists()

    for run_id in rows["run_id"]:
        assert store(server).client.get_run(run_id).info.artifact_uri.startswith("mlflow-artifacts:")
        model = Path(store(server).client.download_artifacts(run_id, "model.tflite", str(tmp_path)))
        assert model.stat().st_size == rows.set_index("run_id")["tflite_bytes"][run_id]
    assert list(server.artifacts.rglob("model.tflite"))

    name = f"shipped_{launcher}"
    registered = run(folder, "experiments.compare", "--uri", server.uri, "--register", name)
    assert registered.returncode == 0, registered.stderr
    answer = (
        f"import mlflow; model = mlflow.pyfunc.load_model('models:/{name}/1'); "
        "print(model.predict(model.input_example))"
    )
    environment = {**bare(tmp_path), "MLFLOW_TRACKING_URI": server.uri}
    done = subprocess.run([sys.executable, "-c", answer], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("[[")) == (0, 1), done.stderr

    compared = run(folder, "experiments.compare", "--uri", server.uri, "--csv", "table.csv")
    assert compared.returncode == 0, compared.stderr
    assert list(pd.read_csv(folder / "table.csv")["strategy"]) == ["none", "ptq_int8"]


def test_server_crash_during_a_sweep_causes_one_message_and_no_loss(server: Server, folder: Path, begin: Begin) -> None:
    arguments = ("strategy=none", "epochs=6", "seed=2")
    sweep = begin(*arguments, MLFLOW_HTTP_REQUEST_MAX_RETRIES="2")
    wait_until(lambda: bool(list(folder.glob("cache/training/*/00002-*.npz"))), "two epochs are trained")
    server.kill()
    _, errors = sweep.communicate()
    assert sweep.returncode == 1, errors
    assert errors.count(f"tracking.uri={server.uri}: no server answers") == 1
    assert "run the same command again to continue" in errors
    assert "Traceback" not in errors

    server.start()
    done = run(folder, "experiments.run", *sweep_at(server, *arguments), measured=False)
    assert done.returncode == 0, done.stderr
    rows = load(server.uri)
    assert list(rows["status"]) == ["FINISHED"]
    assert rows["epochs_reused"].iloc[0] >= 2
    assert not store(server).find("attributes.status = 'RUNNING'")


@pytest.mark.nightly
def test_server_restart_during_a_sweep_is_tolerated(server: Server, folder: Path, begin: Begin) -> None:
    sweep = begin("strategy=none,ptq_dynamic", "seed=3", "epochs=4")
    wait_until(lambda: bool(list(folder.glob("cache/training/*/00001-*.npz"))), "an epoch is trained")
    server.kill()
    time.sleep(3)  # the first run ends meanwhile, and finds nobody to tell
    server.start()
    _, errors = sweep.communicate()
    assert (sweep.returncode, errors) == (0, "")
    assert list(load(server.uri)["status"]) == ["FINISHED", "FINISHED"]
