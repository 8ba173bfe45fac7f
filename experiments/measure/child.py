"""Starts clean processes: a script in an interpreter that holds nothing of ours, such as TensorFlow or the data."""

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


def run_child(script: Path, folder: Path, hear: Callable[[str], None] | None = None) -> None:
    """Run `python SCRIPT FOLDER` to its end, which comes early when this process dies; `hear` is given what it prints.

    Raises:
        UserError: the process failed, as native code does that ends the process on a file it cannot run.
    """
    alive, ours = os.pipe()  # closed when this process ends: then nobody waits for what the child finds
    command = [sys.executable, str(die_with_parent.__file__), str(script), str(folder)]
    with tempfile.TemporaryFile() as complaints:
        try:
            code = _listened_to(command, alive, complaints.fileno(), hear)
        finally:
            os.close(alive)
            os.close(ours)
        if code != 0:
            complaints.seek(0)
            last = (complaints.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            reason = re.sub(r"See instructions: \S+ ", "", last).rstrip(".")  # of LiteRT, on how it would be extended
            raise UserError(f"The model could not be run: {script.name} ended with {ending(code)} ({reason}).")


def _listened_to(command: list[str], stdin: int, stderr: int, hear: Callable[[str], None] | None) -> int:
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if hear:
                    hear(line.strip())
        except BaseException:
            process.kill()  # it ends with us, on Ctrl-C for one
            raise
    return process.returncode


def ending(code: int) -> str:
    """How a process ended, in words: exit code 3, or SIGABRT."""
    if code >= 0:
        return f"exit code {code}"
    return Signals(-code).name if -code in set(Signals) else f"signal {-code}"
