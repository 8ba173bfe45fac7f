"""MNIST, bundled with the package; mnist.md in this folder names its source and licence."""

import hashlib
from functools import cache
from pathlib import Path
from typing import ClassVar

from pydantic.dataclasses import dataclass as option

from experiments.dataset import Raw, Source
from experiments.dataset.archive import read_archive
from experiments.system.errors import UserError
from experiments.system.options import OPTION

FILE = Path(__file__).with_name("mnist.npz")
SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"


@option(frozen=True, config=OPTION, kw_only=True)
class Mnist(Source):
    """Handwritten digits: 60,000 + 10,000 grey images of 28 x 28, 10 classes."""

    loads_once: ClassVar[tuple[str, ...]] = ("experiments.dataset.mnist_loaded",)

    def read(self) -> Raw:
        """Return the bundled arrays after checking their digest."""
        return bundled()


def bundled() -> Raw:
    """Return MNIST, unpacked once per process.

    Raises:
        UserError: the bundled file has changed.
    """
    return _unpacked(FILE)


@cache
def _unpacked(path: Path) -> Raw:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise UserError(f"dataset=mnist: {path} has the SHA-256 {found}, not {SHA256}. Install the package again.")
    return read_archive(path, "dataset")
