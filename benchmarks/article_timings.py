"""The files of the article's strategies, timed together in rounds: a sweep of two seeds, and its table.

Sizes and times do not depend on the weights, so one epoch is enough. The speeds of the README and of the article's page
come from here, and the accuracies from the article's study.
"""

import pandas as pd

from benchmarks.article import STRATEGIES, by_strategy
from benchmarks.harness.benchmark import Study
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import Table, runs_in
from experiments.comparison.columns import ends
from experiments.statistics.rounding import three_digits, times, whole

ROUNDS, SPAN = 10, 600
RESULTS = "../../benchmarks/results/article_timings"


def published_table(table: pd.DataFrame) -> str:
    """Return bytes, latency and speedup of each strategy and seed, and how much the seeds differ."""
    seeds = {int(str(seed)): by_strategy(runs) for seed, runs in table.groupby("seed")}
    first, *others = seeds.values()
    shown = pd.DataFrame(
        [
            {
                "strategy": f"`{strategy}`",
                "bytes": " and ".join(sorted({whole(rows[strategy]["tflite_bytes"]) for rows in seeds.values()})),
                **{
                    f"latency p50 (µs), seed {seed}": three_digits(rows[strategy]["latency_p50_us"])
                    for seed, rows in seeds.items()
                },
                **{f"speedup, seed {seed}": times(*ends(rows[strategy], "speedup")) for seed, rows in seeds.items()},
            }
            for strategy in first
        ]
    )
    ratios = [rows[name]["speedup"] / first[name]["speedup"] for rows in others for name in first]
    overlap = sum(_overlap(rows[name], first[name]) for rows in others for name in first)
    same_bytes = sum(rows[name]["tflite_bytes"] == first[name]["tflite_bytes"] for rows in others for name in first)
    rounds, minutes = table["latency_rounds"].max(), table["latency_span_seconds"].max() / 60
    most = max(max(ratio, 1 / ratio) - 1 for ratio in ratios)
    return (
        "### Timed together\n\n"
        f"The files of all strategies after one epoch, timed together in {rounds:.0f} rounds over {minutes:.0f} "
        f"minutes (`python -m benchmarks article_timings`; [CSV]({RESULTS}/comparison.csv), "
        f"[stamp]({RESULTS}/stamp.json)). "
        "The speedups in the answer above are those of the first seed here.\n\n"
        f"{markdown(shown)}\n"
        f"Weights hardly matter for sizes and times: of {len(ratios)} pairs of files that differ only in the seed, "
        f"{same_bytes} have equally many bytes, {overlap} have speedups whose intervals overlap, and the speedups "
        f"differ by at most {100 * most:.1f} %. [low, high]: 95 % interval over rounds.\n"
    )


def _overlap(one: pd.Series, other: pd.Series) -> bool:
    low, high = "speedup_low", "speedup_high"
    return bool(one[low] <= other[high] and other[low] <= one[high])


BENCHMARK = Study(
    name="article_timings",
    title="Speed of the article's strategies: all files timed together, in ten rounds over ten minutes",
    minutes=30,
    tables=(Table("article_timings", published_table, (runs_in("article_timings"),)),),
    sweeps=(("-m", f"strategy={STRATEGIES}", "seed=0,1", f"latency.rounds={ROUNDS}", f"latency.span={SPAN}"),),
)
