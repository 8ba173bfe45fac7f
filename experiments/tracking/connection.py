"""Open a store: check that a server answers, find or create the experiment."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import requests  # a dependency of MLflow, which uses it as HTTP client
from pydantic import ValidationError

from experiments.system.disk import check_writable, explain_os_error
from experiments.system.errors import UserError, suggestion
from experiments.system.options import describe_errors
from experiments.system.progress import say
from experiments.tracking.address import SQLITE, Tracking
from experiments.tracking.creation import MissingStoreError, ensure_database
from experiments.tracking.failures import explaining_failures
from experiments.tracking.places import Places, check_storage, folder_of, is_local
from experiments.tracking.relocation import set_location
from experiments.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

SERVER_PATIENCE = 5.0  # seconds to wait for the answer of a server
RESTART_PATIENCE = 60.0  # seconds to wait for a server that restarts during a sweep
# MLflow's client would retry for four minutes; five retries with exponential backoff take about one.
RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
# MLflow's client would show its own bars for downloads, and print the address of every run.
SILENT = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
_GIVEN_UP: set[str] = set()  # servers that did not answer within RESTART_PATIENCE


def connect(tracking: Tracking, create: bool = True) -> Store:
    """Open a store; with `create`, a missing database or experiment is created.

    Raises:
        UserError: the address does not answer, is not writable, or has no such experiment.
    """
    for name, value in {**RETRIES, **SILENT}.items():
        os.environ.setdefault(name, value)
    with explaining_failures(tracking), _ensure_store(tracking, create):
        from mlflow import MlflowClient

        client = MlflowClient(f"{SQLITE}{tracking.database}" if tracking.database else tracking.uri)
        return Store(client, _experiment_id(tracking, client, create), tracking)


def open_existing(uri: str = Tracking.uri, experiment: str = Tracking.experiment) -> Store:
    """Open an existing store for reading, at an address from the command line.

    Raises:
        UserError: the address is invalid or does not answer, or there is no such store or experiment.
    """
    try:
        return connect(Tracking(uri=uri, experiment=experiment), create=False)
    except ValidationError as error:
        raise UserError(describe_errors("tracking", error)) from error


def check_answer(tracking: Tracking) -> None:
    """Check that a server answers, before anything is created.

    Raises:
        UserError: no server answers at the address.
    """
    if tracking.uri.startswith("http"):
        with explaining_failures(tracking):
            _ask_server(tracking)


def await_server(tracking: Tracking) -> None:
    """Wait up to a minute for a server that restarts during a sweep; after a failure, do not wait again."""
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
                return  # the next request reports the error
            time.sleep(1)
        else:
            _GIVEN_UP.discard(tracking.uri)
            return


def _ask_server(tracking: Tracking) -> None:
    """Send a request; any answer counts, since a server may require a login or a certificate that MLflow knows."""
    with suppress(requests.exceptions.SSLError):
        requests.get(f"{tracking.uri.rstrip('/')}/health", timeout=SERVER_PATIENCE)


@contextmanager
def _ensure_store(tracking: Tracking, create: bool) -> Iterator[None]:
    """Ensure that the database exists, or that the server answers."""
    for noisy in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # errors are reported once, by this suite
    if tracking.uri.startswith("http"):
        _ask_server(tracking)  # MLflow's client would retry for a minute
    if tracking.database is None:
        yield
    else:
        with ensure_database(tracking, tracking.database, create):
            yield


def _experiment_id(tracking: Tracking, client: "MlflowClient", create: bool) -> str:
    found = client.get_experiment_by_name(tracking.experiment)
    if found is not None and found.lifecycle_stage == "active":
        if create:
            check_storage(tracking, str(found.artifact_location))
            _update_location(tracking, found)
            _check_files(tracking, Places(tracking.database).current(str(found.artifact_location)))
        return str(found.experiment_id)
    if found is not None:
        raise UserError(
            f"tracking.experiment={tracking.experiment}: deleted in MLflow. Restore it there, or use another name."
        )
    if not create:
        names = [experiment.name for experiment in client.search_experiments()]
        raise MissingStoreError(
            f"tracking.experiment={tracking.experiment}: not in {tracking.shown}. "
            f"{suggestion(tracking.experiment, names)}"
        )
    from mlflow.exceptions import MlflowException

    files = Places(tracking.database).files
    _check_files(tracking, files)
    location = files.as_uri() if files else None
    training_view = {"mlflow.experimentKind": "custom_model_development"}  # selects the view of runs in MLflow's pages
    try:
        return str(client.create_experiment(tracking.experiment, artifact_location=location, tags=training_view))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return _experiment_id(tracking, client, create=False)  # another process has just created it


def _check_files(tracking: Tracking, folder: Path | None) -> None:
    """Check, before any work, that the files of runs can be written; only a database on this machine has a folder.

    Raises:
        UserError: they cannot.
    """
    if tracking.database is None or folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder)
    except OSError as error:
        raise UserError(
            f"tracking.uri={tracking.uri}: the folder of its files, {folder}, is not writable "
            f"({explain_os_error(error)}). Make it writable, or use another store: tracking.uri=sqlite:////FOLDER/mlflow.db."
        ) from error


def _update_location(tracking: Tracking, experiment: "Experiment") -> None:
    """Make new runs store their files beside the database, even if it was moved or copied.

    Raises:
        UserError: the experiment's folder no longer exists, and there is no replacement.
    """
    location, places = str(experiment.artifact_location), Places(tracking.database)
    if tracking.database is None or not is_local(location):
        return
    recorded, current = folder_of(location), places.current(location)
    if current is None or not (current.exists() or current.is_relative_to(tracking.database.parent)):
        raise UserError(
            f"tracking.uri={tracking.uri}: the folder of its files, {recorded or location}, does not exist. If it was "
            "moved or renamed, move it back. Otherwise start a new experiment with tracking.experiment=NAME."
        )
    if current != recorded:
        set_location(tracking.database, str(experiment.experiment_id), current)
        say(
            f"This store was moved or copied from {recorded.parent if recorded else location}. New runs keep their "
            f"files in {current}. To update the addresses of earlier runs for MLflow's own pages, type `python -m "
            "experiments.store relocate`."
        )
