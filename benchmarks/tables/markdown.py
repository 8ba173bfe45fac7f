"""Tables as the README holds them, and cells as CSV files hold them."""

import pandas as pd

from experiments.comparison.files import as_markdown


def markdown(table: pd.DataFrame) -> str:
    """A table whose cells are text."""
    return f"{as_markdown(table)}\n"


def seeds_of(table: pd.DataFrame) -> int:
    """Of how many seeds the rows of a table are means; 1 where they are runs."""
    return int(table["seeds"].max()) if "seeds" in table else 1


def spoken_of(table: pd.DataFrame) -> str:
    """What the intervals of a table speak of."""
    seeds = seeds_of(table)
    return (
        f"means of {seeds} seeds, for new seeds and new test images" if seeds > 1 else "one seed, for new test images"
    )


def true(value: object) -> bool:
    """Whether a cell says so; it may be a word, for a CSV has no types."""
    return str(value) == "True"
