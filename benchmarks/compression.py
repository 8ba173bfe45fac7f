"""Download size and accuracy with pruning and clustering: three sweeps, and their table."""

import pandas as pd

from benchmarks.harness.benchmark import CONTROL, Study
from benchmarks.harness.markdown import markdown, scope_of
from benchmarks.harness.pages import Table, compared_in
from experiments.comparison.columns import ends, further_epochs
from experiments.statistics.rounding import percent, times, whole
from experiments.tracking.schema import heading

QUANTIZATION = "strategy.quantization"  # what follows prune and cluster, after training


def published_table(table: pd.DataFrame) -> str:
    """Return a row for each setting, smallest download first, from rows that are compared with the control."""
    table = table.sort_values("tflite_gzip_bytes")
    (float_gzip,) = table.loc[table["strategy"] == "none", "tflite_gzip_bytes"]
    shown = pd.DataFrame(
        {
            "strategy": [name_of(row) for _, row in table.iterrows()],
            "further epochs": further_epochs(table).map(whole),
            heading("tflite_accuracy"): [percent(*ends(row, "tflite_accuracy")) for _, row in table.iterrows()],
            "Δ accuracy vs finetune with as many epochs (pp)": [
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
        f"[low, high]: 95 % interval ({scope_of(table)}). If an interval includes 0, there "
        "is no evidence of a change. download size ratio: bytes of the float file after gzip, divided by those of this "
        "file. speedup: over the "
        "float file.\n"
    )


def name_of(row: pd.Series) -> str:
    """Return the strategy of a run and its post-training quantization."""
    followed = row.get(QUANTIZATION)
    return str(row["strategy"]) if pd.isna(followed) or followed == "none" else f"{row['strategy']}, then {followed}"


STRATEGIES = "none,finetune,finetune_ptq_int8,qat,prune_qat,cluster_qat,prune_cluster_qat"
BENCHMARK = Study(
    name="compression",
    title="Pruning and clustering with the article's protocol: alone, with int8 after training, or before qat",
    minutes=210,
    tables=(Table("compression", published_table, (compared_in("compression"),)),),
    sweeps=(
        ("+suite=article", f"strategy={STRATEGIES}"),
        ("+suite=article", "strategy=prune,cluster", "strategy.quantization=none,int8"),
        ("+suite=article", "strategy=finetune,finetune_ptq_int8", "finetune.epochs=40,60"),
    ),
    control=CONTROL,
)
