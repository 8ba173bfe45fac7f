"""Seconds of timing for a sweep of seven runs: `python -m benchmarks.timing_cost`.

The article's network in float, with int8 weights, in float16, in int8, in int8 without its last layer, and in float
and int8 from other initial weights. Their timing is measured twice, alternating:

- in rounds, as a sweep does it: each file in one round with the float file, then five rounds of all files together;
- at one moment, as before there were rounds: each file in one session with the float file, with all the time of a run.

Both end early at the default precision. The pauses between rounds are not counted. Writes
benchmarks/results/timing_cost/.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pandas as pd

from benchmarks.harness import files
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from benchmarks.harness.trial import one_moment
from experiments.dataset import Dataset, Images
from experiments.measure.latency import LatencyProtocol, measure_latency, time_together
from experiments.system.progress import bar
from experiments.tflite.conversion import TFLiteModel, convert
from experiments.tflite.schemes import Dynamic, Float16

PROTOCOL = LatencyProtocol()
QUICK = LatencyProtocol(seconds=0.3)
ROUNDS, ONE_MOMENT = "in rounds", "at one moment"
REPETITIONS = 3
Models = Mapping[str, TFLiteModel]


def made(data: Dataset) -> Models:
    """Return the files of seven runs; the first is the float file that the others are compared with."""
    calibration = partial(data.calibration, seed=0)
    model, other = (files.article_model(data, seed) for seed in (0, 1))
    layers = tuple(layer.name for layer in model.layers if layer.weights)
    return {
        files.FLOAT: convert(model, files.SCHEMES[files.FLOAT], calibration),
        "int8 weights": convert(model, Dynamic(), calibration),
        "float16": convert(model, Float16(), calibration),
        files.INT8: convert(model, files.INT8_SCHEME, calibration),
        "int8 in part": convert(model, replace(files.INT8_SCHEME, layers=layers[:-1]), calibration),
        "float32, other weights": convert(other, files.SCHEMES[files.FLOAT], calibration),
        "int8, other weights": convert(other, files.INT8_SCHEME, calibration),
    }


def in_rounds(models: Models, images: Images, protocol: LatencyProtocol, seed: int) -> None:
    """Time the files as a sweep does it, without the pauses between rounds."""
    reference = models[files.FLOAT]
    for model in models.values():
        measure_latency(model, reference, images, protocol, seed)
    pairs = [(files.FLOAT, name) for name in models if name != files.FLOAT]
    for number in range(protocol.rounds):
        one = protocol.of_round(len(models) + 1)
        time_together(models, dict.fromkeys(models, images), one, pairs, seed + number)


def at_one_moment(models: Models, images: Images, protocol: LatencyProtocol, seed: int) -> None:
    """Time each file once, for as long as all rounds of a run may take."""
    for model in models.values():
        one_moment(model, models[files.FLOAT], images, seed, protocol)


def seconds_of(time_files: Callable[[], None]) -> float:
    """Return the seconds that a timing takes."""
    started = time.perf_counter()
    time_files()
    return time.perf_counter() - started


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    each = table.groupby("timed", sort=False)["seconds"]
    shown = pd.DataFrame(
        [
            {
                "timed": timed,
                "runs": f"{table['runs'].iloc[0]}",
                "seconds of timing, median": f"{seconds.median():.0f}",
                "least to most": f"{seconds.min():.0f} to {seconds.max():.0f}",
            }
            for timed, seconds in each
        ]
    )
    return f"{markdown(shown)}\n{len(table) // 2} times each, alternating.\n"


def failures(table: pd.DataFrame) -> list[str]:
    """Return whether rounds take longer than timing at one moment."""
    median = table.groupby("timed")["seconds"].median()
    missed = median[ROUNDS] > median[ONE_MOMENT]
    return [f"{median[ROUNDS]:.0f} s in rounds, {median[ONE_MOMENT]:.0f} s at one moment"] if missed else []


BENCHMARK = Benchmark(
    name="timing_cost",
    title="Seconds of timing for a sweep of seven runs",
    minutes=3,
    tables=(own("timing_cost", published_table),),
)


def main() -> None:
    """Measure, and write the results."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    data = files.images()
    models, images = made(data), data.test.x[:]
    repetitions, protocol = (1, QUICK) if asked.quick else (REPETITIONS, PROTOCOL)
    rows: list[dict[str, object]] = []
    with bar("Repetitions", total=repetitions) as advance:
        for seed in range(repetitions):
            for timed, way in ((ROUNDS, in_rounds), (ONE_MOMENT, at_one_moment)):
                seconds = seconds_of(partial(way, models, images, protocol, seed))
                rows.append({"timed": timed, "repetition": seed, "runs": len(models), "seconds": seconds})
            advance(1)
    table = pd.DataFrame(rows)
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
