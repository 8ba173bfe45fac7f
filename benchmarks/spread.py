"""Variation of a speedup between measurements: `python -m benchmarks.spread`.

How many times faster the article's network is in int8 than in float, measured ten times by each of four, in turns:
this suite; LiteRT's own benchmark (litert-benchmark with its defaults, once for each file, ratio of the average
latencies it reports); the loop that people write (5 inferences to warm up, 50 timed, mean; file after file); and the
same loop for as long as the suite has taken. Compared is the distance between the 5th and the 95th percentile. Writes
benchmarks/results/spread/.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness import files
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import on_shared_host, own
from benchmarks.harness.results import Results, timing_options
from benchmarks.harness.trial import one_moment
from experiments.dataset import Images
from experiments.system.errors import UserError
from experiments.system.progress import bar
from experiments.system.silence import native_stderr_silenced
from experiments.tflite.conversion import TFLiteModel

SUITE, LITERT, LOOP = "this suite", "litert-benchmark", "a plain loop"
LONG_LOOP = f"{LOOP}, for as long as the suite"
SPREAD_AT_LEAST = 3.0  # times the suite's spread, for other tools
REPETITIONS = 10
WARM_UP, TIMED = 5, 50


def by_suite(made: Mapping[str, TFLiteModel], images: Images, seed: int) -> float:
    """Return the speedup that the suite reports."""
    return one_moment(made[files.INT8], made[files.FLOAT], images, seed).ratio("reference", "model").value


def by_litert(made: Mapping[str, TFLiteModel]) -> float:
    """Return the ratio of the latencies that LiteRT's benchmark reports."""
    return _litert_latency(made[files.FLOAT]) / _litert_latency(made[files.INT8])


def _litert_latency(model: TFLiteModel) -> float:
    tool = Path(sys.executable).with_name("litert-benchmark")
    with tempfile.TemporaryDirectory() as folder:
        path, report = Path(folder) / "model.tflite", Path(folder) / "report.json"
        path.write_bytes(model.content)
        command = [str(tool), "--model", str(path), "--result_json", str(report)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UserError(f"litert-benchmark ended with {done.returncode}: {done.stderr.strip()}")
        return float(json.loads(report.read_text())["latency"]["avg_ms"])


def by_loop(made: Mapping[str, TFLiteModel], images: Images, seconds: float = 0.0) -> float:
    """Return the ratio of two means, taken one after the other, each over TIMED inferences or half of the seconds."""
    return _loop_latency(made[files.FLOAT], images, seconds / 2) / _loop_latency(made[files.INT8], images, seconds / 2)


def _loop_latency(model: TFLiteModel, images: Images, at_least: float) -> float:
    from ai_edge_litert.interpreter import Interpreter

    with native_stderr_silenced():
        interpreter: Any = Interpreter(model_content=model.content)
        interpreter.allocate_tensors()
    index = interpreter.get_input_details()[0]["index"]
    seconds: list[float] = []
    end = time.perf_counter() + at_least
    for i in count():
        if i >= WARM_UP + TIMED and time.perf_counter() > end:
            break
        interpreter.set_tensor(index, images[i % len(images)][np.newaxis])
        started = time.perf_counter()
        interpreter.invoke()
        seconds.append(time.perf_counter() - started)
    return float(np.mean(seconds[WARM_UP:]))


def timed(measure: Callable[[], float]) -> tuple[float, float]:
    """Return the result and the duration in seconds."""
    started = time.perf_counter()
    return measure(), time.perf_counter() - started


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    ours = _spread(table, SUITE)
    shown = pd.DataFrame(
        [
            {
                "measured by": way,
                "repetitions": str(len(trials)),
                "speedup, median": f"{trials['speedup'].median():.3f}x",
                "5th to 95th percentile": " to ".join(f"{trials['speedup'].quantile(q):.3f}" for q in (0.05, 0.95)),
                "spread": f"{_spread(table, str(way)):.3f}",
                "spread / this suite's": "" if way == SUITE else f"{_spread(table, str(way)) / ours:.1f}",
                "seconds each, median": f"{trials['seconds'].median():.1f}",
            }
            for way, trials in table.groupby("way", sort=False)
        ]
    )
    return (
        f"{markdown(shown)}\n{LITERT} reports hundredths of a millisecond: for files as fast as these, most of its "
        "spread is that rounding.\n"
    )


def failures(table: pd.DataFrame) -> list[str]:
    """Return the other tools whose spread is not larger by the required factor."""
    ours = _spread(table, SUITE)
    times = {way: _spread(table, way) / ours for way in (LITERT, LOOP)}
    return [f"{way}: {value:.1f} times the suite's spread" for way, value in times.items() if value < SPREAD_AT_LEAST]


def _spread(table: pd.DataFrame, way: str) -> float:
    speedups = table.loc[table["way"] == way, "speedup"]
    return float(speedups.quantile(0.95) - speedups.quantile(0.05))


BENCHMARK = Benchmark(
    name="spread",
    title="Variation of a speedup between measurements",
    minutes=2,
    tables=(
        own("spread", published_table),
        on_shared_host("spread", published_table),
    ),
)


def main() -> None:
    """Measure, and write the results."""
    asked = timing_options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK, asked.shared_host)
    data = files.images()
    made = files.article(data)
    repetitions = 2 if asked.quick else REPETITIONS
    rows: list[tuple[str, float, float]] = []
    with bar("Repetitions", total=repetitions) as advance:
        for repetition in range(repetitions):
            suite, seconds = timed(partial(by_suite, made, data.test.x[:], repetition))
            rows.append((SUITE, suite, seconds))
            rows.append((LITERT, *timed(partial(by_litert, made))))
            rows.append((LOOP, *timed(partial(by_loop, made, data.test.x[:]))))
            rows.append((LONG_LOOP, *timed(partial(by_loop, made, data.test.x[:], seconds))))
            advance(1)
    table = pd.DataFrame(rows, columns=["way", "speedup", "seconds"])
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
