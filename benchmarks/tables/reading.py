"""How fast runs are read: the published table, and how fast they are to be."""

from itertools import pairwise

import pandas as pd

from benchmarks.tables.markdown import markdown, true

READ_AT_MOST, READ_RUNS = 3.0, 5000  # seconds for so many runs
GROWTH_OF_READING = 1.5  # times the seconds a run that a store with fewer runs takes: from there on it is not linear


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.reading found."""
    ratio = table["searched_seconds"] / table["loaded_seconds"]
    shown = pd.DataFrame(
        {
            "store": table["store"],
            "runs": [f"{runs:,}" for runs in table["runs"]],
            "`mlflow.search_runs`, s": [f"{value:.2f}" for value in table["searched_seconds"]],
            "`compare.load`, s": [f"{value:.2f}" for value in table["loaded_seconds"]],
            "times faster": [f"{value:.1f}" for value in ratio],
            "equal values": ["yes" if true(value) else "no" for value in table["equal"]],
            "`experiments.compare --sweep all`, s": [f"{value:.1f}" for value in table["printed_seconds"]],
        }
    )
    return markdown(shown)


def failures(table: pd.DataFrame) -> list[str]:
    """Stores that are read too slowly, or wrongly; and kinds of store where many runs take more than their share."""
    slow = [
        f"{row['store']}, {row['runs']:,} runs: read in {row['loaded_seconds']:.1f} s"
        for row in table.to_dict("records")
        if row["loaded_seconds"] > READ_AT_MOST * max(1.0, row["runs"] / READ_RUNS)
    ]
    for way in ("loaded_seconds", "printed_seconds"):
        each = table.assign(each=table[way] / table["runs"]).sort_values("runs").groupby("store", sort=False)["each"]
        slow += [f"{store}: {way} grow faster than the runs" for store, of in each if _grows(of.tolist())]
    unequal = table[~table["equal"].map(true)]
    return slow + [f"{row['store']}, {row['runs']:,} runs: unequal" for row in unequal.to_dict("records")]


def _grows(each: list[float]) -> bool:
    """Whether a run takes longer among many than among fewer; a start that all runs share makes it less."""
    return any(later > GROWTH_OF_READING * earlier for earlier, later in pairwise(each))
