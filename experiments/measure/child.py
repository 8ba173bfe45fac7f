"""Run scripts in clean processes, without TensorFlow or the data of this process."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from signal import Signals

from experiments.system import die_with_parent
from experiments.system.errors import UserError


def run_child(script: Path, folder: Path, on_line: Callable[[str], None] | None = None) -> None:
    """Run `python SCRIPT FOLDER` and wait; calls `on_line` with each line of its output.

    The child is killed when this process ends.

    Raises:
        UserError: the process failed; native code aborts it for some files that it cannot run.
    """
    read_end, write_end = os.pipe()  # the system closes write_end when this process ends, which ends the child
    command = [sys.executable, str(die_with_parent.__file__), str(script), str(folder)]
    with tempfile.TemporaryFile() as errors:
        try:
            code = _run(command, read_end, errors.fileno(), on_line)
        finally:
            os.close(read_end)
            os.close(write_end)
        if code != 0:
            errors.seek(0)
            last = (errors.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            reason = re.sub(r"See instructions: \S+ ", "", last).rstrip(".")  # LiteRT's hint for developers
            raise UserError(f"The model could not be run: {script.name} ended with {describe_exit(code)} ({reason}).")


def _run(command: list[str], stdin: int, stderr: int, on_line: Callable[[str], None] | None) -> int:
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if on_line:
                    on_line(line.strip())
        except BaseException:
            process.kill()  # for example on Ctrl-C
            raise
    return process.returncode


def describe_exit(code: int) -> str:
    """Describe how a process ended: exit code 3, or SIGABRT."""
    if code >= 0:
        return f"exit code {code}"
    return Signals(-code).name if -code in set(Signals) else f"signal {-code}"
