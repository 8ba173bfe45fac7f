"""Each run in its own process: its memory is freed when it ends, and a crash affects no other run.

The processes are forked from a server process that has TensorFlow loaded (Python's fork server). TensorFlow is imported
once for all runs, and never in the process that records them.
"""

import faulthandler
import multiprocessing
import os
import pickle
import re
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess, current_process
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.record.identity import Identity
from experiments.record.run_record import RunRecord
from experiments.runs import fork_server
from experiments.runs.experiment import Experiment
from experiments.system.die_with_parent import die_with_parent
from experiments.system.disk import NO_SPACE, explain_os_error
from experiments.system.errors import UserError, first_line
from experiments.system.locks import remove_dead_names
from experiments.system.progress import ADDRESS, flush, shown_here
from experiments.system.stopping import raise_if_stopped
from experiments.system.temporary import temporary_folder, user_folder

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# Modules that every run needs, in a valid import order.
LOADED_ONCE = (
    "experiments.system.tensorflow", "experiments.quantization.tfmot.annotation", "experiments.runs.pipeline",
    "experiments.runs.preload",
)  # fmt: skip
LAST_WORDS = "crash.txt"  # receives the Python frames of a process that crashes
NO_MEMORY = re.compile("MemoryError|[Cc]annot allocate|failed to map")  # messages of Python and the dynamic loader
LAST = -1  # exit priority: after Python has joined its processes
PATIENCE = 10.0  # seconds for a process to end after it sent its result
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["experiments.runs.fork_server"])


@dataclass(frozen=True)
class Failure:
    """Why a run ended without a record: one line, and all details."""

    reason: str
    details: str
    is_user_error: bool = False
    identity: Identity | None = None  # of the model and data, as far as known

    @staticmethod
    def of(error: Exception) -> "Failure":
        """Describe an error; the message of a UserError is used unchanged."""
        match error:
            case UserError():
                return Failure(str(error), _traceback_of(error), is_user_error=True)
            case OSError():
                reason = explain_os_error(error, Path(tempfile.gettempdir()), Path.cwd())
                if error.errno in NO_SPACE:
                    reason += ". Free space there, or use another disk: TMPDIR=FOLDER, cache.dir=FOLDER"
            case MemoryError():
                reason = f"{first_line(error)}.{_memory_limit()}"
            case _:
                reason = first_line(error)
        return Failure(f"{type(error).__name__}: {reason}", _traceback_of(error))


