"""What a store fails with, as a message to its user."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from http.client import HTTPException
from typing import Concatenate, ParamSpec, Protocol, TypeVar
from urllib.parse import urlsplit

import requests  # the HTTP client of MLflow, which brings it

from experiments.system.disk import is_full, mount_point, state_of
from experiments.system.errors import UserError, first_cause, first_line, redacted
from experiments.system.stopping import raise_if_stopped
from experiments.tracking.address import Tracking
from experiments.tracking.database import BUSY, is_locked, locked

P = ParamSpec("P")
R = TypeVar("R")


class Addressed(Protocol):
    """What belongs to a store."""

    @property
    def address(self) -> Tracking:
        """The store's."""


S = TypeVar("S", bound=Addressed)

# MLflow's error codes for the HTTP statuses 401 and 403.
_REFUSALS = {
    "UNAUTHENTICATED": (
        "the server requires a user and a password, or rejects those that were given. Set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) in the environment."
    ),
    "PERMISSION_DENIED": (
        "the server does not allow this to the user of MLFLOW_TRACKING_USERNAME. Ask its administrator for the "
        "permission EDIT on the experiment (READ is enough to compare), or give another tracking.experiment=NAME."
    ),
}


@contextmanager
def failures_explained(tracking: Tracking) -> Iterator[None]:
    """Whatever a store fails with, a server that is gone or a disk that is full, becomes one message."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, HTTPException, ImportError) as error:
        if refusal := _REFUSALS.get(getattr(error, "error_code", "")):
            raise UserError(f"tracking.uri={tracking.shown}: {refusal}") from error
        if tracking.database and is_locked(error):
            raise UserError(f"tracking.uri={tracking.shown}: {locked(tracking.database, BUSY)}") from error
        if tracking.uri.startswith("http") and (silence := _silence(error)):
            raise UserError(
                f"tracking.uri={tracking.shown}: cannot be used, for nothing answers there ({silence}). Start an "
                f"MLflow server at this address{_server_at(tracking)}, or keep runs in a file: "
                "tracking.uri=sqlite:///mlflow.db (--uri sqlite:///mlflow.db of other commands than experiments.run)."
            ) from error
        what_to_do = (
            "Give one that can, such as tracking.uri=sqlite:////tmp/mlflow.db, or the address of a running MLflow "
            "server."
        )
        if tracking.database and is_full(disk := mount_point(tracking.database)):
            what_to_do = f"T{state_of(disk)[1:]}. Make room there. {what_to_do}"
        raise UserError(f"tracking.uri={tracking.shown}: cannot be used ({_reason(error)}). {what_to_do}") from error


def explained(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method of what belongs to a store, with its failures explained."""

    @wraps(method)
    def wrapped(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        raise_if_stopped()
        with failures_explained(self.address):
            return method(self, *args, **kwargs)

    return wrapped


def _silence(error: BaseException) -> str:
    """Why a server gave no answer, in the system's words; empty where it gave one, or was never asked."""
    found: BaseException | None = error
    while found and not isinstance(found, requests.ConnectionError | requests.Timeout):
        found = found.__cause__ or found.__context__
    if found is None or isinstance(found, requests.exceptions.SSLError):
        return ""
    cause = first_cause(found)
    return (isinstance(cause, OSError) and cause.strerror) or redacted(first_line(cause))


def _server_at(tracking: Tracking) -> str:
    """The command that starts a server at an address, for a message; empty where that is another machine's."""
    address = urlsplit(tracking.uri)
    if address.hostname not in ("127.0.0.1", "localhost"):
        return ""
    return f", `mlflow server --host {address.hostname} --port {address.port or 80}`"


def _reason(error: BaseException) -> str:
    """What the database said, where it was one, and not what MLflow and SQLAlchemy wrapped around it."""
    return str(getattr(error.__cause__ or error, "orig", None) or first_line(error))
