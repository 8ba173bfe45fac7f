"""What `kill -9` costs: the published table."""

import pandas as pd

from benchmarks.tables.markdown import markdown, true

AGREEING = ("keras_accuracy", "tflite_accuracy", "tflite_bytes")  # columns that no interruption may change
PLACES = {
    "creation": "while the store was made",
    "commit": "within commits",
    "cache": "while the cache was written",
    "artifact": "while artifacts were written",
    "moment": "at a random moment",
}


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.killed found."""
    shown = {
        "kills": table["kills"].sum(),
        **{f"of them {where}": table[place].sum() for place, where in PLACES.items()},
        "sweeps, most of them killed several times": len(table),
        "sweeps that ended well": (table["exit_code"] == 0).sum(),
        "sweeps with the same accuracies and bytes": table["same_table"].map(true).sum(),
        "runs made twice": table["duplicates"].sum(),
        "runs left RUNNING": table["running"].sum(),
        "models left PENDING": table["pending_models"].sum(),
        "files, locks or temporary folders left behind": (table["left_behind"] != "").sum(),
        "processes alive 10 s after a kill": table["survivors"].sum(),
        "last process gone after": f"{table['gone_after_seconds'].max():.1f} s",
    }
    return markdown(pd.DataFrame({"": list(shown), "found": [str(value) for value in shown.values()]}))
