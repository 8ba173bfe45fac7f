"""How long one inference takes: files timed side by side, what can be said of their ratios, and what cannot.

A ratio is given with its 95 % interval over replicates, and in words (`Verdict`). Whether the session could tell files
apart at all is seen by a sentinel: a second copy of the reference, which has to come out as fast as the first.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as option

from experiments.dataset import Images
from experiments.measure.accuracy import input_of, quantized
from experiments.measure.child import run_child
from experiments.statistics.estimates import Estimate, ratio_of_medians, t_quantiles
from experiments.system.errors import UserError
from experiments.system.machine import Conditions, Watch, timing_lock, usable_cores
from experiments.system.options import OPTION
from experiments.system.progress import bar
from experiments.system.temporary import temporary_folder
from experiments.tflite.conversion import TFLiteModel

Verdict = Literal["faster", "slower", "equivalent", "unclear", "void", "same file"]
SAME_FILE: Verdict = "same file"  # of two files with the same bytes, of which none is faster

STOPWATCH = Path(__file__).with_name("stopwatch.py")
SENTINEL = "sentinel"
IMAGES = 100  # test images that take turns as input
EQUIVALENT = 1.02  # a ratio between 1 / this and this is too small to matter
PRECISION = 0.01  # half of an interval's width, as a share of the ratio, that is narrow enough to stop
LONGEST = 7 * 24 * 60 * 60  # seconds
TOLERANCE = 0.2  # cores: so much of what the timed threads need may be busy with something else


@option(frozen=True, config=OPTION, kw_only=True)
class LatencyProtocol:
    """How to measure: interpreter threads, the kernels, and the seconds that all of it may take."""

    threads: PositiveInt = 1
    delegate: Literal["xnnpack", "builtin"] = "xnnpack"
    seconds: Annotated[float, Field(gt=0, le=LONGEST)] = 10.0
    precision: Annotated[float, Field(gt=0, lt=1)] = PRECISION

    def check(self) -> None:
        """Raises UserError where this machine has fewer cores than threads are asked for."""
        if self.threads > usable_cores():
            raise UserError(
                f"latency.threads={self.threads}: this machine has {usable_cores()} cores, and threads that wait for "
                "one another measure nothing."
            )


@dataclass(frozen=True)
class TimedFile:
    """A file to be timed, and what it is given: for each of its inputs, values (n, ...) that take turns."""

    content: bytes
    inputs: Sequence[npt.NDArray[np.generic]]

    @staticmethod
    def given(model: TFLiteModel, images: Images) -> "TimedFile":
        """A file that takes images, one an inference, in its own type."""
        return TimedFile(model.content, [quantized(images, input_of(model))[:, np.newaxis]])


@dataclass(frozen=True)
class Timings:
    """What one file took: `samples` (n, 2) int64 are (replicate, nanoseconds) of each inference with one image."""

    samples: npt.NDArray[np.int64]
    loads: npt.NDArray[np.int64]  # (replicates, 2): nanoseconds to load the file, and of its first inference

    def percentile_us(self, percent: float) -> float:
        """Microseconds that `percent` of all timed inferences stayed below."""
        return float(np.percentile(self.samples[:, 1], percent) / 1000)

    @property
    def min_us(self) -> float:
        """Microseconds of the fastest inference."""
        return float(self.samples[:, 1].min() / 1000)

    @property
    def load_us(self) -> float:
        """Microseconds to read the file and make it ready: median over replicates."""
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
    start_seconds: float  # until the process that times was ready
    failed: Mapping[str, str] = field(default_factory=dict)  # why files could not be run

    def ratio(self, one: str, other: str) -> Estimate:
        """How many times as long `one` takes as `other`: above 1, `other` is faster."""
        return ratio_of_medians(self.timings[one].medians, self.timings[other].medians)

    @property
    def sentinel(self) -> Estimate:
        """The first file against its own copy: whatever is not 1 here is error."""
        return self.ratio(next(iter(self.timings)), SENTINEL)

    @property
    def void(self) -> str:
        """Why nothing can be said of these timings; empty where something can."""
        free = self.conditions.cores - self.conditions.other_cores
        if free < self.threads - TOLERANCE:
            return (
                f"other work kept {self.conditions.other_cores:.1f} of {self.conditions.cores} cores busy, and "
                f"{self.threads} had to be free"
            )
        if in_words(self.sentinel) in ("faster", "slower"):
            value, low, high = self.sentinel.value, self.sentinel.low, self.sentinel.high
            return f"a file and its own copy seemed to differ: {value:.3f}x [{low:.3f}, {high:.3f}]"
        return ""

    def verdict(self, ratio: Estimate) -> Verdict:
        """What a ratio of this session means."""
        return "void" if self.void else in_words(ratio)


def in_words(ratio: Estimate) -> Verdict:
    """What a ratio of latencies means, where the timing is not void."""
    if ratio.low > 1 / EQUIVALENT and ratio.high < EQUIVALENT:
        return "equivalent"
    if ratio.low > 1:
        return "faster"
    return "slower" if ratio.high < 1 else "unclear"


@dataclass(frozen=True)
class Latency:
    """A run's file and the float reference of its baseline, timed together."""

    session: Session
    same_file: bool = False  # the run's file is the reference, byte for byte

    @property
    def own(self) -> Timings:
        """Those of the run's file."""
        return self.session.timings["model"]

    @property
    def speedup(self) -> Estimate:
        """Latency of the float reference over this file's: above 1 is faster."""
        return self.session.ratio("reference", "model")

    @property
    def verdict(self) -> Verdict:
        """What the speedup means; where both files are the same one, that they are."""
        verdict = self.session.verdict(self.speedup)
        return SAME_FILE if self.same_file and verdict != "void" else verdict


