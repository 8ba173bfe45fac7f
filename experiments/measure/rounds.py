"""A run's timing: rounds at different moments, and the estimates over them.

A round is one clean process that times the run's file, its float reference and a control (a file and its own copy), and
in a sweep the files of all its runs. Rounds of one process have the same id in the records of all these runs, so two
runs can be compared in the rounds that they share.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.measure.latency import (
    IDENTICAL,
    SAME_FILE,
    SENTINEL,
    Delegate,
    LatencyProtocol,
    Session,
    Timings,
    Verdict,
    difference_of_copies,
    disturbance,
    stopwatch_digest,
    verdict_of,
)
from experiments.statistics.estimates import Estimate, ratio_of_medians
from experiments.statistics.rounds import Mean, counting, mean_of_one_round, mean_over_rounds, states
from experiments.system.machine import Conditions, usable_cores
from experiments.system.progress import bar
from experiments.system.stopping import raise_if_stopped

ReadRounds = Callable[[str], "Rounds | None"]  # the rounds of a run by its id
LONGEST_SLEEP = 0.2  # seconds, after which a stop is noticed


@dataclass(frozen=True)
class FileTiming:
    """The timing of one file in a round."""

    medians: tuple[float, ...]  # nanoseconds of each replicate
    p50_us: float
    p90_us: float
    p99_us: float
    min_us: float
    first_us: float
    load_us: float

    @staticmethod
    def of(timings: Timings) -> "FileTiming":
        """Summarize the samples of a file."""
        return FileTiming(
            medians=tuple(timings.medians.tolist()),
            p50_us=timings.percentile_us(50),
            p90_us=timings.percentile_us(90),
            p99_us=timings.percentile_us(99),
            min_us=timings.min_us,
            first_us=timings.first_us,
            load_us=timings.load_us,
        )

    @property
    def log_time(self) -> float:
        """Logarithm of the latency in nanoseconds: median over replicates."""
        return float(np.median(np.log(self.medians)))


@dataclass(frozen=True)
class Round:
    """A run's file, its float reference and a control, timed together at one moment."""

    id: str  # of the process; the same in the records of all runs whose files it timed
    started: float  # seconds since 1970
    machine: str
    threads: int
    delegate: Delegate
    conditions: Conditions
    own: FileTiming
    reference: FileTiming
    control: tuple[FileTiming, FileTiming]  # a file and its copy
    seconds: float = 0.0  # time limit for each file; 0 in the records of earlier versions
    precision: float = 1.0  # at which the round may have ended earlier
    stopwatch: str = ""  # digest of the code that timed
    source: str = ""  # id of the run whose record this round is reused from

    @staticmethod
    def of(session: Session, own: str, reference: str, machine: str) -> "Round":
        """Return the round of a run from a session; `own` and `reference` are the names of its files there."""
        timed = {name: session.timings[name] for name in (own, reference, next(iter(session.timings)), SENTINEL)}
        found = {name: FileTiming.of(timings) for name, timings in timed.items()}
        return Round(
            session.id,
            session.started,
            machine,
            session.threads,
            session.delegate,
            session.conditions,
            found[own],
            found[reference],
            (found[next(iter(session.timings))], found[SENTINEL]),
            session.seconds,
            session.precision,
            session.stopwatch,
        )

    @property
    def log_speedup(self) -> float:
        """Logarithm of the speedup: median over replicates, which one disturbed replicate does not move."""
        return log_ratio(self.reference, self.own)

    @property
    def disturbance(self) -> str:
        """Why this round does not count; empty if it does."""
        return disturbance(self.conditions, self.threads)

    def serves(self, protocol: LatencyProtocol) -> bool:
        """Whether the round can be reused: undisturbed, timed by the present code, and at least as long and precise."""
        return (
            not self.disturbance
            and self.stopwatch == stopwatch_digest()
            and (self.threads, self.delegate) == (protocol.threads, protocol.delegate)
            and self.conditions.cores == usable_cores()
            and self.seconds >= round(protocol.of_round(1).seconds, 6)
            and self.precision <= protocol.precision
        )


def log_ratio(one: FileTiming, other: FileTiming) -> float:
    """Return the logarithm of the latency of one file divided by that of another of the same round."""
    return float(np.median(np.log(one.medians) - np.log(other.medians)))


