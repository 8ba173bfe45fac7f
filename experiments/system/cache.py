"""The cache on disk: training states after each epoch, results of conversions and evaluations, and large arrays.

Each entry is a file that contains its own key, and whose name has the digest of its content. A damaged or misplaced
entry is detected and computed again, never used. A file gets its name only when it is complete. The process that
computes an entry holds a lock, which is released when the process dies.

Decoded data and large outputs of models are too large for one read, so their entry is a folder. The name of the folder
has the digest of its index, which holds the sizes and digests of the other files. A run checks the sizes, `verify` the
digests.
"""

import hashlib
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass as option

from experiments.system.disk import check_writable, explain_os_error
from experiments.system.errors import UserError, first_line
from experiments.system.files import ARCHIVE_DAMAGE, UserPath
from experiments.system.locks import file_lock, file_lock_if_free, unused_files
from experiments.system.options import OPTION
from experiments.system.progress import say

Arrays = dict[str, npt.NDArray[np.generic]]
Content = TypeVar("Content")  # of an entry

TRAINING, RESULTS, DATA, RUNS = "training", "results", "data", "runs"
GIB = 2**30
DIGEST = 16  # hexadecimal digits
ABOUT = "about"  # the array with a description of the entry
KEY = "key"  # the array with the key of the entry, see `_key`
LOCK = "lock"  # the lock file of a trajectory
NAMED = "name-"  # the prefix of empty files in the folder of a trajectory: names by which it is found
ENTRY = re.compile(rf"[^-]+-[0-9a-f]{{{DIGEST}}}\.npz")
STATE = re.compile(rf"[0-9]{{5,}}-[0-9a-f]{{{DIGEST}}}\.npz")  # of a training; the number is that of the epoch
FOLDER = re.compile(rf"[0-9a-f]+(-[0-9a-f]{{{DIGEST}}})?")  # of decoded data; earlier versions had no digest
INDEX = "index.json"  # in such a folder
FILES = "files"  # the item of the index with size and digest of each other file
DAY = 24 * 60 * 60  # seconds


class DamagedError(Exception):
    """The content of an entry does not match its name; the message says how."""


