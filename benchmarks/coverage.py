"""Whether a timing holds later: `python -m benchmarks.coverage`.

For 22 minutes, a round of timing starts every 7.5 seconds: the article's network in float, in int8 and with int8
weights, a second copy of each, and a network of 100 equal convolutions with those of 103, 105 and 110. Every second
round belongs to the same simulated sweep: five rounds over 60 seconds, the default protocol of a sweep. From them:

- coverage: the share of the sweeps' 95 % intervals of a speedup that hold the mean of all rounds which began a minute
  or more later;
- a file against its own copy: how often it is called faster or slower;
- a known difference of 3, 5 and 10 % of work: how often it is found;
- the spread of the int8 speedup over sweeps that do not overlap, against that of a plain loop of the same seconds: file
  after file, at one moment.

Rounds are stored as they are measured: if the benchmark is interrupted, the same command continues. Writes
benchmarks/results/coverage/.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from experiments.dataset import Images
from experiments.measure.latency import SENTINEL, LatencyProtocol, Session, disturbance, time_together, verdict_of
from experiments.statistics.rounds import Mean, counting, mean_over_rounds
from experiments.system.progress import bar, say
from experiments.tflite.conversion import TFLiteModel, convert
from experiments.tflite.schemes import Dynamic

MINUTES = 22
GAP = 7.5  # seconds between the starts of two rounds
ROUNDS, EVERY = 5, 2  # a sweep has every second round: five over 60 seconds
LATER = 60.0  # seconds after its last round, from which on rounds count as later
DYNAMIC = "int8 weights"
ADDED = (3, 5, 10)  # percent of work
LOOP_EVERY = 8  # rounds: about once per sweep
FOUND_AT_LEAST = {3: 0.80, 5: 0.95, 10: 0.99}
COVERED_AT_LEAST, WRONG_AT_MOST, TIMES_SMALLER = 0.92, 0.05, 2.0
SPEEDUP, ITSELF, DIFFERENCE, LOOP = "speedup", "itself", "difference", "loop"
PAUSE = 60.0  # seconds without a round, after which a later one is of another sitting
WARM_UP = 20
COLUMNS = ["kind", "name", "started", "distinct", "ratio", "ratio_low", "ratio_high", "speed", "later_rounds", "later"]
QUICK, QUICK_ROUNDS = LatencyProtocol(seconds=0.3), 20
Models = Mapping[str, TFLiteModel]
# The ratios of every round, by column: kind, and numerator and denominator.
RATIOS: Mapping[str, tuple[str, str, str]] = {
    files.INT8: (SPEEDUP, files.FLOAT, files.INT8),
    DYNAMIC: (SPEEDUP, files.FLOAT, DYNAMIC),
    f"{files.FLOAT} itself": (ITSELF, files.FLOAT, SENTINEL),
    **{f"{name} itself": (ITSELF, name, f"{name}, copy") for name in (files.INT8, DYNAMIC, "100 layers")},
    **{f"{added} %": (DIFFERENCE, "100 layers", f"{100 + added} layers") for added in ADDED},
}


@dataclass(frozen=True)
class Sweep:
    """The rounds of a simulated sweep."""

    rounds: pd.DataFrame

    def mean(self, name: str) -> Mean | None:
        """Return the mean of a ratio over the rounds that count; None without two of them."""
        valid = valid_rounds(self.rounds)
        if len(valid) < 2:
            return None
        return mean_over_rounds(valid[name].to_numpy(float), valid["started"].to_numpy(float))

    @property
    def end(self) -> float:
        """Start of its last round, in seconds since 1970."""
        return float(self.rounds["started"].iloc[-1])


def valid_rounds(rounds: pd.DataFrame) -> pd.DataFrame:
    """Return the rounds that count."""
    return rounds[counting(rounds["disturbed"].to_numpy(bool), threads=1)]


def made() -> tuple[Models, Images]:
    """Return the files to time, and images for them."""
    data = files.images()
    article = files.article(data)
    model = files.article_model(data)
    some = {
        **article,
        DYNAMIC: convert(model, Dynamic(), partial(data.calibration, seed=0)),
        "100 layers": files.padded(data, 100),
    }
    copies = {f"{name}, copy": some[name] for name in (files.INT8, DYNAMIC, "100 layers")}
    return {
        **some,
        **copies,
        **{f"{100 + added} layers": files.padded(data, 100 + added) for added in ADDED},
    }, data.test.x[:]


def one_round(models: Models, images: Images, seed: int, protocol: LatencyProtocol) -> Session:
    """Time all files in one round of the protocol."""
    protocol = protocol.of_round(len(models) + 1)
    pairs = [(one, other) for _, one, other in RATIOS.values()]
    return time_together(models, dict.fromkeys(models, images), protocol, pairs, seed)


def row_of(session: Session) -> dict[str, object]:
    """Return a round as a row: when, the machine's load, the reference's own time, and the logarithm of each ratio."""
    medians = {name: np.log(timings.medians) for name, timings in session.timings.items()}
    return {
        "started": session.started,
        "other_cores": session.conditions.other_cores,
        "disturbed": bool(disturbance(session.conditions, session.threads)),
        "pair_seconds": sum(session.timings[name].samples[:, 1].sum() for name in (files.FLOAT, files.INT8)) / 1e9,
        "reference_us": session.timings[files.FLOAT].percentile_us(50),
        **{name: float(np.median(medians[one] - medians[other])) for name, (_, one, other) in RATIOS.items()},
    }


def by_loop(models: Models, images: Images, seconds: float) -> dict[str, float]:
    """Return the speedup by a plain loop: one interpreter of each file, timed one after the other for half the time."""
    latency = {name: _loop(models[name], images, seconds / 2) for name in (files.FLOAT, files.INT8)}
    return {"started": time.time(), "speedup": latency[files.FLOAT] / latency[files.INT8]}


def _loop(model: TFLiteModel, images: Images, seconds: float) -> float:
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_content=model.content, num_threads=1)
    interpreter.allocate_tensors()
    index = interpreter.get_input_details()[0]["index"]
    taken: list[float] = []
    end = time.perf_counter() + seconds
    for i in count():
        if i > WARM_UP and time.perf_counter() > end:
            return float(np.mean(taken[WARM_UP:]))
        interpreter.set_tensor(index, images[i % len(images)][np.newaxis])
        started = time.perf_counter()
        interpreter.invoke()
        taken.append(time.perf_counter() - started)
    raise AssertionError


def sweeps(rounds: pd.DataFrame, apart: int = 1) -> list[Sweep]:
    """Return the simulated sweeps: one begins at every `apart`-th round of a sitting."""
    found = []
    sitting = (rounds["started"].diff() > PAUSE).cumsum()
    length = EVERY * (ROUNDS - 1) + 1
    for _, own_rounds in rounds.groupby(sitting):
        for first in range(0, len(own_rounds) - length + 1, apart):
            found.append(Sweep(own_rounds.iloc[first : first + length : EVERY]))
    return found


def figures(rounds: pd.DataFrame, loops: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each ratio of each simulated sweep, and for each loop."""
    distinct = {sweep.end for sweep in sweeps(rounds, EVERY * ROUNDS)}
    rows: list[dict[str, object]] = []
    for sweep in sweeps(rounds):
        later = valid_rounds(rounds[rounds["started"] > sweep.end + LATER])
        for name, (kind, _, _) in RATIOS.items():
            mean = sweep.mean(name)
            ratio = mean.ratio if mean else None
            rows.append(
                {
                    "kind": kind,
                    "name": name,
                    "started": sweep.rounds["started"].iloc[0],
                    "distinct": sweep.end in distinct,
                    **(ratio.columns("ratio") if ratio else {}),
                    "speed": verdict_of(ratio) if ratio else "void",
                    "later_rounds": len(later),
                    "later": float(np.exp(later[name].mean())) if len(later) >= ROUNDS else np.nan,
                }
            )
    rows += [
        {"kind": LOOP, "name": files.INT8, "started": started, "distinct": True, "ratio": speedup}
        for started, speedup in loops.itertuples(index=False)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return what was measured and what is required: a row per claim."""
    rows = []
    for name in (files.INT8, DYNAMIC):
        timings = table[
            (table["kind"] == SPEEDUP) & (table["name"] == name) & table["later"].notna() & table["ratio"].notna()
        ]
        held = (timings["ratio_low"] <= timings["later"]) & (timings["later"] <= timings["ratio_high"])
        half = (timings["ratio_high"] / timings["ratio_low"]) ** 0.5 - 1
        rows.append(
            _claim(
                f"the interval of the speedup of {name} holds the mean of later rounds",
                len(timings),
                int(timings["distinct"].sum()),
                held.mean(),
                f"half of its width: {100 * half.median():.1f} %",
                COVERED_AT_LEAST,
            )
        )
    itself = table[table["kind"] == ITSELF]
    right = ~itself["speed"].isin(["faster", "slower"])
    rows.append(
        _claim(
            "a file is not called faster or slower than its own copy",
            len(itself),
            int(itself["distinct"].sum()),
            right.mean(),
            f"called equivalent: {100 * (itself['speed'] == 'equivalent').mean():.0f} %",
            1 - WRONG_AT_MOST,
        )
    )
    for added in ADDED:
        timings = table[(table["kind"] == DIFFERENCE) & (table["name"] == f"{added} %")]
        rows.append(
            _claim(
                f"{added} % more work is found",
                len(timings),
                int(timings["distinct"].sum()),
                (timings["speed"] == "slower").mean(),
                f"slower by {100 * (1 / timings['ratio'].median() - 1):.1f} %, median",
                FOUND_AT_LEAST[added],
            )
        )
    return pd.DataFrame(rows)


def _claim(claim: str, trials: int, distinct: int, share: float, detail: str, required: float) -> dict[str, object]:
    return {
        "claim": claim,
        "sweeps": trials,
        "distinct": distinct,
        "share": share,
        "detail": detail,
        "required": required,
    }


def spreads(table: pd.DataFrame) -> tuple[float, float]:
    """Return the 5th to 95th percentile distances of the int8 speedup: of distinct sweeps, and of plain loops."""
    sweep = table[(table["kind"] == SPEEDUP) & (table["name"] == files.INT8) & table["distinct"]]["ratio"].dropna()
    loop = table[table["kind"] == LOOP]["ratio"]
    one, other = (values.quantile(0.95) - values.quantile(0.05) for values in (sweep, loop))
    return float(one), float(other)


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    claims = summary(table)
    shown = pd.DataFrame(
        {
            "claim": claims["claim"],
            "sweeps": claims["sweeps"].map("{:,}".format),
            "that do not overlap": claims["distinct"].map("{:,}".format),
            "share": claims["share"].map(lambda share: f"{100 * share:.0f} %"),
            "target": claims["required"].map(lambda share: f"{100 * share:.0f} %"),
            "detail": claims["detail"],
        }
    )
    ours, loop = spreads(table)
    return (
        f"{markdown(shown)}\nThe speedup of int8 in sweeps that do not overlap varies by {ours:.3f} (5th to 95th "
        f"percentile), in a plain loop of as many seconds by {loop:.3f}: {loop / ours:.1f} times as much (target: "
        f"{TIMES_SMALLER:.0f}).\n"
    )


def failures(table: pd.DataFrame) -> list[str]:
    """Return the missed targets."""
    claims = summary(table)
    missed = [
        f"{claim}: {100 * share:.0f} %"
        for claim, share, required in zip(claims["claim"], claims["share"], claims["required"], strict=True)
        if not share >= required
    ]
    ours, loop = spreads(table)
    return missed + (
        [f"a plain loop varies {loop / ours:.1f} times as much"] if not loop >= TIMES_SMALLER * ours else []
    )


BENCHMARK = Benchmark(
    name="coverage",
    title="Whether a timing holds later",
    minutes=24,
    tables=(own("coverage", published_table), on_shared_host("coverage", published_table)),
)


def measured_seconds(rounds: pd.DataFrame) -> float:
    """Return for how long rounds have been measured, without pauses."""
    gaps = rounds["started"].diff()
    return float(gaps[gaps <= PAUSE].sum())


def _stored(path: Path | None, columns: Sequence[str]) -> pd.DataFrame:
    return pd.read_csv(path) if path and path.exists() else pd.DataFrame(columns=list(columns))


def _append(path: Path | None, frame: pd.DataFrame, row: Mapping[str, object]) -> pd.DataFrame:
    """Add a row to the figures, and to their file."""
    if path:
        pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False, lineterminator="\n")
    added = pd.DataFrame([row])
    return added if frame.empty else pd.concat([frame, added], ignore_index=True)


def main() -> None:
    """Measure, and write the results."""
    parser = timing_options(BENCHMARK, __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of rounds (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="discard stored rounds")
    asked = parser.parse_args()
    results = Results(BENCHMARK, asked.shared_host)
    folder = None if asked.quick else results.folder
    paths = {name: folder / f"{name}.csv" if folder else None for name in ("rounds", "loops")}
    for path in paths.values():
        if path and asked.again:
            path.unlink(missing_ok=True)
    rounds = _stored(paths["rounds"], ["started"])
    loops = _stored(paths["loops"], ["started", "speedup"])
    minutes, gap = (0.0, 0.0) if asked.quick else (asked.minutes, GAP)
    fewest, protocol = (QUICK_ROUNDS, QUICK) if asked.quick else (0, LatencyProtocol())
    models, images = made()
    if len(rounds):
        say(f"continuing after {len(rounds)} rounds of {measured_seconds(rounds) / 60:.1f} minutes")
    with bar("Minutes", total=int(minutes)) as advance:
        started, shown = time.monotonic() - measured_seconds(rounds), 0
        for number in count():
            due = time.monotonic() + gap
            rounds = _append(paths["rounds"], rounds, row_of(one_round(models, images, len(rounds), protocol)))
            if number % LOOP_EVERY == LOOP_EVERY - 1:
                loops = _append(paths["loops"], loops, by_loop(models, images, ROUNDS * rounds["pair_seconds"].mean()))
            passed = int((time.monotonic() - started) / 60)
            advance(passed - shown)
            shown = passed
            if number >= fewest and time.monotonic() - started >= 60 * minutes:
                break
            time.sleep(max(0.0, due - time.monotonic()))
    table = figures(rounds, loops)
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
