"""What was computed once and is kept: training states after each epoch, results of conversions and evaluations.

Each entry is a file that holds its own key, and whose name carries the digest of its content: an entry that is damaged,
or that lies under the name of another, is detected and made again, never used. A file appears under its name only when
it is complete. Whoever makes one holds a lock that is released when the process dies.
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

from experiments.system.disk import check_writable, explained
from experiments.system.errors import UserError, first_line
from experiments.system.files import UserPath
from experiments.system.locks import file_lock, file_lock_if_free
from experiments.system.options import OPTION
from experiments.system.progress import say

Arrays = dict[str, npt.NDArray[np.generic]]

TRAINING, RESULTS, RUNS = "training", "results", "runs"
GIB = 2**30
DIGEST = 16  # hexadecimal digits
ABOUT = "about"  # the array that tells people what an entry is
KEY = "key"  # the array that names what the entry was made for, as `_key` does
LOCK = "lock"  # of a trajectory
ENTRY = re.compile(rf"[^-]+-[0-9a-f]{{{DIGEST}}}\.npz")
STATE = re.compile(rf"[0-9]{{5,}}-[0-9a-f]{{{DIGEST}}}\.npz")  # of a training; the number is that of the epoch
HOUR = 60 * 60  # seconds: what was being written so long ago was left by a process that was killed
DAY = 24 * 60 * 60  # seconds


class DamagedError(Exception):
    """A file that does not hold what belongs under its name; the text says what is wrong with it."""


@option(frozen=True, config=OPTION, kw_only=True)
class Cache:
    """The folder, and its size in GiB from which on the entries that were not used for longest are dropped."""

    dir: UserPath
    gib: PositiveFloat = 10

    def check(self) -> None:
        """Raise UserError where the folder cannot be written; it is made by the first run that needs it."""
        try:
            check_writable(self.dir)
        except OSError as error:
            raise self._unwritable(error) from error

    def trajectory(self, key: str) -> "Trajectory":
        """The states of one training."""
        return Trajectory(self, self.dir.absolute() / TRAINING / key)

    def remembered(self, key: str, make: Callable[[], Arrays], about: str) -> Arrays:
        """What `make` gave the first time it was called for this key, in whatever process; `about` is for people.

        Raises:
            UserError: the folder cannot be written.
        """
        folder = self.dir.absolute() / RESULTS
        if (found := _first_intact(folder.glob(f"{key}-*.npz"))) is not None:
            return found
        with self.claimed(folder / f"{key}.lock", "another process makes the same result"):
            if (found := _first_intact(folder.glob(f"{key}-*.npz"))) is not None:  # made while this process waited
                return found
            made = make()
            self.keep(folder, key, made, about)
            return made

    @contextmanager
    def run(self, key: str) -> Iterator[None]:
        """Held while a run is made, so that several processes make the same run once."""
        with self.claimed(self.dir.absolute() / RUNS / f"{key}.lock", "another process makes the same run"):
            yield

    @contextmanager
    def claimed(self, path: Path, reason: str) -> Iterator[None]:
        """The lock at this path; `reason` is said where it has to be waited for."""
        with ExitStack() as stack:
            try:
                stack.enter_context(file_lock(path, reason))
            except OSError as error:
                raise self._unwritable(error) from error
            yield

    def remove_leftovers(self) -> None:
        """Remove half-written entries and locks of processes that were killed: nobody holds the locks any more."""
        folder = self.dir.absolute()
        for place in (folder / RESULTS, folder / RUNS):
            for key in {path.name.partition(".")[0] for path in (*place.glob("*.lock"), *place.glob("*.partial"))}:
                _remove_partial(place / f"{key}.lock", f"{key}.*.partial")
        for trajectory in {
            path.parent for path in (*folder.glob(f"{TRAINING}/*/*.partial"), *folder.glob(f"{TRAINING}/*/{LOCK}"))
        }:
            _remove_partial(trajectory / LOCK, "*.partial")

    def keep(self, folder: Path, name: str, arrays: Arrays, about: str) -> None:
        """Write an entry; the file appears under its name only when it is complete."""
        buffer = io.BytesIO()
        contents: dict[str, Any] = {**arrays, ABOUT: np.array(about), KEY: np.array(_key(folder, name))}
        np.savez(buffer, **contents)
        path = folder / f"{name}-{_digest(buffer.getvalue())}.npz"
        partial = folder / f"{name}.{secrets.token_hex(4)}.partial"
        try:
            partial.write_bytes(buffer.getvalue())
            partial.replace(path)
            self._make_room(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _make_room(self, written: Path) -> None:
        """Drop what was not used for longest until the rest is small enough; trainings of others are left alone."""
        entries = sorted(entries_in(self.dir.absolute()), key=lambda entry: entry.used)
        excess = sum(entry.bytes for entry in entries) - self.gib * GIB
        dropped = 0
        for entry in entries:
            if excess <= dropped:
                break
            if entry.path != written:
                own = entry.path.parent == written.parent
                with nullcontext(True) if own else entry.unused() as unused:
                    if unused:
                        entry.path.unlink(missing_ok=True)
                        dropped += entry.bytes
        if dropped:
            say(f"cache: dropped {size(dropped)} that were not used for longest (cache.gib={self.gib:g})")

    def _unwritable(self, error: OSError) -> UserError:
        why = explained(error, self.dir)
        return UserError(f"cache.dir: {self.dir} cannot be written ({why}); give another with cache.dir=FOLDER.")


@dataclass(frozen=True)
class Trajectory:
    """The states of one training, a file an epoch."""

    cache: Cache
    folder: Path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while training, so that several processes train a trajectory once."""
        with self.cache.claimed(self.folder / LOCK, "another process trains the same model"):
            yield

    def latest(self, epochs: int) -> tuple[int, Arrays]:
        """The state after as many epochs as there are, up to `epochs`; (0, {}) where there is none."""
        states = [(int(path.stem.partition("-")[0]), path) for path in self.folder.glob("*.npz") if _is_entry(path)]
        for epoch, path in sorted(states, reverse=True):
            if epoch <= epochs and (state := _first_intact([path])) is not None:
                return epoch, state
        return 0, {}

    def keep(self, epoch: int, state: Arrays, about: str) -> None:
        """Write the state after `epoch`; `about` tells people what is trained."""
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
        """What is wrong with it; empty where nothing is, or another process has dropped it meanwhile."""
        try:
            _arrays_in(self.path, self.path.read_bytes())
        except DamagedError as error:
            return str(error)
        except FileNotFoundError:
            return ""
        return ""

    @contextmanager
    def unused(self) -> Iterator[bool]:
        """Whether it belongs to no training under way; none begins as long as the block runs."""
        if self.kind == RESULTS:
            yield True
            return
        with file_lock_if_free(self.path.parent / LOCK) as free:
            yield free

    @property
    def about(self) -> str:
        """What a person knows it by."""
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                return str(archive[ABOUT])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return "damaged"


