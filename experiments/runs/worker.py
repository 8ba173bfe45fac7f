"""A run in a process of its own: the memory that it took goes back with it, and a crash ends nothing else.

The processes are forks of one that has TensorFlow loaded (Python's fork server), so TensorFlow is imported once however
many runs there are, and never in the process that keeps the records.
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
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.process import BaseProcess, current_process
from multiprocessing.util import Finalize
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from experiments.record.identity import Identity
from experiments.record.run_record import RunRecord
from experiments.runs import fork_server
from experiments.runs.pipeline import Experiment
from experiments.system.disk import NO_ROOM, explained
from experiments.system.errors import UserError, first_line
from experiments.system.locks import remove_dead_names
from experiments.system.progress import ADDRESS, flush, shown_here
from experiments.system.stopping import raise_if_stopped
from experiments.system.temporary import own_folder, temporary_folder

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# What every run needs, in the order in which it can be imported.
LOADED_ONCE = (
    "experiments.system.tensorflow", "experiments.quantization.annotation", "experiments.runs.pipeline",
    "experiments.runs.preload",
)  # fmt: skip
LAST_WORDS = "crash.txt"  # the Python frames of a process that crashed
NO_MEMORY = re.compile("MemoryError|[Cc]annot allocate|failed to map")  # in what Python and the loader say
LAST = -1  # of what is done at the end: Python joins its processes before
PATIENCE = 10.0  # seconds that a process has to end after its last word
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["experiments.runs.fork_server"])


@dataclass(frozen=True)
class Failure:
    """Why a run ended without a record: in one line, and all that is known about it."""

    reason: str
    details: str
    by_mistake_of_user: bool = False
    identity: Identity | None = None  # as much as was known of what the run is about

    @staticmethod
    def of(error: Exception) -> "Failure":
        """What an error says of itself; a mistake of the user in its own words."""
        match error:
            case UserError():
                return Failure(str(error), _as_text(error), by_mistake_of_user=True)
            case OSError():
                reason = explained(error, Path(tempfile.gettempdir()), Path.cwd())
                if error.errno in NO_ROOM:
                    reason += ". Make room there, or name another disk: TMPDIR=FOLDER, cache.dir=FOLDER"
            case MemoryError():
                reason = f"{first_line(error)}.{_memory_limit()}"
            case _:
                reason = first_line(error)
        return Failure(f"{type(error).__name__}: {reason}", _as_text(error))


class RunFailed(Exception):  # noqa: N818  # it says what happened
    """A run that ended without a record."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


_ALSO: list[str] = []  # what is loaded besides what every run needs


def load_ahead(also: Iterable[str]) -> None:
    """Begin to load TensorFlow, and modules that runs to come will share; this process goes on meanwhile.

    Raises:
        UserError: no process can be started.
    """
    _ALSO[:] = also
    try:
        _start_fork_server()
    except OSError as error:
        raise UserError(f"No process could be started for the runs: {explained(error)}.") from error


def _start_fork_server() -> None:
    """Start the fork server, unless it runs. Ctrl-C is noticed here at once, and does not end it half-started."""
    _last_words().unlink(missing_ok=True)
    resource_tracker.ensure_running()  # it would let Ctrl-C through again
    settings = {fork_server.MODULES: " ".join([*LOADED_ONCE, *_ALSO]), fork_server.LAST_WORDS: str(_last_words())}
    os.environ.update(settings)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        for name in settings:
            os.environ.pop(name, None)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@cache
def _own_place_for_sockets() -> Path:
    """Let Python put its sockets where they are removed also when this process is killed."""
    place = temporary_folder("fork")
    folder = place.__enter__()
    Finalize(None, place.__exit__, (None, None, None), exitpriority=LAST)  # also in the processes of launchers
    current_process()._config["tempdir"] = str(folder)  # type: ignore[attr-defined]  # as get_temp_dir() would
    return folder


def _last_words() -> Path:
    """The file of the error that ended the fork server."""
    return _own_place_for_sockets() / "fork_server.txt"


def run_apart(experiment: Experiment) -> RunRecord:
    """Run an experiment in a process of its own.

    Raises:
        RunFailed: the run raised an error, or its process crashed or could not be started.
    """
    with shown_here(), temporary_folder("run") as folder:
        outcome = _outcome_of(experiment, folder)
    if isinstance(outcome, Failure):
        raise RunFailed(outcome)
    assert outcome is not None
    return outcome


def check_apart(experiment: Experiment) -> None:
    """Load a model that is given in a process of its own; what is no mistake of the user is left for the run to meet.

    Raises:
        UserError: the model cannot be loaded, or does not take the data.
    """
    with shown_here(), temporary_folder("check") as folder:
        outcome = _outcome_of(experiment, folder, only_check=True)
    if isinstance(outcome, Failure) and outcome.by_mistake_of_user:
        raise UserError(outcome.reason)


