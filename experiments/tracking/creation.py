"""Create the SQLite file of an MLflow store, or replace one whose creation was interrupted."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from experiments.system.errors import UserError
from experiments.system.files import check_regular
from experiments.system.locks import file_lock
from experiments.system.program import program
from experiments.system.progress import say
from experiments.system.temporary import temporary_folder
from experiments.tracking.address import SQLITE, Tracking
from experiments.tracking.database import open_for_reading, tables_in
from experiments.tracking.failures import explaining_failures
from experiments.tracking.journal import leftovers, move_aside, unused_name
from experiments.tracking.tables import SCHEMAS

CREATION_PATIENCE = 10.0  # seconds without a change, after which the process that creates a store is assumed dead
FIRST_TABLES = {"experiments", "_alembic_tmp_experiments"}  # the first tables of a new MLflow store

Content = Literal["store", "without runs", "nothing"]


class MissingStoreError(UserError):
    """There is no such store, or no such experiment in it, which a run would create."""


@contextmanager
def ensure_database(tracking: Tracking, database: Path, create: bool) -> Iterator[None]:
    """Ensure that the file is a store; a missing one is created, by one process at a time.

    Raises:
        UserError: the file is another database, or is missing and `create` is false.
    """
    if _is_store(tracking, database) and not create:
        yield
        return
    if not create:
        raise MissingStoreError(
            f"tracking.uri={tracking.uri}: no {'file' if not database.exists() else 'complete store in'} "
            f"{database}. Type `{program('run')}` here first, or give an existing database: --uri "
            "sqlite:///PATH/mlflow.db."
        )
    with file_lock(Path(f"{database}.lock"), f"another process is creating {database}"):
        if not _is_store(tracking, database):
            _create_database(database)
        yield


def _is_store(tracking: Tracking, database: Path) -> bool:
    """Whether the file is a complete store; false if it is missing, empty or incomplete.

    Raises:
        UserError: the file is another database, or cannot be read.
    """
    if re.search(r"[?]|%[0-9a-fA-F]{2}", str(database)):
        path, _, query = tracking.uri.partition("?")
        raise UserError(
            f"tracking.uri={tracking.uri}: an SQLite address has no query (?...). Type {path}."
            if "=" in query
            else f"tracking.uri={tracking.uri}: the path {database} has a character with a special meaning in an "
            "address (? or %20). Use another folder or file."
        )
    _check_file(tracking, database)
    found = _content(tracking, database)
    while found == "without runs" and not _can_open(database):
        if _settled(database):
            return False
        say(f"waiting: another process is creating {database}")
        while not _settled(database):
            time.sleep(0.5)
        found = _content(tracking, database)
    return found != "nothing"


def _check_file(tracking: Tracking, database: Path) -> None:
    """Refuse a file that cannot be a database: opening a pipe or a device may never end."""
    where = f"tracking.uri={tracking.uri}"
    if database.exists():
        check_regular(database, where)
    elif database.is_symlink():
        raise UserError(
            f"{where}: {database} is a link to {database.readlink()}, which does not exist, or leads back to the link. "
            "Restore that file, or remove the link."
        )


def _content(tracking: Tracking, database: Path) -> Content:
    """Return the kind of content of a file."""
    if not database.exists() or (database.is_file() and not database.stat().st_size):
        return "nothing"
    try:
        with closing(open_for_reading(database)) as connection:
            found = _content_of(connection)
    except UserError as error:
        raise UserError(f"tracking.uri={tracking.uri}: {error}") from error
    except sqlite3.Error as error:
        raise UserError(f"tracking.uri={tracking.uri}: {database} cannot be read ({error}).") from error
    if found is None:
        raise UserError(
            f"tracking.uri={tracking.uri}: {database} is not an MLflow store. It is left unchanged. Use another file."
        )
    return found


def _content_of(connection: sqlite3.Connection) -> Content | None:
    """Return the kind of content of a database; None if it is not an MLflow store, complete or not."""
    tables = tables_in(connection)
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view')").fetchone():
        return "nothing"
    if not tables & FIRST_TABLES:
        return None
    versions = connection.execute("SELECT version_num FROM alembic_version") if "alembic_version" in tables else ()
    if SCHEMAS[-1] in {version for (version,) in versions}:
        return "store"
    for table, own in (("runs", "1"), ("experiments", "experiment_id != 0")):
        if table in tables and connection.execute(f"SELECT 1 FROM {table} WHERE {own} LIMIT 1").fetchone():
            return "store"  # of an older or newer MLflow, which MLflow itself reports
    return "without runs"


def _can_open(database: Path) -> bool:
    """Whether MLflow can open a store, or complete an interrupted creation; tried on a copy.

    MLflow keeps opened databases in memory, so the original could not be replaced later in the same process.
    """
    with temporary_folder("store") as folder:
        copy = folder / database.name
        with closing(open_for_reading(database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        try:
            _open(copy)
        except UserError:
            return False
    return True


def _open(database: Path) -> None:
    """Let MLflow create missing tables."""
    from mlflow import MlflowClient

    address = Tracking(uri=f"{SQLITE}{database}")
    with explaining_failures(address):
        MlflowClient(address.uri).search_experiments()


def _settled(database: Path) -> bool:
    """Whether neither the file nor its journal was written for CREATION_PATIENCE."""
    files = [database, *leftovers(database)]
    written = max((path.stat().st_mtime for path in files if path.exists()), default=0.0)
    return abs(time.time() - written) > CREATION_PATIENCE


def _create_database(path: Path) -> None:
    """Create an empty store; the file gets its name only when complete, since MLflow cannot repair a partial one."""
    say(f"creating {path}")
    partial = path.with_name(f"{path.name}.partial")
    for left in (partial, *leftovers(partial)):
        left.unlink(missing_ok=True)
    try:
        _open(partial)
    except BaseException:  # Ctrl-C as well
        for left in (partial, *leftovers(partial)):
            left.unlink(missing_ok=True)
        raise
    move_aside(path)  # SQLite would write the journal of a deleted database into the new file
    if path.exists() and path.stat().st_size:
        incomplete = unused_name(path, "unfinished")
        path.rename(incomplete)
        say(f"{path} was an incomplete store without runs that could not be opened. Moved it to {incomplete.name}.")
    partial.replace(path)
