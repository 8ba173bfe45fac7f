"""What SQLite leaves beside a database whose writer was killed, and whether it belongs to that database.

SQLite completes or undoes the change when the file is next opened for writing. It believes any journal of the right
name: one that another database has left there would be written over this one. Formats: https://sqlite.org/fileformat.
"""

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.system.errors import UserError
from experiments.system.progress import say

SUFFIXES = ("-journal", "-wal", "-shm")
_DATABASE, _JOURNAL = b"SQLite format 3\x00", bytes.fromhex("d9d505f920a163d7")  # what the files begin with
_HEADER = 100  # bytes
_RECORD_EXTRA = 8  # bytes around a page in a journal: its number, a checksum
_ALL_THAT_FOLLOW = 0xFFFFFFFF  # a count of records
_TRIES, _PAUSE = 3, 0.05  # seconds


@dataclass(frozen=True)
class _Header:
    """What the first page of a database says."""

    page_size: int  # bytes
    read_version: int  # 1: rollback journal, 2: write-ahead log
    changes: int  # counts transactions
    pages: int  # 0 where an old SQLite did not write it

    @classmethod
    def of(cls, page: bytes) -> "_Header | None":
        """The header; None where these bytes are no first page."""
        if len(page) < _HEADER or not page.startswith(_DATABASE):
            return None
        size, _, version, changes, pages = struct.unpack_from(">HBB4xII", page, 16)
        (valid_for,) = struct.unpack_from(">I", page, 92)
        return cls(65536 if size == 1 else size, version, changes, pages if valid_for == changes else 0)


@dataclass(frozen=True)
class _Journal:
    """A rollback journal that would be written back."""

    page_size: int
    pages: int  # that the database had before
    first_page: _Header | None  # as it was before, where it was changed
    super_journal: str  # the file that decides for several databases; empty where one alone was changed


def leftovers(database: Path) -> list[Path]:
    """The journal files beside a database, or beside where it was."""
    file = database.resolve()
    return [path for suffix in SUFFIXES if (path := file.with_name(file.name + suffix)).exists()]


def unfinished(database: Path) -> Path | None:
    """The journal or log that holds a change which is not all in the database; also while a process writes it."""
    for path in leftovers(database):
        if path.name.endswith("-journal") and _read_journal(path) is not None:
            return path
        if path.name.endswith("-wal") and path.stat().st_size:
            return path
    return None


def check_journals(database: Path) -> None:
    """Refuse a journal of another database before SQLite writes it into this one.

    Raises:
        UserError: which file it is, and what to do.
    """
    problem = ""
    for _ in range(_TRIES):  # a writer at work may change both files between two looks
        before = _state(database)
        problem = _problem(database.resolve())
        if not problem:
            return
        if _state(database) != before:
            problem = ""
        time.sleep(_PAUSE)
    if problem:
        raise UserError(problem)


def set_aside(database: Path) -> None:
    """Move journals away from where a new database will be: SQLite would write them into it."""
    held = unfinished(database)
    for path in leftovers(database):
        if path != held:
            path.unlink()
            continue
        target = unused_name(path, "left-behind")
        path.rename(target)
        say(f"{path} was left by a database that is gone: moved to {target.name}")


def unused_name(path: Path, ending: str) -> Path:
    """A name beside a file that nothing has yet: FILE.ENDING, or with a number."""
    names = (path.with_name(f"{path.name}.{ending}{'' if n == 1 else n}") for n in range(1, 10_000))
    return next(name for name in names if not name.exists())


def _state(database: Path) -> list[tuple[str, int, int, int]]:
    found = []
    for path in leftovers(database):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found.append((path.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def _problem(file: Path) -> str:
    """Why a journal beside this file is not to be believed; empty where all is well, or is for SQLite to judge."""
    with file.open("rb") as opened:
        header = _Header.of(opened.read(_HEADER))
    if header is None:
        return ""
    log = file.with_name(f"{file.name}-wal")
    if (size := _size_of_log_pages(log)) and (header.read_version == 1 or size != header.page_size):
        return _foreign(file, log)
    path = file.with_name(f"{file.name}-journal")
    journal = _read_journal(path)
    if journal is None:
        return ""
    if not _fits(journal, header):
        return _foreign(file, path)
    if journal.super_journal and not Path(journal.super_journal).exists():
        here = file.with_name(Path(journal.super_journal).name)
        if here.exists():
            return (
                f"{file}: was moved while a change of several databases was unfinished. Put the folder back, so that "
                f"{here.name} is {journal.super_journal} again, and run the command there once."
            )
    return ""


def _foreign(file: Path, path: Path) -> str:
    return (
        f"{file}: {path.name} beside it belongs to another database, or to another version of this one; SQLite would "
        f"write it into {file.name}, and so damage it. If {file.name} was put there on purpose, move the other file "
        f"away: mv '{path}' '{path}.old'. Otherwise put the {file.name} back that it belongs to."
    )


def _fits(journal: _Journal, header: _Header) -> bool:
    """Whether the database is as before the journal's transaction, or as after it."""
    if journal.pages == 0:  # it was made by that transaction
        return header.changes <= 1
    if journal.page_size != header.page_size:
        return False
    if journal.first_page is None:  # then the first page was not changed, which counts the pages
        return header.pages in (0, journal.pages)
    return (header.changes - journal.first_page.changes) % 2**32 in (0, 1)


def _size_of_log_pages(path: Path) -> int:
    """Bytes of a page in a write-ahead log; 0 where there is none, or nothing in it."""
    try:
        with path.open("rb") as opened:
            start = opened.read(12)
    except FileNotFoundError:
        return 0
    magic, _, size = struct.unpack(">III", start) if len(start) == 12 else (0, 0, 0)
    return int(size) if magic & ~1 == 0x377F0682 else 0


def _read_journal(path: Path) -> _Journal | None:
    """The journal; None where there is none, or SQLite will not look at it: empty, or its header zeroed."""
    try:
        with path.open("rb") as opened:
            content = os.pread(opened.fileno(), 28, 0)
            if len(content) < 28 or not content.startswith(_JOURNAL):
                return None
            pages, sector, page_size = struct.unpack_from(">III", content, 16)
            size = os.fstat(opened.fileno()).st_size
            first = None
            for place in _records(opened.fileno(), size, sector, page_size):
                if os.pread(opened.fileno(), 4, place) == b"\x00\x00\x00\x01":
                    first = _Header.of(os.pread(opened.fileno(), _HEADER, place + 4))
                    break
            return _Journal(page_size, pages, first, _super_journal(opened.fileno(), size))
    except FileNotFoundError:
        return None


def _records(file: int, size: int, sector: int, page_size: int) -> Iterator[int]:
    """Where the records begin that SQLite would write back; they lie in parts with a header each."""
    record, place = page_size + _RECORD_EXTRA, 0
    while sector and page_size and (header := os.pread(file, 12, place)).startswith(_JOURNAL) and len(header) == 12:
        (number,) = struct.unpack_from(">I", header, 8)
        start = place + sector
        if number == _ALL_THAT_FOLLOW:
            number = (size - start) // record
        if not number:
            return
        last = min(start + number * record, size)
        yield from range(start, last, record)
        place = -(-(start + number * record) // sector) * sector


def _super_journal(file: int, size: int) -> str:
    end = os.pread(file, 16, size - 16) if size > 16 else b""
    if not end.endswith(_JOURNAL):
        return ""
    length = int.from_bytes(end[:4], "big")
    return os.pread(file, length, size - 16 - length).decode(errors="surrogateescape") if length < size else ""
