"""Training in bfloat16: the published table, and how near its accuracy is to be."""

import pandas as pd

from benchmarks.tables.markdown import markdown
from experiments.comparison.columns import ends
from experiments.statistics.rounding import percent, times

EQUIVALENT_WITHIN = 0.003  # of accuracy, between baselines of two precisions


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.precision found."""
    shown = pd.DataFrame(
        {
            "training.precision": table["precision"],
            "an epoch, s": [f"{value:.1f}" for value in table["epoch_seconds"]],
            "speedup": [times(*ends(row, "faster")) for row in table.itertuples()],
            "accuracy (%)": [percent(*ends(row, "accuracy")) for row in table.itertuples()],
            "Δ accuracy vs float32 (pp)": [percent(*ends(row, "difference"), sign="+") for row in table.itertuples()],
        }
    )
    row = table.iloc[0]
    return f"{markdown(shown)}\n{row['seeds']} seeds, {row['epochs']} epochs. [low, high]: 95 % interval.\n"


def failures(table: pd.DataFrame) -> list[str]:
    """Precisions that are not faster, or whose accuracy may differ by more than EQUIVALENT_WITHIN."""
    shorter = table[table["precision"] != "float32"]
    slow = shorter[shorter["faster_low"] <= 1]
    worse = shorter[shorter[["difference_low", "difference_high"]].abs().max(axis=1) > EQUIVALENT_WITHIN]
    return [
        *(f"{name}: not faster than float32" for name in slow["precision"]),
        *(
            f"{name}: accuracy may differ by more than {percent(EQUIVALENT_WITHIN)} points"
            for name in worse["precision"]
        ),
    ]
