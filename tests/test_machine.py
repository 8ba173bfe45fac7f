"""Use of the machine: runs compute in parallel, but latency is measured alone."""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from experiments.system import machine, stamp, temporary
from experiments.system.locks import holders
from experiments.system.machine import Watch, compute_lock, timing_lock
from tests.conftest import ENVIRONMENT

HOLD = """
import time
from experiments.system.machine import {lock}
with {lock}():
    print("in", flush=True)
    time.sleep({seconds})
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Locks of other tests, which run at the same time, are not these."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for known in (temporary.user_folder, machine._locks):
        known.cache_clear()
    yield
    for known in (temporary.user_folder, machine._locks):
        known.cache_clear()


def holder(lock: str, folder: Path, seconds: float = 60) -> subprocess.Popen[str]:
    """A process that holds a lock, once this returns."""
    process = seeker(lock, folder, seconds)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def seeker(lock: str, folder: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that takes a lock as soon as it can."""
    script = HOLD.format(lock=lock, seconds=seconds)
    environment = {**ENVIRONMENT, "TMPDIR": str(folder)}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)


def await_entrance() -> None:
    """Wait until a measurement holds the entrance: its file is there a moment earlier."""
    while not holders(machine._locks() / "entrance"):
        time.sleep(0.02)


def test_runs_compute_in_parallel(tmp_path: Path) -> None:
    with holder("compute_lock", tmp_path) as other, compute_lock():
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize(
    ("other", "own"), [("compute_lock", timing_lock), ("timing_lock", compute_lock), ("timing_lock", timing_lock)]
)
def test_measurement_and_computation_exclude_each_other(other: str, own: type, tmp_path: Path) -> None:
    with holder(other, tmp_path, seconds=0.5) as process, own():
        assert process.wait(timeout=30) == 0  # it gave the lock back before this block began


@pytest.mark.timeout(60)
def test_a_computation_within_another_does_not_wait_for_a_measurement_that_waits_for_it(tmp_path: Path) -> None:
    with compute_lock():
        measuring = seeker("timing_lock", tmp_path, seconds=0)
        await_entrance()
        with compute_lock():
            assert measuring.poll() is None
    with measuring:
        assert measuring.wait(timeout=30) == 0
    with timing_lock():  # the lock was released with the outer computation
        pass


@pytest.mark.parametrize("lock", ["compute_lock", "timing_lock"])
def test_killed_process_releases_its_lock(lock: str, tmp_path: Path) -> None:
    with holder(lock, tmp_path) as process:
        process.kill()
    with timing_lock():
        pass


@pytest.mark.timeout(60)
def test_waiting_measurement_blocks_new_computations(tmp_path: Path) -> None:
    with holder("compute_lock", tmp_path) as working, seeker("timing_lock", tmp_path, seconds=0) as measuring:
        await_entrance()
        ended = threading.Event()

        def end() -> None:
            ended.set()  # before the lock is free: a killed process releases it a moment before it can be waited for
            working.kill()

        threading.Timer(0.3, end).start()
        with compute_lock():
            assert ended.is_set()
        assert measuring.wait(timeout=30) == 0


def test_own_load_is_not_counted_as_load_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, own = iter([100.0, 103.0]), iter([10.0, 12.5])
    monkeypatch.setattr(machine, "_busy_seconds", lambda: next(busy))
    monkeypatch.setattr(machine, "_own_seconds", lambda: next(own))
    monkeypatch.setattr("experiments.system.machine.time.perf_counter", iter([0.0, 2.0]).__next__)
    assert Watch().conditions().other_cores == pytest.approx(0.25)


def test_load_on_unusable_cores_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = [psutil.cpu_times()._replace(user=float(user)) for user in (1, 20)]
    monkeypatch.setattr("experiments.system.machine.psutil.cpu_times", lambda percpu: cores)
    busy = []
    for usable in ({0}, {0, 1}):
        monkeypatch.setattr("experiments.system.machine.os.sched_getaffinity", lambda _, usable=usable: usable)
        busy.append(machine._busy_seconds())
    assert busy[1] > busy[0] + 19


def test_locks_are_in_a_private_folder(tmp_path: Path) -> None:
    with timing_lock():
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700


def test_long_wait_names_the_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("experiments.system.locks.PATIENCE", 0.1)
    with holder("compute_lock", tmp_path, seconds=1) as other, timing_lock():
        said = capsys.readouterr().out
    assert f"waiting: latency is measured when nothing else computes: process {other.pid} (" in said
    assert said.count("waiting") == 1


@pytest.mark.parametrize(
    ("touched", "changed"),
    [
        ("README.md", False), ("benchmarks/results/once/once.csv", False),
        ("experiments/run.py", True), ("conf/own.yaml", True),
    ],
)  # fmt: skip
def test_stamp_is_dirty_if_code_or_options_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, touched: str, changed: bool
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for name in ("README.md", "benchmarks/results/once/once.csv", "experiments/run.py", "conf/config.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr("experiments.system.stamp.PACKAGE", tmp_path / "experiments")
    (tmp_path / touched).write_text("after\n")
    assert stamp.is_changed() == changed
