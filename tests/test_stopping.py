"""Ctrl-C stops a command at any moment, and open runs are closed."""

import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from experiments.system import stopping
from experiments.system.startup import stop_without_traceback
from experiments.tracking import Tracking, connect
from tests.conftest import ENVIRONMENT, save_images, start

SWALLOWED = """
import os, signal, time
from experiments.system.stopping import raise_if_stopped, stop_on_signals
stop_on_signals()
class Lost:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))
lost = Lost()
try:
    del lost  # Python passes over what a finalizer raises
    print("goes on", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("stopped")
"""
CAUGHT = """
import os, signal
from experiments.system.stopping import raise_if_stopped, stop_on_signals
stop_on_signals()
try:
    os.kill(os.getpid(), signal.SIGINT)
    sum(range(1000))
except BaseException:
    print("goes on", flush=True)
try:
    raise_if_stopped()
except KeyboardInterrupt:
    print("stopped")
"""
HANGUP = """
import os, signal
from experiments.system.stopping import stop_on_signals
stop_on_signals()
try:
    os.kill(os.getpid(), signal.SIGHUP)
    sum(range(1000))
    print("goes on")
except KeyboardInterrupt:
    print("stopped")
"""
TWICE = """
import os, signal
from experiments.system.stopping import stop_handled, raise_if_stopped, stop_on_signals
stop_on_signals()
try:
    os.kill(os.getpid(), signal.SIGINT)
    sum(range(1000))
except KeyboardInterrupt:
    stop_handled()
    os.kill(os.getpid(), signal.SIGINT)
    raise_if_stopped()
    print("closed")
"""


NEVER_RETURNING = """
from collections import deque
from itertools import repeat
from experiments.system.stopping import ending_at_once, stop_on_signals
stop_on_signals()
with ending_at_once():
    print("in", flush=True)
    deque(repeat(0), maxlen=0)  # a loop in C that runs no handler
"""


def said_by(code: str, signals: str = "--default-signal=INT,HUP") -> str:
    command = ["env", signals, sys.executable, "-c", code]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.stdout


def test_stop_lost_in_a_finalizer_is_raised_again() -> None:
    assert said_by(SWALLOWED) == "goes on\nstopped\n"


def test_stop_caught_by_a_library_is_raised_at_the_next_check() -> None:
    assert said_by(CAUGHT) == "goes on\nstopped\n"


def test_second_signal_does_not_interrupt_closing() -> None:
    assert said_by(TWICE) == "closed\n"


def test_a_library_that_never_returns_can_be_stopped() -> None:
    with subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-c", NEVER_RETURNING], env=ENVIRONMENT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"in\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == -signal.SIGINT


def test_handlers_are_back_after_a_library_returns() -> None:
    code = "import signal\nfrom experiments.system import stopping\nstopping.stop_on_signals()\n"
    code += "with stopping.ending_at_once():\n    print(signal.getsignal(signal.SIGINT) is signal.SIG_DFL)\n"
    code += (
        "print(signal.getsignal(signal.SIGINT) is stopping._stop, signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    )
    assert said_by(code, "--ignore-signal=HUP") == "True\nTrue True\n"


def test_a_closed_terminal_stops_unless_nohup_was_typed() -> None:
    assert said_by(HANGUP) == "stopped\n"
    assert said_by(HANGUP, "--ignore-signal=HUP") == "goes on\n"


def test_stop_within_exec_has_exit_code_130(tmp_path: Path) -> None:
    (tmp_path / "stopped_module.py").write_text(
        "import sys\nfrom experiments.system.stopping import stop_on_signals\nstop_on_signals()\n"
        "try:\n    exec('import os, signal; os.kill(os.getpid(), signal.SIGINT); sum(range(1000))')\n"
        "except KeyboardInterrupt:\n    sys.exit(130)"
    )
    command = ["env", "--default-signal=INT", sys.executable, "-m", "stopped_module"]
    assert subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, check=False).returncode == 130


def text_in_log(text: str) -> Callable[[Path], bool]:
    return lambda folder: text in (folder / "log").read_text(errors="replace")


def file_in(pattern: str) -> Callable[[Path], bool]:
    return lambda folder: any(folder.glob(pattern))


