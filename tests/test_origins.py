"""Which runs a store may declare dead: only those whose process would be seen from here."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from experiments.record.run_record import Setting
from experiments.system import processes
from experiments.system.errors import UserError
from experiments.system.locks import open_in_use
from experiments.system.processes import Origin, State, is_running, this_origin
from experiments.tracking import Store, Tracking, connect
from tests.conftest import ENVIRONMENT

HERE = this_origin()
BEFORE = f"999999999@{psutil.boot_time() - 1e6:.0f}"  # a process from before the last restart
RESTARTED = {"process": BEFORE, "boot_id": "another"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return connect(Tracking(uri=f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"))


@pytest.mark.parametrize(
    ("changed", "on_disk", "state"),
    [
        ({}, True, "running"),
        ({"host": "renamed"}, True, "running"),
        ({"process": "999999999@0"}, True, "ended"),
        ({"process": "999999999@0", "host": "renamed"}, False, "ended"),
        # Another container, with this host name, and this process id or none that is seen from here.
        ({"pid_namespace": "pid:[1]"}, True, "unknown"),
        ({"pid_namespace": "pid:[1]", "process": "999999999@0"}, True, "unknown"),
        # Another machine with this host name, or this one before a restart.
        ({"process": "999999999@0", "host": "elsewhere", "boot_id": "another"}, True, "unknown"),
        ({**RESTARTED, "process": HERE.process}, True, "unknown"),  # this machine has not restarted since
        ({**RESTARTED, "process": "999999999@nan"}, True, "unknown"),
        ({**RESTARTED, "process": "999999999"}, True, "unknown"),
        (RESTARTED, True, "ended"),
        (RESTARTED, False, "unknown"),  # of a server, or on a disk that machines share
        ({"boot_id": "", "pid_namespace": ""}, True, "unknown"),  # by an earlier version
    ],
)
def test_a_process_has_ended_only_if_it_would_be_seen(
    changed: dict[str, str], on_disk: bool, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "is_local", lambda path: path == tmp_path / "mlflow.db" and on_disk)
    assert replace(HERE, **changed).state(tmp_path / "mlflow.db") == state
    if changed == RESTARTED:
        assert replace(HERE, **changed).state(None) == "unknown"


@pytest.mark.parametrize(
    ("changed", "state"),
    [({}, "running"), ({"process": "999999999@0"}, "ended"), ({"host": "elsewhere"}, "unknown")],
)
def test_without_proc_as_on_macos_the_host_name_says_where_a_process_is_seen(
    changed: dict[str, str], state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "BOOT", Path("/nowhere"))
    processes._namespace.cache_clear()
    try:
        assert replace(this_origin(), **changed).state(None) == state
    finally:
        processes._namespace.cache_clear()


@pytest.mark.parametrize(
    ("error", "may_be_signalled", "runs"),
    [
        (psutil.NoSuchProcess(1), True, False),
        (psutil.NoSuchProcess(1), False, True),
        (psutil.AccessDenied(1), False, True),
    ],
)
def test_a_process_that_proc_hides_runs(
    error: Exception, may_be_signalled: bool, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of another user, with the mount option hidepid."""

    def hidden(_: int) -> NoReturn:
        raise error

    def signal(_: int, __: int) -> None:
        raise ProcessLookupError if may_be_signalled else PermissionError

    monkeypatch.setattr(psutil, "Process", hidden)
    monkeypatch.setattr(os, "kill", signal)
    assert is_running("1234@1000") == runs


def opened(store: Store, origin: Origin, sweep: str | None = None) -> str:
    run_id = store.open_run(Setting("none", "mlp", "mnist", 1, 0, 0), {}, {}, sweep, 0)
    for name, value in origin.tags().items():
        store.client.set_tag(run_id, name, value)
    return run_id


def status(store: Store, *run_ids: str) -> list[str]:
    return [store.client.get_run(run_id).info.status for run_id in run_ids]


TWIN = replace(HERE, pid_namespace="pid:[1]")  # a container with the same host name, pid and start


def test_runs_of_another_container_are_left_alone_until_the_user_says_so(store: Store) -> None:
    live = opened(store, replace(TWIN, process="999999999@0"))
    twin = opened(store, TWIN)
    dead = opened(store, replace(HERE, process="999999999@0"))
    own = opened(store, HERE)
    store.close_orphans()
    assert status(store, live, twin, dead, own) == ["RUNNING", "RUNNING", "KILLED", "RUNNING"]
    with pytest.raises(UserError, match=rf"{own}: its process {os.getpid()} is running"):
        store.close_lost([live, own])
    with pytest.raises(UserError, match=rf"{dead}: no RUNNING run has this id"):
        store.close_lost([dead])
    store.close_own()
    assert status(store, live, twin, own) == ["RUNNING", "RUNNING", "KILLED"]
    assert store.close_lost([live[:12], twin]) == [live, twin]
    assert status(store, live, twin) == ["KILLED", "KILLED"]


def test_runs_of_a_lost_sweep_are_closed_with_it(store: Store) -> None:
    sweep = store.open_sweep("a sweep", {})
    store.client.set_tag(sweep, "pid_namespace", "pid:[1]")
    run_id, own = opened(store, TWIN, sweep), opened(store, HERE, sweep)
    with pytest.raises(UserError, match=rf"{own}: its process {os.getpid()} is running"):
        store.close_lost([sweep])
    assert status(store, sweep, run_id, own) == ["RUNNING", "RUNNING", "RUNNING"]
    store.close(own, "KILLED")
    store.close_lost([sweep])
    assert status(store, sweep, run_id) == ["KILLED", "KILLED"]


def test_space_that_another_container_reserved_is_kept_until_its_process_ends(store: Store) -> None:
    assert store.address.database
    left = store.address.database.with_name(".mlflow.db.room-7@1")
    left.touch()
    descriptor = open_in_use(left)
    store.reserve_space()
    assert left.exists()
    os.close(descriptor)
    store.reserve_space()
    assert not left.exists()
    store.release_space()


LOOK = """
import sys
from experiments.system.processes import Origin
print(Origin(*sys.argv[1:]).state(None))
"""
SEPARATE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


@pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run([*SEPARATE, "true"], capture_output=True, check=False).returncode != 0,
    reason="needs permission to create namespaces",
)
def test_a_real_container_knows_nothing_of_processes_outside() -> None:
    with subprocess.Popen(["sleep", "60"]) as ended:
        started = psutil.Process(ended.pid).create_time()
        ended.kill()
    gone = replace(HERE, process=f"{ended.pid}@{started:.0f}")
    look = [sys.executable, "-c", LOOK]
    for origin, told_inside, told_here in ((HERE, "unknown", "running"), (gone, "unknown", "ended")):
        values = list(origin.tags().values())
        for prefix, told in ((SEPARATE, told_inside), ([], told_here)):
            done = subprocess.run(
                [*prefix, *look, *values], env=ENVIRONMENT, capture_output=True, text=True, check=True
            )
            assert done.stdout.strip() == told
