"""A user's own images, from a NumPy archive."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic.dataclasses import dataclass as option

from experiments.dataset import Raw, Source
from experiments.dataset.archive import archive_bytes, read_archive
from experiments.dataset.labels import Label, class_numbers
from experiments.dataset.shapes import image_shape
from experiments.system.errors import UserError
from experiments.system.files import UserPath
from experiments.system.options import OPTION, first_bytes

READ_AHEAD = 64 * 2**20  # bytes of arrays: up to there, all of them are checked before anything is run
KEY = "dataset.path"


@option(frozen=True, config=OPTION, kw_only=True)
class Npz(Source):
    """x_train, y_train, x_test, y_test of images, series or features; docs/how-to/own-data.md says what is accepted."""

    path: UserPath

    def check(self) -> None:
        """The file has to be there, and its arrays to be images with labels; of a large file, its kind is all."""
        if self.path.is_dir():
            raise UserError(_a_folder(self.path))
        first_bytes(self.path, KEY)
        self._examined()

    def check_for_new_model(self) -> None:
        """The labels, where the arrays are read ahead."""
        if labels := self._examined():
            image_shape(labels.shape)
            class_numbers(labels.of_training, labels.of_test)

    def _examined(self) -> "_Labels | None":
        status = self.path.stat()
        return _examined(self, status.st_mtime_ns, status.st_size)

    def read(self) -> Raw:
        """The arrays of the file at `path`."""
        return read_archive(self.path, KEY)


@dataclass(frozen=True)
class _Labels:
    """The distinct labels of both parts, and the shape of an example."""

    shape: tuple[int, ...]

    of_training: tuple[Label, ...]
    of_test: tuple[Label, ...]


@cache
def _examined(source: Npz, _modified: int, _size: int) -> _Labels | None:
    """The labels of arrays that are seen to be right; once for all jobs of a sweep, and again for another file."""
    if archive_bytes(source.path, KEY) > READ_AHEAD:
        return None
    examples = source.examples()
    return _Labels(examples.input_shape, examples.of_training, examples.of_test)


def _a_folder(path: Path) -> str:
    """What is said of a folder: how to make a file of one that holds a folder of images for each class."""
    parts = sorted(part.name for part in path.iterdir() if part.is_dir())
    train = next((part for part in ("train", "training") if part in parts), "train")
    test = next((part for part in ("test", "val", "validation", "valid") if part in parts), "test")
    return (
        f"{KEY}={path}: a folder, and a .npz file is needed. Of folders {path / train} and {path / test} with a folder "
        "of images for each class, make one: load = lambda part: map(np.array, zip(*tf.keras.utils."
        f"image_dataset_from_directory(f'{path}/{{part}}', image_size=(96, 96), batch_size=None)"
        f".as_numpy_iterator())); (x_train, y_train), (x_test, y_test) = load('{train}'), load('{test}'); "
        "np.savez('data.npz', x_train=x_train.astype(np.uint8), y_train=y_train, x_test=x_test.astype(np.uint8), "
        "y_test=y_test)"
    )
