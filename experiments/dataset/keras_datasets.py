"""Data sets that Keras downloads once to its own cache (~/.keras/datasets)."""

import hashlib
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

# Keras' files of each data set. Keras downloads directly to these paths, so a killed process leaves partial files.
FILES: Mapping[str, tuple[str, ...]] = {
    "fashion_mnist": ("fashion-mnist",),
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-py.tar.gz"),
}
# MD5 of the published files, which count as the name of the data set, so that a download changes no key.
PUBLISHED = frozenset(
    {
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe", "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",  # fashion_mnist
        "c99cafc152244af753f735de768cd75f", "d4bba439e000b95fd0a9bffe97cbabec", "54ebc095f3ab1f0389bbae665268c751",
        "634d18415352ddfa80567beed471001a", "482c414d41f54cd18b22e5b47cb7c3cb", "40351d587109b95175f43aff81a1287e",
        "c58f30108f718f92721af3b95e74349a",  # cifar10: the batches, and the archive
    }
)  # fmt: skip
# Keras does not read these.
UNREAD = frozenset({"batches.meta", "readme.html"})


@option(frozen=True, config=OPTION, kw_only=True)
class KerasDataset(Source):
    """A data set of `tf.keras.datasets`, by its name there."""

    name: Literal["fashion_mnist", "cifar10"]

    def sources(self) -> Sequence[Path]:
        """Return the files in Keras' cache that are not the published ones, and so decide a result."""
        places = [_folder() / name for name in FILES[self.name]]
        files = [file for place in places for file in (place.iterdir() if place.is_dir() else [place])]
        kept = sorted(file for file in files if file.is_file() and file.name not in UNREAD)
        return [file for file in kept if hashlib.md5(file.read_bytes()).hexdigest() not in PUBLISHED]

    def read(self) -> Raw:
        """Load the arrays from Keras' cache, or download them the first time; one process at a time."""
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        if folder.parent.stat().st_uid != os.getuid() and not folder.is_relative_to(Path.home()):
            raise UserError(  # Keras may read pickles there, which run code
                f"dataset={self.name}: {Path.home()} is not writable, so Keras would read {folder.parent}, which "
                "belongs to another user. Set HOME to a writable folder: HOME=FOLDER."
            )
        with file_lock(folder / f"{self.name}.lock", "another process is downloading the same data"):
            try:
                return self._load()
            except Exception as error:  # Keras raises a bare Exception for every network failure
                existing = [folder / name for name in FILES[self.name] if (folder / name).exists()]
                if not existing:
                    raise self._download_error(error) from error
                say(f"dataset={self.name}: Keras' copy cannot be read ({first_line(error)}); downloading it again.")
            with _set_aside(existing):
                try:
                    return self._load()
                except Exception as error:
                    raise self._download_error(error, "Keras' copy cannot be read") from error

    def _load(self) -> Raw:
        from experiments.system.tensorflow import keras

        if not any((_folder() / name).exists() for name in FILES[self.name]):
            say(f"dataset={self.name}: downloading to {_folder()}.")
        keras.utils.disable_interactive_logging()  # no progress bar of Keras on standard output
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, self.name).load_data()
        return Raw(x_train, y_train, x_test, y_test)

    def _download_error(self, error: Any, why: str = "not in Keras' cache") -> UserError:
        return UserError(
            f"dataset={self.name}: {why}, and the download failed ({error}). Without internet access, create the file "
            "on another machine with numpy.savez('data.npz', x_train=..., y_train=..., x_test=..., y_test=...), and "
            "type dataset=npz dataset.path=data.npz."
        )


@contextmanager
def _set_aside(existing: Sequence[Path]) -> Iterator[None]:
    """Keep the old files under another name until the download succeeds; they may be intact."""
    away = {path: path.with_name(f"{path.name}.unreadable") for path in existing}
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
    """Return Keras' folder of data sets, with Keras' fallback if the home folder is not writable."""
    home = Path.home() / ".keras"
    return (home if os.access(home, os.W_OK) else Path("/tmp/.keras")) / "datasets"
