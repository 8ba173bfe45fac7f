"""Tables as the pages hold them, and cells as CSV files hold them."""

import pandas as pd

from experiments.comparison.columns import ends
from experiments.comparison.files import as_markdown
from experiments.statistics.rounding import percent


def markdown(table: pd.DataFrame) -> str:
    """A table whose cells are text."""
    return f"{as_markdown(table)}\n"


def seeds_of(table: pd.DataFrame) -> int:
    """Of how many seeds the rows of a table are means; 1 where they are runs."""
    return int(table["seeds"].max()) if "seeds" in table else 1


def scope_of(table: pd.DataFrame) -> str:
    """What the intervals of a table hold for."""
    seeds = seeds_of(table)
    return (
        f"means of {seeds} seeds, for new seeds and new test images" if seeds > 1 else "one seed, for new test images"
    )


def tested(row: pd.Series, column: str) -> str:
    """A change in points; with a p-value where it is one of images that both have seen, and not of seeds."""
    change, p = percent(*ends(row, column), "+"), row.get(f"{column}_p")
    return change if p is None or pd.isna(p) else f"{change} (p = {p:{'.2f' if p >= 0.01 else '.1g'}})"


def each_seed_alone(tests: int) -> str:
    """What the intervals of a table with a column for each seed hold for, and what so many tests find by chance."""
    return (
        "[low, high]: 95 % interval for new test images, with the models of that seed as they are. p: McNemar's exact "
        f"test, image by image. By chance alone up to one test in twenty is below 0.05; these are {tests}."
    )


def true(value: object) -> bool:
    """Whether a cell says so; it may be a word, for a CSV has no types."""
    return str(value) == "True"


def filled(cells: pd.Series) -> pd.Series:
    """Which cells hold a text; an empty one is read from a CSV as missing."""
    return cells.notna() & (cells != "")
