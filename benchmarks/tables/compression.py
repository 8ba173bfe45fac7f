"""What pruning and clustering save in a download, and what they cost: the README's table, from the study's CSV."""

import pandas as pd

from benchmarks.tables.markdown import markdown, spoken_of
from experiments.comparison.columns import ends, epochs_in_all
from experiments.rounding import percent, times, whole

QUANTIZATION = "strategy.quantization"  # what follows prune and cluster, after training


def readme_table(table: pd.DataFrame) -> str:
    """A row for each setting, the smallest download first; from rows that are held against the control."""
    table = table.sort_values("tflite_gzip_bytes")
    (float_gzip,) = table.loc[table["strategy"] == "none", "tflite_gzip_bytes"]
    shown = pd.DataFrame(
        {
            "strategy": [_name(row) for _, row in table.iterrows()],
            "further epochs": (epochs_in_all(table) - table["epochs"]).map(whole),
            "TFLite accuracy %": [percent(*ends(row, "tflite_accuracy")) for _, row in table.iterrows()],
            "against finetune of as many epochs": [
                percent(*ends(row, "accuracy_difference"), "+") for _, row in table.iterrows()
            ],
            "bytes": table["tflite_bytes"].map(whole),
            "after gzip -9": table["tflite_gzip_bytes"].map(whole),
            "download smaller": (float_gzip / table["tflite_gzip_bytes"]).map(times),
            "faster": [times(*ends(row, "speedup")) for _, row in table.iterrows()],
        }
    )
    return (
        f"{markdown(shown)}\n"
        f"Changes in points. [low, high]: 95 % interval ({spoken_of(table)}). A change whose interval holds 0 is no "
        "evidence of one. download smaller: the float file after gzip over this one after gzip. faster: than the "
        "float file.\n"
    )


def _name(row: pd.Series) -> str:
    followed = row.get(QUANTIZATION)
    return str(row["strategy"]) if pd.isna(followed) or followed == "none" else f"{row['strategy']}, then {followed}"
