"""The metric by which the runs of a table are judged."""

import pandas as pd

from experiments.record.metric import RecordedMetric


def common_metric(table: pd.DataFrame) -> RecordedMetric | None:
    """Return the metric of all rows that have one; None if they have several."""
    if "metric" not in table:
        return RecordedMetric()
    metrics = table[["metric", "metric_better"]].dropna().drop_duplicates()
    if len(metrics) > 1:
        return None
    return RecordedMetric(*metrics.iloc[0]) if len(metrics) else RecordedMetric()
