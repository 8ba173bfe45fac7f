"""What the files of the strategies are like: the published table, from the runs of benchmarks.once."""

import pandas as pd

from benchmarks.tables.markdown import markdown
from experiments.statistics.rounding import times, whole
from experiments.tracking.schema import heading


def published_table(table: pd.DataFrame) -> str:
    """What the file of each strategy is like, apart from its accuracy: of the longest training, the smallest first."""
    trained = table["finetune_epochs"] == table["finetune_epochs"].max()
    table = table[trained | (table["finetune_epochs"] == 0)].sort_values(["tflite_bytes", "tflite_gzip_bytes"])
    shown = pd.DataFrame(
        {
            "strategy": table["strategy"],
            "bytes": table["tflite_bytes"].map(whole),
            "after gzip -9": table["tflite_gzip_bytes"].map(whole),
            heading("size_ratio"): table["size_ratio"].map(times),
            heading("arithmetic"): table["arithmetic"],
            heading("arena_bytes"): table["arena_bytes"].map(whole),
            "TensorFlow Lite Micro": table["runs_on_micro"],
        }
    )
    return markdown(shown)
