"""How often a file is called different from itself: `python -m benchmarks.false_positives`.

200 comparisons of a file with itself by the default protocol, half of them with the article's network in float, half in
int8; and as many while another process keeps one core busy. Each ends when the ratio is known to 1 %, or after the
default budget. Writes benchmarks/results/false_positives/.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import pandas as pd

from benchmarks.harness import files
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import on_shared_host, own
from benchmarks.harness.results import Results, timing_options
from benchmarks.harness.trial import trial
from experiments.comparison.display import shown_speed
from experiments.system.progress import bar

VERDICTS = ("faster", "slower", "equivalent", "unclear", "void")
QUIET, BUSY = "nothing", "one busy core"
WRONG_AT_MOST, WIDTH_AT_MOST, START_AT_MOST = 0.05, 0.03, 1.0  # share of comparisons, of the ratio, seconds
TRIALS = 200
ENDLESS = "while True: pass"


@contextmanager
def one_busy_core() -> Iterator[None]:
    """Keep a core busy with another process."""
    with subprocess.Popen([sys.executable, "-c", ENDLESS]) as process:
        try:
            yield
        finally:
            process.kill()


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    rows = []
    for load, trials in table.groupby("load", sort=False):
        counts = trials["speed"].value_counts()
        rows.append(
            {
                "other load": load,
                "comparisons": str(len(trials)),
                **{shown_speed(verdict): str(counts.get(verdict, 0)) for verdict in VERDICTS},
                "width of the interval, median": f"{100 * _width(trials).median():.2f} %",
                "interval holds 1": f"{100 * _covers(trials).mean():.1f} %",
                "seconds each, median": f"{trials['seconds'].median():.1f}",
            }
        )
    return (
        f"{markdown(pd.DataFrame(rows))}\nThe process that times takes {table['start_seconds'].max():.2f} s to start.\n"
    )


def failures(table: pd.DataFrame) -> list[str]:
    """Return the missed targets; false positives count equally on a busy and on an idle machine."""
    wrongs = []
    for load in table["load"].unique():
        trials = table[table["load"] == load]
        wrong = float(trials["speed"].isin(["faster", "slower"]).mean())
        if wrong > WRONG_AT_MOST:
            wrongs.append(f"{load}: {100 * wrong:.1f} % called different")
        if load == QUIET and _width(trials).median() > WIDTH_AT_MOST:
            wrongs.append(f"{load}: median interval {100 * _width(trials).median():.2f} % wide")
    if table["start_seconds"].max() > START_AT_MOST:
        wrongs.append(f"the process that times took {table['start_seconds'].max():.2f} s to start")
    return wrongs


def _width(trials: pd.DataFrame) -> pd.Series:
    return trials["speedup_high"] - trials["speedup_low"]


def _covers(trials: pd.DataFrame) -> pd.Series:
    return (trials["speedup_low"] <= 1) & (trials["speedup_high"] >= 1)


BENCHMARK = Benchmark(
    name="false_positives",
    title="How often a file is called different from itself",
    minutes=30,
    tables=(
        own("false_positives", published_table),
        on_shared_host("false_positives", published_table),
    ),
    former_name="same_file",
)


def main() -> None:
    """Measure, and write the results."""
    parser = timing_options(BENCHMARK, __doc__)
    parser.add_argument("--trials", type=int, default=TRIALS, metavar="N", help="with each load (default: %(default)s)")
    asked = parser.parse_args()
    results = Results(BENCHMARK, asked.shared_host)
    trials = 4 if asked.quick else asked.trials
    data = files.images()
    made = files.article(data)
    rows = []
    with bar("Comparisons", total=2 * trials) as advance:
        for load in (QUIET, BUSY):
            with nullcontext() if load == QUIET else one_busy_core():
                for seed, name in enumerate(np.resize(list(made), trials)):
                    rows.append({"load": load, "file": name, **trial(made[name], made[name], data.test.x[:], seed)})
                    advance(1)
    table = pd.DataFrame(rows)
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
