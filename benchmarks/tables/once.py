"""What training once is worth: the published table, and what the figures are to be."""

import numpy as np
import pandas as pd

from benchmarks.tables.markdown import markdown
from benchmarks.tables.overhead import NOT_OVERHEAD

SWEEP, BARE = "the sweep", "bare"
BARE_BEFORE, BARE_AFTER = f"{BARE}, before the sweep", f"{BARE}, after the sweep"
PLAIN = "the plain way"
PLAIN_RECKONED, PLAIN_MEASURED = f"{PLAIN}, reckoned from the pieces done bare", f"{PLAIN}, measured"
PLAIN_AT_LEAST, BARE_AT_MOST = 4.0, 1.15  # times


def bare_ratio(table: pd.DataFrame) -> float:
    """The sweep's time over that of the same work done bare, as often as that was measured."""
    seconds = _seconds(table)
    return float(seconds[SWEEP] / np.mean([value for way, value in seconds.items() if way.startswith(BARE)]))


def plain_ratio(table: pd.DataFrame) -> float:
    """The time of the plain way over the sweep's."""
    seconds = _seconds(table)
    return next(value for way, value in seconds.items() if way.startswith(PLAIN)) / seconds[SWEEP]


def _seconds(table: pd.DataFrame) -> dict[str, float]:
    return {str(way): float(value) for way, value in zip(table["way"], table["seconds"], strict=True)}


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.once found."""
    rest = table["seconds"] - sum(table[f"{part}_seconds"] for part in NOT_OVERHEAD)
    shown = pd.DataFrame({"": table["way"], "epochs trained": table["epochs_trained"].astype(str)})
    for heading, values in (
        ("seconds", table["seconds"]),
        *((f"of it {part}", table[f"{part}_seconds"]) for part in NOT_OVERHEAD),
        ("the rest", rest),
    ):
        shown[heading] = [f"{value:,.0f}" for value in values]
    row, missed = table.iloc[0], ", which is missed" if bare_ratio(table) > BARE_AT_MOST else ""
    return (
        f"{markdown(shown)}\n"
        f"sweep / bare: {bare_ratio(table):.3f} (at most {BARE_AT_MOST:g}{missed}); "
        f"plain / sweep: {plain_ratio(table):.1f} (at least {PLAIN_AT_LEAST:g}); "
        f"the smallest number of epochs possible: {row['least_epochs']}. "
        f"{row['cells']} cells: {row['strategies']} strategies with finetune.epochs={row['finetune_epochs']} after a "
        f"baseline of {row['baseline_epochs']} epochs ({row['settings']}), which are {row['runs']} distinct runs.\n"
    )