@dataclass(frozen=True)
class Rounds:
    """The rounds of a run on one machine, oldest first, and the digests of its file and of its float reference."""

    own: str
    reference: str
    rounds: tuple[Round, ...]

    def adding(self, further: Sequence[Round]) -> "Rounds":
        """Return these and further rounds; each counts once, and those that are known stay as they are."""
        by_id = {each.id: each for each in (*further, *self.rounds)}
        return replace(self, rounds=tuple(sorted(by_id.values(), key=lambda each: each.started)))

    @property
    def conditions(self) -> tuple[int, Delegate]:
        """Interpreter threads and kernels, which are those of every round."""
        return self.rounds[-1].threads, self.rounds[-1].delegate

    @property
    def undisturbed(self) -> tuple[Round, ...]:
        """The rounds during which other processes left the cores free that were timed."""
        return tuple(each for each in self.rounds if not each.disturbance)

    @cached_property
    def valid(self) -> tuple[Round, ...]:
        """The rounds that count; none if the timing is invalid because of other processes."""
        counts = counting(np.array([bool(each.disturbance) for each in self.rounds]), self.conditions[0])
        return tuple(each for each, valid in zip(self.rounds, counts, strict=True) if valid)

    @property
    def _counted(self) -> tuple[Round, ...]:
        return self.valid or self.rounds

    @property
    def speedup(self) -> Estimate:
        """Latency of the float reference divided by that of the run's file."""
        if self.own == self.reference:
            return IDENTICAL
        if len(self._counted) == 1:
            (only,) = self._counted
            return mean_of_one_round(np.log(only.reference.medians) - np.log(only.own.medians)).ratio
        return _over(self._counted, [each.log_speedup for each in self._counted])

    @property
    def sentinel(self) -> Estimate:
        """The ratio of a file to its own copy; any difference from 1 is error. For one round, over its replicates."""
        if len(self._counted) == 1:
            one, copy = self._counted[0].control
            return ratio_of_medians(np.array(one.medians), np.array(copy.medians))
        return _over(self._counted, [log_ratio(*each.control) for each in self._counted])

    @property
    def void(self) -> str:
        """Why the timing is invalid; empty if it is valid. It is invalid if no round counts."""
        if not self.valid:
            return self.rounds[-1].disturbance
        return difference_of_copies(self.sentinel)

    @property
    def verdict(self) -> Verdict:
        """The verdict on the speedup."""
        if self.void:
            return "void"
        return SAME_FILE if self.own == self.reference else verdict_of(self.speedup)

    @property
    def span_seconds(self) -> float:
        """Seconds between the first and the last round."""
        return self._counted[-1].started - self._counted[0].started

    @property
    def states(self) -> npt.NDArray[np.int64]:
        """The state of the machine in each round that counts, 0 or 1, from the time of the reference."""
        return states(np.array([each.reference.log_time for each in self._counted]))

    def by_state(self) -> Mapping[int, float]:
        """Return the speedup in each state of the machine."""
        logs = np.array([each.log_speedup for each in self._counted])
        return {int(state): float(np.exp(logs[self.states == state].mean())) for state in np.unique(self.states)}

    def metrics(self) -> dict[str, float]:
        """Return the numbers by metric name."""
        counted = self._counted

        def over(name: str) -> list[float]:
            return [getattr(each.own, name) for each in counted]

        return {
            **{f"latency_{name}": float(np.median(over(name))) for name in ("p50_us", "p90_us", "p99_us")},
            "latency_min_us": min(over("min_us")),
            **{f"latency_{name}": float(np.median(over(name))) for name in ("first_us", "load_us")},
            "latency_replicates": float(sum(len(each.own.medians) for each in counted)),
            "latency_rounds": float(len(counted)),
            "latency_rounds_reused": float(sum(bool(each.source) for each in counted)),
            "latency_span_seconds": self.span_seconds,
            "latency_states": float(len(np.unique(self.states))),
            **self.speedup.columns("speedup"),
            **self.sentinel.columns("sentinel"),
            "latency_other_cores": float(np.mean([each.conditions.other_cores for each in counted])),
            "latency_steal_cores": float(np.mean([each.conditions.steal_cores for each in counted])),
            "load_before": counted[0].conditions.load_before,
            "load_after": counted[-1].conditions.load_after,
        }

    def tags(self) -> dict[str, str]:
        """Return the findings by tag."""
        return {"speed": self.verdict, "latency_void": self.void}

    def as_json(self) -> dict[str, Any]:
        """Return the rounds for a JSON file."""
        return asdict(self)

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> "Rounds":
        """Return the rounds of a JSON file.

        Raises:
            KeyError, TypeError, ValueError: it has another format.
        """
        return Rounds(str(found["own"]), str(found["reference"]), tuple(_round(each) for each in found["rounds"]))


