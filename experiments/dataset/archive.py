"""Read NumPy archives of four arrays, without unpickling, and explain every kind of damage."""

import math
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from experiments.dataset import Raw
from experiments.dataset.arrays import CHUNK_BYTES, ArrayFile, Stored
from experiments.dataset.entries import count
from experiments.dataset.saving import save_line
from experiments.system.errors import UserError, first_line
from experiments.system.files import ARCHIVE_DAMAGE

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
IN_MEMORY = 64 * 2**20  # bytes; larger arrays of examples stay in the archive, if they are not compressed
MAP_AXES = 2  # fewer than those of an array of targets that has a class for each pixel
LOCAL_HEADER, LOCAL_NAMES = 30, 26  # bytes of a member's header in a zip file, and where the lengths of its names are
UNLABELLED = " Only task=reconstruction requires no targets: a model that reproduces its input, to find anomalies."
FORMAT = (
    f"A data set is a NumPy archive: numpy.savez(path, {', '.join(f'{name}=...' for name in ARRAYS)}). For several "
    "inputs or outputs of a model, add the name of each: x_train/NAME, y_train/NAME."
)


def read_archive(path: Path, key: str, labelled: bool = True) -> Raw:
    """Read the four arrays of a .npz file; `key` is the setting that names it, for the messages.

    If it need not be `labelled`, 0 stands for missing targets.

    Raises:
        UserError: the file cannot be read, is not an archive, is damaged, has pickled objects, or lacks an array.
    """
    try:
        with path.open("rb") as file:  # is_zipfile(path) would return False for an unreadable file
            if not zipfile.is_zipfile(file):
                raise UserError(f"{key}={path}: not a .npz file, or a truncated one. {FORMAT}")
        with np.load(path, allow_pickle=False) as archive:
            named = {name: _under(name, archive.files) for name in ARRAYS}
            if both := [name for name, arrays in named.items() if arrays and name in archive]:
                raise UserError(
                    f"{key}={path}: requires either {both[0]} or arrays by name, not both: {_names(archive.files)}."
                )
            present = {name: arrays or ([name] if name in archive else []) for name, arrays in named.items()}
            missing = [name for name in ARRAYS if not present[name] and (labelled or name.startswith("x_"))]
            if missing:
                unlabelled = all(name.startswith("y_") for name in missing)
                raise UserError(
                    f"{key}={path}: requires {_list_missing(missing, archive.files)}. "
                    f"{_suggest_rename(path, archive.files)}{UNLABELLED if unlabelled else ''}"
                )
            _check_memory(path, key)
            where = f"{key}={path}"
            x_train, x_test = (
                _by_name(part, named[part], lambda name: _rows(path, archive, name, where))
                for part in ("x_train", "x_test")
            )
            y_train, y_test = (
                _by_name(part, named[part], lambda name: _rows(path, archive, name, where))
                if present[part]
                else np.zeros(count(x), np.int64)
                for part, x in (("y_train", x_train), ("y_test", x_test))
            )
            return Raw(x_train, y_train, x_test, y_test)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise UserError(f"{key}={path}: damaged ({first_line(error)}). {FORMAT}") from error
    except OSError as error:
        raise UserError(f"{key}={path}: cannot be read ({error}).") from error


def _under(part: str, files: list[str]) -> list[str]:
    """Return the arrays of a part by name, such as x_train/image."""
    return [each for each in files if each.startswith(f"{part}/") and len(each) > len(part) + 1]


def _by_name(part: str, arrays: list[str], read: Callable[[str], Any]) -> Any:
    """Return the only array of a part, or its arrays by the name of an input or output."""
    return {each.removeprefix(f"{part}/"): read(each) for each in arrays} if arrays else read(part)


def _is_of_data(member: zipfile.ZipInfo) -> bool:
    return member.filename.removesuffix(".npy").partition("/")[0] in ARRAYS


def _names(files: list[str]) -> str:
    return ", ".join(files) or "none"


def archive_bytes(path: Path, key: str) -> int:
    """Return the size in bytes of the four arrays in memory; `key` is the setting that names the file.

    Raises:
        UserError: the file is not an archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist() if _is_of_data(member))
    except (zipfile.BadZipFile, OSError):
        read_archive(path, key)  # raises a UserError with the reason
        raise


def _check_memory(path: Path, key: str) -> None:
    """Refuse arrays that have to be in memory and do not fit, before they are read."""
    with zipfile.ZipFile(path) as archive:
        members = [each for each in archive.infolist() if _is_of_data(each)]
        needed = sum(each.file_size for each in members if not _stays(archive, each))
    if needed > (free := psutil.virtual_memory().available):
        raise UserError(
            f"{key}={path}: its compressed arrays take {needed / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} "
            "GiB are free. Save them with numpy.savez instead of savez_compressed: then they stay on the disk."
        )


def _stays(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether an array is read from the archive in parts: examples and classes of pixels, if large and uncompressed."""
    if member.file_size <= IN_MEMORY or member.compress_type != zipfile.ZIP_STORED:
        return False
    if member.filename.startswith("x_"):
        return True
    with archive.open(member) as file:
        shape, _, dtype = _header(file, member)
        return len(shape) > MAP_AXES and dtype.kind in "iu"


