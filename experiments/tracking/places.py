"""Current paths of recorded files: MLflow records absolute paths, but a project may be renamed, moved or copied.

Therefore the files of a SQLite store are searched beside its database first, and then at the recorded path.
"""

from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from urllib.parse import urlsplit
from urllib.request import url2pathname

from experiments.system.errors import UserError, redact
from experiments.tracking.address import Tracking

# Kinds of addresses that name a host. MLflow sends the credentials of its server, or others of this machine, to it.
WITH_LOGIN = frozenset({"http", "https", "mlflow-artifacts"})
WITH_HOST = frozenset({*WITH_LOGIN, "abfss", "dbfs", "ftp", "hdfs", "sftp", "viewfs", "wasb", "wasbs"})
FILES = "mlruns"  # the folder beside a database with the files of its runs


@dataclass(frozen=True)
class Places:
    """The files of a store; `database` is its SQLite file, or None for other stores."""

    database: Path | None

    @property
    def files(self) -> Path | None:
        """The folder for the files of new runs; None if it is not on this machine."""
        return self.database.parent / FILES if self.database else None

    def current(self, uri: str) -> Path | None:
        """Return the current folder of an artifact address, for writing; None if it is not on this machine.

        It is the folder beside the database, even if it does not exist yet, unless only the database was moved: then
        the recorded folder still exists, and no other database beside it can own it.
        """
        recorded, parts = folder_of(uri), _parts(uri)
        if self.database is None or not parts:
            return recorded
        roots = dict.fromkeys((self.database.parent, self.database.resolve().parent))
        if recorded and any(recorded.is_relative_to(root) for root in roots):
            return recorded
        tail = _tail_from_files(parts)
        beside = [root / tail for root in roots] if tail else []
        # The last two parts of the folder of a run or a model are its id and a common name.
        ends = [root.joinpath(*parts[start:]) for root in roots for start in range(len(parts) - 1)]
        if found := next((path for path in (*beside, *ends) if path.is_dir()), None):
            return recorded if recorded and recorded.is_dir() and recorded.samefile(found) else found
        if recorded is None or (beside and not (recorded.is_dir() and self._only_database_moved(recorded, tail))):
            return beside[0] if beside else None
        return recorded

    def candidates(self, uri: str) -> tuple[Path, ...]:
        """Return the folders that may have the files of this address, in search order."""
        return tuple(dict.fromkeys(path for path in (self.current(uri), folder_of(uri)) if path))

    def _only_database_moved(self, recorded: Path, tail: Path | None) -> bool:
        """Whether the recorded folder belongs to this database, and not to another one that this is a copy of."""
        assert self.database is not None
        assert tail is not None
        before = Path(*recorded.parts[: len(recorded.parts) - len(tail.parts)])
        others = (path for path in {*before.glob("*.db"), before / self.database.name} if path.is_file())
        return not any(self.database.exists() and not path.samefile(self.database) for path in others)


def check_storage(address: Tracking, uri: str) -> None:
    """Check that reading or writing files at a recorded address sends no credentials to a host that a store names.

    Raises:
        UserError: the host is not that of the store. For other kinds of storage than HTTP, a server may name any host.
    """
    kind, host = urlsplit(uri).scheme, urlsplit(uri).netloc
    own = urlsplit(address.uri).netloc if address.uri.startswith("http") else ""
    if host and host != own and kind in (WITH_LOGIN if own else WITH_HOST):
        raise UserError(
            f"{address.shown}: the store records files at {redact(f'{kind}://{host}')}. Reading them would send the "
            "credentials of this machine to that host. If you trust it, start MLflow's server with the store, and give "
            f"its address: mlflow server --backend-store-uri {address.shown} --serve-artifacts"
        )


def folder_of(uri: str) -> Path | None:
    """Return the folder of an artifact address; None if it is not on this machine."""
    parts = urlsplit(uri)
    path = Path(url2pathname(parts.path)) if parts.scheme == "file" else Path(uri)
    return path if path.is_absolute() and not parts.netloc else None


def is_local(uri: str) -> bool:
    """Whether an artifact address is a path, on this machine or another one."""
    return bool(folder_of(uri) or _parts(uri))


def _parts(uri: str) -> tuple[str, ...]:
    """Split a recorded path of any operating system into parts; empty if the address is not a path."""
    split = urlsplit(uri)
    is_drive = len(split.scheme) == 1  # C:\...
    if split.netloc or (split.scheme not in ("", "file") and not is_drive):
        return ()
    path = url2pathname(split.path) if split.scheme == "file" else uri
    parts = path.split("/") if "/" in path else PureWindowsPath(path).parts
    named = tuple(part for part in parts if part.strip("\\/") not in ("", "."))
    return () if ".." in named else named


def _tail_from_files(parts: tuple[str, ...]) -> Path | None:
    """Return the end of a path from the folder `mlruns` on; None if there is no such folder."""
    places = [place for place, part in enumerate(parts) if part == FILES]
    return Path(*parts[places[-1] :]) if places else None
