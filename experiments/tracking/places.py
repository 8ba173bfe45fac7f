"""Where recorded files lie today: MLflow records absolute paths, and a project may be renamed, moved or copied.

So files of a SQLite store are looked for beside its database first, and under the recorded path after that.
"""

from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from urllib.parse import urlsplit
from urllib.request import url2pathname

FILES = "mlruns"  # the folder beside a database that holds the files of its runs


@dataclass(frozen=True)
class Places:
    """The files of a store; `database` is its SQLite file, None where it is a server or a database of another kind."""

    database: Path | None

    @property
    def files(self) -> Path | None:
        """The folder for the files of new runs, where that is one of this machine."""
        return self.database.parent / FILES if self.database else None

    def current(self, uri: str) -> Path | None:
        """The folder that an address of files means today, to write there; None where it is none of this machine.

        It is the one beside the database, also where it is not there yet, unless the database alone was moved: then the
        recorded folder is still there, and no other database beside it that it would belong to.
        """
        recorded, parts = folder_of(uri), _parts(uri)
        if self.database is None or not parts:
            return recorded
        roots = dict.fromkeys((self.database.parent, self.database.resolve().parent))
        if recorded and any(recorded.is_relative_to(root) for root in roots):
            return recorded
        tail = _from_files_on(parts)
        beside = [root / tail for root in roots] if tail else []
        # The last two parts of the folder of a run or a model are its id and a word that all share.
        ends = [root.joinpath(*parts[start:]) for root in roots for start in range(len(parts) - 1)]
        if found := next((path for path in (*beside, *ends) if path.is_dir()), None):
            return recorded if recorded and recorded.is_dir() and recorded.samefile(found) else found
        if recorded is None or (beside and not (recorded.is_dir() and self._moved_alone(recorded, tail))):
            return beside[0] if beside else None
        return recorded

    def candidates(self, uri: str) -> tuple[Path, ...]:
        """The folders in which files may lie that were recorded under this address, in the order of looking."""
        return tuple(dict.fromkeys(path for path in (self.current(uri), folder_of(uri)) if path))

    def _moved_alone(self, recorded: Path, tail: Path | None) -> bool:
        """Whether the recorded folder belongs to this database still, and not to one that this is a copy of."""
        assert self.database is not None
        assert tail is not None
        before = Path(*recorded.parts[: len(recorded.parts) - len(tail.parts)])
        others = (path for path in {*before.glob("*.db"), before / self.database.name} if path.is_file())
        return not any(self.database.exists() and not path.samefile(self.database) for path in others)


def folder_of(uri: str) -> Path | None:
    """The folder that an address of files means, where it is one of this machine."""
    parts = urlsplit(uri)
    path = Path(url2pathname(parts.path)) if parts.scheme == "file" else Path(uri)
    return path if path.is_absolute() and not parts.netloc else None


def is_local(uri: str) -> bool:
    """Whether an address of files is a path, of this machine or of another one."""
    return bool(folder_of(uri) or _parts(uri))


def _parts(uri: str) -> tuple[str, ...]:
    """The parts of a recorded path, also of one that another system wrote; none where it is no path of a file."""
    split = urlsplit(uri)
    is_drive = len(split.scheme) == 1  # C:\...
    if split.netloc or (split.scheme not in ("", "file") and not is_drive):
        return ()
    path = url2pathname(split.path) if split.scheme == "file" else uri
    parts = path.split("/") if "/" in path else PureWindowsPath(path).parts
    named = tuple(part for part in parts if part.strip("\\/") not in ("", "."))
    return () if ".." in named else named


def _from_files_on(parts: tuple[str, ...]) -> Path | None:
    """The end of a path from the folder of all runs on; None where there is no such folder in it."""
    places = [place for place, part in enumerate(parts) if part == FILES]
    return Path(*parts[places[-1] :]) if places else None
