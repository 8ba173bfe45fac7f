"""SQLite's journal of a killed writer, and the check that it belongs to the database beside it.

SQLite completes or rolls back the transaction when the file is next opened for writing. It trusts any journal with the
right name, so the journal of another database would overwrite this one. Formats: https://sqlite.org/fileformat.html.
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
_DATABASE, _JOURNAL = b"SQLite format 3\x00", bytes.fromhex("d9d505f920a163d7")  # magic numbers
_HEADER = 100  # bytes
_RECORD_EXTRA = 8  # bytes around a page in a journal: its number, a checksum
_ALL_REMAINING = 0xFFFFFFFF  # a count of records
_TRIES, _PAUSE = 3, 0.05  # seconds


@dataclass(frozen=True)
class _Header:
    """The header in the first page of a database."""

    page_size: int  # bytes
    read_version: int  # 1: rollback journal, 2: write-ahead log
    changes: int  # counts transactions
    pages: int  # 0 if an old SQLite did not write it

    @classmethod
    def of(cls, page: bytes) -> "_Header | None":
        """Parse a header; None if these bytes are not a first page."""
        if len(page) < _HEADER or not page.startswith(_DATABASE):
            return None
        size, _, version, changes, pages = struct.unpack_from(">HBB4xII", page, 16)
        (valid_for,) = struct.unpack_from(">I", page, 92)
        return cls(65536 if size == 1 else size, version, changes, pages if valid_for == changes else 0)


@dataclass(frozen=True)
class _Journal:
    """A rollback journal that SQLite would apply."""

    page_size: int
    pages: int  # of the database before the transaction
    first_page: _Header | None  # before the transaction, if it was changed
    super_journal: str  # the file of a transaction over several databases; empty for a single one


def leftovers(database: Path) -> list[Path]:
    """Return the journal files beside the path of a database, which need not exist."""
    file = database.resolve()
    return [path for suffix in SUFFIXES if (path := file.with_name(file.name + suffix)).exists()]


def find_unfinished(database: Path) -> Path | None:
    """Return the journal or log with a transaction that is not complete; it may be in progress."""
    for path in leftovers(database):
        if path.name.endswith("-journal") and _read_journal(path) is not None:
            return path
        if path.name.endswith("-wal") and path.stat().st_size:
            return path
    return None


def check_journals(database: Path) -> None:
    """Reject the journal of another database before SQLite writes it into this one.

    Raises:
        UserError: such a journal exists; the message names it and says what to do.
    """
    problem = ""
    for _ in range(_TRIES):  # an active writer may change both files between two reads
        before = _state(database)
        problem = _problem(database.resolve())
        if not problem:
            return
        if _state(database) != before:
            problem = ""
        time.sleep(_PAUSE)
    if problem:
        raise UserError(problem)


def move_aside(database: Path) -> None:
    """Move old journals away before a database is created: SQLite would write them into it."""
    held = find_unfinished(database)
    for path in leftovers(database):
        if path != held:
            path.unlink()
            continue
        target = unused_name(path, "left-behind")
        path.rename(target)
        say(f"{path} belongs to a deleted database. Moved it to {target.name}.")


def unused_name(path: Path, ending: str) -> Path:
    """Return an unused name beside a file: FILE.ENDING, or with a number."""
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
    """Describe why a journal beside this file must not be applied; empty if there is no such problem."""
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
    if not _matches(journal, header):
        return _foreign(file, path)
    if journal.super_journal and not Path(journal.super_journal).exists():
        here = file.with_name(Path(journal.super_journal).name)
        if here.exists():
            return (
                f"{file}: moved during an unfinished transaction of several databases. Move the folder back, so that "
                f"{here.name} is at {journal.super_journal} again, and run the command there once."
            )
    return ""


def _foreign(file: Path, path: Path) -> str:
    return (
        f"{file}: {path.name} beside it belongs to another database, or to another version of this one. SQLite would "
        f"write it into {file.name} and damage it. If {file.name} is the right database, move the journal away: "
        f"mv '{path}' '{path}.old'. Otherwise restore the {file.name} that the journal belongs to."
    )


def _matches(journal: _Journal, header: _Header) -> bool:
    """Whether the database has the state before or after the journal's transaction."""
    if journal.pages == 0:  # the transaction created the database
        return header.changes <= 1
    if journal.page_size != header.page_size:
        return False
    if journal.first_page is None:  # the page count is in the first page, so it did not change
        return header.pages in (0, journal.pages)
    return (header.changes - journal.first_page.changes) % 2**32 in (0, 1)


def _size_of_log_pages(path: Path) -> int:
    """Return the page size in bytes of a write-ahead log; 0 if it is missing or empty."""
    try:
        with path.open("rb") as opened:
            start = opened.read(12)
    except FileNotFoundError:
        return 0
    magic, _, size = struct.unpack(">III", start) if len(start) == 12 else (0, 0, 0)
    return int(size) if magic & ~1 == 0x377F0682 else 0


def _read_journal(path: Path) -> _Journal | None:
    """Read a journal; None if it is missing, or SQLite would ignore it: empty, or with a zeroed header."""
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
    """Yield the offsets of the records that SQLite would apply; they are in segments, each with a header."""
    record, place = page_size + _RECORD_EXTRA, 0
    while sector and page_size and (header := os.pread(file, 12, place)).startswith(_JOURNAL) and len(header) == 12:
        (number,) = struct.unpack_from(">I", header, 8)
        start = place + sector
        if number == _ALL_REMAINING:
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
