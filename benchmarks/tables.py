"""The README's tables of what the long benchmarks found, made from their CSVs alone, and the targets of each."""

from itertools import pairwise

import numpy as np
import pandas as pd

from experiments.comparison.columns import ends
from experiments.rounding import percent, times, whole
from experiments.statistics import Estimate, ratio_of_medians

# The ways of doing the same work, as benchmarks.once names them.
SWEEP, BARE = "the sweep", "bare"
BARE_BEFORE, BARE_AFTER = f"{BARE}, before the sweep", f"{BARE}, after the sweep"
PLAIN = "the plain way"
PLAIN_RECKONED, PLAIN_MEASURED = f"{PLAIN}, reckoned from the pieces done bare", f"{PLAIN}, measured"
PLAIN_AT_LEAST, BARE_AT_MOST = 4.0, 1.15  # times
OVERHEAD_AT_MOST = 6.0  # seconds a job
AGREEING = ("keras_accuracy", "tflite_accuracy", "tflite_bytes")  # columns that no interruption may change
COMPARED = 10  # jobs at either end of a long sweep
GROWTH_AT_MOST, GROWTH_AT_MOST_MIB = 0.03, 20.0  # of the memory; whichever allows more
KERAS = "Keras model"
KERAS_EVALUATION_AT_LEAST = 0.9  # times the throughput of a bare loop
FLOAT_EVALUATION_AT_LEAST = 1.8  # times the throughput of one image a call on one thread, on two cores
VERDICTS = ("faster", "slower", "equivalent", "unclear", "void")
QUIET, BUSY = "nothing", "one busy core"
WRONG_AT_MOST, WIDTH_AT_MOST, START_AT_MOST = 0.05, 0.03, 1.0  # share of comparisons, of the ratio, seconds
FOUND_AT_LEAST = {3.0: 0.80, 5.0: 0.95, 10.0: 0.99}  # share of the trials, by percent of work added
SUITE, LITERT, LOOP = "this suite", "litert-benchmark", "a plain loop"
LONG_LOOP = f"{LOOP}, for as long as the suite"
SPREAD_AT_LEAST = 3.0  # times the suite's, of what people use
READ_AT_MOST, READ_RUNS = 3.0, 5000  # seconds for so many runs
GROWTH_OF_READING = 1.5  # times the seconds a run that a store with fewer runs takes: from there on it is not linear
EQUIVALENT_WITHIN = 0.003  # of accuracy, between baselines of two precisions
NOT_OVERHEAD = ("training", "conversion", "evaluation", "latency")  # parts of a job, in columns like training_seconds


def bare_ratio(table: pd.DataFrame) -> float:
    """The sweep's time over that of the same work done bare, as often as that was measured."""
    seconds = _seconds(table)
    return float(seconds[SWEEP] / np.mean([value for way, value in seconds.items() if way.startswith(BARE)]))


def plain_ratio(table: pd.DataFrame) -> float:
    """The time of the plain way over the sweep's."""
    seconds = _seconds(table)
    return next(value for way, value in seconds.items() if way.startswith(PLAIN)) / seconds[SWEEP]


def _seconds(table: pd.DataFrame) -> dict[str, float]:
    return {str(way): float(value) for way, value in zip(table["way"], table["seconds"], strict=True)}


def once_table(table: pd.DataFrame) -> str:
    """What benchmarks.once found."""
    rest = table["seconds"] - sum(table[f"{part}_seconds"] for part in NOT_OVERHEAD)
    shown = pd.DataFrame({"": table["way"], "epochs trained": table["epochs_trained"].astype(str)})
    for heading, values in (
        ("seconds", table["seconds"]),
        *((f"of it {part}", table[f"{part}_seconds"]) for part in NOT_OVERHEAD),
        ("the rest", rest),
    ):
        shown[heading] = [f"{value:,.0f}" for value in values]
    row, missed = table.iloc[0], ", which is missed" if bare_ratio(table) > BARE_AT_MOST else ""
    return (
        f"{_markdown(shown)}\n"
        f"sweep / bare: {bare_ratio(table):.3f} (at most {BARE_AT_MOST:g}{missed}); "
        f"plain / sweep: {plain_ratio(table):.1f} (at least {PLAIN_AT_LEAST:g}); "
        f"the smallest number of epochs possible: {row['least_epochs']}. "
        f"{row['cells']} cells: {row['strategies']} strategies with finetune.epochs={row['finetune_epochs']} after a "
        f"baseline of {row['baseline_epochs']} epochs ({row['settings']}), which are {row['runs']} distinct runs.\n"
    )