# When the signal is sent: as soon as this is so, and so many seconds later.
MOMENTS: dict[str, tuple[Callable[[Path], bool], float]] = {
    "imports": (lambda folder: any("pydantic_core" in maps_of(process) for process in children_of(folder)), 0.0),
    "store": (text_in_log("creating"), 0.5),
    "fork server": (file_in("tmp/*/fork-*/listener-*"), 0.1),
    "store commits": (file_in("mlflow.db"), 0.05),
    "training": (file_in("cache/training/*"), 0.0),
    "conversion": (file_in("cache/results/*.lock"), 0.0),
    "recording": (file_in("mlruns/*/artifacts"), 0.0),
}

# Everything is imported before these moments, so the sweep may be forked from a process that has imported it.
FORKED = ("training", "conversion", "recording")
# How many signals at which moment are tried at each change; the others every night.
EACH_TIME = {(1, "imports"), (1, "fork server"), (1, "recording"), (2, "training")}


def children_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR", "").startswith(str(folder)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def maps_of(process: psutil.Process) -> str:
    """Which libraries a process has loaded, among other things."""
    try:
        return Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return ""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short enough for sockets to lie in it."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.endtoend
@pytest.mark.parametrize(
    ("times", "moment"),
    [
        pytest.param(times, moment, marks=() if (times, moment) in EACH_TIME else pytest.mark.nightly)
        for times in (1, 2)
        for moment in MOMENTS
    ],
)
def test_ctrl_c_stops_a_sweep_and_closes_its_runs(moment: str, times: int, short: Path) -> None:
    save_images(short / "images.npz")
    (short / "tmp").mkdir()
    arguments = ("-m", "strategy=none,ptq_dynamic", "model=mlp", "dataset=npz", "dataset.path=images.npz")
    settings = (*arguments, "latency.seconds=0.1")
    code, said, others = (stop_forked if moment in FORKED else stop_interpreter)(short, settings, moment, times)
    assert (code, "Traceback" in said) == (130, False), said
    assert psutil.wait_procs(others, timeout=30)[1] == []
    assert not list(short.glob("tmp/*/*-*@*"))
    if (short / "mlflow.db").exists():
        kept = connect(Tracking(uri=f"sqlite:///{short}/mlflow.db"))
        assert not kept.find("attributes.status = 'RUNNING'")


Stopped = tuple[int, str, list[psutil.Process]]  # the exit code, what it wrote, and the processes that it had started


def stop_forked(folder: Path, settings: Sequence[str], moment: str, times: int) -> Stopped:
    command = start(folder, "experiments.run", *settings, TMPDIR=str(folder / "tmp"))
    process = psutil.Process(command.pid)
    wait_for(moment, folder, lambda: process.status() != psutil.STATUS_ZOMBIE)
    children = process.children(recursive=True)
    for _ in range(times):
        command.interrupt()
        time.sleep(0.1)
    out, err = command.communicate()
    return command.wait(), out + err, children


def stop_interpreter(folder: Path, settings: Sequence[str], moment: str, times: int) -> Stopped:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["env", "--default-signal=INT", sys.executable, "-m", "experiments.run", *settings],
            cwd=folder,
            env={**ENVIRONMENT, "TMPDIR": str(folder / "tmp")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    wait_for(moment, folder, lambda: process.poll() is None)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all processes
        time.sleep(0.1)
    code = process.wait(timeout=120)
    return code, (folder / "log").read_text(errors="replace"), children_of(folder)


def wait_for(moment: str, folder: Path, is_running: Callable[[], bool]) -> None:
    reached, later = MOMENTS[moment]
    deadline = time.monotonic() + 120
    while not reached(folder) and is_running() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(later)


def test_a_stop_silences_the_log_of_queries_that_it_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = logging.getLogger("sqlalchemy.pool")
    monkeypatch.setattr(stopping, "_signals", 0)
    monkeypatch.setattr(pool, "level", pool.level)
    with pytest.raises(KeyboardInterrupt):
        stopping._stop(2, None)
    assert pool.level == logging.CRITICAL


@pytest.mark.parametrize(
    ("limit", "is_refused"), [(700 * 2**20, True), (2**30, False), (resource.RLIM_INFINITY, False)]
)
def test_too_little_address_space_is_said_before_libraries_hang_in_it(
    limit: int, is_refused: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    with pytest.raises(SystemExit) if is_refused else nullcontext():
        stop_without_traceback()
    said = "this process may use 0.68 GiB of address space (ulimit -v); this command requires at least 1 GiB"
    assert (said in capsys.readouterr().err) == is_refused
