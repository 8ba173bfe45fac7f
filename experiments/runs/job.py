"""One run and its record in the store: opened before the work starts, and always closed."""

import gc
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from experiments.measure.latency import ROUNDS
from experiments.plots.run import save_pictures
from experiments.record.artifacts import write_artifacts
from experiments.record.run_record import RunRecord
from experiments.runs.configuration import Request
from experiments.runs.experiment import Experiment
from experiments.runs.rounds import complete_rounds
from experiments.runs.trainings import Contents
from experiments.runs.worker import Failure, RunFailed, run_in_process
from experiments.system.contents import contents_of
from experiments.system.errors import UserError, redact
from experiments.system.machine import compute_lock
from experiments.system.progress import say, warn
from experiments.system.stamp import CODE_DIGEST, runtimes, stamp, typed_command
from experiments.system.stopping import raise_if_stopped, stop_handled
from experiments.system.temporary import temporary_folder
from experiments.tracking import DETAILS, REUSED, Row, Status, Store, await_server, connect, run_name
from experiments.training.loop import numerics


class JobError(Exception):
    """A run ended without a result; the store has it as FAILED."""


class StoreUnavailableError(JobError):
    """A run's outcome could not be recorded: the store is unavailable, so later runs cannot be recorded either."""


UNRECORDED = "its result could not be recorded"


def run_job(request: Request, job: int, timed_by_sweep: bool = False) -> Row:
    """Run an experiment and record it, or reuse the finished run with the same key; `job` is its index in a sweep.

    Then measure the rounds of its timing that are missing, unless the sweep times its runs together at its end.

    Raises:
        JobError: the run failed, and the store holds the reason; or its result could not be recorded.
        UserError: the store or the cache is not usable; nothing was run.
    """
    raise_if_stopped()
    store = connect(request.tracking)
    if not request.sweep:  # for its runs, the sweep has done it
        store.reserve_space()
    try:
        row = _run_or_reuse(request, store, job)
        if timed_by_sweep:
            return row
        try:
            experiment = request.experiment
            complete_rounds(store, [row], experiment.latency, experiment.modules, reuse=request.resume)
        except (UserError, OSError) as error:  # the run itself is finished
            warn(f"The run could not be timed in further rounds; it keeps those that it has. {error}")
        return store.row(row["run_id"])
    except KeyboardInterrupt:
        stop_handled()
        _close(store, "KILLED")
        request.experiment.cache.remove_leftovers()
        raise
    except StoreUnavailableError:  # if only its disk is full, the run can still be closed
        _close(store, "FAILED")
        raise
    finally:
        if not request.sweep:
            store.release_space()


def _close(store: Store, status: Status) -> None:
    """Close the runs of this process, using the disk space that was reserved for it."""
    store.release_space()
    with suppress(UserError):  # an unavailable store marks its open runs as killed later
        store.close_own(status)


def _run_or_reuse(request: Request, store: Store, job: int) -> Row:
    if not request.sweep:  # for its runs, the sweep has done it
        store.close_orphans()
        request.experiment.cache.remove_leftovers()
    try:
        key = run_key(request.experiment)
    except UserError as error:  # a file that an option names no longer exists
        run_id = store.open_run(
            request.experiment.setting, request.parameters, stamp(), request.sweep, job, request.changed
        )
        raise _failed(request, run_id, Failure.of(error)) from error
    with request.experiment.cache.run(key):
        if request.resume and (row := store.reuse(key, request.sweep, job)):
            say(f"  reused: {_display_name(request.experiment)} (run {row['run_id']})")
            return {**row, REUSED: True}
        command = {} if request.sweep else {"command": typed_command()}  # in a sweep, the parent run has the command
        tags, started = {**stamp(), **command, "run_key": key}, _decisive_contents(request.experiment)
        run_id = store.open_run(
            request.experiment.setting, request.parameters, tags, request.sweep, job, request.changed
        )
        _run_and_record(request, store, run_id, started)
        try:
            return store.row(run_id)
        except UserError as error:
            raise StoreUnavailableError(str(error)) from error


def _display_name(experiment: Experiment) -> str:
    return run_name(experiment.setting, experiment.identity)


