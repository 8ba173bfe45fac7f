"""Estimates of how long runs take, from finished runs on this machine, in earlier sweeps and in the present one."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from threading import Lock
from typing import Any

from experiments.tracking import Row

# Parts of a run that are neither training nor recording; memory is measured beside the evaluation.
PARTS = ("conversion_seconds", "evaluation_seconds", "latency_seconds", "profile_seconds")
SLOWER = 1.5  # an epoch of a strategy against one of the baseline, until one is measured
STARTING = 3.0  # seconds of a run outside these parts, until they are measured
FINISHING = 8.0  # seconds of a sweep after its last run, besides the rounds of timing: tables, pictures, the report
# Settings that decide the duration of an epoch, beside model and data.
OF_EPOCHS = ("training.batch_size", "training.optimizer", "training.precision", "finetune.batch_size")
BASELINE = ""  # in place of a strategy
IN_FLOAT = (BASELINE, "finetune", "finetune_ptq_int8")  # those whose epochs are like those of the baseline


@dataclass(frozen=True)
class Work:
    """The work of a run: what decides how long it takes."""

    subject: str  # model, data and settings that decide the duration of an epoch
    timing: str  # settings of the latency measurement
    strategy: str
    baseline_epochs: int = 0  # to train, without those from the cache
    own_epochs: int = 0  # of the strategy, to train

    @staticmethod
    def settings_of(values: Mapping[str, Any]) -> tuple[str, str]:
        """Return `subject` and `timing` of the recorded or planned settings of a run."""
        subject = {
            name: str(value)
            for name, value in values.items()
            if name in OF_EPOCHS
            or (name.startswith(("model.", "dataset.")) and "_target_" not in name)
            or name in ("model", "dataset")
        }
        timing = {
            name: str(value) for name, value in values.items() if name.startswith("latency.") and "_target_" not in name
        }
        return str(sorted(subject.items())), str(sorted(timing.items()))


class Costs:
    """Measured seconds of an epoch, and of everything else in a run."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.runs = 0  # number of runs learned from
        self._epochs: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])  # seconds, epochs
        self._rests: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        self._outside: list[float] = []  # seconds of each run outside training and its measured parts
        for row in sorted(rows, key=lambda row: bool(row["finetune_epochs"])):  # baselines first
            self.learn(row)

    def learn(self, row: Row, seconds: float | None = None) -> None:
        """Learn from a finished run; `seconds` is its duration, if it was observed."""
        subject, timing = Work.settings_of(row)
        strategy, parts = str(row["strategy"]), [float(row.get(part) or 0) for part in PARTS]
        self.runs += 1
        self._learn_epochs(row, subject, strategy)
        self._rests[subject, timing, strategy].append(sum(parts))
        if seconds is not None:
            trained = float(row["train_seconds"]) - float(row["train_seconds_reused"])
            self._outside.append(max(0.0, seconds - trained - sum(parts)))

    def _learn_epochs(self, row: Row, subject: str, strategy: str) -> None:
        trained, reused = float(row["epochs_trained"]), float(row["epochs_reused"])
        before, total = float(row["epochs"]), float(row["train_seconds"])
        own = trained + reused - before
        if trained + reused == 0:
            return
        if own <= 0:
            self._add(subject, BASELINE, total, before)
        elif trained > 0 and reused >= before:  # only epochs of the strategy were trained
            self._add(subject, strategy, total - float(row["train_seconds_reused"]), trained)
        elif (baseline := self._epoch(subject, BASELINE)) is not None:
            self._add(subject, strategy, max(0.0, total - before * baseline), own)
        else:
            self._add(subject, strategy, total * own / (own + before), own)

    def _add(self, subject: str, strategy: str, seconds: float, epochs: float) -> None:
        known = self._epochs[subject, strategy]
        known[0] += seconds
        known[1] += epochs

    def _epoch(self, subject: str, strategy: str) -> float | None:
        """Return the seconds of an epoch as measured; None if none was."""
        seconds, epochs = self._epochs.get((subject, strategy), (0.0, 0.0))
        return seconds / epochs if epochs else None

    def epoch(self, subject: str, strategy: str) -> float | None:
        """Return the seconds of an epoch: as measured, or derived from epochs of the same or another subject."""
        measured = self._epoch(subject, strategy)
        if measured is not None:
            return measured
        baselines = [self._epoch(known, BASELINE) for known, of in self._epochs if of == BASELINE]
        baseline = self._epoch(subject, BASELINE) or _mean(baselines)
        others = [self._epoch(subject, of) for known, of in self._epochs if known == subject and of not in IN_FLOAT]
        if strategy in IN_FLOAT or baseline is None:
            return baseline if baseline is not None else _mean(others)
        return _mean(others) or SLOWER * baseline

    def seconds(self, work: Work) -> float | None:
        """Return how long a run takes; None if nothing like it was measured."""
        training = 0.0
        for strategy, epochs in ((BASELINE, work.baseline_epochs), (work.strategy, work.own_epochs)):
            if epochs:
                one = self.epoch(work.subject, strategy)
                if one is None:
                    return None
                training += epochs * one
        rest = self._rest(work)
        return None if rest is None else training + rest + self._around()

    def _rest(self, work: Work) -> float | None:
        exact = self._rests.get((work.subject, work.timing, work.strategy))
        alike = [each for (_, timing, _), some in self._rests.items() if timing == work.timing for each in some]
        same = [
            each
            for (subject, timing, _), some in self._rests.items()
            if (subject, timing) == (work.subject, work.timing)
            for each in some
        ]
        return _mean(exact or same or alike)

    def _around(self) -> float:
        """Return the seconds of a run outside training and its measured parts."""
        first, *others = self._outside or [STARTING]
        return median(others) if others else first  # the first run of a process may have to import TensorFlow


def _mean(values: "Iterable[float | None]") -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


class Schedule:
    """The time that is left of a sweep, whose runs several processes may do at once."""

    def __init__(self, works: Mapping[int, Work], costs: Costs, afterwards: float = 0.0) -> None:
        """Take the work of each job (none if its run is reused), and the seconds after the last run."""
        self._works, self._costs, self._afterwards = dict(works), costs, afterwards
        self._started: dict[int, float] = {}
        self._at_once = 1
        self._lock = Lock()

    def start(self, job: int) -> None:
        """Record that a job starts."""
        with self._lock:
            self._started[job] = time.monotonic()
            self._at_once = max(self._at_once, len(self._started))

    def finish(self, job: int, row: Row | None) -> float:
        """Record that a job has ended, learn from its row if it has one of its own, and return its seconds."""
        with self._lock:
            seconds = time.monotonic() - self._started.pop(job, time.monotonic())
            self._works.pop(job, None)
            if row is not None:
                self._costs.learn(row, seconds)
            return seconds

    def left(self) -> float | None:
        """Return the seconds that are left; None if unknown."""
        with self._lock:
            now, total = time.monotonic(), 0.0
            for job, work in self._works.items():
                seconds = self._costs.seconds(work)
                if seconds is None:
                    return None
                total += max(0.0, seconds - (now - self._started.get(job, now)))
            return total / max(1, min(self._at_once, len(self._works))) + self._afterwards
