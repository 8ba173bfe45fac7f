"""The output of child processes is shown by the process that the user started."""

import errno
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from experiments.system import progress
from experiments.system.errors import UserError
from experiments.system.progress import shown_here
from experiments.system.temporary import user_folder
from tests.conftest import ENVIRONMENT

CHILD = """
import time
from experiments.system.progress import bar, warn, flush, say
with bar("work", total=2) as advance:
    advance(1)
    say("from the child")
    time.sleep(0.3)  # long enough to be drawn
warn("a failure of the child")
flush()
"""
PARENT = f"""
import os, subprocess, sys
from experiments.system.progress import ADDRESS, shown_here
with shown_here():
    subprocess.run([sys.executable, "-c", {CHILD!r}], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
"""


SILENT = """
import time
from experiments.system import progress
progress.SILENCE = 0.1
with progress.bar("Sweep", total=4, name="Sweep") as advance, progress.bar("Training qat", total=None):
    progress.expect("Sweep", lambda: 90.0)
    advance(1)
    time.sleep(1)
time.sleep(0.3)
"""


RUDE = f"""
import os, socket, subprocess, sys
from experiments.system.progress import ADDRESS, shown_here
with shown_here():
    for word in (b"", b"nonsense", bytes([0, 0, 0, 4]) + b"nope"):
        rude = socket.socket(socket.AF_UNIX)
        rude.connect(os.environ[ADDRESS].split()[1])
        rude.sendall(word)
        rude.close()
    subprocess.run([sys.executable, "-c", {CHILD!r}], stdout=subprocess.DEVNULL, check=True, timeout=60)
"""


def script(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text], env={**ENVIRONMENT, **environment}, capture_output=True, text=True, check=False
    )


def test_lines_of_a_child_are_printed_by_its_parent() -> None:
    done = script(PARENT)
    assert (done.stdout, done.stderr) == ("from the child\n", "a failure of the child\n")


@pytest.mark.parametrize("how", ["OSError(28, 'No space left on device')", "SystemExit(1)"])
def test_line_that_cannot_be_written_is_lost_without_blocking(how: str) -> None:
    broken = f"import experiments.system.progress as p\ndef say(_): raise {how}\np._SCREEN.say = say\n{PARENT}"
    assert script(broken).stderr == "a failure of the child\n"


def test_process_continues_after_its_display_ended() -> None:
    theirs, ours = multiprocessing.Pipe()
    messenger = progress._Messenger(theirs)
    ours.close()
    messenger.say("unheard")
    messenger.flush()


def test_process_that_dies_while_connecting_does_not_block_others() -> None:
    done = script(RUDE)
    assert (done.stdout, done.stderr) == ("from the child\n", "a failure of the child\n")


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}], ids=["log", "notebook"])
def test_piped_output_gets_a_line_whenever_it_was_silent_for_long(environment: dict[str, str]) -> None:
    assert progress.SILENCE == 30
    lines = script(SILENT, **environment).stdout.splitlines()
    assert len(lines) > 1
    assert set(lines) == {"Sweep 1/4, about 1 min 30 s left; Training qat"}


def test_report_of_a_child_reaches_the_listener_of_its_parent() -> None:
    child = "from experiments.system.progress import flush, report\nreport('sweep', 'ended', 3)\nflush()"
    parent = f"""
import subprocess, sys
from experiments.system.progress import listen, shown_here
listen("sweep", print)
with shown_here():
    subprocess.run([sys.executable, "-c", {child!r}], check=True)
"""
    assert script(parent).stdout == "ended 3\n"


def test_process_on_another_machine_prints_its_own_output() -> None:
    done = script(CHILD, QUANTIZATION_PROGRESS=f"1 {os.devnull}.nowhere 00")
    assert (done.stdout, done.stderr) == ("from the child\n", "a failure of the child\n")


def test_a_terminal_shows_the_bars_of_child_processes(tmp_path: Path) -> None:
    terminal = tmp_path / "typescript"
    (tmp_path / "parent.py").write_text(PARENT)
    command = f"{sys.executable} {tmp_path / 'parent.py'}"
    subprocess.run(
        ["script", "-qec", command, str(terminal)],
        env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    shown = terminal.read_text()
    assert "work" in shown
    assert "1/2" in shown
    assert "from the child" in shown


def test_folder_too_long_for_a_socket_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / ("long" * 20)
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.delenv("QUANTIZATION_PROGRESS", raising=False)
    user_folder.cache_clear()
    with (
        pytest.raises(UserError, match=r"a socket requires a shorter path .* such as TMPDIR=/tmp"),
        shown_here(),
    ):
        pass
    user_folder.cache_clear()


def test_no_thread_accepts_connections_after_the_display_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could accept those of the next display, whose socket may have the same number, and refuse their key."""
    monkeypatch.delenv("QUANTIZATION_PROGRESS", raising=False)
    before = set(threading.enumerate())
    with shown_here():
        assert set(threading.enumerate()) - before
    assert not set(threading.enumerate()) - before


def test_a_closed_terminal_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed() -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(progress._BARS, "stop", closed)
    with progress.bar("a bar", total=1) as advance:
        advance(1)
    progress.end_bars()
