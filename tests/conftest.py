"""What tests share: small data, and the real command line in a folder of its own."""

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from benchmarks.harness import postgres
from benchmarks.harness.pages import pages
from benchmarks.harness.postgres import Database
from experiments.system.locks import file_lock
from experiments.system.machine import usable_cores
from experiments.tracking import creation
from tests.support.commands import IMPORTED_BY_RUNS, Command, Commands
from tests.support.mlflow_server import Server

REPOSITORY = Path(__file__).parent.parent
# Runs of different tests need not wait for one another's timings, as runs of a user do: the locks lie in this folder.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    _own_folder = Path(tempfile.gettempdir()) / f"tests-{worker}"  # short, as names of sockets have to be
    _own_folder.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(_own_folder)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
Done = subprocess.CompletedProcess[str]
commands = Commands(f"tests-of-tqb-{os.environ.get('PYTEST_XDIST_TESTRUNUID') or os.getpid()}")
GROUPS = {"test_clusters.py": "server", "test_server.py": "server"}  # of files that share a server
# Files whose tests share nothing: whoever is free takes the next one.
APART = (
    "test_launchers.py",
    "test_runs.py",
    "test_stopping.py",
)
# Files that take longest, the longest first. Workers begin with them, so that none of them is what all others wait for
# at the end.
LONG = (
    "test_clusters.py", "test_server.py", "test_pipeline.py", "test_endtoend.py", "test_training.py",
    "test_training_settings.py", "test_compression_keras3.py", "test_skill.py", "test_task_examples.py",
    "test_isolation.py",
    "test_mlperf_tiny.py", "test_conversion.py", "test_trial.py", "test_compression.py", "test_mlflow_ui.py",
    "test_bench.py", "test_given_models.py", "test_notebook.py", "test_damage.py",
)  # fmt: skip
PLACES = {name: place for place, name in enumerate(LONG)}
MEMORY_OF_A_WORKER = 3 * 2**30  # bytes, with the commands that its tests start
# How many examples a property is tried on, however long one takes on a busy machine.
for _profile, _examples in (("usual", 30), ("nightly", 500)):
    settings.register_profile(
        _profile, max_examples=_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


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


def run(folder: Path, module: str, *arguments: str, measured: bool = True, **environment: str) -> Done:
    """Run `python -m MODULE ARGUMENTS` in a folder, as a user would, without the time that imports take.

    With `measured=False` its runs have made-up latencies and sizes in memory, which spares them four processes each,
    and a sweep draws no pictures and adds no rounds of timing.
    """
    command = start(folder, module, *arguments, measured=measured, **environment)
    out, err = command.communicate()
    return Done([module, *arguments], command.wait(), out, err)


def start(folder: Path, module: str, *arguments: str, measured: bool = True, **environment: str) -> Command:
    """The same without waiting for its end; several may run at once."""
    return commands.start(folder, module, arguments, {**ENVIRONMENT, **environment}, measured)


def run_from_scratch(folder: Path, module: str, *arguments: str) -> Done:
    """The same by an interpreter of its own, for what depends on how a command is imported."""
    return run_interpreter(folder, "-m", module, *arguments)


def run_interpreter(folder: Path, *arguments: str) -> Done:
    """Run Python in a folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def page_example(part: str) -> str:
    """The Python example of README.md and docs/ with this part."""
    text = "\n".join(page.read_text() for page in pages())
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if part in each)
    return str(block)


@cache
def leave_out_of_collection(*modules: str) -> None:
    """Import modules, and never again scan for garbage what is in memory then.

    Keras collects garbage whenever it clears a session. With TensorFlow, MLflow and 5,000 tests in memory, that took an
    eighth of the time of all tests.
    """
    for module in modules:
        import_module(module)
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)  # instead of 700: graphs are made of many objects that live for a while


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    leave_out_of_collection()
    if item.get_closest_marker("tensorflow"):
        leave_out_of_collection(*IMPORTED_BY_RUNS, "keras")


def pytest_sessionfinish() -> None:
    """End what ran the commands."""
    commands.finish()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without any run, made once for all workers: MLflow takes seconds to make its tables."""
    own = tmp_path_factory.getbasetemp()
    path = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "mlflow.db"
    with file_lock(path.with_suffix(".lock"), "another worker makes it"):
        if not path.exists():
            creation._create_database(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, empty_store: Path) -> Path:
    """A folder with small data and an empty store."""
    save_images(tmp_path / "images.npz")
    shutil.copy(empty_store, tmp_path)
    return tmp_path


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process have made-up latencies and sizes in memory."""
    from experiments.runs import pipeline
    from tests.support.measurements import MADE_UP

    for name, function in MADE_UP.items():
        monkeypatch.setattr(pipeline, name, function)


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    """A PostgreSQL, where it is installed."""
    if lacks := postgres.missing():
        pytest.skip(lacks)
    with postgres.running() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An MLflow server, on PostgreSQL where it is installed; the tests that ask for it are one group."""
    place = tmp_path_factory.mktemp("server")
    if postgres.missing():
        shutil.copy(request.getfixturevalue("empty_store"), place)
        backend = f"sqlite:///{place}/mlflow.db"
    else:
        backend = request.getfixturevalue("database").fresh("tracking")
    server = Server(backend, place / "artifacts")
    try:
        server.start()
        yield server
    finally:
        server.kill()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="also rare seeds and many repetitions")


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores, as far as memory holds: tests wait for other processes part of the time.

    With three workers for each core, the same tests took a quarter more of its time: they drive one another out of the
    processor's caches.
    """
    return max(1, min(usable_cores() + 1, psutil.virtual_memory().total // MEMORY_OF_A_WORKER))


def pytest_configure(config: pytest.Config) -> None:
    """As many examples of a property as there is time for; the test modules are imported after this."""
    settings.load_profile("nightly" if config.getoption("nightly") else "usual")


@pytest.hookimpl(trylast=True)  # when it is known which tests are chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The fast tier first, so that what is cheap to find is found first; rare seeds only where they are asked for."""
    items.sort(key=tier)
    commands.with_tensorflow = any(map(tier, items))  # the fast tier alone never waits for an import of TensorFlow
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: PLACES.get(item.path.name, len(LONG)))
    if not config.getoption("nightly"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("nightly")])
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]


class InGroups(LoadScopeScheduling):  # type: ignore[misc]  # the plugin has no types
    """Tests of a file go to one worker, for they share what it prepares; but see GROUPS and APART.

    The marker xdist_group would do, were it not without effect with pytest 9.2 and pytest-xdist 3.8.
    """

    def _split_scope(self, nodeid: str) -> str:
        name = Path(nodeid.partition("::")[0]).name
        return nodeid if name in APART else GROUPS.get(name, name)

    def _reschedule(self, node: Any) -> None:
        """Give a worker its next group when it begins with its last test, so that little waits behind a long test."""
        if not self.workqueue or self._pending_of(self.assigned_work[node]) <= 1:
            super()._reschedule(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> InGroups:
    return InGroups(config, log)


def tier(item: pytest.Item) -> int:
    return 2 if item.get_closest_marker("endtoend") else 1 if item.get_closest_marker("tensorflow") else 0
