"""A SQLite store and the folder of its files, looked through for what does not belong together."""

import re
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from experiments.system.errors import UserError
from experiments.system.processes import alive
from experiments.tracking.database import open_for_reading
from experiments.tracking.intact import missing_in
from experiments.tracking.journal import leftovers, unfinished
from experiments.tracking.places import Places
from experiments.tracking.relocation import moved

_RUN, _MODEL = re.compile("[0-9a-f]{32}"), re.compile("m-[0-9a-f]{32}")  # what MLflow names their folders
_PENDING = 1  # MLflow's number of the status
_METRICS = """
    SELECT runs.run_uuid, latest_metrics.key, latest_metrics.value FROM runs JOIN latest_metrics
    ON latest_metrics.run_uuid = runs.run_uuid AND latest_metrics.key = 'tflite_bytes'
"""
_OUR_RUNS = """
    SELECT runs.run_uuid, runs.name, runs.status, runs.artifact_uri FROM runs JOIN tags AS kind
    ON kind.run_uuid = runs.run_uuid AND kind.key = 'kind' {condition}
    WHERE runs.lifecycle_stage = 'active' ORDER BY runs.start_time, runs.run_uuid
"""


@dataclass(frozen=True)
class Finding:
    """What is wrong in a store, of which things, and what to do."""

    what: str
    which: tuple[str, ...]
    remedy: str


def check(database: Path) -> list[Finding]:
    """What is wrong in a store; the worst comes first.

    Raises:
        UserError: the database cannot be read at all.
    """
    interrupted = unfinished(database)
    try:
        connection = open_for_reading(database)
    except UserError as error:
        if "malformed" in str(error.__cause__):
            return [Finding("the database is damaged", (str(error.__cause__),), _REPAIR.format(name=database.name))]
        raise
    with closing(connection):
        if damages := _damages(connection):
            return [Finding("the database is damaged", damages, _REPAIR.format(name=database.name))]
        elsewhere = tuple(
            f"{each.table}.{each.column}: {each.recorded} is now {each.current}" for each in moved(database)
        )
        findings = [
            Finding(
                "a change was left unfinished, and was undone or completed now",
                (str(interrupted),) if interrupted and not interrupted.exists() else (),
                "Nothing has to be done.",
            ),
            *_of_runs(connection, database),
            *_of_models(connection, Places(database)),
            Finding("folders belong to nothing in the database", tuple(_orphans(connection, database)), _ORPHANS),
            Finding("recorded addresses do not lead to the files", elsewhere, "python -m experiments.store relocate"),
            Finding("files were left by processes that were stopped", tuple(_left(database)), _LEFT),
        ]
    return [finding for finding in findings if finding.which]


_REPAIR = "Restore a backup, or save what can be read: sqlite3 {name} .recover | sqlite3 recovered.db"
_ORPHANS = "Delete them if no other database uses this folder."
_LEFT = "Delete them when no command is running here."


def _damages(connection: sqlite3.Connection) -> tuple[str, ...]:
    """What SQLite finds wrong in its file."""
    try:
        return tuple(row[0] for row in connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok")
    except sqlite3.DatabaseError as error:
        return (str(error),)


def _of_runs(connection: sqlite3.Connection, database: Path) -> Iterator[Finding]:
    places = Places(database)
    metrics: dict[str, Mapping[str, float]] = {
        run_id: {key: value} for run_id, key, value in connection.execute(_METRICS)
    }
    tags = {
        (run_id, key): value
        for run_id, key, value in connection.execute(
            "SELECT run_uuid, key, value FROM tags WHERE key IN ('host', 'process', 'run_key')"
        )
    }
    gone: list[tuple[str, str]] = []
    intact: set[str] = set()
    stuck, unknown = [], []
    finished = connection.execute(_OUR_RUNS.format(condition="AND kind.value = 'run'")).fetchall()
    for run_id, name, status, address in finished:
        folders, key = places.candidates(address or ""), tags.get((run_id, "run_key"), "")
        if status != "FINISHED" or not folders:
            continue
        if missing := missing_in(folders, metrics.get(run_id, {})):
            gone.append((key, f"{run_id} ({name}): {missing}; looked in {' and '.join(map(str, folders))}"))
        elif key:
            intact.add(key)
    for run_id, name, status, _ in connection.execute(_OUR_RUNS.format(condition="")):
        if status == "RUNNING":
            host, process = (tags.get((run_id, key), "") for key in ("host", "process"))
            if host != socket.gethostname():
                unknown.append(f"{run_id} ({name}), begun on {host or 'an unknown machine'}")
            elif not alive(process):
                stuck.append(f"{run_id} ({name})")
    yield Finding(
        "finished runs miss files",
        tuple(line for key, line in gone if not key or key not in intact),  # the others were made anew
        "Put the files back, or repeat the command: it makes these runs anew.",
    )
    yield Finding(
        "runs say RUNNING, but their process is gone", tuple(stuck), "The next `experiments.run` here closes them."
    )
    yield Finding(
        "runs say RUNNING on another machine, which cannot be seen from here",
        tuple(unknown),
        "If nothing runs there, `experiments.run` on that machine closes them.",
    )


def _of_models(connection: sqlite3.Connection, places: Places) -> Iterator[Finding]:
    if not _has(connection, "logged_models"):  # MLflow before 3
        return
    models = connection.execute(
        "SELECT logged_models.model_id, logged_models.status, logged_models.artifact_location, runs.status FROM "
        "logged_models LEFT JOIN runs ON runs.run_uuid = logged_models.source_run_id "
        "WHERE logged_models.lifecycle_stage = 'active' AND logged_models.model_type = 'tflite'"
    ).fetchall()
    yield Finding(
        "models say PENDING, and no run will finish them",
        tuple(model for model, status, _, run in models if status == _PENDING and run != "RUNNING"),
        "They do no harm; delete them in MLflow's pages.",
    )
    gone = [
        f"{model}; looked in {' and '.join(map(str, folders))}"
        for model, _, location, run in models
        if run == "FINISHED"
        and (folders := places.candidates(location))
        and not any((folder / "MLmodel").is_file() for folder in folders)
    ]
    yield Finding("models miss their files", tuple(gone), "Repeat the command of the run: it is made anew.")


def _orphans(connection: sqlite3.Connection, database: Path) -> Iterator[str]:
    """Folders among the files of the runs that have the name of a run or a model, and none is there."""
    files = Places(database).files
    assert files is not None
    known = {run_id for (run_id,) in connection.execute("SELECT run_uuid FROM runs")}
    if _has(connection, "logged_models"):
        known |= {model for (model,) in connection.execute("SELECT model_id FROM logged_models")}
    for path in sorted([*files.glob("*"), *files.glob("*/*"), *files.glob("*/models/*")]):
        if (_RUN.fullmatch(path.name) or _MODEL.fullmatch(path.name)) and path.is_dir() and path.name not in known:
            yield str(path)


def _left(database: Path) -> Iterator[str]:
    partial = database.with_name(f"{database.name}.partial")
    yield from (str(path) for path in (partial, *leftovers(partial)) if path.exists())


def _has(connection: sqlite3.Connection, table: str) -> bool:
    return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone())
