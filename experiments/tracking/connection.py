"""Stores opened: a server asked whether it is there, an experiment found or made."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import requests  # the HTTP client of MLflow, which brings it
from pydantic import ValidationError

from experiments.system.errors import UserError, suggestion
from experiments.system.options import problems
from experiments.system.progress import say
from experiments.tracking.address import SQLITE, Tracking
from experiments.tracking.creation import prepared
from experiments.tracking.failures import failures_explained
from experiments.tracking.places import Places, folder_of, is_local
from experiments.tracking.relocation import set_location
from experiments.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

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


def check_answer(tracking: Tracking) -> None:
    """Whether a server is there, asked before anything is made.

    Raises:
        UserError: nothing answers at its address.
    """
    if tracking.uri.startswith("http"):
        with failures_explained(tracking):
            _ask_server(tracking)


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
    """A database is there, or made; a server has to answer at all."""
    for noisy in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # what goes wrong is told once, in one message
    if tracking.uri.startswith("http"):
        _ask_server(tracking)  # MLflow's client would try for a minute
    if tracking.database is None:
        yield
    else:
        with prepared(tracking, tracking.database, create):
            yield


def _experiment_id(tracking: Tracking, client: "MlflowClient", create: bool) -> str:
    found = client.get_experiment_by_name(tracking.experiment)
    if found is not None and found.lifecycle_stage == "active":
        if create:
            _follow_the_database(tracking, found)
        return str(found.experiment_id)
    if found is not None:
        raise UserError(
            f"tracking.experiment={tracking.experiment}: was deleted in MLflow. Restore it there, or give another name."
        )
    if not create:
        known = [experiment.name for experiment in client.search_experiments()]
        raise UserError(
            f"tracking.experiment={tracking.experiment}: not in {tracking.shown}. "
            f"{suggestion(tracking.experiment, known)}"
        )
    from mlflow.exceptions import MlflowException

    files = Places(tracking.database).files
    location = files.as_uri() if files else None
    training_view = {"mlflow.experimentKind": "custom_model_development"}  # how MLflow's pages show the runs
    try:
        return str(client.create_experiment(tracking.experiment, artifact_location=location, tags=training_view))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return _experiment_id(tracking, client, create=False)  # another sweep that started now was faster


def _follow_the_database(tracking: Tracking, experiment: "Experiment") -> None:
    """New runs keep their files beside the database, also where it was moved or copied since the experiment was made.

    Raises:
        UserError: the experiment's folder is gone, and none takes its place.
    """
    location, places = str(experiment.artifact_location), Places(tracking.database)
    if tracking.database is None or not is_local(location):
        return
    recorded, current = folder_of(location), places.current(location)
    if current is None or not (current.exists() or current.is_relative_to(tracking.database.parent)):
        raise UserError(
            f"tracking.uri={tracking.uri}: the files of its runs are to be in {recorded or location}, which is not "
            "there: was the folder moved or renamed? Put it back, or begin another experiment with "
            "tracking.experiment=NAME."
        )
    if current != recorded:
        set_location(tracking.database, str(experiment.experiment_id), current)
        say(
            f"This store was moved or copied here from {recorded.parent if recorded else location}: new runs keep "
            f"their files in {current}. `python -m experiments.store relocate` mends the addresses of the earlier "
            "ones for MLflow's pages."
        )
