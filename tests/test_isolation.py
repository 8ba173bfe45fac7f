"""Each run has its own process: whatever happens there, the process that records it continues."""

import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from experiments.model import Architecture
from experiments.record.run_record import RunRecord
from experiments.runs import worker as isolation
from experiments.runs.experiment import Experiment
from experiments.runs.worker import RunFailed, check_in_process, run_in_process
from experiments.system.errors import UserError
from tests.conftest import ENVIRONMENT, REPOSITORY, run, save_images
from tests.support.architectures import Hostile, Tiny
from tests.support.architectures import experiment as experiment_in

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module", autouse=True)
def unmeasured_runs() -> None:
    """The fork server of this process makes up what its runs would measure."""
    isolation.preload(["tests.support.unmeasured"])


def experiment(model: Architecture, folder: Path, threads: int = 1) -> Experiment:
    """A run in a folder that gets its images."""
    save_images(folder / "images.npz")
    return experiment_in(model, folder, threads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunRecord]:
    """A folder and the record of a run in it."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run_in_process(experiment(Tiny(), folder))


def test_record_of_a_run_is_returned(finished: tuple[Path, RunRecord]) -> None:
    assert finished[1].metrics()["epochs_trained"] == 1


def test_recording_process_does_not_import_tensorflow(tmp_path: Path) -> None:
    # Other tests of this process may have imported it, so a fresh one is asked.
    said = in_a_fresh_process("tried()\nprint('tensorflow' in sys.modules)", tmp_path)
    assert said.split("\n")[-2:] == ["it ran", "False"]


def test_temporary_folder_of_a_run_is_removed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run_in_process(experiment(Tiny(), tmp_path))
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(("__autograph", "run-"))]


def test_tfmot_functions_are_rewritten_once_per_sweep(tmp_path: Path) -> None:
    # AutoGraph keeps what it has rewritten for the whole process, so another one is asked.
    (tmp_path / "rewriting.py").write_text(
        "from tensorflow.python.autograph.impl.api import _TRANSPILER\n"
        "from experiments.quantization.tfmot import annotation, rewritten\n"
        "from experiments.model.article_cnn import ArticleCNN\n"
        "known = set(_TRANSPILER._cache._cache)\n"
        "model = ArticleCNN().build((28, 28, 1), 10)\n"
        "annotation.annotated_whole(model), annotation.annotated(model, ['dense'])\n"
        "new = set(_TRANSPILER._cache._cache) - known\n"
        "print(rewritten.NOT_DONE, len(known), [c.co_name for c in new if 'model_optimization' in c.co_filename])"
    )
    done = run(tmp_path, "rewriting")
    not_done, _, again = done.stdout.rpartition("\n")[0].rpartition("\n")[2].partition(" ")
    assert (not_done, again.endswith(" []")) == ("", True), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("SIGSEGV", "crashed with SIGSEGV in native code, in build_model (runs/pipeline.py"),
        ("SIGABRT", "crashed with SIGABRT in native code"),
        ("SIGKILL", "was killed, probably because memory ran out"),
        ("exit", "ended with exit code 7"),
        ("bug", "ZeroDivisionError: a bug"),
        ("mistake", "a mistake that its reader can mend"),
    ],
)
def test_crashed_run_is_reported_in_one_line(way: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as failure:
        run_in_process(experiment(Hostile(way=way), tmp_path))
    assert said in failure.value.failure.reason
    assert "\n" not in failure.value.failure.reason


def killed_while_it_tells(theirs: Any, *_: object) -> None:
    os.write(theirs.fileno(), struct.pack("!i", 1000) + b"no more than the beginning")
    os.kill(os.getpid(), signal.SIGKILL)


def test_run_killed_while_returning_its_record_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_run", killed_while_it_tells)
    with pytest.raises(RunFailed, match="was killed, probably because memory ran out"):
        run_in_process(experiment(Tiny(), tmp_path))


def test_details_name_the_place_of_a_crash(tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as failure:
        run_in_process(experiment(Hostile(way="SIGSEGV"), tmp_path))
    assert "Segmentation fault" in failure.value.failure.details
    assert "in build" in failure.value.failure.details


def test_number_of_threads_is_part_of_the_training_key(finished: tuple[Path, RunRecord]) -> None:
    folder, record = finished
    assert run_in_process(experiment(Tiny(), folder, threads=2)).baseline.key != record.baseline.key


def in_a_fork(code: str, folder: Path) -> str:
    """The same in a process that was forked where TensorFlow is imported, and finds modules in the folder."""
    (folder / "tried.py").write_text(trying(f"if __name__ == '__main__':\n{indent(code, '    ')}", folder))
    done = run(folder, "tried")
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.strip()


def trying(code: str, folder: Path) -> str:
    save_images(folder / "images.npz")
    return (
        "import os, resource, sys\nfrom pathlib import Path\nfrom experiments.runs import worker as isolation\n"
        "from experiments.runs.worker import RunFailed, run_in_process\n"
        "from experiments.system.errors import UserError\nfrom tests.support.architectures import Tiny, experiment\n"
        "def tried():\n"
        f"    try:\n        run_in_process(experiment(Tiny(), Path({str(folder)!r})))\n        print('it ran')\n"
        "    except (RunFailed, UserError) as error:\n        print(error)\n"
        f"{code}"
    )


def in_a_fresh_process(code: str, folder: Path) -> str:
    """What a process says that runs this code, which has `tried` to run an experiment in the folder."""
    done = subprocess.run(
        [sys.executable, "-c", trying(code, folder)],
        env=ENVIRONMENT,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.strip()


def test_module_that_cannot_be_preloaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken_module.py").write_text("raise ValueError('a broken installation')\n")
    said = in_a_fork("isolation.preload(['broken_module'])\ntried()", tmp_path)
    assert said == "broken_module cannot be imported (ValueError: a broken installation)"


def test_fork_server_killed_while_loading_is_reported(tmp_path: Path) -> None:
    (tmp_path / "deadly_module.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    said = in_a_fork("isolation.preload(['deadly_module'])\ntried()", tmp_path)
    assert said == ("The process that loads TensorFlow for all runs was killed, probably because memory ran out.")


def test_memory_limit_of_the_shell_is_reported_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (2**31, 2**31))
    assert "limits each process to 2.0 GiB of memory" in isolation._explain_crash(1, "").reason
    assert "limits each process to 2.0 GiB of memory" in isolation.Failure.of(MemoryError()).reason


def test_no_memory_limit_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert isolation._explain_crash(1, "").reason == "The process of this run ended with exit code 1."


def test_allocation_beyond_the_shell_limit_is_reported(tmp_path: Path) -> None:
    code = "resource.setrlimit(resource.RLIMIT_AS, (5 * 2**28, 5 * 2**28))\ntried()"
    assert "Raise the limit with `ulimit -v unlimited`" in in_a_fresh_process(code, tmp_path)


def test_too_few_file_descriptors_are_reported(tmp_path: Path) -> None:
    code = (
        "own_limit = len(os.listdir('/proc/self/fd')) + 3\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (own_limit, own_limit))\ntried()"
    )
    assert "too many open files in this process: raise the limit with `ulimit -n 4096`" in in_a_fresh_process(
        code, tmp_path
    )


@pytest.mark.parametrize("way", ["bug", "SIGSEGV"])
def test_check_ignores_errors_that_are_not_the_user_s(way: str, tmp_path: Path) -> None:
    check_in_process(experiment(Hostile(way=way), tmp_path))


def test_check_reports_errors_of_the_user(tmp_path: Path) -> None:
    check_in_process(experiment(Tiny(), tmp_path))
    with pytest.raises(UserError, match="a mistake that its reader can mend"):
        check_in_process(experiment(Hostile(way="mistake"), tmp_path))
