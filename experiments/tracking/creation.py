"""SQLite files as stores of MLflow: made where there is none, and made anew where that was interrupted."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from experiments.system.errors import UserError
from experiments.system.locks import file_lock
from experiments.system.progress import say
from experiments.system.temporary import temporary_folder
from experiments.tracking.address import SQLITE, Tracking
from experiments.tracking.database import open_for_reading
from experiments.tracking.failures import failures_explained
from experiments.tracking.journal import leftovers, set_aside, unused_name
from experiments.tracking.tables import SCHEMAS

MAKING_PATIENCE = 10.0  # seconds without a change, after which whoever was making a store is gone
MADE_FIRST = {"experiments", "_alembic_tmp_experiments"}  # tables that a store of MLflow has from its beginning

Content = Literal["store", "without runs", "nothing"]


@contextmanager
def prepared(tracking: Tracking, database: Path, create: bool) -> Iterator[None]:
    """The file holds a store; it is made where it is missing, by one process at a time.

    Raises:
        UserError: it is another database, or is missing and is not to be made.
    """
    if _is_store(tracking, database) and not create:
        yield
        return
    if not create:
        raise UserError(
            f"tracking.uri={tracking.uri}: there is no {'file' if not database.exists() else 'finished store in'} "
            f"{database}. Run `python -m experiments.run` here first, or give the folder's database with --uri "
            "sqlite:///PATH/mlflow.db."
        )
    with file_lock(Path(f"{database}.lock"), f"another process makes {database}"):
        if not _is_store(tracking, database):
            _make_database(database)
        yield


def _is_store(tracking: Tracking, database: Path) -> bool:
    """Whether the file holds a store, and not nothing at all, or one of which the making was interrupted.

    Raises:
        UserError: it is another database, or cannot be read as one.
    """
    if re.search(r"[?]|%[0-9a-fA-F]{2}", str(database)):
        path, _, query = tracking.uri.partition("?")
        raise UserError(
            f"tracking.uri={tracking.uri}: settings behind a ? are for drivers of database servers, and have no "
            f"meaning here. Give {path}."
            if "=" in query
            else f"tracking.uri={tracking.uri}: the path {database} has a sign that means something else in an address "
            "(? or %20). Work in another folder, or give another file."
        )
    found = _content(tracking, database)
    while found == "without runs" and not _opens(database):
        if _settled(database):
            return False
        say(f"waiting: another process is making {database}")
        while not _settled(database):
            time.sleep(0.5)
        found = _content(tracking, database)
    return found != "nothing"


def _content(tracking: Tracking, database: Path) -> Content:
    """What is in a file."""
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
            f"tracking.uri={tracking.uri}: {database} is no store of MLflow, and is left as it is. Give another file."
        )
    return found


def _content_of(connection: sqlite3.Connection) -> Content | None:
    """What is in a database; None where it is no store of MLflow, and none was begun there."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return "nothing"
    if not tables & MADE_FIRST:
        return None
    versions = connection.execute("SELECT version_num FROM alembic_version") if "alembic_version" in tables else ()
    if SCHEMAS[-1] in {version for (version,) in versions}:
        return "store"
    for table, own in (("runs", "1"), ("experiments", "experiment_id != 0")):
        if table in tables and connection.execute(f"SELECT 1 FROM {table} WHERE {own} LIMIT 1").fetchone():
            return "store"  # of an older or newer MLflow, which is for MLflow to say
    return "without runs"


def _opens(database: Path) -> bool:
    """Whether MLflow can open a store, also by going on where its making was interrupted; tried on a copy.

    MLflow keeps what it has opened once, so that the file could not be replaced afterwards in the same process.
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
    """Let MLflow make its tables, where they are not there."""
    from mlflow import MlflowClient

    address = Tracking(uri=f"{SQLITE}{database}")
    with failures_explained(address):
        MlflowClient(address.uri).search_experiments()


def _settled(database: Path) -> bool:
    """Whether nobody has written the file, or its journal, for some time."""
    files = [database, *leftovers(database)]
    written = max((path.stat().st_mtime for path in files if path.exists()), default=0.0)
    return abs(time.time() - written) > MAKING_PATIENCE


def _make_database(path: Path) -> None:
    """An empty store; it appears under its name only when it is complete, for MLflow cannot mend a half-made one."""
    say(f"making {path}")
    partial = path.with_name(f"{path.name}.partial")
    for left in (partial, *leftovers(partial)):
        left.unlink(missing_ok=True)
    try:
        _open(partial)
    except BaseException:  # Ctrl-C as well
        for left in (partial, *leftovers(partial)):
            left.unlink(missing_ok=True)
        raise
    set_aside(path)  # a journal of what was deleted would be written into the new file
    if path.exists() and path.stat().st_size:
        half_made = unused_name(path, "unfinished")
        path.rename(half_made)
        say(f"{path} was the beginning of a store without any run, and nobody could open it: moved to {half_made.name}")
    partial.replace(path)
