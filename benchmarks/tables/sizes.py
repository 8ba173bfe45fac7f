"""Sizes beside those of MLPerf Tiny's files: the published table."""

import pandas as pd

from benchmarks.tables.markdown import markdown
from experiments.statistics.rounding import whole


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.sizes found."""
    shown = pd.DataFrame({"model": table["model"], "parameters": [whole(value) for value in table["parameters"]]})
    for kind in ("float", "int8"):
        here, reference = table[f"{kind}_bytes"], table[f"reference_{kind}_bytes"]
        shown[f"{kind}, bytes"] = [whole(value) for value in here]
        shown[f"reference, {kind}, bytes"] = [whole(value) for value in reference]
        shown[f"here / reference, {kind}"] = [f"{ratio:.3f}" for ratio in here / reference]
    return markdown(shown)