class RunFailed(Exception):  # noqa: N818  # reads better without a suffix
    """A run ended without a record."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


_EXTRA_MODULES: list[str] = []  # modules to load in addition to LOADED_ONCE


def preload(extra: Iterable[str]) -> None:
    """Start to load TensorFlow, and modules that later runs will share, in the background.

    Raises:
        UserError: no process can be started.
    """
    _EXTRA_MODULES[:] = extra
    try:
        _start_fork_server()
    except OSError as error:
        raise UserError(f"The process for the runs could not be started: {explain_os_error(error)}.") from error


def _start_fork_server() -> None:
    """Start the fork server, unless it is running. Ctrl-C is blocked, so that it does not end it half-started."""
    _fork_server_errors().unlink(missing_ok=True)
    resource_tracker.ensure_running()  # started later, it would unblock Ctrl-C
    settings = {
        fork_server.MODULES: " ".join([*LOADED_ONCE, *_EXTRA_MODULES]),
        fork_server.LAST_WORDS: str(_fork_server_errors()),
    }
    os.environ.update(settings)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        for name in settings:
            os.environ.pop(name, None)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@cache
def _socket_folder() -> Path:
    """Let Python create its sockets in a folder that is removed even when this process is killed."""
    place = temporary_folder("fork")
    folder = place.__enter__()
    Finalize(None, place.__exit__, (None, None, None), exitpriority=LAST)  # also in launchers' worker processes
    current_process()._config["tempdir"] = str(folder)  # type: ignore[attr-defined]  # as get_temp_dir() would
    return folder


def _fork_server_errors() -> Path:
    """Return the file for the error that ends the fork server."""
    return _socket_folder() / "fork_server.txt"


def run_in_process(experiment: Experiment) -> RunRecord:
    """Run an experiment in its own process.

    Raises:
        RunFailed: the run raised an error, or its process crashed or could not be started.
    """
    with shown_here(), temporary_folder("run") as folder:
        outcome = _outcome_of(experiment, folder)
    if isinstance(outcome, Failure):
        raise RunFailed(outcome)
    assert outcome is not None
    return outcome


def check_in_process(experiment: Experiment) -> None:
    """Load a model file in its own process, to report user errors early; other errors are left to the run.

    Raises:
        UserError: the model cannot be loaded, or does not accept the data.
    """
    with shown_here(), temporary_folder("check") as folder:
        outcome = _outcome_of(experiment, folder, only_check=True)
    if isinstance(outcome, Failure) and outcome.is_user_error:
        raise UserError(outcome.reason)


def _outcome_of(experiment: Experiment, folder: Path, only_check: bool = False) -> RunRecord | Failure | None:
    """Return what the process of a run sends, or why it sends nothing; None for a check without findings."""
    identity: Identity | None = None
    last_words = folder / LAST_WORDS
    with ExitStack() as stack:
        try:
            last_words.touch()  # the process may never write it
            receiver, sender = _PROCESSES.Pipe(duplex=False)
            stack.callback(receiver.close)
            stack.callback(sender.close)
            arguments = (sender, pickle.dumps((experiment, only_check)), str(folder), os.environ[ADDRESS])
            process = _PROCESSES.Process(target=_run, args=arguments, name="run", daemon=False)
            stack.callback(_end, process)
            raise_if_stopped()
            _start_fork_server()
            process.start()
        except (OSError, EOFError) as error:
            return _explain_start_failure(error)
        sender.close()
        try:
            outcome = _next(receiver)
            while isinstance(outcome, Identity):
                identity, outcome = outcome, _next(receiver)
            process.join(PATIENCE)  # it cleans up before it exits
        except (EOFError, OSError):  # the process died before or while it sent its result
            process.join()
            outcome = _explain_crash(process.exitcode, last_words.read_text())
    return replace(outcome, identity=identity) if isinstance(outcome, Failure) else outcome


def _next(receiver: "Connection[Any, Any]") -> Identity | RunRecord | Failure | None:
    while not receiver.poll(1):
        raise_if_stopped()
    sent: Identity | RunRecord | Failure | None = receiver.recv()
    return sent


def _end(process: BaseProcess) -> None:
    """Kill a process if it was started."""
    if process.pid is not None:
        process.kill()
        process.join()
        remove_dead_names(user_folder())


def _explain_start_failure(error: OSError | EOFError) -> Failure:
    """Explain why the process of a run could not be started: a limit of the system, or a dead fork server."""
    if not isinstance(error, EOFError | ConnectionError):
        return Failure(
            f"The process of this run could not be started: {explain_os_error(error)}.", _traceback_of(error)
        )
    ended = f"The process that loads TensorFlow for all runs {_describe_exit(_exit_code_of_fork_server())}"
    if not _fork_server_errors().exists():
        return Failure(f"{ended}.{_memory_limit()}", _traceback_of(error))
    details = _fork_server_errors().read_text(errors="replace")
    return Failure(f"{ended} ({details.strip().splitlines()[-1]}).{_memory_limit()}", details)


def _traceback_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _exit_code_of_fork_server() -> int | None:
    """Return the exit code of a fork server that has just ended, negative for a signal; None if unknown."""
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # there is no public way
    deadline = time.monotonic() + PATIENCE
    while pid and time.monotonic() < deadline:
        try:
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return None
        if ended is not None:
            return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        time.sleep(0.05)
    return None


def _run(sender: "Connection[Any, Any]", request: bytes, folder: str, address: str) -> None:
    """Entry point of the run's process: send back its record, or why there is none."""
    user_folder()  # before TMPDIR changes, since the machine-wide locks are there
    os.environ["TMPDIR"] = tempfile.tempdir = folder  # what AutoGraph leaves there is removed with the folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and kills this process
    os.environ[ADDRESS] = address
    with (Path(folder) / LAST_WORDS).open("w") as file:
        faulthandler.enable(file)
        outcome = _outcome(request, sender.send)
        flush()
        sender.send(outcome)
        faulthandler.disable()


def _outcome(request: bytes, tell: Callable[[Identity], None]) -> RunRecord | Failure | None:
    if fork_server.failure:
        reason, details = fork_server.failure
        limit = _memory_limit() if NO_MEMORY.search(details) else ""
        return Failure(f"{reason}{'.' * bool(limit)}{limit}", details)
    from experiments.runs import pipeline
    from experiments.system.tensorflow import use_threads

    try:
        die_with_parent()
        experiment, only_check = pickle.loads(request)
        use_threads(experiment.threads)
        if not only_check:
            return pipeline.run(experiment, tell)
        pipeline.check_given(experiment)
    except Exception as error:  # noqa: BLE001  # any error is sent to the process that records the runs
        return Failure.of(error)
    return None


def _explain_crash(exit_code: int | None, last_words: str) -> Failure:
    crashed_thread = last_words.partition("Current thread")[2].partition("\n\n")[0]
    where = re.search(r'File "[^"]*experiments/([\w/]+\.py)", line (\d+) in (\w+)', crashed_thread)
    place = f", in {where[3]} ({where[1]}:{where[2]})" if where else ""
    reason = f"The process of this run {_describe_exit(exit_code)}{place}.{_memory_limit()}"
    return Failure(reason, f"{reason}\n\n{last_words}")


def _describe_exit(exit_code: int | None) -> str:
    match exit_code:
        case int() if exit_code == -signal.SIGKILL:
            return "was killed, probably because memory ran out"
        case int() if exit_code < 0:
            return f"crashed with {signal.Signals(-exit_code).name} in native code"
        case None:
            return "ended for an unknown reason"
        case _:
            return f"ended with exit code {exit_code}"


def _memory_limit() -> str:
    """Return a sentence about the shell's limit on memory, for a message; empty if there is none."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return ""
    return (
        f" The shell limits each process to {limit / 2**30:.1f} GiB of memory, which may be too little for TensorFlow. "
        "Raise the limit with `ulimit -v unlimited`, or ask your administrator."
    )