def strategies_table(table: pd.DataFrame) -> str:
    """What the file of each strategy is like, apart from its accuracy: of the longest training, the smallest first."""
    trained = table["finetune_epochs"] == table["finetune_epochs"].max()
    table = table[trained | (table["finetune_epochs"] == 0)].sort_values(["tflite_bytes", "tflite_gzip_bytes"])
    faster = [times(*ends(row, "speedup")) for _, row in table.iterrows()]
    shown = pd.DataFrame(
        {
            "strategy": table["strategy"],
            "bytes": table["tflite_bytes"].map(whole),
            "after gzip -9": table["tflite_gzip_bytes"].map(whole),
            "smaller": table["size_ratio"].map(times),
            "faster": faster,
            "computes in": table["arithmetic"],
            "arena, bytes": table["arena_bytes"].map(whole),
            "TensorFlow Lite Micro": table["runs_on_micro"],
        }
    )
    return _markdown(shown)


def killed_table(table: pd.DataFrame) -> str:
    """What benchmarks.killed found."""
    shown = pd.DataFrame(
        {
            "sweeps": [len(table)],
            "kills": [table["kills"].sum()],
            "ended well": [(table["exit_code"] == 0).sum()],
            "same accuracies and bytes": [table["same_table"].map(_true).sum()],
            "runs made twice": [table["duplicates"].sum()],
            "runs left RUNNING": [table["running"].sum()],
            "processes alive 10 s after a kill": [table["survivors"].sum()],
            "last process gone after": [f"{table['gone_after_seconds'].max():.1f} s"],
        }
    )
    return _markdown(shown)


def fresh_store_table(table: pd.DataFrame) -> str:
    """What benchmarks.fresh_store found."""
    well = (table["exit_code"] == 0) & (table["finished_rows"] == table["expected_rows"])
    shown = pd.DataFrame(
        {
            "times": [table["time"].nunique()],
            "sweeps at once": [table.groupby("time").size().max()],
            "succeeded, with complete tables": [f"{well.sum()} of {len(table)}"],
            "seconds of a sweep": [f"{table['seconds'].min():.0f} to {table['seconds'].max():.0f}"],
        }
    )
    return _markdown(shown)


def with_overhead(jobs: pd.DataFrame) -> pd.DataFrame:
    """Jobs with what each took beyond its parts."""
    return jobs.assign(overhead_seconds=jobs["seconds"] - sum(jobs[f"{part}_seconds"] for part in NOT_OVERHEAD))


def overhead_with_starting(jobs: pd.DataFrame) -> float:
    """Seconds a job beyond its parts, of the whole sweep, from the command to its end."""
    parts = sum(jobs[f"{part}_seconds"].sum() for part in NOT_OVERHEAD)
    return float((jobs["sweep_seconds"].iloc[0] - parts) / len(jobs))


def overhead_table(table: pd.DataFrame) -> str:
    """What benchmarks.overhead found."""
    parts = (*NOT_OVERHEAD, "overhead")
    jobs = with_overhead(table)
    shown = pd.DataFrame({"strategy": jobs["strategy"], "job, s": [f"{value:.1f}" for value in jobs["seconds"]]})
    for part in parts:
        shown[f"{part}, s"] = [f"{value:.1f}" for value in jobs[f"{part}_seconds"]]
    return (
        f"{_markdown(shown)}\nOverhead of a job: {jobs['overhead_seconds'].mean():.1f} s on average, "
        f"{jobs['overhead_seconds'].max():.1f} s at most; with the sweep's start and end, "
        f"{overhead_with_starting(jobs):.1f} s a job (at most {OVERHEAD_AT_MOST:g}).\n"
    )


def by_job(samples: pd.DataFrame) -> pd.DataFrame:
    """The most memory during each job, MiB."""
    return samples[samples["job"] > 0].groupby("job")[["main_mib", "children_mib"]].max()


def memory_ends(samples: pd.DataFrame) -> pd.DataFrame:
    """The most memory in the first jobs and in the last, MiB, and the slope over all jobs, MiB a job."""
    jobs = by_job(samples)
    return pd.DataFrame(
        {
            "first": jobs.head(COMPARED).max(),
            "last": jobs.tail(COMPARED).max(),
            "slope": [round(np.polyfit(jobs.index, jobs[name], 1)[0], 2) + 0.0 for name in jobs.columns],  # never -0.00
        }
    )


