"""One run and its place in the store: opened before the work starts, closed whatever happens."""

import gc
import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from experiments.plots.run import save_pictures
from experiments.record.artifacts import write_artifacts
from experiments.record.identity import contents_of
from experiments.record.run_record import RunRecord
from experiments.runs.configuration import Request
from experiments.runs.pipeline import Experiment
from experiments.runs.worker import Failure, RunFailed, run_apart
from experiments.system.errors import UserError, redacted
from experiments.system.machine import compute_lock
from experiments.system.progress import say
from experiments.system.stamp import CODE_DIGEST, runtimes, stamp, typed
from experiments.system.stopping import raise_if_stopped, stop_handled
from experiments.system.temporary import temporary_folder
from experiments.tracking import DETAILS, Row, Status, Store, await_server, connect, run_name
from experiments.training.loop import numerics


class JobError(Exception):
    """A run that ended without a result; it stands in the store as FAILED."""


class StoreGoneError(JobError):
    """A run that ended without a result, of which the store could not be told: no other one can be recorded either."""


UNRECORDED = "its result could not be recorded"


def perform(request: Request, job: int) -> Row:
    """Run an experiment and record it, or take up the finished run of the same key; `job` is its place in a sweep.

    Raises:
        JobError: the run failed, and the store says why; or its result could not be recorded.
        UserError: the store or the cache cannot be used; nothing was run.
    """
    raise_if_stopped()
    store = connect(request.tracking)
    if not request.sweep:  # a sweep has done it for its runs
        store.reserve_room()
    try:
        return _performed(request, store, job)
    except KeyboardInterrupt:
        stop_handled()
        _close(store, "KILLED")
        request.experiment.cache.remove_leftovers()
        raise
    except StoreGoneError:  # perhaps only its disk is full
        _close(store, "FAILED")
        raise
    finally:
        if not request.sweep:
            store.give_room_back()


def _close(store: Store, status: Status) -> None:
    """Close what this process has open, with the room that was reserved for it."""
    store.give_room_back()
    with suppress(UserError):  # a store that is gone takes its runs for killed later on
        store.close_own(status)


def _performed(request: Request, store: Store, job: int) -> Row:
    if not request.sweep:  # a sweep has done it for its runs
        store.close_orphans()
        request.experiment.cache.remove_leftovers()
    try:
        key = run_key(request.experiment)
    except UserError as error:  # a file that an option names is gone
        run_id = store.open_run(request.experiment.setting, request.parameters, stamp(), request.sweep, job)
        raise _failed(request, run_id, Failure.of(error)) from error
    with request.experiment.cache.run(key):
        if request.resume and (row := store.reuse(key, request.sweep, job)):
            say(f"  reused: {_called(request.experiment)} (run {row['run_id']})")
            return row
        command = {} if request.sweep else {"command": typed()}  # those of a sweep have the sweep's
        tags = {**stamp(), **command, "run_key": key}
        run_id = store.open_run(request.experiment.setting, request.parameters, tags, request.sweep, job)
        _make(request, store, run_id)
        try:
            return store.row(run_id)
        except UserError as error:
            raise StoreGoneError(str(error)) from error


def _called(experiment: Experiment) -> str:
    return run_name(experiment.setting, experiment.identity)


def _make(request: Request, store: Store, run_id: str) -> None:
    """Do the work of an open run, and record what came out."""
    record = _made(request, store, run_id)
    with compute_lock():
        _record(request, store, run_id, record)
        gc.collect()  # pictures hold their parts in cycles, which would pile up over a sweep
        _spare_what_stays()


def _made(request: Request, store: Store, run_id: str) -> RunRecord:
    try:
        with store.watched(run_id):
            return run_apart(request.experiment)
    except RunFailed as error:
        failure = error.failure
    except Exception as error:  # noqa: BLE001  # whatever it is, it is recorded
        failure = Failure.of(error)
    await_server(request.tracking)
    raise _failed(request, run_id, failure)


def _record(request: Request, store: Store, run_id: str, record: RunRecord) -> None:
    try:
        with temporary_folder("artifacts") as folder:
            write_files(folder, record, request.text)
            store.finish(run_id, record, folder)
    except Exception as error:
        failure = Failure.of(error)
        raise _failed(request, run_id, replace(failure, reason=f"{UNRECORDED}: {failure.reason}")) from error


def write_files(folder: Path, record: RunRecord, configuration: str) -> None:
    """Write all that is kept of a run into the folder: its file, what was measured, and pictures of it."""
    write_artifacts(folder, record, redacted(configuration))
    save_pictures(folder, record.op_noise, record.profile, run_name(record.setting, record.identity))


def _failed(request: Request, run_id: str, failure: Failure) -> JobError:
    """Record why a run failed, and say so."""
    message = f"failed: {_called(request.experiment)}: {failure.reason}"
    try:
        store = connect(request.tracking, create=False)  # finds out at once where nobody answers
        return JobError(f"{message}{_details_kept(store, run_id, failure)}")
    except UserError as gone:
        known = failure.reason.startswith(UNRECORDED)
        return StoreGoneError(message if known else f"{message}\nand that could not be recorded: {gone}")


def _details_kept(store: Store, run_id: str, failure: Failure) -> str:
    """Close a run that failed; where more is said of it."""
    try:
        store.fail(run_id, failure.reason, failure.details, failure.identity)
    except UserError as error:  # there may be no room for the details, which are a file
        store.close(run_id, "FAILED")
        return f"\n(its details could not be recorded: {error})"
    return "" if failure.by_mistake_of_user else f" (more in the artifact {DETAILS} of run {run_id})"


@cache
def _spare_what_stays() -> None:
    """What the first run has loaded is there for good; looking through it again after each run takes 0.2 s."""
    gc.freeze()


def run_key(experiment: Experiment) -> str:
    """The name of all that decides a run's result: its options, files named there, this code, versions, the machine."""
    options = {
        "dataset": experiment.dataset,
        "model": experiment.model,
        "strategy": experiment.strategy,
        "training": experiment.training,
        "finetune": experiment.finetune if experiment.strategy.trains else None,
        "latency": experiment.latency,
    }
    decisive = {
        "setting": asdict(experiment.setting),
        "options": {name: contents_of(option) for name, option in options.items() if option is not None},
        "code": CODE_DIGEST,
        "machine": stamp()["machine"],
        "numerics": dict(numerics()),
        "runtimes": dict(runtimes()),
        "threads": experiment.threads,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:32]
