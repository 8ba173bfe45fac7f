"""Decode files to an array in the cache, once for all runs, and find what is wrong with them.

An entry is a folder of the cache, see `Cache.load_or_write`. Its key is a digest of the list of files (names, sizes,
times of modification and of the last change of the name or attributes) and of the settings.
"""

import hashlib
import io
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.dataset.arrays import ArrayFile
from experiments.dataset.leakage import digest_of_example, equal_examples
from experiments.system.cache import GIB, Cache, Files
from experiments.system.errors import UserError
from experiments.system.files import state_of
from experiments.system.machine import usable_cores
from experiments.system.progress import bar

AT_ONCE = 64  # files to decode before their rows are written
SHOWN = 5  # files to name in a message


class BrokenFileError(Exception):
    """A file cannot be decoded; the message says why."""


@dataclass(frozen=True)
class Form:
    """The shape and the dtype that each file is decoded to."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Size of one example."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Decoded:
    """The arrays of each part, which of its files they are, and pairs of equal examples of the first two parts."""

    arrays: Mapping[str, ArrayFile]
    places: Mapping[str, npt.NDArray[np.int64]]
    broken: Mapping[str, str]  # files that were left out, with the reason
    remarks: Mapping[str, int]  # what the decoder did to files, and to how many
    equal: Sequence[tuple[int, int]]  # positions in the arrays of the first and of the second part


@dataclass(frozen=True)
class Decoder:
    """Decodes one file to an array of the form, with remarks; `settings` are all that its values depend on."""

    form: Form
    decode: Callable[[Path], tuple[npt.NDArray[Any], Sequence[str]]]
    settings: Mapping[str, Any]


def decoded(
    cache: Cache, root: Path, parts: Mapping[str, Sequence[Path]], decoder: Decoder, skip_broken: bool
) -> Decoded:
    """Return the examples of each part, decoded to arrays in the cache.

    Raises:
        UserError: the disk or the limit of the cache is too small, the cache is not writable, or files are broken and
            `skip_broken` is not set.
    """
    _check_limit(cache, root, parts, decoder.form)
    key = _key(root, parts, decoder, skip_broken)

    def write(files: Files) -> Mapping[str, Any]:
        _check_room(cache.dir, root, parts, decoder.form)
        return _decode(files, root, parts, decoder, skip_broken)

    while True:
        folder, index = cache.load_or_write(key, write, "another process is decoding the same files")
        try:
            return _read(folder, index, decoder.form)
        except FileNotFoundError:  # removed by another process before this one had opened its files
            continue


def _key(root: Path, parts: Mapping[str, Sequence[Path]], decoder: Decoder, skip_broken: bool) -> str:
    digest = hashlib.sha256(
        json.dumps([decoder.form.shape, decoder.form.dtype, decoder.settings, skip_broken]).encode()
    )
    for part, paths in parts.items():
        for path in paths:
            state = "\0".join(map(str, state_of(path)))
            line = f"{part}\0{path.relative_to(root)}\0{state}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _check_limit(cache: Cache, root: Path, parts: Mapping[str, Sequence[Path]], form: Form) -> None:
    """Refuse data beyond the limit of the cache, which would displace all training states and results."""
    count = sum(map(len, parts.values()))
    if (needed := count * form.bytes) > cache.gib * GIB:
        raise UserError(
            f"dataset.path={root}: {count:,} examples of {_dimensions(form.shape)} take {needed / GIB:,.2f} GiB, more "
            f"than cache.gib={cache.gib:g}, the limit of the cache for data, training states and results. Use "
            f"cache.gib={math.ceil(needed / GIB + cache.gib)}, or fewer or smaller examples (dataset.train_samples=N)."
        )


def _check_room(cache: Path, root: Path, parts: Mapping[str, Sequence[Path]], form: Form) -> None:
    """Refuse what does not fit on the disk of the cache, before anything is decoded."""
    count = sum(map(len, parts.values()))
    place = next(folder for folder in (cache.absolute(), *cache.absolute().parents) if folder.exists())
    if (needed := count * form.bytes) > (free := shutil.disk_usage(place).free):
        raise UserError(
            f"dataset.path={root}: {count:,} examples of {_dimensions(form.shape)} take {needed / 2**30:,.1f} GiB in "
            f"cache.dir={cache}, which has {free / 2**30:,.1f} GiB free. Use cache.dir=FOLDER on another disk, or "
            "fewer or smaller examples (dataset.train_samples=N)."
        )


def _dimensions(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _decode(
    files: Files, root: Path, parts: Mapping[str, Sequence[Path]], decoder: Decoder, skip_broken: bool
) -> Mapping[str, Any]:
    """Write the arrays of all parts, and return the index."""
    index: dict[str, Any] = {"broken": {}, "parts": {}}
    remarks: Counter[str] = Counter()
    digests = {}
    total = sum(map(len, parts.values()))
    with ThreadPoolExecutor(usable_cores()) as pool, bar(f"Decoding {root.name}", total=total) as advance:
        for part, paths in parts.items():
            low, high, places, contents = np.inf, -np.inf, [], []
            with files.file(f"{part}.raw") as append:
                for start in range(0, len(paths), AT_ONCE):
                    group = paths[start : start + AT_ONCE]
                    for place, result in enumerate(pool.map(lambda path: _attempt(decoder, path), group), start):
                        if isinstance(result, str):
                            index["broken"][str(paths[place].relative_to(root))] = result
                            continue
                        array, file_remarks = result
                        if not index["broken"] or skip_broken:
                            append(array.data)
                        low, high = min(low, float(array.min())), max(high, float(array.max()))
                        places.append(place)
                        contents.append(digest_of_example(array))
                        remarks.update(file_remarks)
                    advance(len(group))
            saved = io.BytesIO()
            np.save(saved, np.array(places, np.int64))
            with files.file(f"{part}.places.npy") as append:
                append(saved.getbuffer())
            digests[part] = np.array(contents, np.uint64)
            index["parts"][part] = {"rows": len(places), "low": low, "high": high}
    if index["broken"] and not skip_broken:
        raise UserError(
            f"dataset.path={root}: {describe_broken(index['broken'])} cannot be decoded. Remove them, or type "
            "dataset.skip_broken=true to leave them out."
        )
    for part, found in digests.items():
        if len(found) == 0:
            raise UserError(f"dataset.path={root}: no file of the {part} part can be decoded.")
    examples = sum(map(len, digests.values()))
    about = f"{root.name}: {examples:,} examples of {_dimensions(decoder.form.shape)} {decoder.form.dtype}"
    return {**index, "equal": equal_examples(*digests.values()), "remarks": remarks, "about": about}


def _attempt(decoder: Decoder, path: Path) -> tuple[npt.NDArray[Any], Sequence[str]] | str:
    """Return the decoded file with remarks, or why it is broken."""
    try:
        if path.stat().st_size == 0:
            return "empty"
        values, remarks = decoder.decode(path)
        array = np.ascontiguousarray(values, decoder.form.dtype)
    except BrokenFileError as error:
        return str(error)
    if array.shape != decoder.form.shape:
        return f"has the shape {_dimensions(array.shape)} instead of {_dimensions(decoder.form.shape)}"
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return "has values that are not finite"
    return array, remarks


def describe_broken(broken: Mapping[str, str]) -> str:
    """Return how many files are broken, and the first of them with the reason."""
    named = ", ".join(f"{name} ({why})" for name, why in list(broken.items())[:SHOWN])
    return f"{len(broken)} {'file' if len(broken) == 1 else 'files'}, {named}{', ...' if len(broken) > SHOWN else ''},"


def _read(folder: Path, index: Mapping[str, Any], form: Form) -> Decoded:
    dtype = np.dtype(form.dtype)
    arrays = {
        part: ArrayFile(folder / f"{part}.raw", (about["rows"], *form.shape), dtype, about["low"], about["high"])
        for part, about in index["parts"].items()
    }
    for array in arrays.values():
        array.open()
    places = {part: np.load(folder / f"{part}.places.npy") for part in arrays}
    return Decoded(arrays, places, index["broken"], index["remarks"], [(a, b) for a, b in index["equal"]])
