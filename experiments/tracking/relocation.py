"""Update the recorded paths of a SQLite store that was moved or copied, for MLflow's own pages."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiments.system.errors import UserError
from experiments.tracking.database import BUSY, is_locked, is_store, locked_message, open_for_reading
from experiments.tracking.places import Places, folder_of

# Columns of MLflow's tables with artifact addresses: table, column, condition on the rows.
ADDRESSES = (
    ("experiments", "artifact_location", "1"),
    ("experiments", "trace_archival_location", "1"),
    ("runs", "artifact_uri", "1"),
    ("logged_models", "artifact_location", "1"),
    ("model_versions", "source", "1"),
    ("model_versions", "storage_location", "1"),
    ("trace_tags", "value", "key LIKE 'mlflow.%ocation%'"),
    ("workspaces", "default_artifact_root", "1"),
)


@dataclass(frozen=True)
class Moved:
    """A recorded address, and the current place of its files."""

    table: str
    column: str
    recorded: str
    current: str


def find_moved(database: Path) -> list[Moved]:
    """Return the addresses whose files are elsewhere, in the order of ADDRESSES.

    Raises:
        UserError: the database cannot be read.
    """
    with closing(open_for_reading(database)) as connection:
        return list(_moved(connection, Places(database)))


def is_model_moved(database: Path | None, location: str) -> bool:
    """Whether the files of a model are not where MLflow would search."""
    return Places(database).current(location) != folder_of(location)


def relocate(database: Path) -> list[Moved]:
    """Update all addresses in one transaction, and return them.

    Raises:
        UserError: the database cannot be read or written.
    """
    open_for_reading(database).close()  # reports a damaged or locked database
    with writing(database) as connection:
        moved = list(_moved(connection, Places(database)))
        for each in moved:
            connection.execute(
                f"UPDATE {each.table} SET {each.column} = ? WHERE {each.column} = ?", (each.current, each.recorded)
            )
    return moved


def set_location(database: Path, experiment_id: str, folder: Path) -> None:
    """Set the folder for the files of an experiment's new runs."""
    with writing(database) as connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (folder.as_uri(), experiment_id)
        )


@contextmanager
def writing(database: Path) -> Iterator[sqlite3.Connection]:
    """Open a transaction for writing; waits for other writers as long as MLflow does.

    Raises:
        UserError: the database is not writable.
    """
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY)) as connection:
        connection.isolation_level = None
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if is_locked(error):
                raise UserError(locked_message(database, BUSY)) from error
            raise UserError(f"{database} cannot be written ({error}).") from error


def _moved(connection: sqlite3.Connection, places: Places) -> Iterator[Moved]:
    if not is_store(connection):
        raise UserError(f"{places.database} is not an MLflow store. It is left unchanged. Use another file.")
    for table, column, condition in ADDRESSES:
        if column not in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}:
            continue  # of another version of MLflow
        values = connection.execute(
            f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL AND {condition} ORDER BY rowid"
        )
        for (recorded,) in values.fetchall():
            current = places.current(str(recorded))
            before = folder_of(str(recorded))
            if current is None or current == before or (before and before.exists() and not current.exists()):
                continue
            as_address = "://" in recorded or recorded.startswith("file:") or not recorded.startswith("/")
            yield Moved(table, column, recorded, current.as_uri() if as_address else str(current))
