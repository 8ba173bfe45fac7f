"""NumPy archives of four arrays: read without ever unpickling, and with each thing that can be wrong named."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from experiments.dataset import Raw
from experiments.errors import UserError, near

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
                raise UserError(f"{key}={path}: lacks {_described(missing, archive.files)} {FORM}")
            return Raw(**{name: archive[name] for name in ARRAYS})
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{key}={path}: damaged ({error}). {FORM}") from error
    except ValueError as error:
        raise UserError(
            f"{key}={path}: cannot be read ({error}). Arrays of Python objects are refused, since "
            f"unpickling them would run code from the file. {FORM}"
        ) from error
    except OSError as error:
        raise UserError(f"{key}={path}: cannot be read ({error}).") from error


def _described(missing: list[str], present: list[str]) -> str:
    return " ".join(f"the array {name}. {near(name, present)}" for name in missing)
