"""Latency of one inference: files timed together in one process, with the ratios of their latencies.

Such a session is one round of a run's timing (`experiments.measure.rounds`): its intervals are over replicates, and so
describe this moment only. The control is a second copy of the reference (the sentinel): if it is not as fast as the
reference, the session is invalid.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Images
from experiments.measure.accuracy import in_order
from experiments.measure.child import run_child
from experiments.statistics.estimates import Estimate, ratio_of_medians, t_quantiles, t_test_of_logs
from experiments.statistics.rounds import mean_of_one_round
from experiments.system.errors import UserError
from experiments.system.machine import Conditions, Watch, timing_lock, usable_cores
from experiments.system.options import OPTION
from experiments.system.progress import bar
from experiments.system.temporary import temporary_folder
from experiments.tflite.conversion import TFLiteModel

Verdict = Literal["faster", "slower", "equivalent", "unclear", "void", "same file"]
Delegate = Literal["xnnpack", "builtin"]
SAME_FILE: Verdict = "same file"  # two files with the same bytes
IDENTICAL = Estimate(1.0, 1.0, 1.0)  # the speedup of a file over itself

STOPWATCH = Path(__file__).with_name("stopwatch.py")
SENTINEL = "sentinel"
IMAGES = 100  # test images to cycle through
EQUIVALENT = 1.02  # ratios between 1 / EQUIVALENT and EQUIVALENT are negligible in practice
PRECISION = 0.01  # stop when half of the interval's width is at most this share of the ratio
LONGEST = 7 * 24 * 60 * 60  # seconds
ROUNDS = 5
MOST_ROUNDS = 1000
LONGEST_SPAN = 60.0  # seconds over which rounds are spread by default
SPAN_PER_SECOND = 6.0  # of timing; shorter timings have a shorter span
FILES_OF_RUN = 3  # its file, the float reference, and the copy
TOLERANCE = 0.2  # of the cores for the timed threads that other processes may use


@option(frozen=True, config=OPTION, kw_only=True)
class LatencyProtocol:
    """How to measure: interpreter threads, kernels, time limit in seconds, precision, rounds and their span."""

    threads: PositiveInt = 1
    delegate: Delegate = "xnnpack"
    seconds: Annotated[float, Field(gt=0, le=LONGEST)] = 10.0
    precision: Annotated[float, Field(gt=0, lt=1)] = PRECISION
    rounds: Annotated[int, Field(gt=0, le=MOST_ROUNDS)] = ROUNDS
    span: Annotated[float, Field(ge=0, le=LONGEST)] | None = None

    @property
    def span_seconds(self) -> float:
        """Seconds over which the rounds are spread."""
        return min(LONGEST_SPAN, SPAN_PER_SECOND * self.seconds) if self.span is None else self.span

    def of_round(self, files: int = FILES_OF_RUN) -> "LatencyProtocol":
        """Return the protocol of one round of this number of files, copies included."""
        return replace(self, seconds=self.seconds / self.rounds * files / FILES_OF_RUN)

    def check(self) -> None:
        """Raise UserError if this machine has fewer cores than `threads`."""
        if self.threads > usable_cores():
            raise UserError(
                f"latency.threads={self.threads}: requires at most {usable_cores()}, the number of usable cores; more "
                "threads would wait for each other."
            )


@dataclass(frozen=True)
class TimedFile:
    """A file to time; for each of its inputs, values (n, ...) to cycle through."""

    content: bytes
    inputs: Sequence[npt.NDArray[np.generic]]

    @staticmethod
    def of(model: TFLiteModel, images: Images) -> "TimedFile":
        """Return a file to time with one image per inference, in its input type."""
        return TimedFile(model.content, [values[:, np.newaxis] for values in in_order(model, images)])


@dataclass(frozen=True)
class Timings:
    """The timings of one file: `samples` (n, 2) int64 are (replicate, nanoseconds) of each inference of one image."""

    samples: npt.NDArray[np.int64]
    loads: npt.NDArray[np.int64]  # (replicates, 2): nanoseconds of loading and of the first inference

    def percentile_us(self, percent: float) -> float:
        """Return a percentile of the latency in microseconds."""
        return float(np.percentile(self.samples[:, 1], percent) / 1000)

    @property
    def min_us(self) -> float:
        """Microseconds of the fastest inference."""
        return float(self.samples[:, 1].min() / 1000)

    @property
    def load_us(self) -> float:
        """Microseconds to load the file: median over replicates."""
        return float(np.median(self.loads[:, 0]) / 1000)

    @property
    def first_us(self) -> float:
        """Microseconds of the first inference after loading: median over replicates."""
        return float(np.median(self.loads[:, 1]) / 1000)

    @property
    def medians(self) -> npt.NDArray[np.float64]:
        """Median nanoseconds of each replicate."""
        replicates, nanoseconds = self.samples.T
        return np.array([np.median(nanoseconds[replicates == replicate]) for replicate in np.unique(replicates)])


@dataclass(frozen=True)
class Session:
    """Files that were timed together, by name; the sentinel is a second copy of the first."""

    timings: Mapping[str, Timings]
    conditions: Conditions
    threads: int
    start_seconds: float  # start-up time of the timing process
    failed: Mapping[str, str] = field(default_factory=dict)  # reasons of files that could not be run
    delegate: Delegate = "xnnpack"
    started: float = 0.0  # seconds since 1970
    id: str = ""
    seconds: float = 0.0  # time limit for each file
    precision: float = 1.0  # at which it may have ended earlier
    stopwatch: str = ""  # digest of the code that timed

    def ratio(self, one: str, other: str) -> Estimate:
        """Return the latency of `one` divided by that of `other`: above 1, `other` is faster."""
        return ratio_of_medians(self.timings[one].medians, self.timings[other].medians)

    def p_value(self, one: str, other: str) -> float:
        """Return the p-value that two files are equally fast, over replicates."""
        return t_test_of_logs(self.timings[one].medians, self.timings[other].medians)

    @property
    def sentinel(self) -> Estimate:
        """The ratio of the first file to its own copy; any difference from 1 is error."""
        return self.ratio(next(iter(self.timings)), SENTINEL)

    @property
    def void(self) -> str:
        """Why these timings are invalid; empty if they are valid."""
        return disturbance(self.conditions, self.threads) or difference_of_copies(self.sentinel)

    def verdict(self, ratio: Estimate) -> Verdict:
        """Return the verdict for a ratio of this session."""
        return "void" if self.void else verdict_of(ratio)


def disturbance(conditions: Conditions, threads: int) -> str:
    """Return why a timing under these conditions does not count; empty if it does."""
    if conditions.cores - conditions.other_cores >= threads - TOLERANCE:
        return ""
    return f"other processes used {conditions.other_cores:.1f} of {conditions.cores} cores, but {threads} must be free"


def difference_of_copies(sentinel: Estimate) -> str:
    """Return why a timing in which a file differs from its own copy is invalid; empty if it does not."""
    if verdict_of(sentinel) not in ("faster", "slower"):
        return ""
    return f"a file and its own copy differ: {sentinel.value:.3f}x [{sentinel.low:.3f}, {sentinel.high:.3f}]"


def verdict_of(ratio: Estimate) -> Verdict:
    """Return the verdict for a ratio of latencies of a valid session."""
    if ratio.low > 1 / EQUIVALENT and ratio.high < EQUIVALENT:
        return "equivalent"
    if ratio.low > 1:
        return "faster"
    return "slower" if ratio.high < 1 else "unclear"


@dataclass(frozen=True)
class Latency:
    """A run's file and the float reference of its baseline, timed together in one round."""

    session: Session
    same_file: bool = False  # the run's file equals the reference

    @property
    def own(self) -> Timings:
        """Timings of the run's file."""
        return self.session.timings["model"]

    @property
    def speedup(self) -> Estimate:
        """Latency of the float reference divided by that of the run's file: above 1 is faster.

        The interval accounts for the scatter between rounds, of which this is one.
        """
        if self.same_file:
            return IDENTICAL
        reference, own = (self.session.timings[name].medians for name in ("reference", "model"))
        return mean_of_one_round(np.log(reference) - np.log(own)).ratio

    @property
    def verdict(self) -> Verdict:
        """The verdict for the speedup; SAME_FILE if both files are equal."""
        verdict = self.session.verdict(self.speedup)
        return SAME_FILE if self.same_file and verdict != "void" else verdict


