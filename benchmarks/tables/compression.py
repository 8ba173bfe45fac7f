"""What pruning and clustering save in a download, and what they cost: the published tables, from the studies' CSVs."""

import pandas as pd

from benchmarks.studies import CONTROL
from benchmarks.tables.markdown import each_seed_alone, markdown, spoken_of, tested
from experiments.comparison.columns import ends, further_epochs
from experiments.statistics.rounding import percent, times, whole
from experiments.tracking.schema import heading

QUANTIZATION = "strategy.quantization"  # what follows prune and cluster, after training


def published_table(table: pd.DataFrame) -> str:
    """A row for each setting, the smallest download first; from rows that are held against the control."""
    table = table.sort_values("tflite_gzip_bytes")
    (float_gzip,) = table.loc[table["strategy"] == "none", "tflite_gzip_bytes"]
    shown = pd.DataFrame(
        {
            "strategy": [_name(row) for _, row in table.iterrows()],
            "further epochs": further_epochs(table).map(whole),
            heading("tflite_accuracy"): [percent(*ends(row, "tflite_accuracy")) for _, row in table.iterrows()],
            "Δ accuracy vs finetune of as many epochs (pp)": [
                percent(*ends(row, "accuracy_difference"), "+") for _, row in table.iterrows()
            ],
            "bytes": table["tflite_bytes"].map(whole),
            "after gzip -9": table["tflite_gzip_bytes"].map(whole),
            "download size ratio": (float_gzip / table["tflite_gzip_bytes"]).map(times),
            heading("speedup"): [times(*ends(row, "speedup")) for _, row in table.iterrows()],
        }
    )
    return (
        f"{markdown(shown)}\n"
        f"[low, high]: 95 % interval ({spoken_of(table)}). A change whose interval holds 0 is no "
        "evidence of one. download size ratio: the float file after gzip over this one after gzip. speedup: over the "
        "float file.\n"
    )


def seed_by_seed(first: pd.DataFrame, further: pd.DataFrame) -> str:
    """A row for each setting that every seed has, the smallest download first; from the runs of two studies."""
    runs = pd.concat([first, further], ignore_index=True)
    runs["saved"] = _saved(runs)
    runs["setting"] = [_name(row) for _, row in runs.iterrows()]
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
        f"In pp, of TFLite files, against {CONTROL} of as many epochs and the same seed, but for the last rows. "
        f"{each_seed_alone(runs['seed'].nunique() * len(shown))} download size ratio: the float file of that seed "
        "after gzip over this one after gzip, the least and the most of the seeds.\n"
    )


def _across_seeds(rows: pd.DataFrame, name: str, column: str) -> dict[str, str]:
    return {
        "strategy": name,
        "further epochs": rows["further epochs"].iloc[0],
        **{f"seed {row['seed']}": tested(row, column) for _, row in rows.iterrows()},
        "download size ratio": f"{times(rows['saved'].min())} to {times(rows['saved'].max())}",
    }


def _saved(runs: pd.DataFrame) -> pd.Series:
    """How many times smaller each run's file is than the float file of its seed, both after gzip."""
    none = runs[runs["strategy"] == "none"].set_index("seed")["tflite_gzip_bytes"]
    return runs["seed"].map(none) / runs["tflite_gzip_bytes"]


def _name(row: pd.Series) -> str:
    followed = row.get(QUANTIZATION)
    return str(row["strategy"]) if pd.isna(followed) or followed == "none" else f"{row['strategy']}, then {followed}"
