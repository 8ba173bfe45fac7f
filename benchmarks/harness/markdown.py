"""Markdown tables for the pages, and cells of CSV files."""

from collections.abc import Mapping, Sequence

import pandas as pd

from experiments.comparison.columns import ends
from experiments.comparison.files import as_markdown
from experiments.statistics.rounding import percent, times, whole
from experiments.task.metrics import TITLES


def markdown(table: pd.DataFrame) -> str:
    """Return a table of text as Markdown."""
    return f"{as_markdown(table)}\n"


def files_table(table: pd.DataFrame, scores: Mapping[str, Sequence[str]]) -> str:
    """Return a row for each strategy: scores, by heading, then size and speed of its file."""
    shown = pd.DataFrame(
        {
            "strategy": [f"`{name}`" for name in table["strategy"]],
            **scores,
            "bytes": table["tflite_bytes"].map(whole),
            "size ratio": table["size_ratio"].map(times),
            "speedup": [times(*ends(row, "speedup")) for _, row in table.iterrows()],
        }
    )
    return markdown(shown)


def score_table(table: pd.DataFrame) -> str:
    """Return a row for each strategy: the score of its task with its change, then size and speed of its file."""
    rows, title = [row for _, row in table.iterrows()], TITLES[str(table["metric"].iloc[0])]
    scores = {
        f"{title} (%)": [percent(*ends(row, "tflite_score")) for row in rows],
        f"Δ {title} (pp)": [percent(*ends(row, "score_change"), "+") for row in rows],
    }
    return files_table(table, scores)


def seeds_of(table: pd.DataFrame) -> int:
    """Return the number of seeds that the rows are means over; 1 if they are runs."""
    return int(table["seeds"].max()) if "seeds" in table else 1


def scope_of(table: pd.DataFrame) -> str:
    """Describe what the intervals of a table generalize to."""
    seeds = seeds_of(table)
    return (
        f"means of {seeds} seeds, for new seeds and new test examples" if seeds > 1 else "one seed, for new test images"
    )


def tested(row: pd.Series, column: str) -> str:
    """Format a change in points, with its p-value if it is from a paired test on images."""
    change, p = percent(*ends(row, column), "+"), row.get(f"{column}_p")
    return change if p is None or pd.isna(p) else f"{change} (p = {p:{'.2f' if p >= 0.01 else '.1g'}})"


def each_seed_alone(tests: int) -> str:
    """Describe the intervals of a table with a column per seed, and the number of false positives to expect."""
    return (
        "[low, high]: 95 % interval for new test images, for the given models of that seed. p: McNemar's exact test. "
        f"By chance alone, up to one test in twenty is below 0.05; there are {tests} here."
    )


def true(value: object) -> bool:
    """Whether a cell is true; in a CSV file, it may be text."""
    return str(value) == "True"


def filled(cells: pd.Series) -> pd.Series:
    """Return which cells have text; empty cells of a CSV file are read as missing."""
    return cells.notna() & (cells != "")
