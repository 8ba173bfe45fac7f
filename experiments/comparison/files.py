"""Write comparisons: CSV, JSON, Excel and Parquet with every column; Markdown, HTML and LaTeX formatted."""

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.cells import cell_len

from experiments.comparison.columns import COLUMNS, without_internal_columns
from experiments.comparison.compared import Comparison
from experiments.comparison.display import Differences, display_table, note
from experiments.comparison.terminal import fit_columns
from experiments.system.errors import UserError, suggestion
from experiments.system.escaping import escape_control, markdown_text, spreadsheet_text
from experiments.system.extras import require
from experiments.system.progress import say
from experiments.system.result import to_json_value
from experiments.tracking.schema import SCHEMA, Column, Kind

SUMMARY_WIDTH = 120  # characters of the table in a summary
JSON_VERSION = 1  # of the JSON file; higher if its form changes
Writer = Callable[[pd.DataFrame, Path], None]


def with_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Apply a function to every text of a table, including headings; numbers and empty cells are kept."""
    texts = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    changed = {
        name: table[name].map(lambda cell: change(cell) if isinstance(cell, str) else cell, na_action="ignore")
        for name in texts
    }
    return table.assign(**changed).rename(columns=lambda name: change(str(name)))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV; no text is a formula when a spreadsheet opens the file."""
    with_texts(table, spreadsheet_text).to_csv(path, index=False)


def as_markdown(table: pd.DataFrame) -> str:
    """Return a table of text as Markdown; vertical bars in cells are escaped."""
    text = table.astype(str).replace(r"\|", r"\\|", regex=True)
    columns = [[str(name), *map(str.strip, text[name])] for name in text.columns]
    # The width of the longest cell, and at least two more than the heading, for the alignment marks.
    widths = [max(cell_len(cells[0]) + 2, *map(cell_len, cells)) for cells in columns]
    rule = "|".join(f":{'-' * (width + 1)}" for width in widths)
    first, *rest = [
        " | ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        for row in zip(*columns, strict=True)
    ]
    return "\n".join([f"| {first} |", f"|{rule}|", *(f"| {row} |" for row in rest)])


def _markdown(table: pd.DataFrame, path: Path) -> None:
    lines = "\n\n".join(map(markdown_text, note(table).split("\n")))  # a single line break would join them
    path.write_text(f"{as_markdown(with_texts(display_table(table), markdown_text))}\n\n{lines}\n", encoding="utf-8")


def write_summary(title: str, lines: Sequence[str], table: pd.DataFrame, path: Path) -> None:
    """Write what was decided, in lines, and the table with its main columns, as Markdown for the page of a CI job.

    Raises:
        UserError: the file cannot be written.
    """
    shown = fit_columns(display_table(table), SUMMARY_WIDTH, Differences.of(table))
    decided = "\n\n".join(map(markdown_text, lines))
    read = "\n\n".join(map(markdown_text, note(table, list(shown.columns)).split("\n")))
    text = f"## {markdown_text(title)}\n\n{decided}\n\n{as_markdown(with_texts(shown, markdown_text))}\n\n{read}\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}).") from error
    say(f"wrote {path}")


def _html(table: pd.DataFrame, path: Path) -> None:
    head = "<!doctype html><meta charset=utf-8><title>Comparison</title>"
    lines = "".join(f"<p>{html.escape(line)}</p>\n" for line in note(table).split("\n"))
    text = f"{head}\n{display_table(table).to_html(index=False)}\n{lines}"
    path.write_text(escape_control(text), encoding="utf-8")


def _latex(table: pd.DataFrame, path: Path) -> None:
    text = display_table(table).to_latex(index=False, escape=True)
    path.write_text(escape_control(text).replace("Δ", r"$\Delta$").replace("µ", r"$\mu$"), encoding="utf-8")


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as JSON has them, with null for what is missing; pandas' own writer rounds."""
    cells = table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in cells.to_dict("records")]


def _json(table: pd.DataFrame, path: Path) -> None:
    found = {"schema_version": JSON_VERSION, "rows": records(table)}
    text = json.dumps(to_json_value(found), indent=2, allow_nan=False)  # a store of others may have infinite values
    path.write_text(text, encoding="utf-8")


def json_schema() -> dict[str, Any]:
    """Return what the JSON file holds, as a JSON Schema: docs/reference/comparison.schema.json."""
    kinds = {"text": "string", "count": "number"}
    columns = {
        name: {"type": [kinds.get(SCHEMA[name].kind, "number"), "null"], "description": SCHEMA[name].doc}
        for name in COLUMNS
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A comparison, as `compare --json FILE` writes it",
        "type": "object",
        "required": ["schema_version", "rows"],
        "properties": {
            "schema_version": {"const": JSON_VERSION},
            "rows": {
                "description": "One object for each run, or for each group of runs; settings that vary are added.",
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": columns,
                    "required": list(columns),
                    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
                },
            },
        },
        "additionalProperties": False,
    }


