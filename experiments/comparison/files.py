"""A comparison as a file: CSV, JSON, spreadsheet and Parquet with every column; Markdown, HTML and LaTeX for people."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from experiments.comparison.people import for_people, note
from experiments.errors import UserError, near
from experiments.progress import say

Writer = Callable[[pd.DataFrame, Path], None]


def as_csv(table: pd.DataFrame, path: Path) -> None:
    """Every column in full precision."""
    table.to_csv(path, index=False)


def _markdown(table: pd.DataFrame, path: Path) -> None:
    path.write_text(f"{for_people(table).to_markdown(index=False, disable_numparse=True)}\n\n{note(table)}\n")


def _html(table: pd.DataFrame, path: Path) -> None:
    head = "<!doctype html><meta charset=utf-8><title>Comparison</title>"
    path.write_text(f"{head}\n{for_people(table).to_html(index=False)}\n<p>{note(table)}</p>\n")


def _latex(table: pd.DataFrame, path: Path) -> None:
    path.write_text(for_people(table).to_latex(index=False, escape=True))


def _json(table: pd.DataFrame, path: Path) -> None:
    table.to_json(path, orient="records", indent=2)


def _excel(table: pd.DataFrame, path: Path) -> None:
    table.to_excel(path, index=False, sheet_name="comparison", freeze_panes=(1, 1))


def _parquet(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False)


WRITERS: Mapping[str, Writer] = {
    "csv": as_csv,
    "markdown": _markdown,
    "html": _html,
    "latex": _latex,
    "json": _json,
}
# What --out writes, by the ending of the file's name.
ENDINGS: Mapping[str, Writer] = {
    ".csv": as_csv, ".md": _markdown, ".html": _html, ".tex": _latex, ".json": _json, ".xlsx": _excel,
    ".parquet": _parquet,
}  # fmt: skip
FOR_PEOPLE = frozenset({".md", ".html", ".tex"})


def writer(path: Path) -> Writer:
    """What writes a file of this name.

    Raises:
        UserError: no form has this ending.
    """
    if path.suffix not in ENDINGS:
        raise UserError(f"--out {path}: the ending says the form, and is one of these. {near(path.suffix, ENDINGS)}")
    return ENDINGS[path.suffix]


def written(table: pd.DataFrame, path: Path, write: Writer) -> None:
    """Write a table to a file, and say so.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        write(table, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}).") from error
    say(f"wrote {path}")
