"""Consistency check of a SQLite store and the folder of its files."""

import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from experiments.system.errors import UserError
from experiments.system.processes import Origin
from experiments.system.program import program
from experiments.tracking.database import open_for_reading, remedy_for_damage
from experiments.tracking.intact import missing_in
from experiments.tracking.journal import find_unfinished, leftovers
from experiments.tracking.places import Places
from experiments.tracking.relocation import find_moved

_RUN, _MODEL = re.compile("[0-9a-f]{32}"), re.compile("m-[0-9a-f]{32}")  # MLflow's folder names
_PENDING = 1  # MLflow's code of the status
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
    """A problem in a store, the affected items, and what to do."""

    what: str
    which: tuple[str, ...]
    remedy: str


def check(database: Path) -> list[Finding]:
    """Return the problems of a store, the most severe first.

    Raises:
        UserError: the database cannot be read.
    """
    interrupted = find_unfinished(database)
    try:
        connection = open_for_reading(database)
    except UserError as error:
        if "malformed" in str(error.__cause__) or isinstance(error.__cause__, UnicodeDecodeError):
            return [Finding("the database is damaged", (str(error.__cause__),), remedy_for_damage(database))]
        raise
    with closing(connection):
        if damages := _find_damage(connection):
            return [Finding("the database is damaged", damages, remedy_for_damage(database))]
        elsewhere = tuple(
            f"{each.table}.{each.column}: {each.recorded} is now {each.current}" for each in find_moved(database)
        )
        findings = [
            Finding(
                "unfinished transactions, which are now rolled back or completed",
                (str(interrupted),) if interrupted and not interrupted.exists() else (),
                "No action is required.",
            ),
            *_check_runs(connection, database),
            *_check_models(connection, Places(database)),
            Finding("folders of unknown runs or models", tuple(_orphans(connection, database)), _ORPHANS),
            Finding(
                "recorded addresses whose files are elsewhere",
                elsewhere,
                f"Type {program('store')} relocate.",
            ),
            Finding("files left by killed processes", tuple(_leftover_files(database)), _LEFT),
        ]
    return [finding for finding in findings if finding.which]


_ORPHANS = "Delete them if no other database uses this folder."
_LEFT = "Delete them while no command is running here."


def _find_damage(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the problems that SQLite's integrity check finds."""
    try:
        return tuple(row[0] for row in connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok")
    except sqlite3.DatabaseError as error:
        return (str(error),)


def _check_runs(connection: sqlite3.Connection, database: Path) -> Iterator[Finding]:
    places = Places(database)
    metrics: dict[str, Mapping[str, float]] = {
        run_id: {key: value} for run_id, key, value in connection.execute(_METRICS)
    }
    tags: dict[str, dict[str, str]] = defaultdict(dict)
    for run_id, key, value in connection.execute(
        "SELECT run_uuid, key, value FROM tags WHERE key IN ('host', 'process', 'boot_id', 'pid_namespace', 'run_key')"
    ):
        tags[run_id][key] = value
    missing_files: list[tuple[str, str]] = []
    intact: set[str] = set()
    stuck, unknown = [], []
    finished = connection.execute(_OUR_RUNS.format(condition="AND kind.value = 'run'")).fetchall()
    for run_id, name, status, address in finished:
        folders, key = places.candidates(address or ""), tags[run_id].get("run_key", "")
        if status != "FINISHED" or not folders:
            continue
        if missing := missing_in(folders, metrics.get(run_id, {})):
            missing_files.append((key, f"{run_id} ({name}): {missing}; searched {' and '.join(map(str, folders))}"))
        elif key:
            intact.add(key)
    for run_id, name, status, _ in connection.execute(_OUR_RUNS.format(condition="")):
        if status == "RUNNING":
            origin = Origin.of(tags[run_id])
            match origin.state(database):
                case "unknown":
                    unknown.append(f"{run_id} ({name}), started on {origin.host or 'an unknown machine'}")
                case "ended":
                    stuck.append(f"{run_id} ({name})")
    yield Finding(
        "finished runs with missing files",
        tuple(line for key, line in missing_files if not key or key not in intact),  # the others were repeated later
        "Restore the files, or type the command of the runs again to repeat them.",
    )
    yield Finding(
        "runs marked RUNNING whose process has ended", tuple(stuck), "The next `experiments.run` here closes them."
    )
    yield Finding(
        "runs marked RUNNING on another machine or in another container, which cannot be checked from here",
        tuple(unknown),
        f"If they have ended, close them: {program('store')} close RUN --uri sqlite:///{database}",
    )


def _check_models(connection: sqlite3.Connection, places: Places) -> Iterator[Finding]:
    if not _has_table(connection, "logged_models"):  # MLflow before 3
        return
    models = connection.execute(
        "SELECT logged_models.model_id, logged_models.status, logged_models.artifact_location, runs.status FROM "
        "logged_models LEFT JOIN runs ON runs.run_uuid = logged_models.source_run_id "
        "WHERE logged_models.lifecycle_stage = 'active' AND logged_models.model_type = 'tflite'"
    ).fetchall()
    yield Finding(
        "models marked PENDING whose run has ended",
        tuple(model for model, status, _, run in models if status == _PENDING and run != "RUNNING"),
        "They do no harm; you can delete them in MLflow's pages.",
    )
    missing_files = [
        f"{model}; searched {' and '.join(map(str, folders))}"
        for model, _, location, run in models
        if run == "FINISHED"
        and (folders := places.candidates(location))
        and not any((folder / "MLmodel").is_file() for folder in folders)
    ]
    yield Finding("models with missing files", tuple(missing_files), "Type the command of the run again to repeat it.")


def _orphans(connection: sqlite3.Connection, database: Path) -> Iterator[str]:
    """Yield folders that are named like a run or a model that is not in the database."""
    files = Places(database).files
    assert files is not None
    known = {run_id for (run_id,) in connection.execute("SELECT run_uuid FROM runs")}
    if _has_table(connection, "logged_models"):
        known |= {model for (model,) in connection.execute("SELECT model_id FROM logged_models")}
    for path in sorted([*files.glob("*"), *files.glob("*/*"), *files.glob("*/models/*")]):
        if (_RUN.fullmatch(path.name) or _MODEL.fullmatch(path.name)) and path.is_dir() and path.name not in known:
            yield str(path)


def _leftover_files(database: Path) -> Iterator[str]:
    partial = database.with_name(f"{database.name}.partial")
    yield from (str(path) for path in (partial, *leftovers(partial)) if path.exists())


def _has_table(connection: sqlite3.Connection, table: str) -> bool:
    return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone())