# How a spreadsheet shows numbers of a kind, as Excel writes formats.
NUMBER_FORMATS: Mapping[Kind, str] = {
    "count": "#,##0", "share": "0.00%", "change": "+0.00%;-0.00%;0.00%", "ratio": '0.00"x"', "speedup": '0.00"x"',
    "time": "#,##0.00", "number": "General",
}  # fmt: skip
WIDEST, PADDING = 40, 2  # characters of a column of a spreadsheet


def _excel(table: pd.DataFrame, path: Path) -> None:
    """Two sheets: the comparison, with a filter and a format for each kind of number, and what its columns mean."""
    shown = with_texts(table, escape_control)  # the format has no control characters
    described = [SCHEMA[name] for name in map(str, table.columns) if name in SCHEMA]
    meanings = pd.DataFrame(
        [(each.name, each.unit, each.better, each.doc) for each in described],
        columns=["column", "unit", "better", "meaning"],
    )
    with pd.ExcelWriter(path, engine="openpyxl") as writer:
        for name, content in (("comparison", shown), ("columns", meanings)):
            content.to_excel(writer, index=False, sheet_name=name, freeze_panes=(1, 1))
            _settle(writer.sheets[name])


def _settle(sheet: Any) -> None:
    """Set widths, the filter and the formats of a sheet, and keep its texts texts."""
    from openpyxl.styles import Alignment

    sheet.auto_filter.ref = sheet.dimensions
    for cells in sheet.iter_cols():
        column = SCHEMA.get(str(cells[0].value))
        for cell in cells:
            if isinstance(cell.value, str):
                cell.data_type = "s"  # text, even if it looks like a formula or an error value of Excel
                cell.quotePrefix = spreadsheet_text(cell.value) != cell.value  # and stays text when edited
            elif column is not None and column.numeric:
                cell.number_format = _number_format(column)
            if cells[0].value == "meaning":
                cell.alignment = Alignment(wrap_text=True, vertical="top")
        longest = max(len(str(cell.value)) if isinstance(cell.value, str) else 8 for cell in cells)
        sheet.column_dimensions[cells[0].column_letter].width = min(longest, WIDEST) + PADDING


def _number_format(column: Column) -> str:
    """Return how Excel shows the numbers of a column: with their unit, unless it is part of the format already."""
    number = NUMBER_FORMATS.get(column.kind, "General")
    is_part = column.kind in ("share", "change", "ratio", "speedup") or not column.unit
    return number if is_part else f'{number}" {column.unit}"'


def _parquet(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False)


@dataclass(frozen=True)
class Form:
    """A file format; with `every_column`, all columns in full precision, for programs."""

    ending: str
    writer: Writer
    every_column: bool
    extra: str | None = None  # that installs the required package

    def write(self, table: pd.DataFrame, path: Path) -> None:
        """Write a table to a file.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            self.writer(without_internal_columns(table) if self.every_column else table, path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error}).") from error


FORMS: Mapping[str, Form] = {
    "csv": Form(".csv", write_csv, every_column=True),
    "markdown": Form(".md", _markdown, every_column=False),
    "html": Form(".html", _html, every_column=False),
    "latex": Form(".tex", _latex, every_column=False),
    "json": Form(".json", _json, every_column=True),
    "excel": Form(".xlsx", _excel, every_column=True, extra="excel"),
    "parquet": Form(".parquet", _parquet, every_column=True, extra="parquet"),
}
ENDINGS = tuple(form.ending for form in FORMS.values())


def form_of(path: Path) -> Form:
    """Return the format for the suffix of a file name.

    Raises:
        UserError: no format has this suffix, or its package is not installed.
    """
    found = [form for form in FORMS.values() if form.ending == path.suffix]
    if not found:
        raise UserError(f"--out {path}: requires the suffix of a format. {suggestion(path.suffix, ENDINGS)}")
    (form,) = found
    if form.extra:
        require(form.extra, f"--out {path}")
    return form


def write_table(table: pd.DataFrame, path: Path, form: Form) -> None:
    """Write a table to a file, and print its path.

    Raises:
        UserError: the file cannot be written.
    """
    if path.name == "-":
        raise UserError("-: requires a file name. For standard output, type /dev/stdout with --csv or another format.")
    form.write(table, path)
    say(f"wrote {path}")


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write comparison.csv with all columns of the runs, comparison.md and, if runs were pooled, seeds.csv.

    Raises:
        UserError: a file cannot be written.
    """
    FORMS["csv"].write(comparison.runs, folder / "comparison.csv")
    FORMS["markdown"].write(comparison.table, folder / "comparison.md")
    if comparison.pooled:
        FORMS["csv"].write(comparison.table, folder / "seeds.csv")
