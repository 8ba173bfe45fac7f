"""The metric by which the runs of a table are judged."""

import pandas as pd

from experiments.record.judged import Judged


def judged(table: pd.DataFrame) -> Judged | None:
    """Return the metric of all rows that have one; None if they have several."""
    if "metric" not in table:
        return Judged()
    metrics = table[["metric", "metric_better"]].dropna().drop_duplicates()
    if len(metrics) > 1:
        return None
    return Judged(*metrics.iloc[0]) if len(metrics) else Judged()