def _outcome_of(experiment: Experiment, folder: Path, only_check: bool = False) -> RunRecord | Failure | None:
    """What the process of a run sends, or why it sends nothing; of a check that finds nothing wrong, None."""
    identity: Identity | None = None
    last_words = folder / LAST_WORDS
    with ExitStack() as stack:
        try:
            last_words.touch()  # there may be none
            ours, theirs = _PROCESSES.Pipe(duplex=False)
            stack.callback(ours.close)
            stack.callback(theirs.close)
            arguments = (theirs, pickle.dumps((experiment, only_check)), str(folder), os.environ[ADDRESS])
            process = _PROCESSES.Process(target=_run, args=arguments, name="run", daemon=False)
            stack.callback(_end, process)
            raise_if_stopped()
            _start_fork_server()
            process.start()
        except (OSError, EOFError) as error:
            return _not_started(error)
        theirs.close()
        try:
            outcome = _next(ours)
            while isinstance(outcome, Identity):
                identity, outcome = outcome, _next(ours)
            process.join(PATIENCE)  # it tidies up before it goes
        except (EOFError, OSError):  # nobody is left to send anything, or the rest of it
            process.join()
            outcome = _crashed(process.exitcode, last_words.read_text())
    return replace(outcome, identity=identity) if isinstance(outcome, Failure) else outcome


def _next(ours: "Connection[Any, Any]") -> Identity | RunRecord | Failure | None:
    while not ours.poll(1):
        raise_if_stopped()
    sent: Identity | RunRecord | Failure | None = ours.recv()
    return sent


def _end(process: BaseProcess) -> None:
    """End a process that nobody waits for, if it was started."""
    if process.pid is not None:
        process.kill()
        process.join()
        remove_dead_names(own_folder())


def _not_started(error: OSError | EOFError) -> Failure:
    """Why there is no process for a run: a limit that is reached here, or the end of the fork server."""
    if not isinstance(error, EOFError | ConnectionError):
        return Failure(f"No process could be started for this run: {explained(error)}.", _as_text(error))
    ended = f"The process that loads TensorFlow for all runs {_ending(_exit_code_of_fork_server())}"
    if not _last_words().exists():
        return Failure(f"{ended}.{_memory_limit()}", _as_text(error))
    details = _last_words().read_text(errors="replace")
    return Failure(f"{ended} ({details.strip().splitlines()[-1]}).{_memory_limit()}", details)


def _as_text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _exit_code_of_fork_server() -> int | None:
    """The exit code of a fork server that has just ended, negative for a signal; None where it is not known."""
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # it is known nowhere else
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


def _run(theirs: "Connection[Any, Any]", request: bytes, folder: str, address: str) -> None:
    """What happens in the process of the run: its record, or why there is none, is sent back."""
    own_folder()  # the machine-wide locks stay where they are
    os.environ["TMPDIR"] = tempfile.tempdir = folder  # what it leaves there, as AutoGraph does, goes with the folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one, and it kills it
    os.environ[ADDRESS] = address
    with (Path(folder) / LAST_WORDS).open("w") as file:
        faulthandler.enable(file)
        outcome = _outcome(request, theirs.send)
        flush()
        theirs.send(outcome)
        faulthandler.disable()


def _outcome(request: bytes, tell: Callable[[Identity], None]) -> RunRecord | Failure | None:
    if fork_server.failure:
        reason, details = fork_server.failure
        limit = _memory_limit() if NO_MEMORY.search(details) else ""
        return Failure(f"{reason}{'.' * bool(limit)}{limit}", details)
    from experiments.runs import pipeline
    from experiments.system.tensorflow import use_threads

    try:
        end_with_parent()
        experiment, only_check = pickle.loads(request)
        use_threads(experiment.threads)
        if not only_check:
            return pipeline.run(experiment, tell)
        pipeline.check_given(experiment)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is told to the process that keeps the records
        return Failure.of(error)
    return None


def end_with_parent() -> None:
    """Nobody waits for work whose starter was killed; it must not hold locks and cores any longer."""
    Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _crashed(exit_code: int | None, last_words: str) -> Failure:
    crashed_thread = last_words.partition("Current thread")[2].partition("\n\n")[0]
    where = re.search(r'File "[^"]*experiments/([\w/]+\.py)", line (\d+) in (\w+)', crashed_thread)
    place = f", in {where[3]} ({where[1]}:{where[2]})" if where else ""
    reason = f"The process of this run {_ending(exit_code)}{place}.{_memory_limit()}"
    return Failure(reason, f"{reason}\n\n{last_words}")


def _ending(exit_code: int | None) -> str:
    match exit_code:
        case int() if exit_code == -signal.SIGKILL:
            return "was killed, as the system does when memory runs out"
        case int() if exit_code < 0:
            return f"crashed with {signal.Signals(-exit_code).name} in native code"
        case None:
            return "ended for an unknown reason"
        case _:
            return f"ended with exit code {exit_code}"


def _memory_limit() -> str:
    """The limit that a shell has set on the memory of a process, for a message; empty where there is none."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return ""
    return (
        f" A process may have no more than {limit / 2**30:.1f} GiB of memory here, and TensorFlow may not get what it "
        "needs: raise the limit of the shell with `ulimit -v unlimited`, or ask whoever set it."
    )
