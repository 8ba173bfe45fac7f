"""Recorded paths of a SQLite store that was moved or copied, mended for those who believe them: MLflow's own pages."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiments.system.errors import UserError
from experiments.tracking.database import BUSY, is_locked, is_store, locked, open_for_reading
from experiments.tracking.places import Places, folder_of

# Where MLflow's tables hold addresses of files: table, column, and which of its rows.
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
    """A recorded address, and where its files lie today."""

    table: str
    column: str
    recorded: str
    current: str


def moved(database: Path) -> list[Moved]:
    """The addresses that do not lead to where the files are, in the order of ADDRESSES.

    Raises:
        UserError: the database cannot be read.
    """
    with closing(open_for_reading(database)) as connection:
        return list(_moved(connection, Places(database)))


def model_moved(database: Path | None, location: str) -> bool:
    """Whether MLflow would look for a model elsewhere than where its files are."""
    return Places(database).current(location) != folder_of(location)


def relocate(database: Path) -> list[Moved]:
    """Mend them all in one transaction; what was mended.

    Raises:
        UserError: the database cannot be read or written.
    """
    open_for_reading(database).close()  # says what is wrong with it
    with writing(database) as connection:
        found = list(_moved(connection, Places(database)))
        for each in found:
            connection.execute(
                f"UPDATE {each.table} SET {each.column} = ? WHERE {each.column} = ?", (each.current, each.recorded)
            )
    return found


def set_location(database: Path, experiment_id: str, folder: Path) -> None:
    """Let the runs of an experiment that begin from now on keep their files in this folder."""
    with writing(database) as connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (folder.as_uri(), experiment_id)
        )


@contextmanager
def writing(database: Path) -> Iterator[sqlite3.Connection]:
    """One transaction that may write; whoever else writes is waited for as long as MLflow waits.

    Raises:
        UserError: it cannot be written.
    """
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY)) as connection:
        connection.isolation_level = None
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if is_locked(error):
                raise UserError(locked(database, BUSY)) from error
            raise UserError(f"{database} cannot be written ({error}).") from error


def _moved(connection: sqlite3.Connection, places: Places) -> Iterator[Moved]:
    if not is_store(connection):
        raise UserError(f"{places.database} is no store of MLflow, and is left as it is. Give another file.")
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
