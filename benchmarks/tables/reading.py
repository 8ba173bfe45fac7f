"""How fast runs are read: the published table, and how fast they are to be."""

from itertools import pairwise

import pandas as pd

from benchmarks.tables.markdown import markdown, true

READ_AT_MOST, READ_RUNS = 3.0, 5000  # seconds for so many runs
WRITTEN_AT_MOST, WRITTEN_RUNS = 30.0, 20_000  # seconds of the command that prints and writes so many
REPORTED_AT_MOST, REPORTED_MIB, REPORTED_RUNS = 60.0, 1024.0, 5000
GROWTH_OF_READING = 1.5  # times the seconds a run that a store with fewer runs takes: from there on it is not linear

MEASURED = (
    "searched_seconds", "loaded_seconds", "printed_seconds", "written_seconds", "reported_seconds", "reported_mib",
)  # fmt: skip


def published_table(table: pd.DataFrame) -> str:
    """What benchmarks.reading found; a store that was not read in some way has an empty cell."""
    table = table.reindex(columns=[*dict.fromkeys([*table.columns, *MEASURED])])  # an earlier version measured less
    table = table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in MEASURED})
    ratio = table["searched_seconds"] / table["loaded_seconds"]
    shown = pd.DataFrame(
        {
            "store": table["store"],
            "runs": [f"{runs:,}" for runs in table["runs"]],
            "`mlflow.search_runs`, s": [_seconds(value, 2) for value in table["searched_seconds"]],
            "`compare.load`, s": [f"{value:.2f}" for value in table["loaded_seconds"]],
            "times faster": [_seconds(value) for value in ratio],
            "equal values": ["yes" if true(value) else "no" for value in table["equal"]],
            "`experiments.compare --sweep all`, s": [f"{value:.1f}" for value in table["printed_seconds"]],
            "with `--csv`, s": [_seconds(value) for value in table["written_seconds"]],
            "with `--out report.html`, s": [_seconds(value) for value in table["reported_seconds"]],
            "its memory, MiB": [_seconds(value, 0) for value in table["reported_mib"]],
        }
    )
    return markdown(shown)


def _seconds(value: float, digits: int = 1) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def failures(table: pd.DataFrame) -> list[str]:
    """Stores that are read too slowly, or wrongly; and kinds of store where many runs take more than their share."""
    slow = [
        f"{row['store']}, {row['runs']:,} runs: read in {row['loaded_seconds']:.1f} s"
        for row in table.to_dict("records")
        if row["loaded_seconds"] > READ_AT_MOST * max(1.0, row["runs"] / READ_RUNS)
    ]
    limits = (
        ("written_seconds", WRITTEN_AT_MOST, WRITTEN_RUNS, "s"),
        ("reported_seconds", REPORTED_AT_MOST, REPORTED_RUNS, "s"),
        ("reported_mib", REPORTED_MIB, REPORTED_RUNS, "MiB"),
    )
    for column, at_most, runs, unit in limits:
        over = table[(table["runs"] <= runs) & (table[column] > at_most)]
        slow += [
            f"{row['store']}, {row['runs']:,} runs: {column} {row[column]:.1f} {unit}" for _, row in over.iterrows()
        ]
    for way in ("loaded_seconds", "printed_seconds", "written_seconds", "reported_seconds"):
        each = (
            table.assign(each=table[way] / table["runs"])
            .dropna(subset="each")
            .sort_values("runs")
            .groupby("store", sort=False)["each"]
        )
        slow += [f"{store}: {way} grow faster than the runs" for store, of in each if _grows(of.tolist())]
    unequal = table[~table["equal"].map(true)]
    return slow + [f"{row['store']}, {row['runs']:,} runs: unequal" for row in unequal.to_dict("records")]


def _grows(each: list[float]) -> bool:
    """Whether a run takes longer among many than among fewer; a start that all runs share makes it less."""
    return any(later > GROWTH_OF_READING * earlier for earlier, later in pairwise(each))
