"""Converts errors of a store to messages for users."""

import re
import resource
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from http.client import HTTPException
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar
from urllib.parse import urlsplit

import requests  # a dependency of MLflow, which uses it as HTTP client

from experiments.system.disk import describe_space, is_full, mount_point
from experiments.system.errors import UserError, first_cause, first_line, redact
from experiments.system.stopping import raise_if_stopped
from experiments.tracking.address import Tracking
from experiments.tracking.database import BUSY, is_damaged, is_locked, locked_message, remedy_for_damage

P = ParamSpec("P")
R = TypeVar("R")


class Addressed(Protocol):
    """An object with the address of its store."""

    @property
    def address(self) -> Tracking:
        """The address of the store."""


S = TypeVar("S", bound=Addressed)

# MLflow's error codes for the HTTP statuses 401 and 403.
_PERMISSION_ERRORS = {
    "UNAUTHENTICATED": (
        "the server requires a valid user and password. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or "
        "MLFLOW_TRACKING_TOKEN) in the environment."
    ),
    "PERMISSION_DENIED": (
        "the server requires more permissions for the user in MLFLOW_TRACKING_USERNAME. Ask its administrator for EDIT "
        "on the experiment (READ is enough to compare), or use another one: tracking.experiment=NAME."
    ),
}

_SCHEMA = re.compile(r"out-of-date database schema \(found version (\w+)")


@contextmanager
def explaining_failures(tracking: Tracking) -> Iterator[None]:
    """Turn every error of a store, such as a dead server or a full disk, into one message."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (
        MlflowException, SQLAlchemyError, sqlite3.Error, UnicodeDecodeError, OSError, HTTPException, ImportError,
    ) as error:  # fmt: skip
        if refusal := _PERMISSION_ERRORS.get(getattr(error, "error_code", "")):
            raise UserError(f"tracking.uri={tracking.shown}: {refusal}") from error
        if tracking.database and is_locked(error):
            raise UserError(f"tracking.uri={tracking.shown}: {locked_message(tracking.database, BUSY)}") from error
        if tracking.uri.startswith("http") and (silence := _connection_error(error)):
            raise UserError(
                f"tracking.uri={tracking.shown}: no server answers ({silence}). Start an MLflow server at this "
                f"address{_server_command(tracking)}, or use a file: tracking.uri=sqlite:///mlflow.db "
                "for experiments.run, --uri sqlite:///mlflow.db for the other commands."
            ) from error
        if found := _SCHEMA.search(str(error)):
            raise UserError(f"tracking.uri={tracking.shown}: {_of_another_mlflow(tracking, found[1])}") from error
        if tracking.database and "readonly database" in str(error) and not tracking.database.exists():
            raise UserError(
                f"tracking.uri={tracking.shown}: the file was deleted or moved while it was in use. Put it back, or "
                "type the command again to start a new store; finished epochs come from the cache."
            ) from error
        if tracking.database and is_damaged(error):
            raise UserError(
                f"tracking.uri={tracking.shown}: the database is damaged ({_reason(error)}). "
                f"{remedy_for_damage(tracking.database)}. Or use another store: tracking.uri=sqlite:///NAME.db for "
                "experiments.run, --uri sqlite:///NAME.db for the other commands."
            ) from error
        what_to_do = (
            "Use another store, such as tracking.uri=sqlite:////tmp/mlflow.db, or the address of a running MLflow "
            "server."
        )
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if tracking.database and limit != resource.RLIM_INFINITY:
            what_to_do = f"Files are limited to {limit // 1024:,} KiB: `ulimit -f unlimited` removes that. {what_to_do}"
        if tracking.database and is_full(disk := mount_point(tracking.database)):
            what_to_do = f"T{describe_space(disk)[1:]}. Free space there. {what_to_do}"
        raise UserError(f"tracking.uri={tracking.shown}: not usable ({_reason(error)}). {what_to_do}") from error


def explains_failures(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Decorate a method so that the errors of its store become UserErrors."""

    @wraps(method)
    def wrapped(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        raise_if_stopped()
        with explaining_failures(self.address):
            return method(self, *args, **kwargs)

    return wrapped


def _of_another_mlflow(tracking: Tracking, schema: str) -> str:
    """Return the message for a database whose tables have the schema of an older or a newer MLflow."""
    from mlflow.store import db_migrations

    version = package_version("mlflow")
    if schema == "None":
        return "is not usable: it has no version of MLflow's tables. Restore a backup, or use another store."
    if any(path for folder in db_migrations.__path__ for path in Path(folder, "versions").glob(f"{schema}_*.py")):
        return (
            f"an older MLflow wrote it (schema {schema}). Copy it, since that MLflow cannot read it afterwards, and "
            f"update it for MLflow {version}: mlflow db upgrade {shlex.quote(tracking.shown)}"
        )
    return (
        f"a newer MLflow wrote it (its schema {schema} is unknown to MLflow {version}). Use that MLflow, or another "
        "store: tracking.uri=sqlite:///NAME.db for experiments.run, --uri sqlite:///NAME.db for the other commands."
    )


def _connection_error(error: BaseException) -> str:
    """Return the system's reason why a server did not answer; empty if it did, or was not contacted."""
    found: BaseException | None = error
    while found and not isinstance(found, requests.ConnectionError | requests.Timeout):
        found = found.__cause__ or found.__context__
    if found is None or isinstance(found, requests.exceptions.SSLError):
        return ""
    cause = first_cause(found)
    return (isinstance(cause, OSError) and cause.strerror) or redact(first_line(cause))


def _server_command(tracking: Tracking) -> str:
    """Return the command that starts a server at an address, for a message; empty if it is on another machine."""
    address = urlsplit(tracking.uri)
    if address.hostname not in ("127.0.0.1", "localhost"):
        return ""
    return f", `mlflow server --host {address.hostname} --port {address.port or 80}`"


def _reason(error: BaseException) -> str:
    """Return the database's own message, without what MLflow and SQLAlchemy add."""
    return str(getattr(error.__cause__ or error, "orig", None) or first_line(error))