def _rows(path: Path, archive: Any, name: str, where: str) -> Stored:
    """Return an array: in memory, or a large one in the archive, after a pass that checks its sum."""
    member = _member(archive, name)
    if not _stays(archive.zip, member):
        return _array(archive, name, where)
    with _explaining_damage(name, where), archive.zip.open(member) as file:
        shape, columns_first, dtype = _header(file, member)
        if columns_first or dtype.hasobject or len(shape) == 0:
            return _array(archive, name, where)
        start, low, high = file.tell(), np.inf, -np.inf
        while content := file.read(CHUNK_BYTES - CHUNK_BYTES % dtype.itemsize):
            values = np.frombuffer(content, dtype)
            low, high = np.minimum(low, values.min()), np.maximum(high, values.max())  # NaN if a value is
    with path.open("rb") as file:
        file.seek(member.header_offset + LOCAL_NAMES)
        lengths = sum(struct.unpack("<HH", file.read(4)))
    offset = member.header_offset + LOCAL_HEADER + lengths + start
    return ArrayFile(path, shape, dtype, float(low), float(high), offset)


def _array(archive: Any, name: str, where: str) -> npt.NDArray[np.generic]:
    """Read one array; arrays of Python objects are rejected, since unpickling would run code from the file."""
    with _explaining_damage(name, where):
        member = _member(archive, name)
        with archive.zip.open(member) as file:
            if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                raise UserError(f"{where}: {name} is not an array of NumPy. {FORMAT}")
        with archive.zip.open(member) as file:
            dtype = _header(file, member)[-1]
        if not dtype.hasobject:
            array: npt.NDArray[np.generic] = archive[name]
            return array
    images = name.startswith("x_")
    line = save_line(x="np.stack(list({}))") if images else save_line(y="np.array([str(label) for label in {}])")
    why = "its examples may differ in size" if images else "its labels may have several types"
    raise UserError(
        f"{where}: {name} has Python objects ({why}), which are rejected: unpickling them would run code from the "
        f"file. {line}"
    )


def _member(archive: Any, name: str) -> zipfile.ZipInfo:
    """Return the member of an archive that NumPy reads for a name."""
    found: zipfile.ZipInfo = archive.zip.getinfo(name if name in archive.zip.NameToInfo else f"{name}.npy")
    return found


def _header(file: Any, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array: its shape, whether columns come first, and its type.

    Raises:
        ValueError: the array would be larger or smaller than its member, so that NumPy would reserve any memory for it.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = read(file)
    stored = member.file_size - file.tell()
    if not dtype.hasobject and (not dtype.itemsize or math.prod(shape) * dtype.itemsize != stored):
        raise ValueError(f"{stored:,} bytes cannot be an array {shape} of {dtype}")
    return shape, columns_first, dtype


@contextmanager
def _explaining_damage(name: str, where: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:  # a damaged member may declare any size, but large data are no damage
        raise UserError(
            f"{where}: {name} is damaged, or too large for the memory ({first_line(error)}). Save large arrays with "
            "np.savez, not savez_compressed: examples are then read in parts."
        ) from error
    except ARCHIVE_DAMAGE as error:
        raise UserError(f"{where}: {name} is damaged ({first_line(error)}). {FORMAT}") from error


def _list_missing(missing: list[str], present: list[str]) -> str:
    """List the missing arrays, each with existing arrays of similar names."""
    parts = []
    for name in missing:
        similar = [other for other in present if other.lower() == name or _parse_name(other) == _parse_name(name)]
        similar = similar or get_close_matches(name, set(present) - set(ARRAYS), n=2, cutoff=0.6)
        parts.append(f"the array {name} (did you mean {' or '.join(similar)}?)" if similar else f"the array {name}")
    return f"{', '.join(parts)}; the file has {_names(present)}"


KINDS = {
    "x": {"x", "image", "images", "img", "imgs", "data", "feature", "features", "input", "inputs", "samples"},
    "y": {"y", "label", "labels", "target", "targets", "class", "classes", "t"},
}
PARTS = {
    "train": {"train", "training", "tr", "trn"},
    "test": {"test", "testing", "te", "tst", "eval", "val", "valid", "validation", "dev", "holdout"},
}


def _parse_name(name: str) -> tuple[str, str]:
    """Parse the name of an array, such as trainImages, X_val or ytest, to ('x', 'train'); '' for what is missing."""
    words = set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))
    words |= {part for word in words for part in re.findall(r"^[xy](?=t|v)|(?<=^[xy])[a-z]+$", word)}
    kind = next((kind for kind, names in KINDS.items() if words & names), "")
    part = next((part for part, names in PARTS.items() if words & names), "")
    return kind, part


def _find_array(present: list[str], kind: str, part: str) -> str:
    """Return the array with this meaning, preferring `x_train` to `images_train`; empty if there is none."""
    matching = [name for name in present if _parse_name(name) == (kind, part)]
    return min(matching, key=lambda name: name != f"{kind}_{part}", default="")


def _suggest_rename(path: Path, present: list[str]) -> str:
    """Return the line of code that saves the arrays under the required names, if they exist under others."""
    found = {name: _find_array(present, *_parse_name(name)) for name in ARRAYS}
    if all(found.values()):
        arrays = ", ".join(f"{name}=a[{other!r}]" for name, other in found.items())
        return f"Save them under these names: a = np.load({str(path)!r}); np.savez('data.npz', {arrays})"
    x, y = (found[f"{kind}_train"] or _find_array(present, kind, "") for kind in ("x", "y"))
    if x and y:
        return (
            f"Without test images, hold a fifth out: a = np.load({str(path)!r}); test = np.random.default_rng(0)."
            f"permutation(len(a[{y!r}])) < len(a[{y!r}]) // 5; np.savez('data.npz', x_train=a[{x!r}][~test], "
            f"y_train=a[{y!r}][~test], x_test=a[{x!r}][test], y_test=a[{y!r}][test])"
        )
    return FORMAT