@dataclass(frozen=True)
class JointRounds:
    """Sessions of the same files at several moments, with ratios over these rounds."""

    sessions: tuple[Session, ...]

    @cached_property
    def _valid(self) -> tuple[Session, ...]:
        disturbed = [bool(disturbance(each.conditions, each.threads)) for each in self.sessions]
        counts = counting(np.array(disturbed), self.threads)
        return tuple(each for each, valid in zip(self.sessions, counts, strict=True) if valid)

    @property
    def _counted(self) -> tuple[Session, ...]:
        return self._valid or self.sessions

    @property
    def threads(self) -> int:
        """Interpreter threads."""
        return self.sessions[0].threads

    @property
    def conditions(self) -> Conditions:
        """The conditions of the round in which other processes used most."""
        return max((each.conditions for each in self._counted), key=lambda each: each.other_cores)

    @cached_property
    def timings(self) -> Mapping[str, Timings]:
        """The timings of each file in all rounds that count."""
        return {name: _pooled([each.timings[name] for each in self._counted]) for name in self.sessions[0].timings}

    def _mean(self, one: str, other: str) -> Mean:
        logs = [np.log(each.timings[one].medians) - np.log(each.timings[other].medians) for each in self._counted]
        if len(logs) == 1:
            return mean_of_one_round(logs[0])
        started = np.array([each.started for each in self._counted])
        return mean_over_rounds(np.array([np.median(each) for each in logs]), started)

    def ratio(self, one: str, other: str) -> Estimate:
        """Return the latency of `one` divided by that of `other`: above 1, `other` is faster."""
        return self._mean(one, other).ratio

    def p_value(self, one: str, other: str) -> float:
        """Return the p-value that two files are equally fast."""
        return self._mean(one, other).p_value

    @property
    def sentinel(self) -> Estimate:
        """The ratio of the first file to its own copy."""
        if len(self._counted) == 1:
            return self._counted[0].sentinel
        return self.ratio(next(iter(self.timings)), SENTINEL)

    @property
    def void(self) -> str:
        """Why these timings are invalid; empty if they are valid."""
        if len(self._counted) == 1 or not self._valid:
            return self._counted[0].void
        return difference_of_copies(self.sentinel)

    def verdict(self, ratio: Estimate) -> Verdict:
        """Return the verdict for a ratio of these rounds."""
        return "void" if self.void else verdict_of(ratio)


def _pooled(timings: Sequence[Timings]) -> Timings:
    """Return the timings of one file in several rounds; replicates are numbered on."""
    offsets = np.cumsum([0, *(len(each.loads) for each in timings[:-1])])
    samples = [each.samples + np.array([offset, 0]) for each, offset in zip(timings, offsets, strict=True)]
    return Timings(np.concatenate(samples), np.concatenate([each.loads for each in timings]))


def moments(rounds: int, span: float) -> Iterator[int]:
    """Yield the number of each round when it is time for it: they are spread evenly over `span` seconds."""
    started = time.monotonic()
    with bar("Rounds", total=rounds) as advance:
        for number in range(rounds):
            due = started + span * number / max(1, rounds - 1)
            while (left := due - time.monotonic()) > 0:
                raise_if_stopped()
                time.sleep(min(left, LONGEST_SLEEP))
            yield number
            advance(1)


def no_rounds(_: str) -> None:
    """Return None: no rounds of the run are known."""


def _over(rounds: Sequence[Round], logs: Sequence[float]) -> Estimate:
    return mean_over_rounds(np.array(logs), np.array([each.started for each in rounds])).ratio


def ratio_of_runs(one: Rounds, other: Rounds) -> Estimate | None:
    """Return the speedup of one run's file over that of another, from the rounds that timed both; None without two."""
    own = {each.id: each for each in one.valid}
    shared = [(own[each.id], each) for each in other.valid if each.id in own]
    if len(shared) < 2:  # one round says less than the intervals of both runs
        return None
    logs = [log_ratio(theirs.own, ours.own) for ours, theirs in shared]
    return _over([ours for ours, _ in shared], logs)


def ratio_together(one: Rounds | None, other: Rounds | None) -> Estimate | None:
    """Return the speedup of one run's file over that of another from the rounds that they share; None without these."""
    return ratio_of_runs(one, other) if one and other else None


def _round(found: Mapping[str, Any]) -> Round:
    one, other = (_timing(each) for each in found["control"])
    if len({len(found[name]["medians"]) for name in ("own", "reference")} | {len(one.medians), len(other.medians)}) > 1:
        raise ValueError("its files have different numbers of replicates")
    named = {name: found[name] for name in ("id", "started", "machine", "threads", "delegate")}
    since = {name: found[name] for name in ("seconds", "precision", "stopwatch", "source") if name in found}
    return Round(
        **named,
        **since,
        conditions=Conditions(**found["conditions"]),
        own=_timing(found["own"]),
        reference=_timing(found["reference"]),
        control=(one, other),
    )


def _timing(found: Mapping[str, Any]) -> FileTiming:
    timing = FileTiming(**{**found, "medians": tuple(float(each) for each in found["medians"])})
    if not timing.medians or min(timing.medians) <= 0:
        raise ValueError("a time is not above 0")
    return timing
