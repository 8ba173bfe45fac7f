"""Open a SQLite file for reading, for all readers.

SQLite first rolls back or completes the transaction of a killed process, which it cannot do on a read-only connection.
Nothing else is ever written.
"""

import os
import shlex
import sqlite3
from pathlib import Path

from experiments.system.errors import UserError
from experiments.system.processes import lock_holders
from experiments.tracking.journal import check_journals, find_unfinished

# Tables of MLflow that are read.
TABLES = frozenset(
    {
        "alembic_version", "datasets", "experiment_tags", "experiments", "input_tags", "inputs", "latest_metrics",
        "logged_model_metrics", "logged_model_params", "logged_model_tags", "logged_models", "metrics",
        "model_versions", "params", "registered_models", "runs", "tags", "trace_info",
    }
)  # fmt: skip
BUSY = 20.0  # seconds to wait for a writer of a SQLite file, as in MLflow


def open_for_reading(path: Path, patience: float = BUSY) -> sqlite3.Connection:
    """Return a connection with a consistent snapshot that cannot write; the caller closes it.

    `patience` is the time in seconds to wait for a writer.

    Raises:
        UserError: the file is not a database, its unfinished transaction cannot be completed or belongs to another
            database, or a writer takes longer than `patience`.
    """
    connection = None
    try:
        check_journals(path)
        # mode=rw does not create a missing file; SQLite falls back to read-only if the file is not writable.
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=patience)
        connection.isolation_level = None
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
        if connection:
            connection.close()
        raise UserError(_reason(path, error, patience)) from error
    return connection


def is_store(connection: sqlite3.Connection) -> bool:
    """Whether a database has the tables that MLflow stores of all versions have."""
    return {"experiments", "runs", "tags", "latest_metrics"} <= tables_in(connection)


def tables_in(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the tables; none if a view has the name of one of MLflow's.

    A view in a stranger's file could compute without end, which Ctrl-C cannot interrupt.
    """
    kinds = connection.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
    if any(kind == "view" and name.lower() in TABLES for name, kind in kinds):
        return set()
    return {name for name, kind in kinds if kind == "table"}


def locked_message(path: Path, patience: float) -> str:
    """Return the message for a database that another process writes for longer than `patience` seconds."""
    holders = lock_holders(path.resolve())
    by = f" ({', '.join(holders)})" if holders else ""
    return (
        f"{path}: another process{by} has been writing to it for more than {patience:g} s. Wait until it finishes, or "
        "stop it, and type the same command again."
    )


def is_locked(error: BaseException) -> bool:
    """Whether SQLite raised this error because it waited too long for a writer."""
    return "database is locked" in str(error)


def is_damaged(error: BaseException) -> bool:
    """Whether SQLite raised this error because the content of a database is damaged, as after it was truncated."""
    texts = ("malformed", "file is not a database", "Could not decode to UTF-8")
    return isinstance(error, UnicodeDecodeError) or any(text in str(error) for text in texts)


def remedy_for_damage(path: Path) -> str:
    """Return what to do about a damaged database."""
    name = shlex.quote(path.resolve().name)
    return f"Restore a backup, or recover readable data: sqlite3 {name} .recover | sqlite3 recovered.db"


def _reason(path: Path, error: Exception, patience: float) -> str:
    if is_locked(error):
        return locked_message(path, patience)
    file = path.resolve()
    if journal := _unfinished(file):
        folder = file.parent
        closed = [each for each in (file, journal, folder) if not os.access(each, os.R_OK | os.W_OK)]
        if closed:
            return (
                f"{path}: a process was killed while writing. Rolling back its change from {journal.name} requires "
                f"write access to {closed[0]}, which belongs to {_owner(closed[0])}. Run this once as {_owner(file)}, "
                f"or copy {file.name} and {journal.name} together into a writable folder, and use the copy: --uri "
                "sqlite:////PATH/mlflow.db (tracking.uri=... for a run)."
            )
    for each in (file, file.parent):
        if each.exists() and not os.access(each, os.R_OK):
            return f"{path}: requires read access to {each}, which belongs to {_owner(each)}."
    return (
        f"{path} cannot be read as a database ({error}). If it is a damaged one: {remedy_for_damage(path)}. Otherwise "
        "use another file."
    )


def _unfinished(file: Path) -> Path | None:
    try:
        return find_unfinished(file)
    except OSError:  # the caller reports that it cannot be read
        return file.with_name(f"{file.name}-journal")


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:  # a number without a name
        return f"user {path.stat().st_uid}"
