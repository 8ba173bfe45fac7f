"""The pages of docs/reference/ are generated from the schema, the parsers and the registry."""

import pytest

from benchmarks.reference import FOLDER, PAGES, PARSERS
from experiments.__main__ import COMMANDS
from experiments.tracking.schema import SCHEMA


@pytest.mark.parametrize("name", PAGES)
def test_page_equals_the_output_of_the_command(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name](), "run: python -m benchmarks.reference"


def test_there_is_no_other_page() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


def test_every_command_has_a_section() -> None:
    assert {*PARSERS, "run", "sensitivity"} == set(COMMANDS)
    page = PAGES["commands.md"]()
    assert all(f"\n## {name}\n" in page for name in COMMANDS)


def test_every_column_is_listed_once() -> None:
    page = PAGES["columns.md"]()
    assert all(page.count(f"\n| `{name}` |") == 1 for name, column in SCHEMA.items() if not column.of)
