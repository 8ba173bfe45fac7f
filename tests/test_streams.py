"""Commands with closed or full streams or another locale: the exit code is always correct."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT

ELSEWHERE = {
    "closed": "exec >&- 2>&- <&-",
    "full": "exec >/dev/full 2>/dev/full",
    "ascii": "export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 TERM=dumb; unset HOME",
}
COMMANDS = {
    "experiments.run seed=x": 2,
    "experiments.compare": 2,
    "experiments.latency 'modèle.tflite'": 2,
    "experiments.sensitivity epochs=x": 2,
    "experiments.cache list": 2,
}


def done(folder: Path, before: str, command: str) -> subprocess.CompletedProcess[bytes]:
    script = f"{before}; exec {sys.executable} -m {command}"
    # Streams are buffered, as a user's are.
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("command", "surroundings"),
    [
        pytest.param(command, each, marks=[] if place in (0, row, 3 + row) else pytest.mark.nightly)
        for row, each in enumerate(ELSEWHERE)
        for place, command in enumerate(COMMANDS)
    ],
)
def test_invalid_command_has_exit_code_2(command: str, surroundings: str, tmp_path: Path) -> None:
    ended = done(tmp_path, ELSEWHERE[surroundings], command)
    assert (ended.returncode, b"Traceback" in ended.stderr) == (COMMANDS[command], False)


def test_help_is_shown_in_an_ascii_locale(tmp_path: Path) -> None:
    ended = done(tmp_path, ELSEWHERE["ascii"], "experiments.run --help")
    assert (ended.returncode, ended.stderr, b"strategy=" in ended.stdout) == (0, b"", True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_help_that_cannot_be_written_causes_one_message(tmp_path: Path) -> None:
    ended = done(tmp_path, "exec >/dev/full", "experiments.run --help")
    assert (ended.returncode, ended.stderr) == (1, b"The output cannot be written (No space left on device).\n")


def test_opened_file_never_gets_the_descriptor_of_a_stream(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from experiments.system.errors import reporting_user_errors\n"
        "with reporting_user_errors():\n"
        "    with Path('data').open('w') as file:\n"
        "        Path('number').write_text(str(file.fileno()))\n"
    )
    script = f'exec >&- 2>&- <&-; exec {sys.executable} -c "{code}"'
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env={**os.environ, **ENVIRONMENT}, check=True)
    assert int((tmp_path / "number").read_text()) > 2
