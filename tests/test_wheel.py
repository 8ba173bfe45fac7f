"""The wheel: its content, and that the main job runs from it in any folder."""

import os
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest

from experiments.system.options import CONF
from experiments.system.program import DISTRIBUTION, PROGRAM
from tests.conftest import REPOSITORY, Done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    return ZipFile(wheel).namelist()


def test_wheel_has_the_packages_without_benchmarks_and_tests(names: list[str]) -> None:
    packages = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"experiments", "hydra_plugins"}


def test_wheel_has_all_options_mnist_and_py_typed(names: list[str]) -> None:
    options = {f"experiments/conf/{path.relative_to(CONF)}" for path in CONF.rglob("*.yaml")}
    assert options | {"experiments/dataset/mnist.npz", "experiments/py.typed"} <= set(names)


def test_wheel_has_the_licences_of_program_and_mnist(wheel: Path, names: list[str]) -> None:
    (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
    fields = HeaderParser().parsestr(ZipFile(wheel).read(metadata).decode())
    assert fields["License-Expression"] == "Apache-2.0 AND CC-BY-SA-3.0"
    licences = metadata.replace("METADATA", "licenses")
    assert {f"{licences}/{name}" for name in fields.get_all("License-File", [])} <= set(names)
    assert {"LICENSE", "experiments/dataset/mnist.md"} == set(fields.get_all("License-File", []))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel alone; what it depends on is taken from the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(folder), str(wheel)], check=True, capture_output=True)
    return folder


def tqb(installed: Path, folder: Path, *arguments: str) -> Done:
    return subprocess.run(
        [sys.executable, installed / "bin" / PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_installed_wheel_prints_its_version(installed: Path, wheel: Path, tmp_path: Path) -> None:
    _, version, *_ = wheel.name.split("-")
    assert tqb(installed, tmp_path, "--version").stdout == f"{PROGRAM} {version}\n"


@pytest.mark.endtoend
def test_an_installed_wheel_runs_the_main_job_from_any_folder(installed: Path, tmp_path: Path) -> None:
    small = ("model=mlp", "dataset.train_samples=500", "dataset.test_samples=100", "latency.seconds=0.1")
    done = tqb(installed, tmp_path, "run", "-m", "strategy=ptq_int8", *small)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(tmp_path.glob("mlruns/*/artifacts/model.tflite"))) == 1
    exported = tqb(installed, tmp_path, "compare", "--csv", "comparison.csv")
    assert (exported.returncode, exported.stderr) == (0, "")
    assert [line.split(",")[0] for line in (tmp_path / "comparison.csv").read_text().splitlines()][1:]


def test_distribution_name_equals_that_in_messages(wheel: Path) -> None:
    assert wheel.name.startswith(f"{DISTRIBUTION.replace('-', '_')}-")