def _run_and_record(request: Request, store: Store, run_id: str, started: Mapping[str, Mapping[str, Any]]) -> None:
    """Do the work of an open run and record the result; `started` has the contents of its options at the start."""
    record = _run(request, store, run_id)
    if changed := _changed_since(started, request.experiment):
        error = UserError(
            f"{' and '.join(changed)}: files of this option have changed during the run, so its result may belong to "
            "neither version. Type the command again."
        )
        raise _failed(request, run_id, Failure.of(error))
    with compute_lock():
        _record(request, store, run_id, record)
        gc.collect()  # figures are reference cycles, which would accumulate over a sweep
        _freeze_modules()


def _run(request: Request, store: Store, run_id: str) -> RunRecord:
    try:
        with store.recording_system_metrics(run_id):
            return run_in_process(request.experiment)
    except RunFailed as error:
        failure = error.failure
    except Exception as error:  # noqa: BLE001  # any error is recorded
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
    """Write a run's artifacts into the folder: its TFLite file, the measurements and plots of them."""
    write_artifacts(folder, record, redact(configuration))
    save_pictures(folder, record.op_noise, record.profile, run_name(record.setting, record.identity))


def _failed(request: Request, run_id: str, failure: Failure) -> JobError:
    """Record why a run failed, and return the error to raise."""
    message = f"failed: {_display_name(request.experiment)}: {failure.reason}"
    try:
        store = connect(request.tracking, create=False)  # fails at once if no server answers
        return JobError(f"{message}{_record_details(store, run_id, failure)}")
    except UserError as gone:
        known = failure.reason.startswith(UNRECORDED)
        return StoreUnavailableError(message if known else f"{message}\nThe failure could not be recorded: {gone}")


def _record_details(store: Store, run_id: str, failure: Failure) -> str:
    """Close a failed run; returns where its details are."""
    try:
        store.fail(run_id, failure.reason, failure.details, failure.identity)
    except UserError as error:  # the disk may be too full for the file with the details
        store.close(run_id, "FAILED")
        return f"\n(its details could not be recorded: {error})"
    return "" if failure.is_user_error else f" (details in the artifact {DETAILS} of run {run_id})"


@cache
def _freeze_modules() -> None:
    """Exclude the modules that the first run loaded from garbage collection: scanning them takes 0.2 s per run."""
    gc.freeze()


def run_key(experiment: Experiment, contents: Contents = contents_of) -> str:
    """Return a digest of everything that decides a run's result: options, their files, code, versions, machine."""
    decisive = {
        "setting": asdict(experiment.setting),
        "options": {name: contents(option) for name, option in _decisive_options(experiment).items()},
        "code": CODE_DIGEST,
        "machine": stamp()["machine"],
        "numerics": dict(numerics()),
        "runtimes": dict(runtimes()),
        "threads": experiment.threads,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _decisive_options(experiment: Experiment) -> dict[str, Any]:
    finetune = {"finetune": experiment.finetune} if experiment.strategy.trains else {}
    return {
        "dataset": experiment.dataset,
        "model": experiment.model,
        "task": experiment.task,
        "strategy": experiment.strategy,
        "training": experiment.training,
        **finetune,
        "latency": replace(experiment.latency, rounds=ROUNDS, span=None),  # rounds are added to a finished run
    }


def _decisive_contents(experiment: Experiment) -> dict[str, Mapping[str, Any]]:
    """Return the contents of each option, without files that nothing names: these may be edited during a run."""
    return {name: contents_of(option, unseen=False) for name, option in _decisive_options(experiment).items()}


def _changed_since(started: Mapping[str, Mapping[str, Any]], experiment: Experiment) -> list[str]:
    """Return the options whose files have changed since the start; a file that is gone was read before."""
    try:
        now = _decisive_contents(experiment)
    except UserError:
        return []
    kept = [name for name, contents in now.items() if not any(isinstance(v, Path) for v in contents["values"].values())]
    return [name for name in kept if _differ(started[name], now[name])]


def _differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether the contents of an option differ; files that were added, such as downloads, do not count."""
    if not set(before["source"]) <= set(after["source"]):
        return True
    return {**before, "source": None} != {**after, "source": None}
