"""Stores opened: a fresh database made, a server asked whether it is there."""

import logging
import os
import re
import sqlite3
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from filelock import FileLock
from pydantic import ValidationError

from experiments.card import problems
from experiments.errors import UserError, near
from experiments.progress import say
from experiments.tracking.address import SQLITE, Tracking
from experiments.tracking.failures import failures_explained
from experiments.tracking.store import Store
from experiments.tracking.tables import folder_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

SERVER_PATIENCE = 5.0  # seconds until a server counts as one that does not answer
RESTART_PATIENCE = 60.0  # seconds that a server may be away in mid-sweep
# MLflow's client would try for four minutes. So many times, waiting twice as long each time, are about one.
RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
# MLflow's client would draw bars of its own for files that it fetches, and print the address of every run.
SILENT = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
_GIVEN_UP: set[str] = set()  # servers that this process has waited for in vain


def connect(tracking: Tracking, create: bool = True) -> Store:
    """An open store; `create` makes the database and the experiment where they are missing.

    Raises:
        UserError: the address does not answer, cannot be written, or holds no such experiment.
    """
    for name, value in {**RETRIES, **SILENT}.items():
        os.environ.setdefault(name, value)
    with failures_explained(tracking), _prepared(tracking, create):
        from mlflow import MlflowClient

        client = MlflowClient(f"{SQLITE}{tracking.database}" if tracking.database else tracking.uri)
        return Store(client, _experiment_id(tracking, client, create), tracking)


def existing(uri: str = Tracking.uri, experiment: str = Tracking.experiment) -> Store:
    """The store at an address that somebody typed, to be read.

    Raises:
        UserError: it is no address, it does not answer, or there is no such store or experiment.
    """
    try:
        return connect(Tracking(uri=uri, experiment=experiment), create=False)
    except ValidationError as error:
        raise UserError(problems("tracking", error)) from error


def await_server(tracking: Tracking) -> None:
    """Give a server that is being restarted in mid-sweep a minute; one that took longer is not waited for again."""
    if not tracking.uri.startswith("http"):
        return
    patience = 0.0 if tracking.uri in _GIVEN_UP else RESTART_PATIENCE
    deadline = time.monotonic() + patience
    while True:
        try:
            _ask_server(tracking)
        except OSError:
            if time.monotonic() > deadline:
                _GIVEN_UP.add(tracking.uri)
                return  # what needs the server says what is wrong
            time.sleep(1)
        else:
            _GIVEN_UP.discard(tracking.uri)
            return


def _ask_server(tracking: Tracking) -> None:
    """Any answer will do: a server behind a login refuses this page, and MLflow's settings say which ones to trust."""
    with suppress(requests.exceptions.SSLError):
        requests.get(f"{tracking.uri.rstrip('/')}/health", timeout=SERVER_PATIENCE)


@contextmanager
def _prepared(tracking: Tracking, create: bool) -> Iterator[None]:
    """One process at a time may make a fresh database; a server has to answer at all."""
    for noisy in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # what goes wrong is told once, in one message
    if tracking.uri.startswith("http"):
        _ask_server(tracking)  # MLflow's client would try for a minute
    if tracking.database:
        _check_file(tracking, tracking.database, create)
    if tracking.database is None or (tracking.database.exists() and not create):
        yield
        return
    if not create:
        raise UserError(
            f"tracking.uri={tracking.uri}: there is no file {tracking.database}. Run `python -m experiments.run` here "
            "first, or give the folder's database with --uri sqlite:///PATH/mlflow.db."
        )
    with FileLock(f"{tracking.database}.lock"):
        if not tracking.database.exists():
            say(f"making {tracking.database}")
            _make_database(tracking.database)
        yield


def _check_file(tracking: Tracking, path: Path, create: bool) -> None:
    """MLflow would try for long to open what is no file, and put its tables into any database that it is given."""
    if re.search(r"[?]|%[0-9a-fA-F]{2}", str(path)):
        raise UserError(
            f"tracking.uri={tracking.uri}: the path {path} has a sign that means something else in an address (? or "
            "%20). Work in another folder, or give another file."
        )
    if not path.exists() or (create and path.is_file() and not path.stat().st_size):
        return
    address = f"file:{urllib.parse.quote(str(path))}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as database:
            tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
    except sqlite3.Error as error:
        raise UserError(f"tracking.uri={tracking.uri}: {path} cannot be read as a database ({error}).") from error
    if "experiments" not in tables:
        raise UserError(
            f"tracking.uri={tracking.uri}: {path} is no store of MLflow, and is left as it is. Give another file."
        )


def _experiment_id(tracking: Tracking, client: "MlflowClient", create: bool) -> str:
    found = client.get_experiment_by_name(tracking.experiment)
    if found is not None and found.lifecycle_stage == "active":
        if create:
            _check_artifacts(tracking, found.artifact_location)
        return str(found.experiment_id)
    if found is not None:
        raise UserError(
            f"tracking.experiment={tracking.experiment}: was deleted in MLflow. Restore it there, or give another name."
        )
    if not create:
        known = [experiment.name for experiment in client.search_experiments()]
        raise UserError(
            f"tracking.experiment={tracking.experiment}: not in {tracking.shown}. {near(tracking.experiment, known)}"
        )
    from mlflow.exceptions import MlflowException

    location = (tracking.database.parent / "mlruns").as_uri() if tracking.database else None
    training_view = {"mlflow.experimentKind": "custom_model_development"}  # how MLflow's pages show the runs
    try:
        return str(client.create_experiment(tracking.experiment, artifact_location=location, tags=training_view))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return _experiment_id(tracking, client, create=False)  # another sweep that started now was faster


def _check_artifacts(tracking: Tracking, location: str) -> None:
    """An experiment keeps the folder of its artifacts, also where its database was moved away from there."""
    folder = folder_of(location)
    if tracking.database is None or folder is None or folder.exists():
        return
    if folder != tracking.database.parent / "mlruns":
        raise UserError(
            f"tracking.uri={tracking.uri}: the files of its runs are to be in {folder}, which is not there: was the "
            "folder moved or renamed? Put it back, or begin another experiment with tracking.experiment=NAME."
        )


def _make_database(path: Path) -> None:
    """An empty store; it appears under its name only when it is complete, for MLflow cannot mend a half-made one."""
    from mlflow import MlflowClient

    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    MlflowClient(f"{SQLITE}{partial}").search_experiments()
    partial.replace(path)
