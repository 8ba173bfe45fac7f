"""A SQLite file opened for reading: the one way for every reader.

What a killed process left in the middle of a commit is undone or completed first, which a connection that was opened
read-only cannot do. Nothing else is ever written.
"""

import os
import sqlite3
from pathlib import Path

from experiments.system.errors import UserError
from experiments.system.processes import lock_holders
from experiments.tracking.journal import check_journals, unfinished

BUSY = 20.0  # seconds that a SQLite file may be held by who writes it; MLflow waits as long


def open_for_reading(path: Path, patience: float = BUSY) -> sqlite3.Connection:
    """A connection that sees one state of the database and cannot change it; the caller closes it.

    `patience` is how many seconds a process that writes is waited for.

    Raises:
        UserError: it is no database, a change that was left unfinished cannot be completed, it belongs to another
            database, or somebody writes for longer than that.
    """
    connection = None
    try:
        check_journals(path)
        # mode=rw makes no file, and where it may not be written SQLite opens it for reading by itself.
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=patience)
        connection.isolation_level = None
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except (sqlite3.Error, OSError) as error:
        if connection:
            connection.close()
        raise UserError(_reason(path, error, patience)) from error
    return connection


def is_store(connection: sqlite3.Connection) -> bool:
    """Whether a database has the tables that MLflow's stores of every version have."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return {"experiments", "runs", "tags", "latest_metrics"} <= tables


def locked(path: Path, patience: float) -> str:
    """What is said of a database that a process has been writing for so many seconds."""
    holders = lock_holders(path.resolve())
    by = f" ({', '.join(holders)})" if holders else ""
    return (
        f"{path}: another process{by} has been writing it for more than {patience:g} s. Wait until it is done, or stop "
        "it; the same command goes on then."
    )


def is_locked(error: BaseException) -> bool:
    """Whether this is SQLite's complaint of a writer that was waited for in vain."""
    return "database is locked" in str(error)


def _reason(path: Path, error: Exception, patience: float) -> str:
    if is_locked(error):
        return locked(path, patience)
    file = path.resolve()
    if journal := _unfinished(file):
        folder = file.parent
        closed = [each for each in (file, journal, folder) if not os.access(each, os.R_OK | os.W_OK)]
        if closed:
            return (
                f"{path}: a process that wrote it was stopped in the middle, and {journal.name} holds what it takes to "
                f"undo that, but {closed[0]} (of {_owner(closed[0])}) may not be written by this user. Run "
                f"this once as {_owner(file)}, or copy {file.name} and {journal.name} together into a folder that can "
                "be written, and give that copy with --uri sqlite:////PATH/mlflow.db (tracking.uri=... for a run)."
            )
    for each in (file, file.parent):
        if each.exists() and not os.access(each, os.R_OK):
            return f"{path}: {each} (of {_owner(each)}) may not be read by this user."
    return (
        f"{path} cannot be read as a database ({error}). If it is one, it is damaged: restore a backup, or save what "
        f"can be read (sqlite3 {file.name} .recover | sqlite3 recovered.db). Otherwise give another file."
    )


def _unfinished(file: Path) -> Path | None:
    try:
        return unfinished(file)
    except OSError:  # that it cannot be read is found below
        return file.with_name(f"{file.name}-journal")


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:  # a number without a name
        return f"user {path.stat().st_uid}"