def is_flat(ends: pd.Series) -> bool:
    """Whether memory has not grown by more than is allowed."""
    first, last = float(ends["first"]), float(ends["last"])
    return last - first <= max(GROWTH_AT_MOST * first, GROWTH_AT_MOST_MIB)


def memory_table(table: pd.DataFrame) -> str:
    """What benchmarks.memory found."""
    names = {"main_mib": "the sweep's own process", "children_mib": "all its children together"}
    ends = memory_ends(table)
    shown = pd.DataFrame(
        {
            "resident memory, MiB": [names[str(name)] for name in ends.index],
            f"most in the first {COMPARED} jobs": [f"{value:.0f}" for value in ends["first"]],
            f"most in the last {COMPARED} of {len(by_job(table))}": [f"{value:.0f}" for value in ends["last"]],
            "slope a job": [f"{value:+.2f}" for value in ends["slope"]],
        }
    )
    return _markdown(shown)


def evaluation_table(table: pd.DataFrame) -> str:
    """What benchmarks.evaluation found."""
    shown = table[["model", "strategy"]].assign(
        **{
            "loop, images/s": [f"{value:,.0f}" for value in table["loop_images_per_second"]],
            "here, images/s": [f"{value:,.0f}" for value in table["images_per_second"]],
            "times": [f"{value:.2f}x" for value in _times(table)],
            "several images a call": ["yes" if _true(value) else "no" for value in table["in_batches"]],
            "same bits": ["yes" if _true(value) else "NO" for value in table["same_bits"]],
        }
    )
    return _markdown(shown)


def _times(table: pd.DataFrame) -> pd.Series:
    return table["images_per_second"] / table["loop_images_per_second"]


def evaluation_failures(table: pd.DataFrame) -> list[str]:
    """What is not as it should be."""
    float_file = (table["model"] == "article_cnn") & (table["strategy"] == "none")
    times = float(_times(table)[float_file].iloc[0])
    of_keras = _times(table)[table["strategy"] == KERAS]
    return [
        *(f"{row.model!s} {row.strategy!s}: other bits" for row in table.itertuples() if not _true(row.same_bits)),
        *([f"float model: {times:.2f} times the loop"] if times < FLOAT_EVALUATION_AT_LEAST else []),
        *(f"Keras model: {each:.2f} times the loop" for each in of_keras if each < KERAS_EVALUATION_AT_LEAST),
    ]


def same_file_table(table: pd.DataFrame) -> str:
    """What benchmarks.same_file found."""
    rows = []
    for load, trials in table.groupby("load", sort=False):
        counts = trials["speed"].value_counts()
        rows.append(
            {
                "beside it": load,
                "comparisons": str(len(trials)),
                **{verdict: str(counts.get(verdict, 0)) for verdict in VERDICTS},
                "width of the interval, median": f"{100 * _width(trials).median():.2f} %",
                "interval holds 1": f"{100 * _covers(trials).mean():.1f} %",
                "seconds each, median": f"{trials['seconds'].median():.1f}",
            }
        )
    return f"{_markdown(pd.DataFrame(rows))}\nStart of the process that times: {table['start_seconds'].max():.2f} s.\n"


def same_file_failures(table: pd.DataFrame) -> list[str]:
    """What is not as it should be; beside other work, differing is as wrong as on a quiet machine."""
    failures = []
    for load in table["load"].unique():
        trials = table[table["load"] == load]
        wrong = float(trials["speed"].isin(["faster", "slower"]).mean())
        if wrong > WRONG_AT_MOST:
            failures.append(f"{load}: {100 * wrong:.1f} % called different")
        if load == QUIET and _width(trials).median() > WIDTH_AT_MOST:
            failures.append(f"{load}: median interval {100 * _width(trials).median():.2f} % wide")
    if table["start_seconds"].max() > START_AT_MOST:
        failures.append(f"the process that times took {table['start_seconds'].max():.2f} s to start")
    return failures


def planted_table(table: pd.DataFrame) -> str:
    """What benchmarks.planted found."""
    rows = []
    for name, trials in table.groupby("added_percent"):
        added = float(str(name))
        counts = trials["speed"].value_counts()
        slowdown = 100 * (1 / trials["speedup"] - 1)
        rows.append(
            {
                "work added": f"{added:g} %",
                "trials": str(len(trials)),
                **{verdict: str(counts.get(verdict, 0)) for verdict in VERDICTS},
                "found": f"{100 * (trials['speed'] == 'slower').mean():.0f} %",
                "to be": f"{100 * FOUND_AT_LEAST[added]:.0f} %",
                "slower by, median": f"{slowdown.median():.2f} %",
                "5th to 95th percentile": f"{slowdown.quantile(0.05):.2f} to {slowdown.quantile(0.95):.2f} %",
                "seconds each, median": f"{trials['seconds'].median():.1f}",
            }
        )
    return _markdown(pd.DataFrame(rows))


