"""A temporary PostgreSQL server on loopback, for tests and benchmarks, if PostgreSQL is installed."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.exc import OperationalError

from benchmarks.harness.loopback import LOOPBACK, free_port, wait_until

OWNER = "postgres"  # PostgreSQL refuses to run as root; Debian's package brings this user


def missing() -> str:
    """Return what is missing to start PostgreSQL on this machine; empty if nothing is."""
    if _programs() is None:
        return "PostgreSQL is not installed: apt-get install postgresql"
    return "" if find_spec("psycopg2") else "psycopg2 is not installed: the extra postgres"


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; Debian has one for each version, not on PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = debian[-1] if debian else shutil.which("initdb")
    return Path(found).parent if found else None


@dataclass(frozen=True)
class Database:
    """A temporary PostgreSQL cluster, removed when its block ends."""

    address: str  # without the name of a database; with the driver, since SQLAlchemy 2.1 selects another one

    def fresh(self, name: str) -> str:
        """Return the address of a new empty database."""
        with self._engine().connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return f"{self.address}/{name}"

    def answers(self) -> bool:
        """Return whether it accepts connections."""
        try:
            self._engine().connect().close()
        except OperationalError:
            return False
        return True

    def _engine(self) -> Engine:
        return create_engine(f"{self.address}/postgres", isolation_level="AUTOCOMMIT", poolclass=NullPool)


@contextmanager
def running() -> Iterator[Database]:
    """A cluster that is stopped and removed when the block ends; requires that nothing is `missing`."""
    programs = _programs()
    if programs is None:
        raise FileNotFoundError(missing())
    identity = {"user": OWNER, "group": OWNER, "extra_groups": []} if os.getuid() == 0 else {}
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="postgres-"))
    if identity:
        shutil.chown(folder, OWNER, OWNER)
    data = folder / "data"
    start = [programs / "postgres", "-D", data, "-h", LOOPBACK, "-p", str(port), "-k", folder, "-F"]
    try:
        make = [programs / "initdb", "-D", data, "-U", "bench", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        subprocess.run(make, cwd=folder, check=True, capture_output=True, **identity)  # type: ignore[call-overload]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(start, cwd=folder, stdout=log, stderr=log, **identity)  # type: ignore[call-overload]
        try:
            cluster = Database(f"postgresql+psycopg2://bench@{LOOPBACK}:{port}")
            wait_until(cluster.answers, "PostgreSQL answers")
            yield cluster
        finally:
            process.send_signal(signal.SIGQUIT)  # at once, even with open connections: no data is kept
            process.wait(timeout=60)
    finally:
        shutil.rmtree(folder)