def measure_latency(
    model: TFLiteModel, reference: TFLiteModel, images: Images, protocol: LatencyProtocol, seed: int
) -> Latency:
    """Time a model, its float reference and a copy of the reference in one clean process: one round of `protocol`.

    Raises:
        UserError: the interpreter crashed, as it does for some files that it cannot run.
    """
    files = {"reference": reference, "model": model}
    session = time_together(files, dict.fromkeys(files, images), protocol.of_round(), [("reference", "model")], seed)
    return Latency(session, model.digest == reference.digest)


def time_together(
    files: Mapping[str, TFLiteModel],
    images: Mapping[str, Images],
    protocol: LatencyProtocol,
    pairs: Sequence[tuple[str, str]],
    seed: int,
) -> Session:
    """Time files, and a copy of the first one.

    Stops when the ratios of these pairs reach `protocol.precision`, or after `protocol.seconds`.
    """
    first = next(iter(files))
    ready = {name: TimedFile.of(file, images[name][:IMAGES]) for name, file in files.items()}
    return time_files({**ready, SENTINEL: ready[first]}, protocol, [*pairs, (first, SENTINEL)], seed)


def time_files(
    files: Mapping[str, TimedFile],
    protocol: LatencyProtocol,
    pairs: Sequence[tuple[str, str]],
    seed: int,
    may_fail: bool = False,
    stopwatch: Path = STOPWATCH,
) -> Session:
    """Time files in one clean process, while no other run computes; with `may_fail`, failures are in `Session.failed`.

    Raises:
        UserError: the interpreter crashed, as it does for some files that it cannot run.
    """
    numbers = {name: str(i) for i, name in enumerate(files)}
    request = {
        "names": list(numbers.values()),
        "pairs": [[numbers[one], numbers[other]] for one, other in pairs],
        "threads": protocol.threads,
        "delegate": protocol.delegate,
        "seconds": protocol.seconds,
        "precision": protocol.precision,
        "critical": t_quantiles(100),
        "seed": seed,
        "may_fail": may_fail,
    }
    with temporary_folder("latency") as folder:
        for name, file in files.items():
            (folder / f"{numbers[name]}.tflite").write_bytes(file.content)
            arrays: dict[str, Any] = {str(place): values for place, values in enumerate(file.inputs)}
            np.savez(folder / f"{numbers[name]}.npz", **arrays)
        (folder / "request.json").write_text(json.dumps(request))
        with timing_lock():
            watch, started = Watch(), time.time()
            start_seconds = _run(stopwatch, folder)
            conditions = watch.conditions()
        reasons: dict[str, str] = json.loads((folder / "failed.json").read_text())
        with np.load(folder / "timings.npz", allow_pickle=False) as arrays_by_name:
            timings = {
                name: _timings(arrays_by_name, number) for name, number in numbers.items() if number not in reasons
            }
    failed = {name: reasons[number] for name, number in numbers.items() if number in reasons}
    return Session(
        timings,
        conditions,
        protocol.threads,
        start_seconds,
        failed,
        protocol.delegate,
        started,
        secrets.token_hex(8),
        round(protocol.seconds / len(files), 6),
        protocol.precision,
        stopwatch_digest(stopwatch),
    )


@cache
def stopwatch_digest(code: Path = STOPWATCH) -> str:
    """Return the digest of the code that times files."""
    return hashlib.sha256(code.read_bytes()).hexdigest()[:8]


def _timings(arrays: Any, number: str) -> Timings:
    return Timings(arrays[f"{number}.samples"], arrays[f"{number}.loads"])


def _run(stopwatch: Path, folder: Path) -> float:
    """Run the process that times; returns its start-up time in seconds."""
    progress: list[tuple[float, int]] = []  # time, and percent of the budget
    started = time.perf_counter()
    with bar("Latency", total=100) as advance:

        def report(share: str) -> None:
            progress.append((time.perf_counter(), int(100 * float(share))))
            advance(progress[-1][1] - progress[max(0, len(progress) - 2)][1])

        run_child(stopwatch, folder, report)
    return progress[0][0] - started