def entries_in(folder: Path) -> list[Entry]:
    """The entries of a cache; files that are none are passed over."""
    found = []
    for path in (*folder.glob(f"{TRAINING}/*/*.npz"), *folder.glob(f"{RESULTS}/*.npz")):
        if not _is_entry(path):
            continue
        with suppress(FileNotFoundError):  # another process has dropped it meanwhile
            status = path.stat()
            found.append(Entry(path, status.st_size, status.st_mtime))
    return found


def _remove_partial(lock: Path, pattern: str) -> None:
    """Remove what was half written under a lock, unless somebody holds it; the lock itself goes as well."""
    with suppress(OSError), file_lock_if_free(lock) as free:  # another user's is theirs; a full disk has no room
        if free:
            for partial in lock.parent.glob(pattern):
                partial.unlink(missing_ok=True)


def _first_intact(paths: Iterable[Path]) -> Arrays | None:
    """The content of the first file that holds what belongs under its name; others are reported and thrown away."""
    for path in filter(_is_entry, paths):
        try:
            arrays = _arrays_in(path, path.read_bytes())
        except FileNotFoundError:  # another process has dropped it meanwhile
            continue
        except PermissionError as error:
            raise UserError(f"cache.dir: {path} cannot be read ({error.strerror}); give cache.dir=FOLDER.") from error
        except DamagedError as error:
            say(f"cache: {path} {error}; it is thrown away and made again")
            path.unlink(missing_ok=True)
            continue
        with suppress(FileNotFoundError, PermissionError):  # another's file may be read, and stays as old as it is
            os.utime(path)  # what was used last is dropped last
        return arrays
    return None


def _arrays_in(path: Path, content: bytes) -> Arrays:
    """What an entry keeps.

    Raises:
        DamagedError: the bytes are not those that were written, or were written for another key.
    """
    name, _, digest = path.stem.rpartition("-")
    if digest != _digest(content):
        raise DamagedError("is damaged: its content does not have the digest in its name")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {each: archive[each] for each in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise DamagedError(f"is no entry of a cache ({first_line(error)})") from error
    if KEY not in arrays:
        raise DamagedError("does not say what it was made for, as entries of earlier versions did not")
    if (key := str(arrays.pop(KEY))) != _key(path.parent, name):
        raise DamagedError(f"was made for another key, {key}")
    arrays.pop(ABOUT, None)
    return arrays


def _key(folder: Path, name: str) -> str:
    """What an entry is made for: `results/KEY`, or `training/TRAJECTORY/EPOCH`."""
    return f"{RESULTS}/{name}" if folder.name == RESULTS else f"{TRAINING}/{folder.name}/{name}"


def _is_entry(path: Path) -> bool:
    pattern = ENTRY if path.parent.name == RESULTS else STATE
    return pattern.fullmatch(path.name) is not None and path.is_file()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGEST]


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
