"""The README says what is so."""

import re
from pathlib import Path

import pytest

from benchmarks.publish import README, published
from experiments.card import CONF
from tests.conftest import REPOSITORY

TEXT = README.read_text()


@pytest.mark.parametrize("name", re.findall(r"<!-- table (\w+) -->", TEXT))
def test_a_table_is_the_published_one(name: str) -> None:
    shown = TEXT.split(f"<!-- table {name} -->\n")[1].split(f"<!-- end of table {name} -->")[0]
    assert shown == published(name)


def test_there_is_a_published_table() -> None:
    assert "<!-- table first_sweep -->" in TEXT


def test_the_tree_names_every_room() -> None:
    rooms = [path for path in (REPOSITORY / "experiments").rglob("*.py") if path.name != "__init__.py"]
    missing = [path.name for path in rooms if path.stem not in TEXT]
    assert not missing


@pytest.mark.parametrize("group", ["dataset", "model", "strategy", "suite"])
def test_every_card_is_named(group: str) -> None:
    missing = [path.stem for path in (CONF / group).glob("*.yaml") if f"`{path.stem}`" not in TEXT]
    assert not missing


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", TEXT))
def test_links_to_files_lead_somewhere(link: str) -> None:
    assert link.startswith("https://") or (REPOSITORY / Path(link)).exists()


@pytest.mark.parametrize("place", sorted(set(re.findall(r"\]\(#([^)]+)\)", TEXT))))
def test_links_within_it_lead_to_a_heading(place: str) -> None:
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    assert place in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
