"""A process ends with its parent, even if the parent is killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import ENVIRONMENT, REPOSITORY

WAITS = "import os, sys, time; from pathlib import Path; Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"
# Programs that start a process, which writes its number into the file that they are given, and wait for it.
STARTERS = {
    "a clean process": (
        "import sys; from pathlib import Path; from experiments.measure.child import run_child\n"
        "run_child(Path(sys.argv[2]), Path(sys.argv[1]))"
    ),
    "a process of multiprocessing": (
        "import multiprocessing, os, sys, time; from pathlib import Path\n"
        "from experiments.system.die_with_parent import die_with_parent\n"
        "def child():\n"
        "    die_with_parent(); Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)\n"
        "process = multiprocessing.get_context('fork').Process(target=child); process.start(); process.join()"
    ),
}


@pytest.mark.parametrize("program", STARTERS.values(), ids=STARTERS)
def test_process_ends_when_its_parent_is_killed(program: str, tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    number = tmp_path / "number"
    command = [sys.executable, "-c", program, str(number), str(tmp_path / "waits.py")]
    with subprocess.Popen(command, env=ENVIRONMENT, cwd=REPOSITORY) as starter:
        deadline = time.monotonic() + 60
        while not (number.exists() and number.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        child = psutil.Process(int(number.read_text()))
        starter.send_signal(signal.SIGKILL)
    assert psutil.wait_procs([child], timeout=60)[1] == []