def planted_failures(table: pd.DataFrame) -> list[str]:
    """Differences that were found less often than they should be."""
    found = table["speed"].eq("slower").groupby(table["added_percent"]).mean()
    return [
        f"{added:g} %: found in {100 * share:.0f} % of the trials"
        for added, share in zip(map(float, found.index), found, strict=True)
        if share < FOUND_AT_LEAST[added]
    ]


def spread_table(table: pd.DataFrame) -> str:
    """What benchmarks.spread found."""
    ours = _spread(table, SUITE)
    shown = pd.DataFrame(
        [
            {
                "measured by": way,
                "repetitions": str(len(trials)),
                "speedup, median": f"{trials['speedup'].median():.3f}x",
                "5th to 95th percentile": " to ".join(f"{trials['speedup'].quantile(q):.3f}" for q in (0.05, 0.95)),
                "spread": f"{_spread(table, str(way)):.3f}",
                "times the suite's": "" if way == SUITE else f"{_spread(table, str(way)) / ours:.1f}",
                "seconds each, median": f"{trials['seconds'].median():.1f}",
            }
            for way, trials in table.groupby("way", sort=False)
        ]
    )
    return (
        f"{_markdown(shown)}\n{LITERT} reports hundredths of a millisecond: of files as fast as these, most of its "
        "spread is that rounding.\n"
    )


def spread_failures(table: pd.DataFrame) -> list[str]:
    """Rivals whose spread is not so much larger."""
    ours = _spread(table, SUITE)
    times = {way: _spread(table, way) / ours for way in (LITERT, LOOP)}
    return [f"{way}: {value:.1f} times the suite's spread" for way, value in times.items() if value < SPREAD_AT_LEAST]


def _spread(table: pd.DataFrame, way: str) -> float:
    speedups = table.loc[table["way"] == way, "speedup"]
    return float(speedups.quantile(0.95) - speedups.quantile(0.05))


def _width(trials: pd.DataFrame) -> pd.Series:
    return trials["speedup_high"] - trials["speedup_low"]


def _covers(trials: pd.DataFrame) -> pd.Series:
    return (trials["speedup_low"] <= 1) & (trials["speedup_high"] >= 1)


def profile_table(table: pd.DataFrame) -> str:
    """What benchmarks.profile found."""
    shown = table.groupby("strategy", sort=False).agg(
        times=("time", "count"),
        whole=("whole_us", "median"),
        together=("sum_us", "median"),
        call=("call_us", "median"),
        ratio=("ratio", "median"),
        least=("ratio", "min"),
        most=("ratio", "max"),
    )
    return _markdown(
        pd.DataFrame(
            {
                "strategy": shown.index,
                "times": shown["times"].astype(str),
                "whole file, us": [f"{value:.1f}" for value in shown["whole"]],
                "its ops and one call, us": [f"{value:.1f}" for value in shown["together"]],
                "a call, us": [f"{value:.1f}" for value in shown["call"]],
                "sum / whole": [f"{value:.3f}" for value in shown["ratio"]],
                "least and most": [
                    f"{least:.3f} to {most:.3f}" for least, most in zip(shown["least"], shown["most"], strict=True)
                ],
            }
        )
    )


def reading_table(table: pd.DataFrame) -> str:
    """What benchmarks.reading found."""
    ratio = table["searched_seconds"] / table["loaded_seconds"]
    shown = pd.DataFrame(
        {
            "store": table["store"],
            "runs": [f"{runs:,}" for runs in table["runs"]],
            "`mlflow.search_runs`, s": [f"{value:.2f}" for value in table["searched_seconds"]],
            "`compare.load`, s": [f"{value:.2f}" for value in table["loaded_seconds"]],
            "times faster": [f"{value:.1f}" for value in ratio],
            "equal values": ["yes" if _true(value) else "no" for value in table["equal"]],
            "`experiments.compare --sweep all`, s": [f"{value:.1f}" for value in table["printed_seconds"]],
        }
    )
    return _markdown(shown)


