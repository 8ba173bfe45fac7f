"""Data sets that Keras downloads once and keeps in its own cache (~/.keras/datasets)."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass as option

from experiments.dataset import Raw, Source
from experiments.system.errors import UserError, first_line
from experiments.system.locks import file_lock
from experiments.system.options import OPTION
from experiments.system.progress import say

# What Keras keeps of each. It writes there while it downloads, so that a process that is killed leaves a part of it.
KEPT: Mapping[str, tuple[str, ...]] = {
    "fashion_mnist": ("fashion-mnist",),
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-py.tar.gz"),
}


@option(frozen=True, config=OPTION, kw_only=True)
class KerasDataset(Source):
    """A data set of `tf.keras.datasets`, by its name there."""

    name: Literal["fashion_mnist", "cifar10"]

    def read(self) -> Raw:
        """The arrays from Keras' cache, or from its server the first time; one process at a time."""
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        if folder.parent.stat().st_uid != os.getuid() and not folder.is_relative_to(Path.home()):
            raise UserError(  # what Keras reads there can be pickles, which run code
                f"dataset={self.name}: {Path.home()} cannot be written, so Keras would read {folder.parent}, which "
                "belongs to another user. Give a home that can be written, with HOME=FOLDER."
            )
        with file_lock(folder / f"{self.name}.lock", "another process fetches the same data"):
            try:
                return self._load()
            except Exception as error:  # Keras raises a bare Exception for every network failure
                kept = [folder / name for name in KEPT[self.name] if (folder / name).exists()]
                if not kept:
                    raise self._refused(error) from error
                say(f"dataset={self.name}: Keras' copy cannot be read ({first_line(error)}); it is fetched anew.")
            with _aside(kept):
                try:
                    return self._load()
                except Exception as error:
                    raise self._refused(error, "Keras' copy cannot be read") from error

    def _load(self) -> Raw:
        from experiments.system.tensorflow import keras

        if not any((_folder() / name).exists() for name in KEPT[self.name]):
            say(f"dataset={self.name}: fetched once, and kept in {_folder()}.")
        keras.utils.disable_interactive_logging()  # a bar on standard output, a line a step where that is a file
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, self.name).load_data()
        return Raw(x_train, y_train, x_test, y_test)

    def _refused(self, error: Any, why: str = "not in Keras' cache") -> UserError:
        return UserError(
            f"dataset={self.name}: {why}, and the download failed ({error}). On a machine "
            "without internet, make the file elsewhere with numpy.savez('data.npz', x_train=..., "
            "y_train=..., x_test=..., y_test=...) and give dataset=npz dataset.path=data.npz."
        )


@contextmanager
def _aside(kept: Sequence[Path]) -> Iterator[None]:
    """Keep a copy under another name until a new one is there: what could not be read may still be whole."""
    away = {path: path.with_name(f"{path.name}.unreadable") for path in kept}
    for path, place in away.items():
        _remove(place)
        path.rename(place)
    try:
        yield
    except BaseException:
        for path, place in away.items():
            _remove(path)
            place.rename(path)
        raise
    for place in away.values():
        _remove(place)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _folder() -> Path:
    """Where Keras keeps data sets: it goes elsewhere where it may not write at home."""
    home = Path.home() / ".keras"
    return (home if os.access(home, os.W_OK) else Path("/tmp/.keras")) / "datasets"  # as Keras does
