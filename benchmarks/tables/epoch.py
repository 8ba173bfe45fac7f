"""An epoch here and by plain Keras: the published table, and whether it is as fast."""

import pandas as pd

from benchmarks.tables.markdown import markdown
from experiments.statistics.estimates import Estimate, ratio_of_medians
from experiments.statistics.rounding import times, whole


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.epoch found."""
    ratio = _plain_over_here(table)
    shown = pd.DataFrame(
        {
            "images": [whole(table["images"].iloc[0])],
            "pairs": [len(table)],
            "`model.fit`, s": [_range(table["plain_seconds"])],
            "here, s": [_range(table["here_seconds"])],
            "`model.fit` a tenth slower": [f"in {(table['plain_seconds'] > 1.1 * table['here_seconds']).sum()} pairs"],
            "speedup": [times(ratio.value, ratio.low, ratio.high)],
        }
    )
    return f"{markdown(shown)}\nMedian (least to most). [low, high]: 95 % interval over the pairs.\n"


def failures(table: pd.DataFrame) -> list[str]:
    """Whether an epoch here takes longer than by plain Keras."""
    ratio = _plain_over_here(table)
    return [f"{ratio.value:.2f} times as fast as model.fit"] if ratio.high < 1 else []


def _plain_over_here(table: pd.DataFrame) -> Estimate:
    return ratio_of_medians(table["plain_seconds"].to_numpy(float), table["here_seconds"].to_numpy(float))


def _range(seconds: pd.Series) -> str:
    return f"{seconds.median():.1f} ({seconds.min():.1f} to {seconds.max():.1f})"
