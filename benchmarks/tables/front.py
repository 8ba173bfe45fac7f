"""The table of the README: the first sweep in as few columns as answer the question."""

import pandas as pd

from benchmarks.tables.markdown import markdown
from experiments.comparison.columns import ends
from experiments.statistics.rounding import percent, times, whole


def published_table(table: pd.DataFrame) -> str:
    """A row for each strategy: accuracy, size and speed of its file."""
    rows = [row for _, row in table.iterrows()]
    shown = pd.DataFrame(
        {
            "strategy": [f"`{name}`" for name in table["strategy"]],
            "accuracy (%)": [percent(row["tflite_accuracy"]) for row in rows],
            "Δ accuracy (pp)": [percent(*ends(row, "accuracy_change"), "+") for row in rows],
            "bytes": table["tflite_bytes"].map(whole),
            "size ratio": table["size_ratio"].map(times),
            "speedup": [times(*ends(row, "speedup")) for row in rows],
        }
    )
    return markdown(shown)