@option(frozen=True, config=OPTION, kw_only=True)
class Cache:
    """The folder of the cache, and its maximum size in GiB; beyond it, the least recently used entries are removed."""

    dir: UserPath
    gib: PositiveFloat = 10

    def check(self) -> None:
        """Raise UserError if the folder is not writable; the first run that needs it creates it."""
        try:
            check_writable(self.dir)
        except OSError as error:
            raise self._unwritable(error) from error

    def named_trainings(self) -> Iterator[tuple[str, "Trajectory"]]:
        """Yield the names of trainings, each with its states."""
        for path in _matching(self.dir.absolute(), f"{TRAINING}/*/{NAMED}*"):
            yield path.name.removeprefix(NAMED), self.trajectory(path.parent.name)

    def trajectory(self, key: str) -> "Trajectory":
        """Return the states of one training."""
        return Trajectory(self, self.dir.absolute() / TRAINING / key)

    def load_or_compute(self, key: str, compute: Callable[[], Arrays], about: str) -> Arrays:
        """Return the result of `compute` for this key, computed once across all processes; `about` describes it.

        Raises:
            UserError: the folder is not writable.
        """
        folder = self.dir.absolute() / RESULTS
        if (found := _arrays_of(folder, key)) is not None:
            return found
        with self.claimed(folder / f"{key}.lock", "another process is computing the same result"):
            if (found := _arrays_of(folder, key)) is not None:  # computed while this process waited
                return found
            computed = compute()
            self.keep(folder, key, computed, about)
            return computed

    def load_or_write(
        self, key: str, write: Callable[["Files"], Mapping[str, Any]], reason: str
    ) -> tuple[Path, Mapping[str, Any]]:
        """Return the folder of this key with its index; the files are written once across all processes.

        `write` writes the files and returns the index, with a description of the entry as `about`. Another process may
        remove the folder until its files are opened with `open_in_use`.

        Raises:
            UserError: the folder of the cache is not writable.
        """
        place = self.dir.absolute() / DATA
        if (found := _folder_of(place, key)) is not None:
            return found
        with self.claimed(place / f"{key}.lock", reason):
            if (found := _folder_of(place, key)) is not None:  # written while this process waited
                return found
            partial = _partial(place, key)
            try:
                partial.mkdir(parents=True)  # somebody may have removed the folder by hand
                files = Files(partial)
                index = {**write(files), KEY: f"{DATA}/{key}", FILES: files.written}
                content = json.dumps(index).encode()
                (partial / INDEX).write_bytes(content)
                path = place / f"{key}-{_digest(content)}"
                partial.rename(path)
                self._free_space(path)
            except OSError as error:
                raise self._unwritable(error) from error
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            return path, json.loads(content)

    @contextmanager
    def run(self, key: str) -> Iterator[None]:
        """Hold the lock of a run, so that only one process does the same run."""
        with self.claimed(self.dir.absolute() / RUNS / f"{key}.lock", "another process is doing the same run"):
            yield

    @contextmanager
    def claimed(self, path: Path, reason: str) -> Iterator[None]:
        """Hold the lock at this path; `reason` is shown if it must be waited for."""
        with ExitStack() as stack:
            try:
                stack.enter_context(file_lock(path, reason))
            except OSError as error:
                raise self._unwritable(error) from error
            yield

    def remove_leftovers(self) -> None:
        """Remove partial entries and lock files of killed processes: no process holds these locks."""
        folder = self.dir.absolute()
        for place in (folder / RESULTS, folder / DATA, folder / RUNS):
            for key in {path.name.partition(".")[0] for path in (*place.glob("*.lock"), *place.glob("*.partial"))}:
                _remove_partial(place / f"{key}.lock", f"{key}.*.partial")
        patterns = (f"{TRAINING}/*/*.partial", f"{TRAINING}/*/{LOCK}")
        for trajectory in {path.parent for pattern in patterns for path in _matching(folder, pattern)}:
            _remove_partial(trajectory / LOCK, "*.partial")

    def keep(self, folder: Path, name: str, arrays: Arrays, about: str) -> None:
        """Write an entry; the file gets its name only when it is complete."""
        buffer = io.BytesIO()
        contents: dict[str, Any] = {**arrays, ABOUT: np.array(about), KEY: np.array(_key(folder, name))}
        np.savez(buffer, **contents)
        path = folder / f"{name}-{_digest(buffer.getvalue())}.npz"
        partial = _partial(folder, name)
        try:
            folder.mkdir(parents=True, exist_ok=True)  # somebody may have removed it by hand
            partial.write_bytes(buffer.getvalue())
            partial.replace(path)
            self._free_space(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _free_space(self, written: Path) -> None:
        """Remove the least recently used entries until the cache is within its limit; entries in use are kept."""
        entries = sorted(entries_in(self.dir.absolute()), key=lambda entry: entry.used)
        excess = sum(entry.bytes for entry in entries) - self.gib * GIB
        removed = 0
        for entry in entries:
            if excess <= removed:
                break
            if entry.path != written:
                own = entry.kind == TRAINING and entry.path.parent == written.parent
                with nullcontext(True) if own else entry.unused() as unused:
                    if unused:
                        entry.remove()
                        removed += entry.bytes
        if removed:
            say(f"cache: removed {size(removed)} of the least recently used entries (cache.gib={self.gib:g})")

    def _unwritable(self, error: OSError) -> UserError:
        why = explain_os_error(error, self.dir)
        return UserError(f"cache.dir={self.dir}: the folder is not writable ({why}). Use another: cache.dir=FOLDER.")


@dataclass(frozen=True)
class Trajectory:
    """The states of one training, one file per epoch."""

    cache: Cache
    folder: Path

    @property
    def epochs(self) -> set[int]:
        """The epochs whose states are kept."""
        return {epoch for epoch, _ in self._states()}

    def _states(self) -> list[tuple[int, Path]]:
        return [(_epoch(path), path) for path in _matching(self.folder, "*.npz") if _is_entry(path)]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of this training, so that only one process trains the same model."""
        with self.cache.claimed(self.folder / LOCK, "another process is training the same model"):
            yield

    def latest(self, epochs: int) -> tuple[int, Arrays]:
        """Return the number of epochs and the state of the latest epoch up to `epochs`; (0, {}) if there is none."""
        for epoch, path in sorted(self._states(), reverse=True):
            if epoch <= epochs and (state := _first_intact([path], _arrays_in)) is not None:
                return epoch, state
        return 0, {}

    def name(self, name: str) -> None:
        """Leave a name beside the states, by which a plan finds them, unless `cache clear` has just removed these."""
        try:
            with suppress(FileNotFoundError):
                (self.folder / f"{NAMED}{name}").touch()
        except OSError as error:
            raise self.cache._unwritable(error) from error

    def keep(self, epoch: int, state: Arrays, about: str) -> None:
        """Write the state after `epoch`; `about` describes the training."""
        self.cache.keep(self.folder, f"{epoch:05d}", state, about)


@dataclass(frozen=True)
class Files:
    """The files of an entry that is being written, with the size and digest of each."""

    folder: Path
    written: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextmanager
    def file(self, name: str) -> Iterator[Callable[[bytes | memoryview], None]]:
        """Yield a function that appends to the file."""
        digest, count = hashlib.sha256(), 0
        with (self.folder / name).open("wb") as file:

            def write(content: bytes | memoryview) -> None:
                nonlocal count
                file.write(content)
                digest.update(content)
                count += memoryview(content).nbytes

            yield write
        self.written[name] = {"bytes": count, "sha256": digest.hexdigest()}


@dataclass(frozen=True)
class Entry:
    """A file of the cache, or a folder of decoded data."""

    path: Path
    bytes: int
    used: float  # seconds since 1970
    files: int = 1

    @property
    def kind(self) -> str:
        """`training`, `results` or `data`."""
        return place if (place := self.path.parent.name) in (RESULTS, DATA) else TRAINING

    @property
    def damage(self) -> str:
        """How the entry is damaged; empty if it is intact, or was removed by another process."""
        try:
            if self.kind == DATA:
                _check_digests(self.path)
            else:
                _arrays_in(self.path)
        except DamagedError as error:
            return str(error)
        except FileNotFoundError:
            return ""
        return ""

    @contextmanager
    def unused(self) -> Iterator[bool]:
        """Yield whether the entry is unused; while the block runs, no training or run can start to use it."""
        match self.kind:
            case "results":
                yield True
            case "data":
                with unused_files(_matching(self.path, "*")) as free:
                    yield free
            case _:
                with file_lock_if_free(self.path.parent / LOCK) as free:
                    yield free

    def remove(self) -> None:
        """Remove the entry, unless another process has done it."""
        _remove(self.path)

    @property
    def about(self) -> str:
        """The description of the entry."""
        try:
            if self.kind == DATA:
                return str(_index_of(self.path)[ABOUT])
            with np.load(self.path, allow_pickle=False) as archive:
                return str(archive[ABOUT])
        except (DamagedError, *ARCHIVE_DAMAGE):
            return "damaged"


def entries_in(folder: Path) -> list[Entry]:
    """Return the entries of a cache; other files are ignored."""
    found = []
    for path in (*_matching(folder, f"{TRAINING}/*/*.npz"), *_matching(folder, f"{RESULTS}/*.npz")):
        if not _is_entry(path):
            continue
        with suppress(FileNotFoundError):  # removed by another process
            status = path.stat()
            found.append(Entry(path, status.st_size, status.st_mtime))
    for path in _matching(folder, f"{DATA}/*"):
        if not _is_folder_entry(path):
            continue
        with suppress(FileNotFoundError, PermissionError):  # removed, or another user's own
            parts = {each.name: each.stat() for each in path.iterdir()}
            used = parts.get(INDEX, path.stat()).st_mtime
            found.append(Entry(path, sum(part.st_size for part in parts.values()), used, len(parts)))
    return found


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Return the paths that match a pattern; searches again if another process removes a folder meanwhile."""
    while True:
        with suppress(FileNotFoundError):  # which glob raises up to Python 3.11
            return list(folder.glob(pattern))


def _remove_partial(lock: Path, pattern: str) -> None:
    """Remove partial files and their lock file, unless a process holds the lock."""
    with suppress(OSError), file_lock_if_free(lock) as free:  # owned by another user, or the disk is full
        if free:
            for partial in lock.parent.glob(pattern):
                if partial.is_dir():
                    shutil.rmtree(partial, ignore_errors=True)
                else:
                    partial.unlink(missing_ok=True)


def _partial(folder: Path, name: str) -> Path:
    """Return a new name for an entry that is not complete, or is being removed."""
    return folder / f"{name}.{secrets.token_hex(4)}.partial"


def _remove(entry: Path) -> None:
    """Remove an entry; a folder loses its name first, so that no process finds a part of it."""
    if not entry.is_dir():
        entry.unlink(missing_ok=True)
        return
    partial = _partial(entry.parent, entry.name.partition("-")[0])
    with suppress(FileNotFoundError):  # removed by another process
        entry.rename(partial)
        shutil.rmtree(partial, ignore_errors=True)


def _arrays_of(folder: Path, key: str) -> Arrays | None:
    """Return the arrays of an intact result with this key."""
    return _first_intact(filter(_is_entry, folder.glob(f"{key}-*.npz")), _arrays_in)


def _folder_of(place: Path, key: str) -> tuple[Path, Mapping[str, Any]] | None:
    """Return an intact folder with this key, and its index."""
    return _first_intact(filter(_is_folder_entry, place.glob(f"{key}*")), lambda folder: (folder, _index_of(folder)))


def _first_intact(entries: Iterable[Path], read: Callable[[Path], Content]) -> Content | None:
    """Return what `read` returns for the first intact entry; damaged ones are reported and removed."""
    for entry in entries:
        try:
            content = read(entry)
        except FileNotFoundError:  # removed by another process
            continue
        except PermissionError as error:
            raise UserError(
                f"cache.dir: {entry} cannot be read ({error.strerror}). Use another folder: cache.dir=FOLDER."
            ) from error
        except DamagedError as error:
            say(f"cache: {entry} {error}; it is removed and computed again")
            _remove(entry)
            continue
        with suppress(FileNotFoundError, PermissionError):  # the time of another user's file cannot be changed
            os.utime(entry / INDEX if entry.is_dir() else entry)  # marks the entry as recently used
        return content
    return None


def _index_of(folder: Path) -> Mapping[str, Any]:
    """Return the index of a folder, after a check of everything but the content of the other files.

    Raises:
        DamagedError: the index or the size of a file has changed since it was written, or the key is another.
        FileNotFoundError: there is no such folder.
    """
    key, _, digest = folder.name.partition("-")
    if not digest:
        raise DamagedError("has no digest, like entries of earlier versions")
    try:
        content = (folder / INDEX).read_bytes()
        if digest != _digest(content):
            raise DamagedError(f"is damaged: {INDEX} does not have the digest in the name of the folder")
        index: dict[str, Any] = json.loads(content)
        for name, about in index[FILES].items():
            if (count := (folder / name).stat().st_size) != about["bytes"]:
                raise DamagedError(f"is damaged: {name} has {count:,} instead of {about['bytes']:,} bytes")
    except FileNotFoundError as error:
        if not folder.is_dir():
            raise
        raise DamagedError(f"is damaged: {Path(error.filename).name} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"is not a cache entry ({first_line(error)})") from error
    if index.get(KEY) != f"{DATA}/{key}":
        raise DamagedError(f"has another key, {index.get(KEY)}")
    return index


def _check_digests(folder: Path) -> None:
    """Read all files of a folder; raise DamagedError if one has changed since it was written."""
    for name, about in _index_of(folder)[FILES].items():
        digest = hashlib.sha256()
        with (folder / name).open("rb") as file:
            while content := file.read(2**20):
                digest.update(content)
        if digest.hexdigest() != about["sha256"]:
            raise DamagedError(f"is damaged: the content of {name} does not have the digest in {INDEX}")


def _arrays_in(path: Path) -> Arrays:
    """Return the arrays of an entry.

    Raises:
        DamagedError: the bytes have changed since they were written, or were written for another key.
        FileNotFoundError: there is no such file.
    """
    content, (name, _, digest) = path.read_bytes(), path.stem.rpartition("-")
    if digest != _digest(content):
        raise DamagedError("is damaged: its content does not have the digest in its name")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {each: archive[each] for each in archive.files}
    except ARCHIVE_DAMAGE as error:
        raise DamagedError(f"is not a cache entry ({first_line(error)})") from error
    if KEY not in arrays:
        raise DamagedError("has no key, like entries of earlier versions")
    if (key := str(arrays.pop(KEY))) != _key(path.parent, name):
        raise DamagedError(f"has another key, {key}")
    arrays.pop(ABOUT, None)
    return arrays


def _key(folder: Path, name: str) -> str:
    """Return the key of an entry: `results/KEY`, or `training/TRAJECTORY/EPOCH`."""
    return f"{RESULTS}/{name}" if folder.name == RESULTS else f"{TRAINING}/{folder.name}/{name}"


def _epoch(state: Path) -> int:
    return int(state.stem.partition("-")[0])


def _is_entry(path: Path) -> bool:
    pattern = ENTRY if path.parent.name == RESULTS else STATE
    return pattern.fullmatch(path.name) is not None and path.is_file()


def _is_folder_entry(path: Path) -> bool:
    return FOLDER.fullmatch(path.name) is not None and path.is_dir()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGEST]


def size(count: float) -> str:
    """Format a number of bytes for display."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
