"""A real MLflow server on a real PostgreSQL, both on loopback: parallel sweeps, the race for a fresh one, its death."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from experiments.compare import load
from experiments.tracking import Store, Tracking
from tests.conftest import ENVIRONMENT, bare, run, save_images

pytestmark = pytest.mark.endtoend

SMALL = (
    "model=mlp", "dataset=npz", "dataset.path=images.npz", "training.batch_size=50", "latency.seconds=0.1",
)  # fmt: skip
OWNER = "postgres"  # PostgreSQL refuses to run as root; Debian's package brings this user
LOOPBACK = "127.0.0.1"
SECONDS_TO_START = 120.0
SECONDS_TO_END = 300.0  # other runs on this machine may hold a measurement up
Begin = Callable[..., "subprocess.Popen[str]"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_until(ready: Callable[[], bool], what: str, seconds: float = SECONDS_TO_START) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what} within {seconds:.0f} s"
        time.sleep(0.1)


def binaries() -> Path | None:
    """Where PostgreSQL's programs are: Debian keeps them by version and off the path."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = debian[-1] if debian else shutil.which("initdb")
    return Path(found).parent if found else None


@dataclass(frozen=True)
class Database:
    """A PostgreSQL cluster of its own, gone after the tests."""

    address: str  # without the name of a database

    def fresh(self, name: str) -> str:
        """The address of a new empty database."""
        psycopg2 = pytest.importorskip("psycopg2")
        connection = psycopg2.connect(f"{self.address}/postgres")
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
        connection.close()
        # SQLAlchemy 2.1 takes another driver where the address names none.
        return f"{self.address}/{name}".replace("postgresql:", "postgresql+psycopg2:")


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    psycopg2 = pytest.importorskip("psycopg2", reason="psycopg2 is not installed: the extra postgres")
    identity = {"user": OWNER, "group": OWNER, "extra_groups": []} if os.getuid() == 0 else {}
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="postgres-"))
    if identity:
        shutil.chown(folder, OWNER, OWNER)
    data = folder / "data"
    start = [programs / "postgres", "-D", data, "-h", LOOPBACK, "-p", str(port), "-k", folder, "-F"]
    try:
        make = [programs / "initdb", "-D", data, "-U", "bench", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        subprocess.run(make, cwd=folder, check=True, capture_output=True, **identity)  # type: ignore[call-overload]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(start, cwd=folder, stdout=log, stderr=log, **identity)  # type: ignore[call-overload]
        try:
            cluster = Database(f"postgresql://bench@{LOOPBACK}:{port}")

            def answers() -> bool:
                try:
                    psycopg2.connect(f"{cluster.address}/postgres").close()
                except psycopg2.OperationalError:
                    return False
                return True

            wait_until(answers, "PostgreSQL answers")
            yield cluster
        finally:
            process.send_signal(signal.SIGQUIT)  # at once, whoever is connected: nothing here is kept
            process.wait(timeout=60)
    finally:
        shutil.rmtree(folder)


@dataclass
class Server:
    """`mlflow server`, that hands artifacts through, to be stopped and started again."""

    backend: str
    artifacts: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def uri(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", self.backend, "--serve-artifacts", "--artifacts-destination", str(self.artifacts),
        ]  # fmt: skip
        with self.artifacts.with_suffix(".log").open("a") as log:
            # A session of its own, so that its workers end with it.
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_until(lambda: self.answers() or self.ended(), "the MLflow server answers")
        assert not self.ended(), self.artifacts.with_suffix(".log").read_text()

    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(database.fresh("tracking"), tmp_path_factory.mktemp("server") / "artifacts")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_images(tmp_path / "images.npz")
    return tmp_path


def sweep_at(server: Server, *arguments: str) -> tuple[str, ...]:
    return ("-m", "tracking=server", f"tracking.uri={server.uri}", *SMALL, *arguments)


def store(server: Server) -> Store:
    return Tracking(uri=server.uri).connect(create=False)


@pytest.fixture
def begin(folder: Path, server: Server) -> Iterator[Begin]:
    """Starts sweeps that are ended with the test, whatever becomes of it."""
    sweeps: list[subprocess.Popen[str]] = []

    def started(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
        if not server.answers():  # a test before this one failed
            server.start()
        command = [sys.executable, "-m", "experiments.run", *sweep_at(server, *arguments)]
        sweep = subprocess.Popen(
            command, cwd=folder, env={**ENVIRONMENT, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        sweeps.append(sweep)
        return sweep

    yield started
    for sweep in sweeps:
        sweep.kill()
        sweep.wait()


# The first test, while the database holds no experiment.
def test_two_sweeps_that_start_at_once_on_an_empty_server_both_succeed(server: Server, begin: Begin) -> None:
    sweeps = [begin(f"strategy={strategy}") for strategy in ("none", "ptq_dynamic")]
    outcomes = [(sweep.communicate()[1], sweep.returncode) for sweep in sweeps]
    assert outcomes == [("", 0), ("", 0)]
    assert len(store(server).find("tags.kind = 'sweep'")) == 2


def test_a_parallel_sweep_keeps_everything_on_the_server(server: Server, folder: Path, tmp_path: Path) -> None:
    done = run(
        folder, "experiments.run", *sweep_at(server, "hydra/launcher=joblib", "strategy=none,ptq_int8", "seed=1")
    )
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

    registered = run(folder, "experiments.compare", "--uri", server.uri, "--register", "shipped")
    assert registered.returncode == 0, registered.stderr
    answer = (
        "import mlflow; model = mlflow.pyfunc.load_model('models:/shipped/1'); "
        "print(model.predict(model.input_example))"
    )
    environment = {**bare(tmp_path), "MLFLOW_TRACKING_URI": server.uri}
    done = subprocess.run([sys.executable, "-c", answer], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("[[")) == (0, 1), done.stderr

    compared = run(folder, "experiments.compare", "--uri", server.uri, "--csv", "table.csv")
    assert compared.returncode == 0, compared.stderr
    assert list(pd.read_csv(folder / "table.csv")["strategy"]) == ["none", "ptq_int8"]


def test_a_server_that_goes_away_in_mid_sweep_is_one_message_and_nothing_is_lost(
    server: Server, folder: Path, begin: Begin
) -> None:
    arguments = ("strategy=none", "epochs=12", "seed=2")
    sweep = begin(*arguments, MLFLOW_HTTP_REQUEST_MAX_RETRIES="2")
    wait_until(lambda: bool(list(folder.glob("cache/training/*/00002-*.npz"))), "two epochs are trained")
    server.kill()
    _, errors = sweep.communicate(timeout=SECONDS_TO_END)
    assert sweep.returncode == 1, errors
    assert errors.count(f"tracking.uri={server.uri}: cannot be used") == 1
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors

    server.start()
    done = run(folder, "experiments.run", *sweep_at(server, *arguments))
    assert done.returncode == 0, done.stderr
    rows = load(server.uri)
    assert list(rows["status"]) == ["FINISHED"]
    assert rows["epochs_reused"].iloc[0] >= 2
    assert not store(server).find("attributes.status = 'RUNNING'")


def test_a_server_that_is_restarted_in_mid_sweep_is_no_failure(server: Server, folder: Path, begin: Begin) -> None:
    sweep = begin("strategy=none,ptq_dynamic", "seed=3", "epochs=4")
    wait_until(lambda: bool(list(folder.glob("cache/training/*/00001-*.npz"))), "an epoch is trained")
    server.kill()
    time.sleep(5)  # the first run ends meanwhile, and finds nobody to tell
    server.start()
    _, errors = sweep.communicate(timeout=SECONDS_TO_END)
    assert (sweep.returncode, errors) == (0, "")
    assert list(load(server.uri)["status"]) == ["FINISHED", "FINISHED"]
