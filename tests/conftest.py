"""What tests share: small data, and the real command line in a folder of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parent.parent
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A data set of 8 x 8 grey images in two classes, dark and bright, that any model can learn."""
    return save_images(tmp_path / "images.npz")


def save_images(path: Path, train: int = 200, test: int = 40) -> Path:
    rng = np.random.default_rng(0)
    labels = {"train": rng.integers(0, 2, train), "test": rng.integers(0, 2, test)}
    arrays = {f"x_{part}": rng.integers(0, 128, (len(y), 8, 8), np.uint8) for part, y in labels.items()}
    for part, y in labels.items():
        arrays[f"x_{part}"] += (127 * y[:, None, None]).astype(np.uint8)
        arrays[f"y_{part}"] = y.astype(np.uint8)
    np.savez(path, allow_pickle=False, **arrays)
    return path


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `python -m MODULE ARGUMENTS` in an empty folder, as a user would."""

    def run(module: str, *arguments: str, folder: Path = tmp_path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The fast tier first, so that what is cheap to find is found first."""
    items.sort(key=lambda item: bool(item.get_closest_marker("tensorflow")) + 2 * bool(item.get_closest_marker("endtoend")))
