"""The plan of a sweep or a run, made without TensorFlow: what is reused, what is trained, and how long it may take."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from experiments.record.identity import contents_of
from experiments.runs.configuration import Request
from experiments.runs.forecast import Costs, Schedule, Work
from experiments.runs.job import run_key
from experiments.runs.trainings import training_name
from experiments.system.cache import Cache
from experiments.system.errors import UserError, redacted
from experiments.system.progress import bar, expect, format_duration, prose, say, shown_here, time_left
from experiments.system.stamp import stamp
from experiments.tracking import REUSED, Row, Store, Tracking, connect, run_name

SAME_RUN = "the same run earlier in this sweep"


@dataclass(frozen=True)
class Planned:
    """A run of a plan."""

    name: str
    settings: Mapping[str, Any]
    work: Work
    cached_epochs: int  # that it needs and the cache holds
    reused: str = ""  # id of the finished run that is reused, or SAME_RUN

    @property
    def epochs(self) -> int:
        """Epochs to train."""
        return self.work.baseline_epochs + self.work.own_epochs

    @property
    def line(self) -> str:
        """What the run does."""
        if self.reused:
            return f"{self.name}: reused ({self.reused if self.reused == SAME_RUN else f'run {self.reused}'})"
        return f"{self.name}: {_epochs(self.epochs)} to train, {self.cached_epochs} from the cache"


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep in their order."""

    runs: tuple[Planned, ...]
    costs: Costs
    afterwards: float = 0.0  # seconds in which the files of all runs are timed together

    @property
    def works(self) -> dict[int, Work]:
        """The work of each job that is not reused."""
        return {job: run.work for job, run in enumerate(self.runs) if not run.reused}

    @property
    def seconds(self) -> float | None:
        """How long the runs take one after another; None if this machine has no run like them."""
        found = [self.costs.seconds(work) for work in self.works.values()]
        known = [seconds for seconds in found if seconds is not None]
        return sum(known) + self.afterwards if len(known) == len(found) else None

    @property
    def summary(self) -> str:
        """One line: the number of runs, their epochs, and an estimate."""
        reused = sum(1 for run in self.runs if run.reused)
        trained = sum(run.epochs for run in self.runs if not run.reused)
        cached = sum(run.cached_epochs for run in self.runs if not run.reused)
        runs = f"{len(self.runs):,} run{'s' * (len(self.runs) != 1)}"
        what = f"Plan: {runs}, {reused or 'none'} reused; {_epochs(trained)} to train, {cached} from the cache"
        if reused == len(self.runs):
            return f"{what}."
        if self.seconds is None:
            return f"{what}. No estimate of the time: this machine has no earlier run like these."
        return f"{what}. About {format_duration(self.seconds)}, judging by earlier runs of this machine."

    @property
    def described(self) -> dict[str, Any]:
        """The plan for programs."""
        runs = [
            {
                "name": run.name,
                "reused": run.reused or None,
                "epochs_to_train": run.epochs if not run.reused else 0,
                "epochs_cached": run.cached_epochs,
                "settings": _without_secrets(run.settings),
            }
            for run in self.runs
        ]
        return {"summary": self.summary, "seconds": self.seconds, "runs": runs}


def _without_secrets(settings: Any) -> Any:
    match settings:
        case Mapping():
            return {name: _without_secrets(value) for name, value in settings.items()}
        case str():
            return redacted(settings)
        case _:
            return settings


def _epochs(count: int) -> str:
    return f"{count:,} epoch{'s' * (count != 1)}"


def existing(tracking: Tracking) -> Store | None:
    """Open a store that exists; None if there is none yet. Nothing is created."""
    if tracking.database is not None and not tracking.database.exists():
        return None
    try:
        return connect(tracking, create=False)
    except UserError:  # the experiment is new, or the file is no store, which the run itself reports
        return None


def plan(requests: Sequence[Request], store: Store | None) -> Plan:
    """Return the plan of these runs, in this order.

    Raises:
        UserError: a file that an option names cannot be read.
    """
    recorded = [row for row in store.finished() if row["status"] == "FINISHED"] if store else []
    costs = Costs(row for row in recorded if row["machine"] == stamp()["machine"])
    finished = {row["run_key"]: str(row["run_id"]) for row in recorded if row["run_key"]}
    contents: dict[int, Mapping[str, Any]] = {}  # by option, which the jobs of a sweep share

    def load_contents(option: Any) -> Mapping[str, Any]:
        if id(option) not in contents:
            contents[id(option)] = contents_of(option)
        return contents[id(option)]

    caches = {request.experiment.cache.dir: request.experiment.cache for request in requests}
    states = {folder: _states(cache) for folder, cache in caches.items()}
    planned: list[Planned] = []
    seen: set[str] = set()
    for request in requests:
        experiment = request.experiment
        key = run_key(experiment, load_contents)
        reused = SAME_RUN if key in seen else finished.get(key, "") if request.resume else ""
        seen.add(key)
        values = {name: redacted(str(value)) for name, value in request.parameters.items()}
        setting = experiment.setting
        work = Work(*Work.settings_of({**values, "model": setting.model, "dataset": setting.dataset}), setting.strategy)
        cached = 0
        if not reused:
            trained = states[experiment.cache.dir]
            stages = range(1, experiment.strategy.trainings + 1) if experiment.strategy.trains else ()
            wanted = [(0, experiment.training.epochs), *((stage, experiment.finetune.epochs) for stage in stages)]
            missing = []
            for stage, epochs in wanted:
                kept = trained[training_name(experiment, stage, load_contents)]
                done = max((number for number in kept if number <= epochs), default=0)
                missing.append(epochs - done)
                cached += done
                kept.update(range(done + 1, epochs + 1))
            work = Work(work.subject, work.timing, work.strategy, missing[0], sum(missing[1:]))
        name = run_name(setting, experiment.identity)
        planned.append(Planned(name, request.settings, work, cached, reused))
    rounds = max(request.experiment.latency.span_seconds for request in requests)
    together = len(planned) > 1 and not all(run.reused for run in planned)
    return Plan(tuple(planned), costs, rounds if together else 0.0)


