"""A user's own arrays, from a NumPy archive."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pydantic.dataclasses import dataclass as option

from experiments.dataset import Raw, Source
from experiments.dataset.archive import archive_bytes, read_archive
from experiments.dataset.labels import Label, class_numbers
from experiments.dataset.leakage import leakage_warnings
from experiments.dataset.shapes import image_shape
from experiments.dataset.targets import Kind
from experiments.system.errors import UserError
from experiments.system.files import UserPath
from experiments.system.options import OPTION, first_bytes

READ_AHEAD = 64 * 2**20  # bytes; arrays up to this size are checked before anything is run
KEY = "dataset.path"


@option(frozen=True, config=OPTION, kw_only=True)
class Npz(Source):
    """x_train, y_train, x_test, y_test of images, series or features; docs/how-to/own-data.md lists the formats.

    A model with several inputs or outputs requires an array for each, by its name: x_train/NAME and so on.
    """

    path: UserPath

    def check(self) -> None:
        """Check that the file exists and is an archive."""
        if self.path.is_dir():
            raise UserError(_folder_message(self.path))
        first_bytes(self.path, KEY)
        archive_bytes(self.path, KEY)

    def check_targets(self, kind: Kind | None, output: str | None = None) -> None:
        """Check images and targets, if the arrays are small enough to be read early."""
        self._read_labels(kind, output)

    def check_for_new_model(self) -> None:
        """Check the classes, if the arrays are small enough to be read early."""
        if labels := self._read_labels(None, None):
            if not labels.several:
                image_shape(labels.shape)
            if labels.training_labels:
                class_numbers(labels.training_labels, labels.test_labels)

    def _read_labels(self, kind: Kind | None, output: str | None) -> "_Labels | None":
        status = self.path.stat()
        return _read_labels(self, kind, output, status.st_mtime_ns, status.st_size)

    def read(self) -> Raw:
        """Return the arrays of the file at `path`."""
        return _checked(read_archive(self.path, KEY))

    def read_unlabelled(self) -> Raw:
        """Return the arrays of the file; y_train and y_test may be missing."""
        return _checked(read_archive(self.path, KEY, labelled=False))


def _checked(raw: Raw) -> Raw:
    """Return the arrays with a warning if examples are in both parts."""
    return replace(raw, warnings=leakage_warnings(raw.x_train, raw.x_test))


@dataclass(frozen=True)
class _Labels:
    """The distinct labels of both parts, none of other targets, and the shape of an example."""

    shape: tuple[int, ...]
    several: bool  # inputs
    training_labels: tuple[Label, ...]
    test_labels: tuple[Label, ...]


@cache
def _read_labels(source: Npz, kind: Kind | None, output: str | None, _modified: int, _size: int) -> _Labels | None:
    """Check the arrays and return their labels; cached for all jobs of a sweep until the file changes."""
    if archive_bytes(source.path, KEY) > READ_AHEAD:
        return None
    examples = source.examples(kind, output)
    return _Labels(examples.input_shape, bool(examples.stored), examples.training_labels, examples.test_labels)


def _folder_message(path: Path) -> str:
    """Return the message for a folder, with code that converts a folder of images per class."""
    parts = sorted(part.name for part in path.iterdir() if part.is_dir())
    train = next((part for part in ("train", "training") if part in parts), "train")
    test = next((part for part in ("test", "val", "validation", "valid") if part in parts), "test")
    return (
        f"{KEY}={path}: requires a .npz file, not a folder. To convert {path / train} and {path / test}, each with one "
        "folder of images per class: load = lambda part: map(np.array, zip(*tf.keras.utils."
        f"image_dataset_from_directory(f'{path}/{{part}}', image_size=(96, 96), batch_size=None)"
        f".as_numpy_iterator())); (x_train, y_train), (x_test, y_test) = load('{train}'), load('{test}'); "
        "np.savez('data.npz', x_train=x_train.astype(np.uint8), y_train=y_train, x_test=x_test.astype(np.uint8), "
        "y_test=y_test)"
    )
