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
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

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
WITHOUT_RUNS = tuple(f"experiments.{command}" for command in ("compare", "latency", "cache", "store"))
STREAMS = ("out", "err")
JOBLIB_WORKERS = 2  # as many as tests ask for
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

    def interrupt(self) -> None:
        """Send Ctrl-C as a terminal does, to all processes of the command."""
        if self.returncode is None:
            os.killpg(self.pid, signal.SIGINT)


@dataclass
class Commands:
    """Starts commands. All workers of pytest-xdist share the process that has imported what they import."""

    name: str  # of the socket, the same for all workers
    with_tensorflow: bool = False  # whether runs are to be forked from a process that has imported it
    process: "subprocess.Popen[str] | None" = None  # if it was started here
    stream: TextIO | None = None
    pid: int = 0  # of the fork of that process that starts the commands of this worker

    def start(
        self, folder: Path, module: str, arguments: Sequence[str], environment: dict[str, str], measured: bool = True
    ) -> Command:
        """Start `python -m MODULE ARGUMENTS` in a folder."""
        streams = tempfile.TemporaryDirectory()
        request = {
            "folder": str(folder), "module": module, "arguments": list(arguments), "environment": environment,
            "streams": [str(Path(streams.name) / name) for name in STREAMS], "tensorflow": self.with_tensorflow,
            "measured": measured,
        }  # fmt: skip
        return Command(self, self.ask(request), streams)

    def ask(self, request: dict[str, object]) -> int:
        """The answer of the process that forks commands."""
        try:
            if self.stream is None:
                self.stream = self._connected()
                self.pid = int(self.stream.readline())
            self.stream.write(f"{json.dumps(request)}\n")
            self.stream.flush()
            return int(self.stream.readline())
        except BaseException:  # the time of a test is over: what it started ends with it
            self.end()
            raise

    def _connected(self) -> TextIO:
        while True:
            ours = socket.socket(socket.AF_UNIX)
            try:
                ours.connect(f"\0{self.name}")
            except ConnectionRefusedError:
                ours.close()
                self._start_process()
            else:
                return ours.makefile("rw")

    def _start_process(self) -> None:
        """Start the process that all share; it ends at once if that of another worker is there."""
        command = [sys.executable, "-m", "tests.support.commands", self.name]
        self.process = subprocess.Popen(
            [*command, *(["tensorflow"] if self.with_tensorflow else [])], cwd=REPOSITORY, text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def end(self) -> None:
        """End the commands of this worker."""
        if self.stream is not None:
            with suppress(psutil.NoSuchProcess):
                server = psutil.Process(self.pid)
                for each in (server, *server.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        each.kill()
            with suppress(OSError):
                self.stream.close()
            self.stream = None

    def finish(self) -> None:
        """End the process as well, if it was started here; what other workers have of it goes on."""
        self.end()
        if self.process is not None:
            self.process.communicate()  # it ends with its input


def _share() -> None:
    """Import what commands import, and fork for each worker that connects."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(f"\0{sys.argv[1]}")
    except OSError:
        return  # another worker was faster
    listener.listen(64)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    for module in (*IMPORTED, *(f"experiments.{command}" for command in COMMANDS)):
        importlib.import_module(module)
    for command in COMMANDS:
        del sys.modules[f"experiments.{command}"]  # each is to be executed as __main__
    sqlalchemy.orm.configure_mappers()  # of MLflow's tables: half a second of each command otherwise
    if "tensorflow" in sys.argv:
        for module in IMPORTED_BY_RUNS:
            importlib.import_module(module)
    gc.freeze()
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:  # else who started it has ended
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            _serve(connection)
        connection.close()
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
    _end(0)


def _serve(connection: socket.socket) -> NoReturn:
    """Fork for each command that a worker asks for and write its pid; where one is waited for, write its exit code."""
    stream = connection.makefile("rw")
    connection.close()  # with the stream
    answer = os.getpid()
    while True:
        stream.write(f"{answer}\n")
        stream.flush()
        line = stream.readline()
        if not line:
            os._exit(0)
        request = json.loads(line)
        answer = _end_of(request["wait"]) if "wait" in request else _start(request, stream)


def _end_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _start(request: dict[str, Any], stream: TextIO) -> int:
    pid = os.fork()
    if not pid:
        stream.close()
        _end(_exit_code(_become, request))
    return pid


def _exit_code(become: Callable[[dict[str, Any]], None], request: dict[str, Any]) -> int:
    try:
        become(request)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001  # as Python does
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _become(request: dict[str, Any]) -> None:
    """What `python -m MODULE ARGUMENTS` does."""
    folder, module, arguments, streams = (request[key] for key in ("folder", "module", "arguments", "streams"))
    os.setsid()  # a terminal sends Ctrl-C to all processes of a command, and so does a test
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
    if module == "experiments.run" and not request["measured"]:
        from tests.support.measurements import shorten_sweeps

        shorten_sweeps()
    if request["tensorflow"] and module not in WITHOUT_RUNS:
        _prepare_fork_server(request["measured"])
        if "hydra/launcher=joblib" in arguments:
            _prepare_joblib_workers(request["measured"])
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end(code: int) -> NoReturn:
    """End as Python does, but for taking apart all modules, which takes longer than most commands."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def _take_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None


@dataclass
class Prepared:
    """A child that waits to become another process, with TensorFlow imported.

    It is forked before the command does anything, so it holds no more than a new interpreter would.
    """

    pid: int
    ours: socket.socket

    def hand_over(self, files: Sequence[int], environment: Mapping[str, str], **what: object) -> int:
        """Let it become what it is for, with these files open, and return its process id."""
        handed = {"environment": dict(environment), "folder": str(Path.cwd()), "numbers": list(files), **what}
        socket.send_fds(self.ours, [b"f"], files)
        self.ours.sendall(json.dumps(handed).encode())
        self.ours.close()
        return self.pid


_waiting: list[Prepared] = []


def _prepare(become: Callable[[dict[str, Any]], None]) -> Prepared:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        for other in (ours, *(each.ours for each in _waiting)):
            other.close()  # else nobody would notice the end of the command
        _waiting.clear()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing that could be interrupted runs here yet
        first, files, _, _ = socket.recv_fds(theirs, 1, 64)
        if not first:  # the command has ended without it
            os._exit(0)
        with theirs.makefile("r") as text:
            handed = json.loads(text.read())
        theirs.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _take_environment(handed["environment"])
        os.chdir(handed["folder"])
        # Command lines name the files by their numbers in the process that handed them over.
        apart = [FIRST_FREE + place for place, _ in enumerate(files)]
        for source, number in [*zip(files, apart, strict=True), *zip(apart, handed["numbers"], strict=True)]:
            os.dup2(source, number)
            os.close(source)
        _end(_exit_code(become, handed))
    theirs.close()
    _waiting.append(Prepared(pid, ours))
    return _waiting[-1]


def _prepare_fork_server(measured: bool) -> None:
    """Prepare the fork server of the runs of this process, where it asks for one."""

    def become(handed: dict[str, Any]) -> None:
        from experiments.runs import fork_server
        from tests.support.measurements import make_up

        if not measured:
            make_up()
        importlib.reload(fork_server)  # it acts on its environment when it is imported
        exec(handed["code"], {})  # the line of Python's own that starts a fork server

    prepared = _prepare(become)
    start: Any = multiprocessing.util.spawnv_passfds

    def started(path: bytes, arguments: Sequence[Any], files: Sequence[int]) -> int:
        code = str(arguments[-1])
        if "multiprocessing.forkserver" not in code or prepared not in _waiting:
            return int(start(path, arguments, files))
        _waiting.remove(prepared)
        return prepared.hand_over(files, os.environ, code=code)

    multiprocessing.util.spawnv_passfds = started  # type: ignore[assignment]


def _prepare_joblib_workers(measured: bool) -> None:
    """Prepare the worker processes of joblib, each of which has a fork server of its own."""
    loky: Any = importlib.import_module("joblib.externals.loky.backend.fork_exec")

    def become(handed: dict[str, Any]) -> None:
        _prepare_fork_server(measured)
        _, _, module, *arguments = handed["command"]  # python -m MODULE ARGUMENTS
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)

    workers = [_prepare(become) for _ in range(JOBLIB_WORKERS)]
    start = loky.fork_exec

    def started(command: list[str], files: Sequence[int], env: Mapping[str, str] | None = None) -> int:
        if not workers or command[1] != "-m":
            return int(start(command, files, env=env))
        worker = workers.pop()
        _waiting.remove(worker)
        return worker.hand_over([int(file) for file in files], {**os.environ, **(env or {})}, command=command)

    loky.fork_exec = started


if __name__ == "__main__":
    _share()