def measure_latency(
    model: TFLiteModel, reference: TFLiteModel, images: Images, protocol: LatencyProtocol, seed: int
) -> Latency:
    """Time a model, its float reference and a copy of the reference in one clean process.

    Raises:
        UserError: the interpreter ended the process, as it does on files it cannot run.
    """
    files = {"reference": reference, "model": model}
    session = time_together(files, dict.fromkeys(files, images), protocol, [("reference", "model")], seed)
    return Latency(session, model.digest == reference.digest)


def time_together(
    files: Mapping[str, TFLiteModel],
    images: Mapping[str, Images],
    protocol: LatencyProtocol,
    pairs: Sequence[tuple[str, str]],
    seed: int,
) -> Session:
    """Time files, and a copy of the first.

    It ends when the ratios of these pairs are known to `protocol.precision`, or `protocol.seconds` are spent.
    """
    first = next(iter(files))
    ready = {name: TimedFile.given(file, images[name][:IMAGES]) for name, file in files.items()}
    return time_files({**ready, SENTINEL: ready[first]}, protocol, [*pairs, (first, SENTINEL)], seed)


def time_files(
    files: Mapping[str, TimedFile],
    protocol: LatencyProtocol,
    pairs: Sequence[tuple[str, str]],
    seed: int,
    may_fail: bool = False,
) -> Session:
    """Time files in one clean process, while no other run computes here; where it is allowed, some may fail to run.

    Raises:
        UserError: the process ended, as the interpreter makes it on files that it cannot run.
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
        for contestant, file in files.items():
            (folder / f"{numbers[contestant]}.tflite").write_bytes(file.content)
            arrays: dict[str, Any] = {str(place): values for place, values in enumerate(file.inputs)}
            np.savez(folder / f"{numbers[contestant]}.npz", **arrays)
        (folder / "request.json").write_text(json.dumps(request))
        with timing_lock():
            watch = Watch()
            start_seconds = _run(folder)
            conditions = watch.conditions()
        reasons: dict[str, str] = json.loads((folder / "failed.json").read_text())
        with np.load(folder / "timings.npz", allow_pickle=False) as arrays_by_name:
            timings = {
                name: _timings(arrays_by_name, number) for name, number in numbers.items() if number not in reasons
            }
    failed = {name: reasons[number] for name, number in numbers.items() if number in reasons}
    return Session(timings, conditions, protocol.threads, start_seconds, failed)


def _timings(arrays: Any, number: str) -> Timings:
    return Timings(arrays[f"{number}.samples"], arrays[f"{number}.loads"])


def _run(folder: Path) -> float:
    """Let the stopwatch run; how many seconds it took to start."""
    heard: list[tuple[float, int]] = []  # when, and percent of the budget
    started = time.perf_counter()
    with bar("Latency", total=100) as advance:

        def hear(share: str) -> None:
            heard.append((time.perf_counter(), int(100 * float(share))))
            advance(heard[-1][1] - heard[max(0, len(heard) - 2)][1])

        run_child(STOPWATCH, folder, hear)
    return heard[0][0] - started
