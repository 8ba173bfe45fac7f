"""The README and the pages of docs/ say what is so."""

import re
from pathlib import Path

import pytest

from benchmarks.publish import README, pages, published
from experiments.system.options import CONF
from tests.conftest import REPOSITORY

TEXTS = {str(page.relative_to(REPOSITORY)): page.read_text() for page in pages()}
ARCHITECTURE = TEXTS["docs/architecture.md"]


def found(pattern: str) -> list[tuple[str, str]]:
    """Each page with what it has of a pattern."""
    return [(page, each) for page, text in TEXTS.items() for each in sorted(set(re.findall(pattern, text)))]


def headings(page: Path) -> set[str]:
    """The places of a page that a link can lead to."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(("page", "name"), found(r"<!-- table (\w+) -->"))
def test_a_table_is_the_published_one(page: str, name: str) -> None:
    shown = TEXTS[page].split(f"<!-- table {name} -->\n")[1].split(f"<!-- end of table {name} -->")[0]
    assert shown == published(name)


def test_the_readme_begins_with_a_published_table() -> None:
    assert "<!-- table first_sweep -->" in TEXTS["README.md"].split("\n## ")[0]


def test_the_tree_names_every_room() -> None:
    rooms = [path.parent.name for path in (REPOSITORY / "experiments").glob("*/__init__.py")]
    commands = [path.name for path in (REPOSITORY / "experiments").glob("*.py") if path.name != "__init__.py"]
    assert [name for name in (*(f"{room}/" for room in rooms), *commands) if name not in ARCHITECTURE] == []


@pytest.mark.parametrize("group", ["dataset", "model", "strategy", "suite"])
def test_every_card_is_named(group: str) -> None:
    missing = [path.stem for path in (CONF / group).glob("*.yaml") if f"`{path.stem}`" not in TEXTS["README.md"]]
    assert not missing


@pytest.mark.parametrize(("page", "link"), found(r"\]\(([^)]+)\)"))
def test_links_lead_somewhere(page: str, link: str) -> None:
    if not link.startswith("https://"):
        file, _, place = link.partition("#")
        target = (REPOSITORY / page).parent / file if file else REPOSITORY / page
        assert target.exists()
        assert not place or place in headings(target)


def test_the_readme_leads_to_every_page() -> None:
    missing = [page.name for page in pages() if page != README and f"](docs/{page.name}" not in README.read_text()]
    assert not missing
