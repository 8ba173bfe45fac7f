"""A user's own images, from a NumPy archive."""

from pathlib import Path

from pydantic.dataclasses import dataclass as card

from experiments.card import CARD, beginning
from experiments.dataset import Raw, Source
from experiments.dataset.archive import read_archive


@card(frozen=True, config=CARD, kw_only=True)
class Npz(Source):
    """x_train, y_train, x_test, y_test of any image shape; unsigned integers are scaled to 0..1."""

    path: Path

    def check(self) -> None:
        """The file has to be there, and to be readable."""
        beginning(self.path, "dataset.path")

    def read(self) -> Raw:
        """The arrays of the file at `path`."""
        return read_archive(self.path, "dataset.path")
