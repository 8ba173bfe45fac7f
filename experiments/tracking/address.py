"""The option for the MLflow store of runs."""

from pathlib import Path

from pydantic import field_validator
from pydantic.dataclasses import dataclass as option

from experiments.system.errors import redact
from experiments.system.extras import missing
from experiments.system.files import expand_path
from experiments.system.options import OPTION

SQLITE = "sqlite:///"
OF_PSYCOPG2 = ("postgresql", "postgresql+psycopg2")  # both use the driver that the extra installs


@option(frozen=True, config=OPTION, kw_only=True)
class Tracking:
    """The store of the runs: an MLflow tracking address and the name of the experiment."""

    uri: str = "sqlite:///mlflow.db"
    experiment: str = "quantization"
    system_metrics: bool = False  # record the machine's load, memory, disk and network during a run

    @field_validator("uri")
    @classmethod
    def _check_kind(cls, uri: str) -> str:
        if not uri.startswith((SQLITE, "postgresql", "mysql", "mssql", "http://", "https://")):
            raise ValueError(
                "requires sqlite:///FILE.db, http://HOST:PORT, or a database address that MLflow supports "
                "(postgresql://, mysql://, mssql://)"
            )
        if uri.startswith(SQLITE):
            return _sqlite_uri(uri)
        if uri.partition("://")[0] in OF_PSYCOPG2 and (rule := missing("postgres")):
            raise ValueError(rule)
        return uri

    @field_validator("experiment")
    @classmethod
    def _check_name(cls, experiment: str) -> str:
        if not experiment.strip():
            raise ValueError("requires the name of an experiment")
        return experiment

    @property
    def database(self) -> Path | None:
        """The SQLite file; None for other stores."""
        return Path(self.uri.removeprefix(SQLITE)).absolute() if self.uri.startswith(SQLITE) else None

    @property
    def tables(self) -> Path | str | None:
        """The SQLite or PostgreSQL database whose tables can be read directly; None for other stores."""
        return self.database or (self.uri if self.uri.startswith("postgresql") else None)

    @property
    def shown(self) -> str:
        """The address without user names and passwords."""
        return redact(self.uri)


def _sqlite_uri(uri: str) -> str:
    """Check the address of a SQLite file, and expand `~`."""
    path = uri.removeprefix(SQLITE)
    if not path.strip() or path.startswith((":memory:", "file:")):
        raise ValueError("requires a file: sqlite:///FILE.db")
    return f"{SQLITE}{expand_path(path)}" if path.startswith("~") else uri
