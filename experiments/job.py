"""One run and its place in the store: opened before the work starts, closed whatever happens."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from experiments import pipeline
from experiments.configuration import Request
from experiments.errors import UserError
from experiments.pipeline import Experiment
from experiments.progress import say
from experiments.stamp import stamp
from experiments.tracking import Row, explained, run_name
from experiments.training import numerics


class JobError(Exception):
    """A run that ended without a result; it stands in the store as FAILED."""


def perform(request: Request, job: int) -> Row:
    """Run an experiment and record it, or take up the finished run of the same key; `job` is its place in a sweep.

    Raises:
        JobError: the run failed, and the store says why.
        UserError: the store cannot be used.
    """
    store = request.tracking.connect()
    if not request.sweep:  # a sweep has done it for its runs
        store.close_orphans()
    key = run_key(request.experiment)
    setting = request.experiment.setting
    if request.resume and (row := store.reuse(key, request.sweep, job)):
        say(f"  reused: {run_name(setting)} (run {row['run_id']})")
        return row
    run_id = store.open_run(setting, request.parameters, {**stamp(), "run_key": key}, request.sweep, job)
    try:
        record = pipeline.run(request.experiment)
        store.finish(run_id, record, request.text)
    except KeyboardInterrupt:
        store.close(run_id, "KILLED")
        if request.sweep:
            store.close(request.sweep, "KILLED")
        raise
    except Exception as error:
        message = f"failed: {run_name(setting)}: {explained(error)}"
        try:
            store.fail(run_id, error)
        except UserError as unrecorded:
            raise JobError(f"{message}\nand that could not be recorded: {unrecorded}") from error
        if not isinstance(error, UserError):
            message += f" (traceback: artifact traceback.txt of run {run_id})"
        raise JobError(message) from error
    return store.row(run_id)


def run_key(experiment: Experiment) -> str:
    """The name of all that decides a run's result: its cards, files named there, this code, versions, the machine."""
    cards = {
        "dataset": experiment.dataset,
        "model": experiment.model,
        "strategy": experiment.strategy,
        "training": experiment.training,
        "finetune": experiment.finetune if experiment.strategy.trains else None,
        "latency": experiment.latency,
    }
    decisive = {
        "setting": asdict(experiment.setting),
        "cards": {name: _identity(card) for name, card in cards.items() if card is not None},
        "code": code_digest(),
        "machine": {name: stamp()[name] for name in ("cpu", "cores", "ai-edge-litert")},
        "numerics": dict(numerics()),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:32]


@cache
def code_digest() -> str:
    """SHA-256 of this package's source: results of other code are not results of this one."""
    digests = [_sha256(path) for path in sorted(Path(__file__).parent.rglob("*.py"))]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _identity(card: Any) -> Mapping[str, Any]:
    values = {
        name: _sha256(value) if isinstance(value, Path) and value.is_file() else value
        for name, value in asdict(card).items()
    }
    source = inspect.getsourcefile(type(card))
    return {
        "class": type(card).__qualname__,
        "source": _sha256(Path(source)) if source else "",
        "values": values,
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
