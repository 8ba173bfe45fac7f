"""Read runs from the tables of an MLflow database: four queries for all runs, which is faster than MLflow's API.

Nothing is written. MLflow's tables are not a stable interface, so only databases with a schema in SCHEMAS are read.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from experiments.tracking.database import open_for_reading

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

V = TypeVar("V", str, float)

# Revisions of MLflow's schema in order; the last is that of MLflow 3.17. None of their migrations changes `runs`,
# `tags`, `params` or `latest_metrics`; a test checks this for new revisions.
SCHEMAS = (
    "1b5f0d9ad7c1", "e1f2a3b4c5d6", "76601a5f987d", "c3d6457b6d8a", "a5b4c3d2e1f0", "ae8bbe7743c9", "7d34483879f0",
    "da6fb0208061", "89d3d66ed43f", "b7e4c1a90f23", "a8b9c0d1e2f3", "c1d2e3f4a5b6", "c3d9e7f1a2b4", "6f8d9c3b2a1e",
    "1971f2d9a75b", "17e22815139b", "b7e2c1a4d9f3", "75868b020152", "dc11669786a5",
)  # fmt: skip

# Runs with this value of a tag; an empty value selects runs with any value.
_SELECTED = """
    FROM tags AS chosen JOIN runs ON runs.run_uuid = chosen.run_uuid {joined}
    WHERE chosen.key = :tag AND (chosen.value = :value OR (:value = '' AND chosen.value != ''))
    AND runs.experiment_id = :experiment AND runs.lifecycle_stage = 'active'
"""
_RUNS = f"SELECT runs.run_uuid, runs.status {_SELECTED.format(joined='')}"
# The order of MLflow's API: newest first.
_IN_ORDER = "ORDER BY CASE WHEN runs.start_time IS NULL THEN 1 ELSE 0 END, runs.start_time DESC, runs.run_uuid"
_TAGS, _PARAMS, _METRICS = (
    f"SELECT of_run.run_uuid, of_run.key, {value} "
    + _SELECTED.format(joined=f"JOIN {table} AS of_run ON of_run.run_uuid = runs.run_uuid")
    for table, value in (
        ("tags", "of_run.value"),
        ("params", "of_run.value"),
        ("latest_metrics", "CASE WHEN of_run.is_nan THEN NULL ELSE of_run.value END"),
    )
)
_OTHERS = """
    SELECT count(*) FROM runs LEFT JOIN tags AS kind ON kind.run_uuid = runs.run_uuid AND kind.key = 'kind'
    WHERE kind.value IS NULL AND runs.experiment_id = :experiment AND runs.lifecycle_stage = 'active'
"""
_ADDRESSES = "SELECT run_uuid, artifact_uri FROM runs WHERE experiment_id = :experiment"


@dataclass(frozen=True)
class Recorded:
    """A run in a store, with the latest value of each metric."""

    run_id: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class StoreTables:
    """Reads the runs of one experiment from the tables of an MLflow database.

    `address` is the address of a PostgreSQL database, or the path of a SQLite file. Every method raises SQLAlchemy's
    errors, and UserError if a SQLite file cannot be opened.
    """

    address: str | Path
    experiment_id: int

    def schema(self) -> str:
        """Return the revision of the database's schema."""
        with self._reading() as connection:
            return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())

    def select_runs(self, tag: str, value: str = "") -> list[Recorded]:
        """Return the active runs with this value of a tag, or with any value, newest first."""
        parameters = {"tag": tag, "value": value, "experiment": self.experiment_id}
        with self._reading() as connection:
            runs = [
                (str(run_id), str(status)) for run_id, status in _rows(connection, f"{_RUNS} {_IN_ORDER}", parameters)
            ]
            tags = _by_run(_rows(connection, _TAGS, parameters))
            params = _by_run(_rows(connection, _PARAMS, parameters))
            values = _rows(connection, _METRICS, parameters)
            metrics = _by_run((run_id, name, nan if value is None else value) for run_id, name, value in values)
        return [Recorded(run_id, status, tags[run_id], params[run_id], metrics[run_id]) for run_id, status in runs]

    def count_others(self) -> int:
        """Return the number of runs of other programs in the experiment: those without the tag `kind`."""
        with self._reading() as connection:
            ((count,),) = _rows(connection, _OTHERS, {"experiment": self.experiment_id})
        return int(count)

    def addresses(self) -> dict[str, str]:
        """Return the recorded artifact address of each run, by its id."""
        with self._reading() as connection:
            found = list(_rows(connection, _ADDRESSES, {"experiment": self.experiment_id}))
        return {run_id: uri or "" for run_id, uri in found}

    @contextmanager
    def _reading(self) -> "Iterator[Connection]":
        """Open a read-only transaction, so that all queries see the same runs."""
        engine = _engine(self.address)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()


def _engine(address: str | Path) -> "Engine":
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    if isinstance(address, Path):
        return create_engine("sqlite://", creator=lambda: open_for_reading(address), poolclass=NullPool)
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return create_engine(address, execution_options=options, poolclass=NullPool)


def _rows(connection: "Connection", query: str, parameters: Mapping[str, Any]) -> Iterator[Any]:
    from sqlalchemy import text

    return iter(connection.execute(text(query), dict(parameters)))


def _by_run(found: "Iterator[tuple[str, str, V]]") -> defaultdict[str, dict[str, V]]:
    """Group names and values by run."""
    runs: defaultdict[str, dict[str, V]] = defaultdict(dict)
    for run_id, key, value in found:
        runs[run_id][key] = value
    return runs
