"""A run in a process of its own: the memory that it took goes back with it, and a crash ends nothing else.

The processes are forks of one that has TensorFlow loaded (Python's fork server), so TensorFlow is imported once however
many runs there are, and never in the process that keeps the records.
"""

import faulthandler
import multiprocessing
import os
import pickle
import re
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from multiprocessing import connection, forkserver
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from experiments.errors import UserError, first_line
from experiments.identity import Identity
from experiments.pipeline import Experiment
from experiments.progress import ADDRESS, flush, shown_here
from experiments.record import RunRecord

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# What every run needs, in the order in which it can be imported.
LOADED_ONCE = (
    "experiments.fork_server", "experiments.tensorflow_quietly", "experiments.strategy.annotation",
    "experiments.pipeline", "experiments.loaded_once",
)  # fmt: skip
LAST_WORDS = "crash.txt"  # the Python frames of a process that crashed
PATIENCE = 10.0  # seconds that a process has to end after its last word
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(list(LOADED_ONCE))


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
        told = isinstance(error, UserError)
        reason = str(error) if told else f"{type(error).__name__}: {first_line(error)}"
        return Failure(reason, "".join(traceback.format_exception(error)), by_mistake_of_user=told)


class RunFailed(Exception):  # noqa: N818  # it says what happened
    """A run that ended without a record."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


def load_ahead(also: Iterable[str]) -> None:
    """Begin to load TensorFlow, and modules that runs to come will share; this process goes on meanwhile."""
    _PROCESSES.set_forkserver_preload([*LOADED_ONCE, *also])
    forkserver.ensure_running()


def run_apart(experiment: Experiment) -> RunRecord:
    """Run an experiment in a process of its own.

    Raises:
        RunFailed: the run raised an error, or its process crashed.
    """
    with shown_here(), tempfile.TemporaryDirectory(prefix="run-") as folder:
        last_words = Path(folder) / LAST_WORDS
        last_words.touch()  # there may be none
        ours, theirs = _PROCESSES.Pipe(duplex=False)
        arguments = (theirs, pickle.dumps(experiment), folder, os.environ[ADDRESS])
        process = _PROCESSES.Process(target=_run, args=arguments, name="run", daemon=False)
        process.start()
        theirs.close()
        identity: Identity | None = None
        try:
            while isinstance(outcome := ours.recv(), Identity):
                identity = outcome
        except (EOFError, OSError):  # nobody is left to send anything, or the rest of it
            process.join()
            outcome = _crashed(process.exitcode, last_words.read_text())
        except KeyboardInterrupt:
            process.kill()
            raise
        finally:
            process.join(PATIENCE)  # it tidies up before it goes
            process.kill()
            process.join()
            ours.close()
    if isinstance(outcome, Failure):
        raise RunFailed(replace(outcome, identity=identity))
    assert isinstance(outcome, RunRecord)
    return outcome


def _run(theirs: "Connection[Any, Any]", request: bytes, folder: str, address: str) -> None:
    """What happens in the process of the run: its record, or why there is none, is sent back."""
    os.environ["TMPDIR"] = tempfile.tempdir = folder  # what it leaves there, as AutoGraph does, goes with the folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one, and it kills it
    end_with_parent()
    os.environ[ADDRESS] = address
    with (Path(folder) / LAST_WORDS).open("w") as file:
        faulthandler.enable(file)
        outcome = _outcome(request, theirs.send)
        flush()
        theirs.send(outcome)
        faulthandler.disable()


def _outcome(request: bytes, tell: Callable[[Identity], None]) -> RunRecord | Failure:
    from experiments import pipeline
    from experiments.tensorflow_quietly import use_threads

    try:
        experiment: Experiment = pickle.loads(request)
        use_threads(experiment.threads)
        return pipeline.run(experiment, tell)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is told to the process that keeps the records
        return Failure.of(error)


def end_with_parent() -> None:
    """Nobody waits for work whose starter was killed; it must not hold locks and cores any longer."""
    Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _crashed(exit_code: int | None, last_words: str) -> Failure:
    match exit_code:
        case int() if exit_code == -signal.SIGKILL:
            how = "was killed, as the system does when memory runs out"
        case int() if exit_code < 0:
            how = f"crashed with {signal.Signals(-exit_code).name} in native code"
        case _:
            how = f"ended with exit code {exit_code}"
    crashed_thread = last_words.partition("Current thread")[2].partition("\n\n")[0]
    where = re.search(r'File "[^"]*experiments/([\w/]+\.py)", line (\d+) in (\w+)', crashed_thread)
    place = f", in {where[3]} ({where[1]}:{where[2]})" if where else ""
    reason = f"The process of this run {how}{place}."
    return Failure(reason, f"{reason}\n\n{last_words}")