def reading_failures(table: pd.DataFrame) -> list[str]:
    """Stores that are read too slowly, or wrongly; and kinds of store where many runs take more than their share."""
    failures = [
        f"{row['store']}, {row['runs']:,} runs: read in {row['loaded_seconds']:.1f} s"
        for row in table.to_dict("records")
        if row["loaded_seconds"] > READ_AT_MOST * max(1.0, row["runs"] / READ_RUNS)
    ]
    for way in ("loaded_seconds", "printed_seconds"):
        each = table.assign(each=table[way] / table["runs"]).sort_values("runs").groupby("store", sort=False)["each"]
        failures += [f"{store}: {way} grow faster than the runs" for store, of in each if _grows(of.tolist())]
    unequal = table[~table["equal"].map(_true)]
    return failures + [f"{row['store']}, {row['runs']:,} runs: unequal" for row in unequal.to_dict("records")]


def _grows(each: list[float]) -> bool:
    """Whether a run takes longer among many than among fewer; a start that all runs share makes it less."""
    return any(later > GROWTH_OF_READING * earlier for earlier, later in pairwise(each))


def sizes_table(table: pd.DataFrame) -> str:
    """What benchmarks.sizes found."""
    shown = pd.DataFrame({"model": table["model"], "parameters": [whole(value) for value in table["parameters"]]})
    for kind in ("float", "int8"):
        here, reference = table[f"{kind}_bytes"], table[f"reference_{kind}_bytes"]
        shown[f"{kind}, bytes"] = [whole(value) for value in here]
        shown[f"reference, {kind}, bytes"] = [whole(value) for value in reference]
        shown[f"here / reference, {kind}"] = [f"{ratio:.3f}" for ratio in here / reference]
    return _markdown(shown)


def precision_table(table: pd.DataFrame) -> str:
    """What benchmarks.precision found."""
    shown = pd.DataFrame(
        {
            "training.precision": table["precision"],
            "an epoch, s": [f"{value:.1f}" for value in table["epoch_seconds"]],
            "faster": [times(*ends(row, "faster")) for row in table.itertuples()],
            "accuracy %": [percent(*ends(row, "accuracy")) for row in table.itertuples()],
            "against float32, points": [percent(*ends(row, "difference"), sign="+") for row in table.itertuples()],
        }
    )
    row = table.iloc[0]
    return f"{_markdown(shown)}\n{row['seeds']} seeds, {row['epochs']} epochs. [low, high]: 95 % interval.\n"


def precision_failures(table: pd.DataFrame) -> list[str]:
    """Precisions that are not faster, or whose accuracy may differ by more than EQUIVALENT_WITHIN."""
    shorter = table[table["precision"] != "float32"]
    slow = shorter[shorter["faster_low"] <= 1]
    worse = shorter[shorter[["difference_low", "difference_high"]].abs().max(axis=1) > EQUIVALENT_WITHIN]
    return [
        *(f"{name}: not faster than float32" for name in slow["precision"]),
        *(
            f"{name}: accuracy may differ by more than {percent(EQUIVALENT_WITHIN)} points"
            for name in worse["precision"]
        ),
    ]


def epoch_table(table: pd.DataFrame) -> str:
    """What benchmarks.epoch found."""
    ratio = _plain_over_here(table)
    shown = pd.DataFrame(
        {
            "images": [whole(table["images"].iloc[0])],
            "pairs": [len(table)],
            "`model.fit`, s": [_range(table["plain_seconds"])],
            "here, s": [_range(table["here_seconds"])],
            "faster": [times(ratio.value, ratio.low, ratio.high)],
        }
    )
    return f"{_markdown(shown)}\nMedian (least to most). [low, high]: 95 % interval over the pairs.\n"


def epoch_failures(table: pd.DataFrame) -> list[str]:
    """Whether an epoch here takes longer than by plain Keras."""
    ratio = _plain_over_here(table)
    return [f"{ratio.value:.2f} times as fast as model.fit"] if ratio.high < 1 else []


def _plain_over_here(table: pd.DataFrame) -> Estimate:
    return ratio_of_medians(table["plain_seconds"].to_numpy(float), table["here_seconds"].to_numpy(float))


def _range(seconds: pd.Series) -> str:
    return f"{seconds.median():.1f} ({seconds.min():.1f} to {seconds.max():.1f})"


def _markdown(table: pd.DataFrame) -> str:
    return f"{table.to_markdown(index=False, disable_numparse=True)}\n"


def _true(value: object) -> bool:
    return str(value) == "True"
