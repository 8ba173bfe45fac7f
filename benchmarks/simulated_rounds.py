"""Whether intervals over rounds of timing hold, by simulation: `python -m benchmarks.simulated_rounds`.

Machines are simulated whose log ratio scatters, drifts, or changes between two states. Counted is how often the 95 %
interval of a timing holds the long-run mean: the interval of experiments/statistics/rounds.py, and the t-interval that
takes rounds for independent. Writes benchmarks/results/simulated_rounds/ and its table in docs/.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.statistics.estimates import Estimate
from experiments.statistics.rounds import mean_over_rounds
from experiments.system.progress import bar

Moments = npt.NDArray[np.float64]  # seconds at which rounds start
Process = Callable[[Moments, np.random.Generator], npt.NDArray[np.float64]]  # draws the log ratio of each round

FIVE = np.linspace(0, 60, 5)  # the default protocol
TEN = np.linspace(0, 300, 10)
TRIALS = 10_000
PROMISED = 0.9  # of timings whose rounds include all states of the machine; see experiments/statistics/rounds.py


def noise(scatter: float) -> Process:
    """Return a machine without states: independent rounds."""
    return lambda seconds, rng: rng.normal(0, scatter, len(seconds))


def drift(scatter: float, constant: float) -> Process:
    """Return a machine whose log ratio wanders around its long-run mean with this time constant in seconds."""

    def drawn(seconds: Moments, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        values = [rng.normal(0, scatter)]
        for gap in np.diff(seconds):
            kept = np.exp(-gap / constant)
            values.append(kept * values[-1] + rng.normal(0, scatter * np.sqrt(1 - kept**2)))
        return np.array(values) + rng.normal(0, 0.004, len(seconds))

    return drawn


def two_states(dwell: float, gap: float) -> Process:
    """Return a machine with two states that last about `dwell` seconds, in which the log ratio differs by `gap`."""

    def drawn(seconds: Moments, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        state = [rng.integers(2)]
        for pause in np.diff(seconds):
            changes = rng.random() < (1 - np.exp(-2 * pause / dwell)) / 2
            state.append(state[-1] ^ changes)
        return (np.array(state) - 0.5) * gap + rng.normal(0, 0.005, len(seconds))

    return drawn


def estimated(logs: npt.NDArray[np.float64], seconds: Moments) -> Estimate:
    """Return the ratio with its interval."""
    return mean_over_rounds(logs, seconds).ratio


def as_if_independent(logs: npt.NDArray[np.float64], _: Moments) -> Estimate:
    """Return the ratio with a t-interval over rounds, as if they were independent."""
    half = float(stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs))
    return Estimate(*(float(np.exp(logs.mean() + each)) for each in (0, -half, half)))


def coverage(
    process: Process,
    seconds: Moments,
    trials: int,
    interval: Callable[[npt.NDArray[np.float64], Moments], Estimate] = estimated,
) -> float:
    """Return the share of intervals that hold the long-run mean, which is a ratio of 1."""
    rng = np.random.default_rng(0)
    ratios = [interval(process(seconds, rng), seconds) for _ in range(trials)]
    return float(np.mean([each.low <= 1 <= each.high for each in ratios]))


MACHINES: tuple[tuple[str, Process, Moments, bool], ...] = (  # the last: whether all states occur in the rounds
    ("independent rounds that scatter by 0.4 %", noise(0.004), FIVE, True),
    ("a drift of 1.5 %, time constant 30 s", drift(0.015, 30), FIVE, True),
    ("a drift of 1 %, time constant 120 s", drift(0.01, 120), FIVE, True),
    ("two states that last about 40 s, 3 % apart", two_states(40, 0.03), FIVE, True),
    ("two states that last about 20 s, 4 % apart", two_states(20, 0.04), FIVE, True),
    ("two states that last about 40 s, 6 % apart", two_states(40, 0.06), FIVE, False),
    ("the same", two_states(40, 0.06), TEN, True),
)


def simulated(trials: int) -> Iterator[dict[str, object]]:
    """Yield the coverage for each machine."""
    with bar("Simulated", total=len(MACHINES)) as advance:
        for machine, process, seconds, seen in MACHINES:
            yield {
                "machine": machine,
                "rounds": len(seconds),
                "span_seconds": float(np.ptp(seconds)),
                "sees_all_states": seen,
                "trials": trials,
                "coverage": coverage(process, seconds, trials),
                "coverage_if_independent": coverage(process, seconds, trials, as_if_independent),
            }
            advance(1)


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    shown = pd.DataFrame(
        {
            "simulated machine": table["machine"],
            "rounds": [
                f"{count} in {span / 60:.0f} min"
                for count, span in zip(table["rounds"], table["span_seconds"], strict=True)
            ],
            "interval holds the long-run mean": [f"{100 * share:.0f} %" for share in table["coverage"]],
            "a t-interval over the rounds": [f"{100 * share:.0f} %" for share in table["coverage_if_independent"]],
        }
    )
    return f"{markdown(shown)}\n{int(table['trials'].iloc[0]):,} timings of each machine.\n"


def failures(table: pd.DataFrame) -> list[str]:
    """Return the machines whose states all occur in the rounds, but whose mean the intervals contain too rarely."""
    few = table[table["sees_all_states"] & (table["coverage"] < PROMISED)]
    return [
        f"{machine}: the interval holds the mean in {100 * share:.0f} %"
        for machine, share in zip(few["machine"], few["coverage"], strict=True)
    ]


BENCHMARK = Benchmark(
    name="simulated_rounds",
    title="Whether intervals over rounds of timing hold, by simulation",
    minutes=1,
    tables=(own("simulated_rounds", published_table),),
)


def main() -> None:
    """Simulate, write, publish."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    table = pd.DataFrame(simulated(500 if asked.quick else TRIALS))
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
