"""The cache on disk: training states after each epoch, and results of conversions and evaluations.

Each entry is a file that contains its own key, and whose name has the digest of its content. A damaged or misplaced
entry is detected and computed again, never used. A file gets its name only when it is complete. The process that
computes an entry holds a lock, which is released when the process dies.
"""

import hashlib
import io
import os
import re
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass as option

from experiments.system.disk import check_writable, explain_os_error
from experiments.system.errors import UserError, first_line
from experiments.system.files import UserPath
from experiments.system.locks import file_lock, file_lock_if_free
from experiments.system.options import OPTION
from experiments.system.progress import say

Arrays = dict[str, npt.NDArray[np.generic]]

TRAINING, RESULTS, RUNS = "training", "results", "runs"
GIB = 2**30
DIGEST = 16  # hexadecimal digits
ABOUT = "about"  # the array with a description of the entry
KEY = "key"  # the array with the key of the entry, see `_key`
LOCK = "lock"  # the lock file of a trajectory
NAMED = "name-"  # the prefix of empty files in the folder of a trajectory: names by which it is found
ENTRY = re.compile(rf"[^-]+-[0-9a-f]{{{DIGEST}}}\.npz")
STATE = re.compile(rf"[0-9]{{5,}}-[0-9a-f]{{{DIGEST}}}\.npz")  # of a training; the number is that of the epoch
HOUR = 60 * 60  # seconds; a partial file of this age was left by a killed process
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

    def named_trainings(self) -> Iterator[tuple[str, set[int]]]:
        """Yield the names of trainings, each with the epochs whose states are kept."""
        for path in self.dir.absolute().glob(f"{TRAINING}/*/{NAMED}*"):
            yield (
                path.name.removeprefix(NAMED),
                {_epoch(state) for state in path.parent.glob("*.npz") if _is_entry(state)},
            )

    def trajectory(self, key: str) -> "Trajectory":
        """Return the states of one training."""
        return Trajectory(self, self.dir.absolute() / TRAINING / key)

    def remembered(self, key: str, compute: Callable[[], Arrays], about: str) -> Arrays:
        """Return the result of `compute` for this key, computed once across all processes; `about` describes it.

        Raises:
            UserError: the folder is not writable.
        """
        folder = self.dir.absolute() / RESULTS
        if (found := _first_intact(folder.glob(f"{key}-*.npz"))) is not None:
            return found
        with self.claimed(folder / f"{key}.lock", "another process is computing the same result"):
            if (found := _first_intact(folder.glob(f"{key}-*.npz"))) is not None:  # computed while this process waited
                return found
            computed = compute()
            self.keep(folder, key, computed, about)
            return computed

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
        for place in (folder / RESULTS, folder / RUNS):
            for key in {path.name.partition(".")[0] for path in (*place.glob("*.lock"), *place.glob("*.partial"))}:
                _remove_partial(place / f"{key}.lock", f"{key}.*.partial")
        for trajectory in {
            path.parent for path in (*folder.glob(f"{TRAINING}/*/*.partial"), *folder.glob(f"{TRAINING}/*/{LOCK}"))
        }:
            _remove_partial(trajectory / LOCK, "*.partial")

    def keep(self, folder: Path, name: str, arrays: Arrays, about: str) -> None:
        """Write an entry; the file gets its name only when it is complete."""
        buffer = io.BytesIO()
        contents: dict[str, Any] = {**arrays, ABOUT: np.array(about), KEY: np.array(_key(folder, name))}
        np.savez(buffer, **contents)
        path = folder / f"{name}-{_digest(buffer.getvalue())}.npz"
        partial = folder / f"{name}.{secrets.token_hex(4)}.partial"
        try:
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
                own = entry.path.parent == written.parent
                with nullcontext(True) if own else entry.unused() as unused:
                    if unused:
                        entry.path.unlink(missing_ok=True)
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

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of this training, so that only one process trains the same model."""
        with self.cache.claimed(self.folder / LOCK, "another process is training the same model"):
            yield

    def latest(self, epochs: int) -> tuple[int, Arrays]:
        """Return the number of epochs and the state of the latest epoch up to `epochs`; (0, {}) if there is none."""
        states = [(_epoch(path), path) for path in self.folder.glob("*.npz") if _is_entry(path)]
        for epoch, path in sorted(states, reverse=True):
            if epoch <= epochs and (state := _first_intact([path])) is not None:
                return epoch, state
        return 0, {}

    def name(self, name: str) -> None:
        """Leave a name beside the states, by which a plan finds them."""
        try:
            (self.folder / f"{NAMED}{name}").touch()
        except OSError as error:
            raise self.cache._unwritable(error) from error

    def keep(self, epoch: int, state: Arrays, about: str) -> None:
        """Write the state after `epoch`; `about` describes the training."""
        self.cache.keep(self.folder, f"{epoch:05d}", state, about)


@dataclass(frozen=True)
class Entry:
    """A file of the cache."""

    path: Path
    bytes: int
    used: float  # seconds since 1970

    @property
    def kind(self) -> str:
        """`training` or `results`."""
        return RESULTS if self.path.parent.name == RESULTS else TRAINING

    @property
    def damage(self) -> str:
        """How the entry is damaged; empty if it is intact, or was dropped by another process."""
        try:
            _arrays_in(self.path, self.path.read_bytes())
        except DamagedError as error:
            return str(error)
        except FileNotFoundError:
            return ""
        return ""

    @contextmanager
    def unused(self) -> Iterator[bool]:
        """Yield whether no training uses the entry; none can start while the block runs."""
        if self.kind == RESULTS:
            yield True
            return
        with file_lock_if_free(self.path.parent / LOCK) as free:
            yield free

    @property
    def about(self) -> str:
        """The description of the entry."""
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                return str(archive[ABOUT])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return "damaged"


def entries_in(folder: Path) -> list[Entry]:
    """Return the entries of a cache; other files are ignored."""
    found = []
    for path in (*folder.glob(f"{TRAINING}/*/*.npz"), *folder.glob(f"{RESULTS}/*.npz")):
        if not _is_entry(path):
            continue
        with suppress(FileNotFoundError):  # dropped by another process
            status = path.stat()
            found.append(Entry(path, status.st_size, status.st_mtime))
    return found


def _remove_partial(lock: Path, pattern: str) -> None:
    """Remove partial files and their lock file, unless a process holds the lock."""
    with suppress(OSError), file_lock_if_free(lock) as free:  # owned by another user, or the disk is full
        if free:
            for partial in lock.parent.glob(pattern):
                partial.unlink(missing_ok=True)


def _first_intact(paths: Iterable[Path]) -> Arrays | None:
    """Return the content of the first intact file; damaged ones are reported and removed."""
    for path in filter(_is_entry, paths):
        try:
            arrays = _arrays_in(path, path.read_bytes())
        except FileNotFoundError:  # dropped by another process
            continue
        except PermissionError as error:
            raise UserError(
                f"cache.dir: {path} cannot be read ({error.strerror}). Use another folder: cache.dir=FOLDER."
            ) from error
        except DamagedError as error:
            say(f"cache: {path} {error}; it is removed and computed again")
            path.unlink(missing_ok=True)
            continue
        with suppress(FileNotFoundError, PermissionError):  # the time of another user's file cannot be changed
            os.utime(path)  # marks the entry as recently used
        return arrays
    return None


def _arrays_in(path: Path, content: bytes) -> Arrays:
    """Return the arrays of an entry.

    Raises:
        DamagedError: the bytes have changed since they were written, or were written for another key.
    """
    name, _, digest = path.stem.rpartition("-")
    if digest != _digest(content):
        raise DamagedError("is damaged: its content does not have the digest in its name")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {each: archive[each] for each in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
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


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGEST]


def size(count: float) -> str:
    """Format a number of bytes for display."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
