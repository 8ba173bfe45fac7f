"""Fashion-MNIST, downloaded by Keras or from a folder of IDX files, such as Debian's dataset-fashion-mnist."""

import gzip
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Raw
from experiments.dataset.keras_datasets import KerasDataset
from experiments.system.errors import UserError
from experiments.system.files import UserPath
from experiments.system.options import OPTION

KEY = "dataset.path"
FILES = (  # in the order of Raw
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
UBYTE = 8  # the code of unsigned bytes in IDX


@option(frozen=True, config=OPTION, kw_only=True)
class FashionMnist(KerasDataset):
    """Clothes: 60,000 + 10,000 grey images of 28 x 28, 10 classes."""

    name: Literal["fashion_mnist"] = "fashion_mnist"
    path: UserPath | None = None

    def check(self) -> None:
        """Check that the folder, if there is one, has the four files."""
        if self.path is None:
            return
        if not self.path.is_dir():
            raise UserError(f"{KEY}={self.path}: requires a folder with {', '.join(FILES)}, plain or .gz.")
        for name in FILES:
            self._file(self.path, name)

    def sources(self) -> Sequence[Path]:
        """See KerasDataset.sources; a folder is a value of this option."""
        return super().sources() if self.path is None else ()

    def read(self) -> Raw:
        """Return the arrays of the folder, or of Keras' copy."""
        if self.path is None:
            return super().read()
        self.check()
        x_train, y_train, x_test, y_test = (read_idx(self._file(self.path, name)) for name in FILES)
        return Raw(x_train, y_train, x_test, y_test)

    def _file(self, folder: Path, name: str) -> Path:
        names = (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz")
        found = next((folder / each for each in names if (folder / each).is_file()), None)
        if found is None:
            raise UserError(
                f"{KEY}={folder}: requires {name}, plain or .gz. Debian's package dataset-fashion-mnist has the files."
            )
        return found


def read_idx(path: Path) -> npt.NDArray[Any]:
    """Return the bytes of an IDX file, plain or compressed with gzip, as an array.

    Raises:
        UserError: it is not an IDX file of bytes, or is truncated.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{KEY}: {path} cannot be read ({error}).") from error
    axes = content[3] if len(content) > 4 else 0
    if content[:3] != bytes((0, 0, UBYTE)) or axes == 0 or len(content) < 4 + 4 * axes:
        raise UserError(f"{KEY}: {path} is not an IDX file of bytes.")
    shape = tuple(np.frombuffer(content, ">u4", axes, 4).tolist())
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if len(values) != prod(shape):
        raise UserError(f"{KEY}: {path} is damaged: it has {len(values):,} values, and requires {prod(shape):,}.")
    return values.reshape(shape)
