"""Tracking with servers that fail, concurrent processes, full disks and invalid stores."""

import re
import sqlite3
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Barrier, Thread
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import psutil
import pytest
from mlflow.entities import Dataset, DatasetInput
from mlflow.exceptions import MlflowException, RestException
from mlflow.store.entities import PagedList

from experiments.record.evidence import Predictions
from experiments.record.identity import Identity
from experiments.record.run_record import Setting
from experiments.system.errors import UserError
from experiments.system.processes import is_running
from experiments.tracking import Store, Tracking, await_server, connect, connection

GONE = Tracking(uri="http://127.0.0.1:9")
ACTIVE = {"experiment_id": "7", "lifecycle_stage": "active", "artifact_location": "mlflow-artifacts:/7"}


@dataclass
class Rival:
    """A client of a store in which somebody else makes the experiment between the look and the making."""

    reason: str
    made: bool = False

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(**ACTIVE, name=name) if self.made else None

    def create_experiment(self, *_: Any, **__: Any) -> str:
        self.made = True
        raise RestException({"error_code": self.reason, "message": "no"})  # type: ignore[no-untyped-call]


def test_experiment_created_concurrently_is_shared() -> None:
    assert connection._experiment_id(GONE, Rival("RESOURCE_ALREADY_EXISTS"), create=True) == "7"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://127.0.0.1:9", r"\(Connection refused\)\. Start an MLflow server at this address, `mlflow server "
         r"--host 127\.0\.0\.1 --port 9`, or use a file: tracking\.uri=sqlite:///mlflow\.db"),
        ("http://me:secret@127.0.0.1:9", r"^tracking\.uri=http://\*\*\*@127\.0\.0\.1:9: (?!.*secret)"),
        ("http://nowhere.invalid", r"Start an MLflow server at this address, or use a file"),
    ],
)  # fmt: skip
def test_unreachable_address_is_reported_with_a_remedy(address: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        connect(Tracking(uri=address), create=False)
    assert "no server answers" in str(refused.value)
    assert not re.search("HTTPConnectionPool|urllib3|retries", str(refused.value))


def test_missing_experiment_is_reported_without_the_password() -> None:
    secret = Tracking(uri="postgresql://me:secret@host/db")
    nothing_there: Any = SimpleNamespace(get_experiment_by_name=lambda _: None, search_experiments=list)
    with pytest.raises(UserError, match=r"not in postgresql://\*\*\*@host/db"):
        connection._experiment_id(secret, nothing_there, create=False)


def test_other_errors_are_not_treated_as_a_race() -> None:
    with pytest.raises(MlflowException):
        connection._experiment_id(GONE, Rival("PERMISSION_DENIED"), create=True)  # type: ignore[arg-type]


def test_concurrent_runs_share_their_data_set(tmp_path: Path) -> None:
    stores = [connect(Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db")) for _ in range(2)]
    runs = [store.client.create_run(store.experiment_id).info.run_id for store in stores]
    data = [DatasetInput(Dataset("mnist", f"{number}", "code", "mnist")) for number in range(20)]
    together = Barrier(len(stores), timeout=60)

    def log_all(store: Store, run_id: str) -> None:
        for each in data:
            together.wait()
            store._log_input(run_id, each)

    with ThreadPoolExecutor() as threads:
        list(threads.map(log_all, stores, runs))
    inputs = [stores[0].client.get_run(run_id).inputs for run_id in runs]
    assert [len(each.dataset_inputs) for each in inputs if each] == [20, 20]


def test_unavailable_server_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RESTART_PATIENCE", 1.5)
    monkeypatch.setattr(connection, "_GIVEN_UP", set())
    before = time.monotonic()
    await_server(GONE)
    given_up = time.monotonic()
    await_server(GONE)
    assert given_up - before >= 1.5
    assert time.monotonic() - given_up < 1.5


def test_a_database_needs_no_waiting() -> None:
    before = time.monotonic()
    await_server(Tracking(uri="sqlite:///nothing.db"))
    assert time.monotonic() - before < 1


@dataclass
class Keeper:
    """A client of a store that keeps one artifact for its runs, or none, at some place."""

    content: str | None
    place: str = "mlflow-artifacts:/1/2/artifacts"

    def get_run(self, _: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(artifact_uri=self.place))

    def list_artifacts(self, _: str) -> list[Any]:
        return [] if self.content is None else [SimpleNamespace(path="predictions.csv")]

    def download_artifacts(self, _: str, name: str, folder: str) -> str:
        path = Path(folder) / name
        path.write_text(self.content or "")
        return str(path)


def store_with(content: str | None) -> Store:
    return Store(Keeper(content), "7", GONE)  # type: ignore[arg-type]


def test_predictions_are_read_by_column() -> None:
    said = store_with("truth,keras,tflite,float_reference\n1,1,2,3\n4,4,4,4\n").read_evidence("a run")
    assert isinstance(said, Predictions)
    assert [list(column) for column in (said.truth, said.tflite, said.reference)] == [[1, 4], [2, 4], [3, 4]]
    assert said.truth.dtype == np.int64


def test_a_run_without_predictions_has_none() -> None:
    assert store_with(None).read_evidence("a run") is None


@pytest.mark.parametrize("content", ["", "truth,keras,tflite,float_reference\n1,1,2\n", "<html>\nno,such,file,here\n"])
def test_unreadable_predictions_cause_one_message(content: str) -> None:
    with pytest.raises(UserError, match=r"Run abc: its predictions\.csv cannot be read"):
        store_with(content).read_evidence("abc")


def test_local_artifact_is_read_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "record.json").write_text("{}")
    kept = Store(Keeper(None, (tmp_path / "a b").as_uri()), "7", GONE)  # type: ignore[arg-type]
    assert kept.content("a run", "record.json") == b"{}"
    assert kept.content("a run", "predictions.csv") is None


@pytest.mark.parametrize(("content", "read"), [("some", b"some"), (None, None)])
def test_artifact_on_a_server_is_downloaded(content: str | None, read: bytes | None) -> None:
    kept = Store(Keeper(content, "mlflow-artifacts:/1/2/artifacts"), "7", GONE)  # type: ignore[arg-type]
    assert kept.content("a run", "predictions.csv") == read


@dataclass
class Refusing:
    """A client of a server that does not understand what it is asked."""

    reason: str

    def search_runs(self, *_: Any, **__: Any) -> Any:
        raise RestException({"error_code": self.reason, "message": "no"})  # type: ignore[no-untyped-call]


def test_old_server_omits_the_count_of_other_runs() -> None:
    assert Store(Refusing("INVALID_PARAMETER_VALUE"), "7", GONE).count_others() == ""  # type: ignore[arg-type]


def test_other_errors_of_a_server_are_reported() -> None:
    with pytest.raises(UserError, match="requires more permissions for the user"):
        Store(Refusing("PERMISSION_DENIED"), "7", GONE).count_others()  # type: ignore[arg-type]


FULL = OSError(28, "No space left on device")


@dataclass
class Crammed:
    """A client of a store whose disk is full."""

    def log_artifacts(self, *_: Any) -> None:
        raise FULL

    log_model_artifacts = log_artifacts

    def get_run(self, _: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(artifact_uri="mlflow-artifacts:/1/2/artifacts"))

    def create_logged_model(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(model_id="a model")


def full(*_: Any) -> None:
    raise FULL


def nothing(*_: Any) -> None:
    """Writes no file."""


RECORD: Any = SimpleNamespace(setting=Setting("none", "mlp", "mnist", 1, 0, 0), identity=Identity("mlp", "mnist"))


@pytest.mark.parametrize(
    ("write", "error"), [(full, OSError), (nothing, UserError)], ids=["no room for files", "none in the store"]
)
def test_full_disk_is_reported_only_if_it_has_the_store(
    write: Any, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.tracking.store.describe", lambda *_: "")
    monkeypatch.setattr("experiments.tracking.store.write_model", write)
    with pytest.raises(error, match="No space left on device"):
        Store(Crammed(), "7", GONE).finish("a run", RECORD, Path())  # type: ignore[arg-type]


def test_full_disk_is_named_when_artifacts_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.tracking.store.describe", lambda *_: "")
    monkeypatch.setattr(Store, "_log_model", lambda *_: "a model")
    with pytest.raises(UserError, match="No space left on device"):
        Store(Crammed(), "7", GONE).finish("a run", RECORD, tmp_path)  # type: ignore[arg-type]


def foreign(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table customers (name text)")
        database.commit()
    return path


def no_database(path: Path) -> Path:
    path.write_bytes(b"no database at all, though long enough to be read as one" * 20)
    return path


def a_folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    ("made", "told"),
    [
        (foreign, "is not an MLflow store"),
        (no_database, "cannot be read as a database"),
        (a_folder, "requires a file, not a folder"),
    ],
)
def test_other_database_is_rejected_unchanged(
    made: Callable[[Path], Path], told: str, create: bool, tmp_path: Path
) -> None:
    path = made(tmp_path / "other.db")
    before = path.stat()
    with pytest.raises(UserError, match=told):
        connect(Tracking(uri=f"sqlite:///{path}"), create=create)
    after = path.stat()  # the time of reading may differ
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (before.st_mtime_ns, before.st_size, before.st_ino)


@pytest.mark.parametrize("name", ["a?b", "a%20b"])
def test_path_with_special_characters_is_rejected(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="a special meaning in an address"):
        connect(Tracking(uri=f"sqlite:///{tmp_path / name}/mlflow.db"))


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:secret@host/db",
        "postgresql+psycopg2://me:se/cret+Zq==@host/db",
        "postgresql://host/db?user=me&password=secret",
        "mssql+pyodbc://host/db?PWD=secret&driver=x",
    ],
)
def test_no_password_of_an_address_is_shown(address: str) -> None:
    shown = Tracking(uri=address).shown
    assert "cret" not in shown
    assert "host/db" in shown


class Locked(BaseHTTPRequestHandler):
    """A server behind a login."""

    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_address_with_a_user_name_is_accepted() -> None:
    with HTTPServer(("127.0.0.1", 0), Locked) as server:
        Thread(target=server.handle_request, daemon=True).start()
        connection._ask_server(Tracking(uri=f"http://me:secret@127.0.0.1:{server.server_port}"))


def test_run_of_a_deleted_sweep_is_closed() -> None:
    gone = RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"})  # type: ignore[no-untyped-call]
    tags = {"kind": "run", "host": "elsewhere", "mlflow.parentRunId": "gone"}
    run = SimpleNamespace(info=SimpleNamespace(run_id="orphan"), data=SimpleNamespace(tags=tags))
    closed = []

    class Client:
        def search_runs(self, *_: object, **__: object) -> PagedList[Any]:
            return PagedList([run], None)

        def get_run(self, _: str) -> NoReturn:
            raise gone

        def search_logged_models(self, *_: object) -> list[Any]:
            return []

        def set_terminated(self, run_id: str, status: str) -> None:
            closed.append((run_id, status))

    Store(Client(), "7", GONE).close_orphans()  # type: ignore[arg-type]
    assert closed == [("orphan", "KILLED")]


def test_zombie_process_is_not_running() -> None:
    with subprocess.Popen(["true"]) as process:
        started = psutil.Process(process.pid).create_time()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert not is_running(f"{process.pid}@{started:.0f}")