def _states(cache: Cache) -> defaultdict[str, set[int]]:
    """Return the epochs that the cache holds of each training, by its name."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for name, epochs in cache.named_trainings():
        found[name] |= epochs
    return found


def show(found: Plan) -> None:
    """Print a plan and the configuration of each run: what all have in common, and what each has of its own."""
    prose(found.summary)
    for run in found.runs:
        say(f"  {run.line}")
    common, own = shared_settings([run.settings for run in found.runs])
    say("\nConfiguration" + (" of all runs:" if len(found.runs) > 1 else ":"))
    say(redacted(OmegaConf.to_yaml(OmegaConf.create(common))).rstrip())
    for run, settings in zip(found.runs, own, strict=True):
        if settings:
            say(f"\n{run.name}:")
            say(redacted(OmegaConf.to_yaml(OmegaConf.create(settings))).rstrip())
    say("\nNothing was run, created or recorded (--dry-run).")


def shared_settings(settings: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Split nested settings into those that all have in common, and the others of each."""
    first = settings[0]
    common: dict[str, Any] = {}
    own: list[dict[str, Any]] = [{} for _ in settings]
    for key in dict.fromkeys(key for each in settings for key in each):
        values = [each.get(key) for each in settings]
        if all(key in each and each[key] == first.get(key) for each in settings):
            common[key] = first[key]
        elif all(isinstance(value, dict) for value in values):
            inner, others = shared_settings([value for value in values if isinstance(value, dict)])
            common |= {key: inner} if inner else {}
            for mine, other in zip(own, others, strict=True):
                mine.update({key: other} if other else {})
        else:
            for mine, each in zip(own, settings, strict=True):
                mine.update({key: each[key]} if key in each else {})
    return common, own


def finished_line(number: int, of: int, row: Row, seconds: float, left: float | None) -> str:
    """Return the line of a finished run: accuracy, size, difference, speed, duration, and what is left of the sweep."""
    figures = ", ".join([*_score(row), *_size(row), *_speed(row)])
    return f"{number}/{of} done in {format_duration(seconds)}: {figures}{time_left(left)}"


def _score(row: Row) -> Iterable[str]:
    """Yield the metric of the task, with its difference from the float file."""
    if (accuracy := row.get("tflite_accuracy")) is not None:
        change, shown = row.get("accuracy_change"), f"accuracy {100 * float(accuracy):.2f} %"
        yield shown + ("" if change is None else f" (Δ {100 * float(change):+.2f})")
    elif (score := row.get("tflite_score")) is not None:
        change, shown = row.get("score_change"), f"{row.get('metric') or 'score'} {float(score):.4g}"
        yield shown + ("" if change is None else f" (Δ {float(change):+.2g})")


def _size(row: Row) -> Iterable[str]:
    ratio = row.get("size_ratio")
    yield f"{int(row['tflite_bytes']):,} bytes" + ("" if ratio in (None, 1.0) else f" ({float(ratio):.2f}x smaller)")


def _speed(row: Row) -> Iterable[str]:
    if row.get("latency_void"):
        yield "timing invalid"
    elif row.get("speedup") is not None:
        yield f"speedup {float(row['speedup']):.2f}x"


RUN_BAR = "Run"


@contextmanager
def announced(request: Request) -> Iterator[None]:
    """Print the plan of a single run, and show how much of it is left while the block does it.

    Runs of a server are not read for this: it would take longer than the plan is worth.
    """
    found = plan([request], existing(request.tracking) if request.tracking.database else None)
    if found.works:
        prose(found.summary)
    schedule = Schedule(found.works, found.costs)
    schedule.start(0)
    with shown_here(), bar(RUN_BAR, total=None, name=RUN_BAR):
        expect(RUN_BAR, schedule.left)
        yield


STARTED, ENDED = "started", "ended"  # what a job reports


@dataclass(frozen=True)
class Follower:
    """Follows the jobs of a sweep: prints a line for each finished run, and says how much is left."""

    schedule: Schedule
    jobs: int

    def __call__(self, event: str, job: int, row: Row | None = None) -> None:
        """Take a report of a job: that it started, or that it ended, with its row if it has one."""
        if event == STARTED:
            self.schedule.start(job)
            return
        own = row if row is not None and not row.get(REUSED) and row["status"] == "FINISHED" else None
        seconds = self.schedule.finish(job, own)
        if own is not None:
            say(finished_line(job + 1, self.jobs, own, seconds, self.schedule.left()))
