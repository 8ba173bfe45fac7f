"""Everything about an option that can change a result: its class and code, its values, and the files that it names.

Files count by content, so a file that is moved or renamed is the same one, and a file that is replaced is another.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from experiments.system.errors import UserError
from experiments.system.files import check_regular, state_of
from experiments.system.user_code import (
    classes_of,
    files_named_in,
    libraries_of,
    sources_of,
    user_sources,
)

if TYPE_CHECKING:
    from tf_keras import Model

BLOCK = 2**20  # bytes to read at a time
SETTLED = 2 * 10**9  # nanoseconds after which a further change of a file has another time; FAT has steps of 2 s
SAVED_MODEL = "saved_model.pb"  # a folder with this file is one model, which is small enough to be read
_KNOWN: dict[tuple[Path, tuple[int, ...]], str] = {}  # digests of files by their state
_SOURCES: WeakKeyDictionary[Any, list[Path]] = WeakKeyDictionary()  # of models, whose layers stay the same


def contents_of(option: Any, unseen: bool = True) -> Mapping[str, Any]:
    """Return everything about an option that can change a result: class, code, libraries, and values by content.

    Args:
        option: An instance of a dataclass.
        unseen: Whether to include files that a user's own class may use without importing them or having them as
            values: the modules beside it, and files whose names are texts in its code.

    Raises:
        UserError: a file that the option names cannot be read.
    """
    kind = type(option)
    own = user_sources(kind, beside=False)
    seen = [*own, *getattr(option, "sources", tuple)()]
    libraries = libraries_of((*classes_of(kind), *seen))
    sources = [*seen, *((*files_named_in(seen), *user_sources(kind)) if unseen else ())]
    given = asdict(option)
    values = {each.name: digest_value(given[each.name]) for each in fields(option) if each.compare}
    if own:
        values = {name: _named(value) for name, value in values.items()}
    return {
        "class": kind.__qualname__,
        "source": [sha256(path) for path in sources],
        "values": values,
        **({"libraries": libraries} if libraries else {}),
    }


def code_of(model: "Model") -> str:
    """Return the digests of the user's code in a model: of its layers and their functions; empty if there is none."""
    if model not in _SOURCES:
        _SOURCES[model] = sources_of(model)
    sources = _SOURCES[model]
    libraries = "".join(f"{name} {version}" for name, version in libraries_of(sources).items())
    return "".join(map(sha256, sources)) + libraries


def digest_value(value: Any) -> Any:
    """Replace a file by its digest, a SavedModel by those of its files, and another folder by the list of its files."""
    match value:
        case Path() if value.is_file():
            return sha256(value)
        case Path() if (value / SAVED_MODEL).is_file():
            return [(str(path.relative_to(value)), sha256(path)) for path in sorted(_files_in(value, set()))]
        case Path() if value.is_dir():
            return [(str(path.relative_to(value)), *state_of(path)) for path in sorted(_files_in(value, set()))]
        case Mapping():
            return {str(name): digest_value(each) for name, each in value.items()}
        case list() | tuple():
            return [digest_value(each) for each in value]
    return value


def _named(value: Any) -> Any:
    """Add the digest to a text that is the name of a file, which a user's own class may read."""
    match value:
        case str() if _is_file(value):
            return [value, sha256(Path(value).expanduser())]
        case list():
            return [_named(each) for each in value]
        case dict():
            return {name: _named(each) for name, each in value.items()}
    return value


def _is_file(text: str) -> bool:
    try:
        return Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a null character, or an unknown home folder
        return False


def _files_in(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the files of a folder and of those inside it, through links, each folder once."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files_in(path, seen)
        elif path.is_file():
            yield path


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file, which is read again only after it has changed.

    Raises:
        UserError: the file cannot be read.
    """
    check_regular(path, str(path))
    try:
        with path.open("rb") as file:
            known = path.absolute(), state_of(path)
            if known not in _KNOWN:
                digest = hashlib.sha256()
                while block := file.read(BLOCK):
                    digest.update(block)
                # Written or replaced meanwhile, or so shortly before that a further change would have the same time.
                if known[1] != state_of(path) or time.time_ns() - known[1][2] < SETTLED:
                    return digest.hexdigest()
                _KNOWN[known] = digest.hexdigest()
            return _KNOWN[known]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
