"""Starts clean processes: a script in an interpreter that holds nothing of ours, such as TensorFlow or the data."""

import os
import subprocess
import sys
from pathlib import Path
from signal import Signals

from experiments.errors import UserError

ENTRANCE = Path(__file__).with_name("child_entrance.py")


def run_child(script: Path, folder: Path) -> None:
    """Run `python SCRIPT FOLDER` to its end; the process ends early when this one dies, however it does.

    Raises:
        UserError: the process failed, as native code does that ends the process on a file it cannot run.
    """
    alive, ours = os.pipe()  # closed when this process ends: then nobody waits for what the child finds
    command = [sys.executable, str(ENTRANCE), str(script), str(folder)]
    try:
        done = subprocess.run(command, stdin=alive, capture_output=True, check=False)
    finally:
        os.close(alive)
        os.close(ours)
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise UserError(f"The model could not be run: {script.name} ended with {ending(done.returncode)} ({last}).")


def ending(code: int) -> str:
    """How a process ended, in words: exit code 3, or SIGABRT."""
    if code >= 0:
        return f"exit code {code}"
    return Signals(-code).name if -code in set(Signals) else f"signal {-code}"
