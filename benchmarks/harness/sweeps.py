"""Run sweeps by the real command line, each in its own folder, and read their results."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from experiments.compare import load
from experiments.system.errors import UserError
from experiments.system.progress import say
from experiments.tracking import Store, open_existing

ROOT = Path(__file__).parents[2]
LOG = "log.txt"
# An environment variable that identifies the processes of a sweep, even orphans, since all children inherit it.
MARK = "QUANTIZATION_BENCHMARK"


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """Create an empty folder; it is removed at the end, unless an error leaves files to inspect."""
    folder = new_folder()
    try:
        yield folder
    except BaseException:
        say(f"kept, to see what happened: {folder}")
        raise
    discard(folder)


def new_folder() -> Path:
    """Create an empty folder that is kept."""
    return Path(tempfile.mkdtemp(prefix="benchmark-"))


def discard(folder: Path) -> None:
    """Remove a folder."""
    shutil.rmtree(folder, ignore_errors=True)


def start(
    folder: Path, overrides: Sequence[str], log: str = LOG, more: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a sweep with `more` environment variables; its output is appended to the folder's log."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), MARK: str(folder), **(more or {})}
    with (folder / log).open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.run", "-m", *overrides],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def sweep(folder: Path, overrides: Sequence[str]) -> float:
    """Run a sweep to its end, and return its duration in seconds.

    Raises:
        UserError: it failed.
    """
    started = time.perf_counter()
    code = start(folder, overrides).wait()
    if code != 0:
        last = "\n".join((folder / LOG).read_text(errors="replace").splitlines()[-20:])
        raise UserError(f"{command(overrides)} ended with {code}:\n{last}")
    return time.perf_counter() - started


def command(overrides: Sequence[str]) -> str:
    """Return the command for the shell."""
    return shlex.join(["python", "-m", "experiments.run", "-m", *overrides])


def table(folder: Path, which: str = "latest") -> pd.DataFrame:
    """Return the comparison table of a sweep in this folder."""
    return load(_uri(folder), sweep=which)


def store(folder: Path) -> Store:
    """Return the runs in this folder."""
    return open_existing(_uri(folder))


def _uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"
