"""What tests share: small data, and the real command line in a folder of its own."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parent.parent
# Runs of different tests need not wait for one another's timings, as runs of a user do: the locks lie in this folder.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    _own_folder = Path(tempfile.gettempdir()) / f"tests-{worker}"  # short, as names of sockets have to be
    _own_folder.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(_own_folder)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
Done = subprocess.CompletedProcess[str]


def save_images(path: Path, train: int = 200, test: int = 40) -> Path:
    """A data set of 8 x 8 grey images in two classes, dark and bright, that any model can learn."""
    rng = np.random.default_rng(0)
    labels = {"train": rng.integers(0, 2, train), "test": rng.integers(0, 2, test)}
    arrays = {f"x_{part}": rng.integers(0, 128, (len(y), 8, 8), np.uint8) for part, y in labels.items()}
    for part, y in labels.items():
        arrays[f"x_{part}"] += (127 * y[:, None, None]).astype(np.uint8)
        arrays[f"y_{part}"] = y.astype(np.uint8)
    np.savez(path, allow_pickle=False, **arrays)
    return path


def own_option(folder: Path, option: str, kind: str, code: str) -> None:
    """A user's own option in folder/options, such as strategy/mine, and the module with the class `kind` behind it."""
    module = Path(option).name
    path = folder / "options" / f"{option}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"# made by a user\n_target_: {module}.{kind}\n")
    (folder / f"{module}.py").write_text(code)


def bare(folder: Path) -> dict[str, str]:
    """The environment of a process that finds neither TensorFlow nor this package."""
    place = folder / "bare"
    place.mkdir(exist_ok=True)
    code = "import sys\nsys.modules.update(dict.fromkeys(('tensorflow', 'tf_keras', 'experiments')))\n"
    (place / "sitecustomize.py").write_text(code)
    return {**os.environ, "PYTHONPATH": str(place), "PYTHONSAFEPATH": "1"}


def run(folder: Path, module: str, *arguments: str) -> Done:
    """Run `python -m MODULE ARGUMENTS` in a folder, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The fast tier first, so that what is cheap to find is found first."""
    items.sort(key=tier)


def tier(item: pytest.Item) -> int:
    return 2 if item.get_closest_marker("endtoend") else 1 if item.get_closest_marker("tensorflow") else 0
