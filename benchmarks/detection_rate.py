"""How often a known difference is detected: `python -m benchmarks.detection_rate`.

A network of 100 equal convolutions in int8 is compared with the same network of 103, 105 and 110, which are 3, 5 and
10 % more work; 50 trials each by the default protocol. Writes benchmarks/results/detection_rate/.
"""

import pandas as pd

from benchmarks.false_positives import VERDICTS
from benchmarks.harness import files
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import on_shared_host, own
from benchmarks.harness.results import Results, timing_options
from benchmarks.harness.trial import trial
from experiments.comparison.display import shown_speed
from experiments.system.progress import bar

FOUND_AT_LEAST = {3.0: 0.80, 5.0: 0.95, 10.0: 0.99}  # share of the trials, by percent of work added
TRIALS = 50


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    rows = []
    for name, trials in table.groupby("added_percent"):
        added = float(str(name))
        counts = trials["speed"].value_counts()
        slowdown = 100 * (1 / trials["speedup"] - 1)
        rows.append(
            {
                "work added": f"{added:g} %",
                "trials": str(len(trials)),
                **{shown_speed(verdict): str(counts.get(verdict, 0)) for verdict in VERDICTS},
                "found": f"{100 * (trials['speed'] == 'slower').mean():.0f} %",
                "target": f"{100 * FOUND_AT_LEAST[added]:.0f} %",
                "slower by, median": f"{slowdown.median():.2f} %",
                "5th to 95th percentile": f"{slowdown.quantile(0.05):.2f} to {slowdown.quantile(0.95):.2f} %",
                "seconds each, median": f"{trials['seconds'].median():.1f}",
            }
        )
    return markdown(pd.DataFrame(rows))


def failures(table: pd.DataFrame) -> list[str]:
    """Return the differences that were detected too rarely."""
    found = table["speed"].eq("slower").groupby(table["added_percent"]).mean()
    return [
        f"{added:g} %: found in {100 * share:.0f} % of the trials"
        for added, share in zip(map(float, found.index), found, strict=True)
        if share < FOUND_AT_LEAST[added]
    ]


BENCHMARK = Benchmark(
    name="detection_rate",
    title="How often a known difference is detected",
    minutes=15,
    tables=(
        own("detection_rate", published_table),
        on_shared_host("detection_rate", published_table),
    ),
    former_name="planted",
)


def main() -> None:
    """Measure, and write the results."""
    parser = timing_options(BENCHMARK, __doc__)
    parser.add_argument("--trials", type=int, default=TRIALS, metavar="N", help="of each (default: %(default)s)")
    asked = parser.parse_args()
    results = Results(BENCHMARK, asked.shared_host)
    trials = 2 if asked.quick else asked.trials
    data = files.images()
    reference = files.padded(data, files.PADDABLE_LAYERS)
    slower = {added: files.padded(data, files.PADDABLE_LAYERS + int(added)) for added in FOUND_AT_LEAST}
    rows = []
    with bar("Trials", total=trials * len(slower)) as advance:
        for seed in range(trials):  # in turns, so that a slow hour affects all differences
            for added, file in slower.items():
                rows.append({"added_percent": added, **trial(file, reference, data.test.x[:], seed)})
                advance(1)
    table = pd.DataFrame(rows)
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
