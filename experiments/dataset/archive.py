"""NumPy archives of four arrays: read without ever unpickling, and with each thing that can be wrong named."""

import re
import zipfile
import zlib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.dataset import Raw
from experiments.dataset.saving import saving
from experiments.system.errors import UserError, first_line

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
FORM = f"A data set is a NumPy archive, made by numpy.savez(path, {', '.join(f'{name}=...' for name in ARRAYS)})."


def read_archive(path: Path, key: str) -> Raw:
    """The four arrays of a .npz file; `key` is the setting that named it, for the messages.

    Raises:
        UserError: the file cannot be read, is no archive, is damaged, holds pickled objects, or lacks an array.
    """
    try:
        with path.open("rb") as file:  # by its name, one that cannot be read would pass for one that is no archive
            if not zipfile.is_zipfile(file):
                raise UserError(f"{key}={path}: not a .npz file, or a truncated one. {FORM}")
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in ARRAYS if name not in archive]
            if missing:
                raise UserError(
                    f"{key}={path}: lacks {_described(missing, archive.files)}. {_renamed(path, archive.files)}"
                )
            return Raw(**{name: _array(archive, name, f"{key}={path}") for name in ARRAYS})
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{key}={path}: damaged ({error}). {FORM}") from error
    except ValueError as error:
        raise UserError(f"{key}={path}: cannot be read ({first_line(error)}). {FORM}") from error
    except OSError as error:
        raise UserError(f"{key}={path}: cannot be read ({error}).") from error


def archive_bytes(path: Path, key: str) -> int:
    """How much memory the four arrays of an archive take; `key` is the setting that named it.

    Raises:
        UserError: it is no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist() if Path(member.filename).stem in ARRAYS)
    except (zipfile.BadZipFile, OSError):
        read_archive(path, key)  # says what is wrong
        raise


def _array(archive: Any, name: str, where: str) -> npt.NDArray[np.generic]:
    """One array; those of Python objects are not unpickled, since that would run code from the file."""
    try:
        array: npt.NDArray[np.generic] = archive[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        images = name.startswith("x_")
        line = saving(x="np.stack(list({}))") if images else saving(y="np.array([str(label) for label in {}])")
        why = "as arrays do whose images differ in size" if images else "as arrays of labels of several types do"
        raise UserError(
            f"{where}: {name} holds Python objects, {why}. Arrays of Python objects are refused: unpickling them would "
            f"run code from the file. {line}"
        ) from error
    return array


def _described(missing: list[str], present: list[str]) -> str:
    """The arrays that are not there, with those whose names are like theirs."""
    parts = []
    for name in missing:
        like = [other for other in present if other.lower() == name or _meaning(other) == _meaning(name)]
        like = like or get_close_matches(name, set(present) - set(ARRAYS), n=2, cutoff=0.6)
        parts.append(f"the array {name} (did you mean {' or '.join(like)}?)" if like else f"the array {name}")
    return f"{', '.join(parts)}; it holds {', '.join(present) or 'none'}"


KINDS = {
    "x": {"x", "image", "images", "img", "imgs", "data", "feature", "features", "input", "inputs", "samples"},
    "y": {"y", "label", "labels", "target", "targets", "class", "classes", "t"},
}
PARTS = {
    "train": {"train", "training", "tr", "trn"},
    "test": {"test", "testing", "te", "tst", "eval", "val", "valid", "validation", "dev", "holdout"},
}


def _meaning(name: str) -> tuple[str, str]:
    """What the name of an array says, as in trainImages, X_val or ytest: ('x', 'train'); '' for what it leaves out."""
    words = set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))
    words |= {part for word in words for part in re.findall(r"^[xy](?=t|v)|(?<=^[xy])[a-z]+$", word)}
    kind = next((kind for kind, known in KINDS.items() if words & known), "")
    part = next((part for part, known in PARTS.items() if words & known), "")
    return kind, part


def _found(present: list[str], kind: str, part: str) -> str:
    """The first array whose name says this, `x_train` before `images_train`; empty where none does."""
    alike = [name for name in present if _meaning(name) == (kind, part)]
    return min(alike, key=lambda name: name != f"{kind}_{part}", default="")


def _renamed(path: Path, present: list[str]) -> str:
    """The line that saves the arrays under the right names, where they are there under others."""
    found = {name: _found(present, *_meaning(name)) for name in ARRAYS}
    if all(found.values()):
        arrays = ", ".join(f"{name}=a[{other!r}]" for name, other in found.items())
        return f"Save them under these names: a = np.load({str(path)!r}); np.savez('data.npz', {arrays})"
    x, y = (found[f"{kind}_train"] or _found(present, kind, "") for kind in ("x", "y"))
    if x and y:
        return (
            f"Without test images, hold a fifth out: a = np.load({str(path)!r}); test = np.random.default_rng(0)."
            f"permutation(len(a[{y!r}])) < len(a[{y!r}]) // 5; np.savez('data.npz', x_train=a[{x!r}][~test], "
            f"y_train=a[{y!r}][~test], x_test=a[{x!r}][test], y_test=a[{y!r}][test])"
        )
    return FORM
