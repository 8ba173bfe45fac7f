"""Commands as a user starts them, by forks of a process that has imported before what they import.

Most of the time of a command on small data goes into the import of Hydra, MLflow, pandas and TensorFlow. What is tested
stays a process of its own, with its folder, arguments, environment, streams, exit code and fork server. Tests of what
an interpreter does before `main` (imports, the encoding of streams, Ctrl-C at the start) start an interpreter instead.
"""

import atexit
import gc
import importlib
import json
import multiprocessing.util
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psutil
import sqlalchemy.orm

REPOSITORY = Path(__file__).parent.parent.parent
COMMANDS = ("run", "compare", "latency", "sensitivity", "cache", "store")
IMPORTED = ("hydra.main", "hydra._internal.hydra", "mlflow", "matplotlib.pyplot", "experiments.runs.sweep",
            "experiments.runs.job", "experiments.runs.menu", "experiments.runs.slurm",
            # Imported where a store is opened, a picture saved or a plugin found.
            "mlflow.store.tracking.sqlalchemy_store", "alembic.command", "sqlalchemy.dialects.sqlite",
            "matplotlib.backends.backend_agg", "pandas.core.methods.to_dict",
            "pygments.lexers.python", "PIL.PngImagePlugin")  # fmt: skip
# Of what the fork server of runs imports, all but the module that looks at the machine.
IMPORTED_BY_RUNS = (
    "experiments.system.tensorflow",
    "experiments.quantization.tfmot.annotation",
    "experiments.runs.pipeline",
)
STREAMS = ("out", "err")
FIRST_FREE = 700  # a number for files beyond those that a process has open


@dataclass
class Command:
    """A command that was started; its methods are those of subprocess.Popen."""

    commands: "Commands"
    pid: int
    streams: "tempfile.TemporaryDirectory[str]"
    returncode: int | None = None

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        if self.returncode is None:
            self.returncode = self.commands.ask({"wait": self.pid})
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """What it wrote on its two streams, when it has ended."""
        self.wait()
        out, err = ((Path(self.streams.name) / name).read_text(encoding="utf-8") for name in STREAMS)
        self.streams.cleanup()
        return out, err

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@dataclass
class Commands:
    """Starts commands."""

    with_tensorflow: bool = False  # whether runs are to be forked from a process that has imported it
    process: "subprocess.Popen[str] | None" = None

    def start(self, folder: Path, module: str, arguments: Sequence[str], environment: dict[str, str]) -> Command:
        """Start `python -m MODULE ARGUMENTS` in a folder."""
        streams = tempfile.TemporaryDirectory()
        request = {
            "folder": str(folder), "module": module, "arguments": list(arguments), "environment": environment,
            "streams": [str(Path(streams.name) / name) for name in STREAMS], "tensorflow": self.with_tensorflow,
        }  # fmt: skip
        return Command(self, self.ask(request), streams)

    def ask(self, request: dict[str, object]) -> int:
        """The answer of the process that forks commands."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.commands"], cwd=REPOSITORY, text=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{json.dumps(request)}\n")
            self.process.stdin.flush()
            return int(self.process.stdout.readline())
        except BaseException:  # the time of a test is over: what it started ends with it
            self.end()
            raise

    def end(self) -> None:
        """End the process, and the commands that it runs."""
        if self.process is not None:
            started = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.communicate()
            for each in started:
                if each.is_running():
                    each.kill()
            self.process = None


def _serve() -> None:
    """Fork for each command on standard input and write its pid; where one is waited for, write its exit code."""
    for module in (*IMPORTED, *(f"experiments.{command}" for command in COMMANDS)):
        importlib.import_module(module)
    for command in COMMANDS:
        del sys.modules[f"experiments.{command}"]  # each is to be executed as __main__
    sqlalchemy.orm.configure_mappers()  # of MLflow's tables: half a second of each command otherwise
    gc.freeze()
    while line := sys.stdin.readline():
        request = json.loads(line)
        sys.stdout.write(f"{_end_of(request['wait']) if 'wait' in request else _start(request)}\n")
        sys.stdout.flush()


def _end_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _start(request: dict[str, object]) -> int:
    if request["tensorflow"]:
        for module in IMPORTED_BY_RUNS:
            importlib.import_module(module)
    pid = os.fork()
    if not pid:
        _end(_exit_code(request))
    return pid


def _exit_code(request: dict[str, object]) -> int:
    try:
        _become(request)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001  # as Python does
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _become(request: dict[str, object]) -> None:
    """What `python -m MODULE ARGUMENTS` does."""
    folder, module, arguments, streams = (request[key] for key in ("folder", "module", "arguments", "streams"))
    assert isinstance(folder, str)
    assert isinstance(module, str)
    assert isinstance(arguments, list)
    assert isinstance(streams, list)
    _take_environment(request["environment"])
    os.chdir(folder)
    for number, name in enumerate([os.devnull, *streams]):
        file = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT, 0o666)
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have switched off that of its background
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # the next requests are not this process's
    sys.argv = [module, *arguments]
    sys.path[0] = folder
    if request["tensorflow"]:
        _prepare_fork_server()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end(code: int) -> NoReturn:
    """End as Python does, but for taking apart all modules, which takes longer than most commands."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def _take_environment(environment: object) -> None:
    assert isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None


def _prepare_fork_server() -> None:
    """A child that becomes the fork server of the command's runs, where it asks for one: TensorFlow is imported here.

    It is forked before the command does anything, so it holds no more than a new interpreter would.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        _become_fork_server(theirs)
    theirs.close()
    start: Any = multiprocessing.util.spawnv_passfds

    def started(path: bytes, arguments: Sequence[Any], files: Sequence[int]) -> int:
        code = str(arguments[-1])
        if "multiprocessing.forkserver" not in code or ours.fileno() < 0:
            return int(start(path, arguments, files))
        handed = {"environment": dict(os.environ), "folder": str(Path.cwd()), "code": code, "numbers": list(files)}
        socket.send_fds(ours, [b"f"], files)
        ours.sendall(json.dumps(handed).encode())
        ours.close()
        return pid

    multiprocessing.util.spawnv_passfds = started  # type: ignore[assignment]


def _become_fork_server(theirs: socket.socket) -> None:
    first, files, _, _ = socket.recv_fds(theirs, 1, 8)
    if not first:  # the command has ended without a run
        os._exit(0)
    with theirs.makefile("r") as text:
        handed = json.loads(text.read())
    theirs.close()
    _take_environment(handed["environment"])
    os.chdir(handed["folder"])
    # The line of Python's own that starts a fork server names the files by their numbers in its starter.
    apart = [FIRST_FREE + place for place, _ in enumerate(files)]
    for source, number in [*zip(files, apart, strict=True), *zip(apart, handed["numbers"], strict=True)]:
        os.dup2(source, number)
        os.close(source)
    from experiments.runs import fork_server

    importlib.reload(fork_server)  # it acts on its environment when it is imported
    exec(handed["code"], {})
    os._exit(0)


if __name__ == "__main__":
    _serve()
