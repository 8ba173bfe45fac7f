"""What was computed once and is kept: `python -m experiments.cache [list|verify|clear] [--dir cache]`.

Two kinds of entries: the state after each epoch of a training, and what conversions and evaluations gave. Each is a
file that holds its own key, and whose name carries the digest of all that it holds: one that is damaged, or that lies
under the name of another, is found out and made anew, never used. A file appears under its name only when it is
complete, and whoever makes one holds a lock that a dead process gives back.

Exit codes: 0 well; 1 damaged entries were found; 2 the command is wrong; 130 stopped.
"""

import argparse
import hashlib
import io
import math
import os
import re
import secrets
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass as card
from rich import box
from rich.table import Table

from experiments.card import CARD
from experiments.disk import check_writable, explained
from experiments.errors import UserError, first_line, mistakes_told
from experiments.files import UserPath, argument_path
from experiments.locks import held, held_if_free
from experiments.progress import CONSOLE, bar, say

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


@card(frozen=True, config=CARD, kw_only=True)
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
                stack.enter_context(held(path, reason))
            except OSError as error:
                raise self._unwritable(error) from error
            yield

    def remove_what_the_dead_left(self) -> None:
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
        with held_if_free(self.path.parent / LOCK) as free:
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
    with suppress(OSError), held_if_free(lock) as free:  # another user's is theirs; a full disk has no room
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


def show(folder: Path) -> None:
    """Print what the cache holds, what was used last first."""
    groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries_in(folder):
        place = entry.path.parent.name if entry.kind == TRAINING else entry.path.name
        groups[entry.kind, place].append(entry)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading, justify in (("kind", "left"), ("what", "left"), ("epochs", "right"), ("size", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("used", no_wrap=True)
    for (kind, _), entries in sorted(groups.items(), key=lambda group: -max(entry.used for entry in group[1])):
        epochs = str(len(entries)) if kind == TRAINING else ""
        used = datetime.fromtimestamp(max(entry.used for entry in entries)).strftime("%Y-%m-%d %H:%M")
        table.add_row(kind, entries[-1].about, epochs, size(sum(entry.bytes for entry in entries)), used)
    CONSOLE.print(table)
    say(f"{folder}: {size(sum(entry.bytes for group in groups.values() for entry in group))}")


def verify(folder: Path, remove: bool) -> bool:
    """Read every entry; report the damaged ones, and remove them if asked to. True where none is left."""
    entries = entries_in(folder)
    with bar("Reading", total=len(entries)) as advance:
        damaged: list[tuple[Entry, str]] = []
        for entry in entries:
            if damage := entry.damage:
                damaged.append((entry, damage))
            advance(1)
    for entry, damage in damaged:
        if remove:
            entry.path.unlink(missing_ok=True)
        say(f"damaged{', removed' if remove else ''}: {entry.path} {damage}")
    say(f"{len(entries) - len(damaged)} of {len(entries)} entries are intact.")
    return remove or not damaged


def clear(folder: Path, kind: str, days: float) -> None:
    """Remove the entries of a kind that were not used for so many days, and what killed processes have left."""
    now = time.time()
    cut = now - days * DAY
    freed: list[int] = []
    left_alone: set[Path] = set()
    for entry in entries_in(folder):
        if kind not in ("all", entry.kind) or entry.used > cut:
            continue
        with entry.unused() as unused:
            if unused:
                entry.path.unlink(missing_ok=True)
                freed.append(entry.bytes)
                _remove_if_empty(entry.path.parent)
            else:
                left_alone.add(entry.path.parent)
    for partial in (*folder.glob(f"{TRAINING}/*/*.partial"), *folder.glob(f"{RESULTS}/*.partial")):
        with suppress(FileNotFoundError):
            if partial.stat().st_mtime <= min(cut, now - HOUR):
                partial.unlink()
    for trajectory in sorted(left_alone):
        say(f"left alone, since it is being trained: {trajectory}")
    say(f"Removed {len(freed)} entries, {size(sum(freed))}.")


def _remove_if_empty(trajectory: Path) -> None:
    """Remove a folder that holds nothing but its lock, which this process has."""
    if [path.name for path in trajectory.iterdir()] == [LOCK]:
        (trajectory / LOCK).unlink()
        trajectory.rmdir()


USED_BY = {"remove": "verify", "kind": "clear", "unused_for": "clear"}  # options that only one verb heeds


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 <= days < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give a number of days, 0 or more")
    return days


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.cache",
        description="What was trained, converted and evaluated, and is kept.",
        epilog="Exit codes: 0 well; 1 damaged entries were found; 2 the command is wrong; 130 stopped.",
    )
    parser.add_argument("verb", nargs="?", choices=("list", "verify", "clear"), default="list")
    parser.add_argument(
        "--dir", type=argument_path, default=Path("cache"), help="the cache folder (default: %(default)s)"
    )
    parser.add_argument("--remove", action="store_true", help="verify: remove the damaged entries")
    parser.add_argument("--kind", choices=("all", TRAINING, RESULTS), default="all", help="clear: only these entries")
    parser.add_argument("--unused-for", type=_days, metavar="DAYS", default=0.0, help="clear: only what is that old")
    options = parser.parse_args()
    with mistakes_told():
        for name, verb in USED_BY.items():
            if getattr(options, name) != parser.get_default(name) and options.verb != verb:
                raise UserError(f"--{name.replace('_', '-')}: has no effect with {options.verb}, only with {verb}.")
        try:
            _obey(options)
        except OSError as error:
            raise UserError(f"--dir {options.dir}: {error}.") from error


def _obey(options: argparse.Namespace) -> None:
    if not any((options.dir / kind).is_dir() for kind in (TRAINING, RESULTS)):
        raise UserError(
            f"--dir {options.dir}: there is no cache. Give the folder that cache.dir names, by default cache/ in the "
            "folder where experiments.run was started."
        )
    match options.verb:
        case "list":
            show(options.dir)
        case "verify":
            sys.exit(0 if verify(options.dir, options.remove) else 1)
        case "clear":
            clear(options.dir, options.kind, options.unused_for)


if __name__ == "__main__":
    main()
