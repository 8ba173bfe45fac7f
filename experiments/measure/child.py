"""A clean process for a measurement: one script that imports LiteRT and numpy, and nothing of ours."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from experiments.errors import UserError


def run_child(script: Path, folder: Path, heard: Callable[[str], None] | None = None) -> None:
    """Run `python SCRIPT FOLDER` to its end; `heard` is given each line that it prints.

    Its standard input closes when this process ends, however it does: then nobody waits for what it measures.

    Raises:
        UserError: it ended with an error, as it does on files that LiteRT cannot run.
    """
    alive, ours = os.pipe()
    with tempfile.TemporaryFile() as complaints:
        try:
            with subprocess.Popen(
                [sys.executable, str(script), str(folder)],
                stdin=alive,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            ) as process:
                assert process.stdout is not None
                try:
                    for line in process.stdout:
                        if heard:
                            heard(line.strip())
                except BaseException:
                    process.kill()  # Ctrl-C, for one, ends it with us
                    raise
        finally:
            os.close(alive)
            os.close(ours)
        if process.returncode != 0:
            complaints.seek(0)
            last = (complaints.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise UserError(
                f"LiteRT could not run the model: the process that measures it {_ended(process.returncode)} ({last})."
            )


def _ended(code: int) -> str:
    return f"crashed with {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
