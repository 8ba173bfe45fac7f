"""Pruning and clustering in each of three seeds: the sweeps of `compression` with two more seeds."""

import pandas as pd

from benchmarks.compression import name_of
from benchmarks.harness.benchmark import CONTROL, Study
from benchmarks.harness.markdown import each_seed_alone, markdown, tested
from benchmarks.harness.pages import Table, runs_in
from experiments.comparison.columns import further_epochs
from experiments.statistics.rounding import times, whole


def seed_by_seed(first: pd.DataFrame, further: pd.DataFrame) -> str:
    """Return a row for each setting that every seed has, the smallest download first; from the runs of two studies."""
    runs = pd.concat([first, further], ignore_index=True)
    runs["saved"] = _saved(runs)
    runs["setting"] = [name_of(row) for _, row in runs.iterrows()]
    runs["further epochs"] = further_epochs(runs).map(whole)
    settings = [
        rows
        for _, rows in runs[runs["accuracy_difference"].notna()].groupby(["setting", "further epochs"])
        if len(rows) == runs["seed"].nunique()
    ]
    smallest_first = sorted(settings, key=lambda rows: -rows["saved"].mean())
    controls = [rows for rows in smallest_first if rows["strategy"].iloc[0] == CONTROL]
    others = [rows for rows in smallest_first if rows["strategy"].iloc[0] != CONTROL]
    shown = pd.DataFrame(
        [
            *(_across_seeds(rows, rows["setting"].iloc[0], "accuracy_difference") for rows in others),
            *(_across_seeds(rows, f"{CONTROL} itself, against none", "accuracy_change") for rows in controls),
        ]
    )
    return (
        f"{markdown(shown)}\n"
        f"In pp, of TFLite files, against {CONTROL} with as many epochs and the same seed, except for the last rows. "
        f"{each_seed_alone(runs['seed'].nunique() * len(shown))} download size ratio: bytes of the float file of "
        "that seed after gzip, divided by those of this file; range over seeds.\n"
    )


def _across_seeds(rows: pd.DataFrame, name: str, column: str) -> dict[str, str]:
    return {
        "strategy": name,
        "further epochs": rows["further epochs"].iloc[0],
        **{f"seed {row['seed']}": tested(row, column) for _, row in rows.iterrows()},
        "download size ratio": f"{times(rows['saved'].min())} to {times(rows['saved'].max())}",
    }


def _saved(runs: pd.DataFrame) -> pd.Series:
    """Return how many times smaller each run's file is than the float file of its seed, both after gzip."""
    none = runs[runs["strategy"] == "none"].set_index("seed")["tflite_gzip_bytes"]
    return runs["seed"].map(none) / runs["tflite_gzip_bytes"]


STRATEGIES = "none,finetune,finetune_ptq_int8,prune_qat,cluster_qat,prune_cluster_qat"
TWO_MORE_SEEDS = ("seed=1,2", "threads=1")  # one thread each, so that seeds can be trained in parallel beforehand
BENCHMARK = Study(
    name="compression_seeds",
    title="Pruning and clustering as in compression, with two more seeds",
    minutes=480,
    tables=(Table("compression_seeds", seed_by_seed, (runs_in("compression"), runs_in("compression_seeds"))),),
    sweeps=(
        ("+suite=article", f"strategy={STRATEGIES}", *TWO_MORE_SEEDS),
        ("+suite=article", "strategy=prune,cluster", "strategy.quantization=none,int8", *TWO_MORE_SEEDS),
        ("+suite=article", "strategy=finetune,finetune_ptq_int8", "finetune.epochs=40,60", *TWO_MORE_SEEDS),
    ),
    control=CONTROL,
)
