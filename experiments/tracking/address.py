"""Where runs are kept: the option of an MLflow store."""

from pathlib import Path

from pydantic import field_validator
from pydantic.dataclasses import dataclass as option

from experiments.system.errors import redacted
from experiments.system.extras import missing
from experiments.system.files import expanded
from experiments.system.options import OPTION

SQLITE = "sqlite:///"
OF_PSYCOPG2 = ("postgresql", "postgresql+psycopg2")  # the driver that the extra brings, which is also the default


@option(frozen=True, config=OPTION, kw_only=True)
class Tracking:
    """Where runs are kept: an MLflow tracking address, and the name of the experiment there."""

    uri: str = "sqlite:///mlflow.db"
    experiment: str = "quantization"
    system_metrics: bool = False  # the machine's load, memory, disk and network while a run goes on

    @field_validator("uri")
    @classmethod
    def _known_kind(cls, uri: str) -> str:
        if not uri.startswith((SQLITE, "postgresql", "mysql", "mssql", "http://", "https://")):
            raise ValueError(
                "give sqlite:///FILE.db, http://HOST:PORT, or a database address that MLflow knows (postgresql://, "
                "mysql://, mssql://)"
            )
        if uri.startswith(SQLITE):
            return _of_a_file(uri)
        if uri.partition("://")[0] in OF_PSYCOPG2 and (rule := missing("postgres")):
            raise ValueError(rule)
        return uri

    @field_validator("experiment")
    @classmethod
    def _named(cls, experiment: str) -> str:
        if not experiment.strip():
            raise ValueError("the name of an experiment is needed")
        return experiment

    @property
    def database(self) -> Path | None:
        """The SQLite file, where there is one."""
        return Path(self.uri.removeprefix(SQLITE)).absolute() if self.uri.startswith(SQLITE) else None

    @property
    def tables(self) -> Path | str | None:
        """Where the database is whose tables are read; a server has none to show, and other kinds were not tried."""
        return self.database or (self.uri if self.uri.startswith("postgresql") else None)

    @property
    def shown(self) -> str:
        """The address as it may be shown."""
        return redacted(self.uri)


def _of_a_file(uri: str) -> str:
    """The address of a SQLite file, with `~` expanded."""
    path = uri.removeprefix(SQLITE)
    if not path.strip() or path.startswith((":memory:", "file:")):
        raise ValueError("runs are kept in a file; give sqlite:///FILE.db")
    return f"{SQLITE}{expanded(path)}" if path.startswith("~") else uri
