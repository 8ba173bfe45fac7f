"""What `kill -9` costs: the published table."""

import pandas as pd

from benchmarks.tables.markdown import markdown, true

AGREEING = ("keras_accuracy", "tflite_accuracy", "tflite_bytes")  # columns that no interruption may change


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.killed found."""
    shown = pd.DataFrame(
        {
            "sweeps": [len(table)],
            "kills": [table["kills"].sum()],
            "ended well": [(table["exit_code"] == 0).sum()],
            "same accuracies and bytes": [table["same_table"].map(true).sum()],
            "runs made twice": [table["duplicates"].sum()],
            "runs left RUNNING": [table["running"].sum()],
            "processes alive 10 s after a kill": [table["survivors"].sum()],
            "last process gone after": [f"{table['gone_after_seconds'].max():.1f} s"],
        }
    )
    return markdown(shown)
