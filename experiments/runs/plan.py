"""The plan of a sweep or a run, made without TensorFlow: what is reused, what is trained, and how long it may take."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from omegaconf import OmegaConf

from experiments.record.metric import metric_of_row
from experiments.record.run_record import Setting
from experiments.runs.configuration import Request
from experiments.runs.forecast import FINISHING, Costs, Schedule, Work
from experiments.runs.job import run_key
from experiments.runs.trainings import training_name
from experiments.statistics.rounding import smaller
from experiments.system.cache import Cache, Trajectory
from experiments.system.contents import contents_of
from experiments.system.errors import redact
from experiments.system.progress import bar, expect, format_duration, say, say_wrapped, shown_here, time_left
from experiments.system.stamp import stamp
from experiments.tracking import REUSED, MissingStoreError, Row, Store, Tracking, connect, run_name
from experiments.training.best_epoch import end_of
from experiments.training.loop import Training, history_of

SAME_RUN = "the same run earlier in this sweep"


@dataclass(frozen=True)
class Planned:
    """A run of a plan."""

    name: str
    settings: Mapping[str, Any]
    work: Work
    shared_epochs: int = 0  # that it needs and earlier runs of the same sweep train
    cached_epochs: int = 0  # that it needs and the cache holds already
    reused: str = ""  # id of the finished run that is reused, or SAME_RUN
    may_stop: bool = False  # whether early stopping may train fewer epochs

    @property
    def epochs(self) -> int:
        """Epochs to train."""
        return self.work.baseline_epochs + self.work.own_epochs

    @property
    def line(self) -> str:
        """A line on what the run does."""
        if self.reused:
            return f"{self.name}: reused ({self.reused if self.reused == SAME_RUN else f'run {self.reused}'})"
        shared = [f"{self.shared_epochs:,} shared with an earlier run"] if self.shared_epochs else []
        cached = [f"{self.cached_epochs:,} from the cache"] if self.cached_epochs else []
        return f"{self.name}: {', '.join([_to_train(self.epochs, self.may_stop), *shared, *cached])}"


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep in their order."""

    runs: tuple[Planned, ...]
    costs: Costs
    afterwards: float = 0.0  # seconds after the last run: files are timed in rounds, and the report is written
    timed: bool = False  # whether earlier runs of the same settings have the rounds of timing

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
        left = [run for run in self.runs if not run.reused]
        reused = len(self.runs) - len(left)
        trained, shared, cached = (
            sum(getattr(run, f"{kind}epochs") for run in left) for kind in ("", "shared_", "cached_")
        )
        may_stop = any(run.may_stop for run in left)
        runs = f"{len(self.runs):,} run{'s' * (len(self.runs) != 1)}"
        what = f"Plan: {runs}, {reused or 'none'} reused; {_to_train(trained, may_stop)}"
        what += f", {shared:,} shared with earlier runs of this sweep" * bool(shared)
        what += f", {cached:,} from the cache"
        if not left:
            return f"{what}."
        if self.seconds is None:
            return f"{what}. No estimate of the time: this machine has no earlier run like these."
        about = f"{'At most about' if may_stop else 'About'} {format_duration(self.seconds)}"
        taken = " Rounds of timing of earlier runs with the same files are reused." * self.timed
        return f"{what}. {about}, judging by earlier runs of this machine.{taken}"

    @property
    def described(self) -> dict[str, Any]:
        """The plan for programs."""
        runs = [
            {
                "name": run.name,
                "reused": run.reused or None,
                "epochs_to_train": run.epochs if not run.reused else 0,
                "epochs_shared": run.shared_epochs,
                "epochs_cached": run.cached_epochs,
                "may_stop_early": run.may_stop,
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
            return redact(settings)
        case _:
            return settings


def _to_train(epochs: int, may_stop: bool) -> str:
    """Return the number of epochs to train as text; a maximum if early stopping may end a training."""
    return f"{'at most ' if may_stop else ''}{epochs:,} epoch{'s' * (epochs != 1)} to train"


def open_existing(tracking: Tracking) -> Store | None:
    """Open a store that exists; None if there is none yet, or no such experiment in it. Nothing is created.

    Raises:
        UserError: it is not usable.
    """
    if tracking.database is not None and not tracking.database.exists():
        return None
    try:
        return connect(tracking, create=False)
    except MissingStoreError:
        return None


def plan(requests: Sequence[Request], store: Store | None) -> Plan:
    """Return the plan of these runs, in this order.

    Raises:
        UserError: a file that an option names cannot be read.
    """
    recorded = [row for row in store.finished() if row["status"] == "FINISHED"] if store else []
    here = [row for row in recorded if row["machine"] == stamp()["machine"]]
    costs = Costs(here)
    rounds = {_of_file(row): float(row.get("latency_rounds") or 0) for row in here}
    finished = {row["run_key"]: str(row["run_id"]) for row in recorded if row["run_key"]}
    contents: dict[int, Mapping[str, Any]] = {}  # by option, which the jobs of a sweep share

    def load_contents(option: Any) -> Mapping[str, Any]:
        if id(option) not in contents:
            contents[id(option)] = contents_of(option)
        return contents[id(option)]

    caches = {request.experiment.cache.dir: request.experiment.cache for request in requests}
    states = {folder: _states(cache) for folder, cache in caches.items()}
    planned: list[Planned] = []
    timed = True
    seen: set[str] = set()
    for request in requests:
        experiment = request.experiment
        key = run_key(experiment, load_contents)
        reused = SAME_RUN if key in seen else finished.get(key, "") if request.resume else ""
        seen.add(key)
        values = {name: redact(str(value)) for name, value in request.parameters.items()}
        setting = experiment.setting
        timed &= request.resume and rounds.get(_of_file({**values, **asdict(setting)}), 0) > experiment.latency.rounds
        work = Work(*Work.settings_of({**values, "model": setting.model, "dataset": setting.dataset}), setting.strategy)
        shared = cached = 0
        may_stop = False
        if not reused:
            trained = states[experiment.cache.dir]
            stages = range(1, experiment.strategy.trainings + 1) if experiment.strategy.trains else ()
            missing = []
            for stage, settings in [(0, experiment.training), *((stage, experiment.finetune) for stage in stages)]:
                training = trained[training_name(experiment, stage, load_contents)]
                end = training.end(settings)
                epochs = end or settings.epochs
                found = training.latest(epochs)
                done = max(found, min(training.planned, epochs))
                missing.append(epochs - done)
                cached += found
                shared += done - found
                may_stop |= bool(settings.patience and not end and epochs)
                training.planned = max(training.planned, epochs)
            work = Work(work.subject, work.timing, work.strategy, missing[0], sum(missing[1:]))
        name = run_name(setting, experiment.identity)
        planned.append(Planned(name, request.settings, work, shared, cached, reused, may_stop))
    if all(run.reused for run in planned):
        return Plan(tuple(planned), costs)
    longest = max((request.experiment.latency for request in requests), key=lambda each: each.span_seconds)
    alone = len(planned) == 1  # its own round is one of its rounds, and no report is written
    span = 0.0 if timed else longest.span_seconds * ((longest.rounds - 1) / longest.rounds if alone else 1)
    return Plan(tuple(planned), costs, span + FINISHING * (not alone), timed)


# Settings that decide neither a run's file nor how a round times it.
BESIDE_FILE = ("dataset.test_samples", "latency.rounds", "latency.span", "cache.", "tracking.")


def _of_file(values: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """Return the settings of a recorded or planned run that decide its file and how it is timed.

    Two runs with equal settings probably have the same file; only its digest is certain, after the conversion.
    """
    own = {name: value for name, value in values.items() if "." in name and not name.startswith(BESIDE_FILE)}
    setting = {each.name: values[each.name] for each in fields(Setting)}
    return frozenset((name, str(value)) for name, value in {**own, **setting}.items() if "_target_" not in name)


@dataclass
class _Training:
    """The progress of a training: its states in the cache, and the epochs that earlier runs of the plan train."""

    states: list[Trajectory] = field(default_factory=list)
    planned: int = 0

    def latest(self, epochs: int) -> int:
        """Return the latest epoch up to this one whose state the cache holds; 0 if there is none."""
        return max((epoch for each in self.states for epoch in each.epochs if epoch <= epochs), default=0)

    def end(self, settings: Training) -> int | None:
        """Return the epoch at which early stopping is known to end this training, from its history in the cache."""
        if settings.patience is None:
            return None
        histories = (history_of(each.latest(settings.epochs)[1]) for each in self.states)
        return next(filter(None, (end_of(history, settings.patience) for history in histories)), None)


def _states(cache: Cache) -> defaultdict[str, _Training]:
    """Return the trainings that the cache knows, by their names."""
    found: defaultdict[str, _Training] = defaultdict(_Training)
    for name, trajectory in cache.named_trainings():
        found[name].states.append(trajectory)
    return found


def show(found: Plan) -> None:
    """Print a plan and the configuration of each run: what all have in common, and what each has of its own."""
    say_wrapped(found.summary)
    for run in found.runs:
        say(f"  {run.line}")
    common, own = shared_settings([run.settings for run in found.runs])
    say("\nConfiguration" + (" of all runs:" if len(found.runs) > 1 else ":"))
    say(redact(OmegaConf.to_yaml(OmegaConf.create(common))).rstrip())
    for run, settings in zip(found.runs, own, strict=True):
        if settings:
            say(f"\n{run.name}:")
            say(redact(OmegaConf.to_yaml(OmegaConf.create(settings))).rstrip())
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
    for kind in ("accuracy", "score"):  # runs of earlier versions have accuracies only
        if (score := row.get(f"tflite_{kind}")) is not None:
            metric, change = metric_of_row(row), row.get(f"{kind}_change")
            difference = "" if change is None else f" (Δ {metric.shown_change(float(change))})"
            yield f"{metric.title} {metric.shown(float(score))}{metric.sign}{difference}"
            return


def _size(row: Row) -> Iterable[str]:
    ratio = row.get("size_ratio")
    yield f"{int(row['tflite_bytes']):,} bytes" + ("" if ratio in (None, 1.0) else f" ({smaller(float(ratio))})")


def _speed(row: Row) -> Iterable[str]:
    if row.get("latency_void"):
        first = row.get("latency_rounds") == 1  # a sweep adds rounds at its end
        yield "first round of timing disturbed, more follow" if first else "timing invalid"
    elif row.get("speedup") is not None:
        yield f"speedup {float(row['speedup']):.2f}x"


RUN_BAR = "Run"


@contextmanager
def announce(request: Request) -> Iterator[None]:
    """Print the plan of a single run, and show how much of it is left while the block does it.

    Runs of a server are not read for this: it would take longer than the plan is worth.
    """
    found = plan([request], open_existing(request.tracking) if request.tracking.database else None)
    if found.works:
        say_wrapped(found.summary)
    schedule = Schedule(found.works, found.costs, found.afterwards)
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
