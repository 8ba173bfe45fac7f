"""Which layers run in integers, the usual way and here: the published table."""

import pandas as pd

from benchmarks.tables.markdown import markdown


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.exactness found."""
    shown = table.rename(columns=lambda name: name.replace("_", " ")).astype({"chosen": "string"})
    for name in ("bytes usual way", "bytes here"):
        shown[name] = [f"{size:,}" for size in shown[name]]
    return markdown(shown)
