"""README and docs/ agree with the results, the options, the commands and each other."""

import re
import shlex
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.harness.pages import README, pages
from benchmarks.registry import STUDIES, published
from experiments.system.options import CONF
from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
TEXTS = {str(page.relative_to(REPOSITORY)): page.read_text() for page in pages()}
BESIDE = {page.name: page.read_text() for page in sorted(REPOSITORY.glob("*.md"))}  # CONTRIBUTING.md and the like
FIGURE = re.compile(r"[+-]?\d+\.\d+x?(?: \[[^]]+\])?")  # with its interval, where it has one


def found(pattern: str, texts: Mapping[str, str] = TEXTS) -> list[tuple[str, str]]:
    """Each page with each match of a pattern."""
    return [(page, each) for page, text in texts.items() for each in sorted(set(re.findall(pattern, text)))]


def commands(name: str) -> list[tuple[str, list[str]]]:
    """Each page with the arguments of each `python -m experiments.NAME` that it shows, in a block or in a line."""
    shown = re.compile(rf"python -m experiments\.{name}\b([^`\n]*)")
    texts = [(page, text.replace("\\\n", " ")) for page, text in TEXTS.items()]
    return [(page, shlex.split(line, comments=True)) for page, text in texts for line in shown.findall(text)]


def headings(page: Path) -> set[str]:
    """The anchors of a page that a link can lead to."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(("page", "name"), found(r"<!-- table (\w+) -->"))
def test_table_equals_the_published_one(page: str, name: str) -> None:
    shown = TEXTS[page].split(f"<!-- table {name} -->\n")[1].split(f"<!-- end of table {name} -->")[0]
    assert shown == published(name)


def test_every_published_table_has_a_page() -> None:
    folders = {path.parent.name for path in (REPOSITORY / "benchmarks" / "results").glob("*/stamp.json")}
    shown = {name for _, name in found(r"<!-- table (\w+) -->")}
    assert folders - shown == set()


def test_findings_of_the_readme_equal_the_published_figures() -> None:
    finding = TEXTS["README.md"].split("## What it found")[1].split("\n## ")[0]
    figures = FIGURE.findall(finding)
    assert len(figures) >= 7
    assert [figure for figure in figures if figure not in published("answer")] == []


def test_difference_in_the_tutorial_equals_the_published_one() -> None:
    (figure,) = re.findall(r"`qat` minus `finetune` is (\S+ \[[^]]+\]) points", TEXTS["docs/tutorial.md"])
    one_epoch = next(line for line in published("epochs").splitlines() if line.startswith("| 1, then 1 "))
    assert f"| {figure} |" in one_epoch


def test_readme_has_at_most_150_lines() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("group", ["dataset", "model", "strategy", "suite"])
def test_every_option_is_named_on_the_page_of_strategies(group: str) -> None:
    named = TEXTS["docs/strategies.md"]
    assert [path.stem for path in (CONF / group).glob("*.yaml") if f"`{path.stem}`" not in named] == []


def test_the_readme_counts_and_names_every_strategy() -> None:
    strategies = [path.stem for path in (CONF / "strategy").glob("*.yaml")]
    assert [name for name in strategies if f"`{name}`" not in TEXTS["README.md"]] == []
    assert len(strategies) == 16
    assert "in sixteen ways" in " ".join(TEXTS["README.md"].split())


@pytest.mark.parametrize(("page", "link"), found(r"\]\(([^)]+)\)", {**TEXTS, **BESIDE}))
def test_links_have_targets(page: str, link: str) -> None:
    if not link.startswith("https://"):
        file, _, anchor = link.partition("#")
        target = (REPOSITORY / page).parent / file if file else REPOSITORY / page
        assert target.exists()
        assert not anchor or anchor in headings(target)


def test_every_page_is_in_the_menu_of_the_site() -> None:
    menu = (REPOSITORY / "mkdocs.yml").read_text()
    missing = [page for page in pages() if page != README and str(page.relative_to(DOCS)) not in menu]
    assert missing == []


@pytest.mark.parametrize("name", ["compare", "latency", "cache", "store"])
def test_every_option_in_a_page_exists(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        import_module(f"experiments.{name}").main()
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    typed = {word.partition("=")[0] for _, words in commands(name) for word in words if word.startswith("--")}
    assert typed - options == set()


def test_every_choice_in_a_page_exists() -> None:
    choices = {
        (page, group, choice)
        for page, words in commands("run")
        if "--config-dir" not in words  # which has a user's own
        for group, _, values in (word.lstrip("+").partition("=") for word in words)
        for choice in values.split(",")
        if (CONF / group).is_dir() and not choice.startswith(("glob", "NAME"))
    }
    assert len(choices) > 20
    assert [each for each in choices if not (CONF / each[1] / f"{each[2]}.yaml").exists()] == []


def block_after(mark: str) -> str:
    """The command in the README below a mark."""
    (found,) = re.findall(rf"<!-- {mark} -->\n```bash\n(.+)\n```", TEXTS["README.md"])
    return str(found)


def test_commands_of_the_readme_equal_those_of_sweep_and_checks() -> None:
    install, _, sweep = block_after("first command").partition("-e . && .venv/bin/")
    assert sweep == STUDIES["first_sweep"].typed[0]
    *_, checks = (REPOSITORY / ".ci" / "test").read_text().splitlines()
    installs = (REPOSITORY / ".ci" / "install").read_text().splitlines()
    steps = [line for line in installs if line.startswith(("python3 -m venv", ".venv/bin/pip"))]
    tested = " && ".join([*steps, checks.removesuffix(' "$@"')])
    assert block_after("second command") == tested
    assert tested.startswith(install)


@pytest.mark.parametrize(
    ("page", "study"), [("keyword-spotting", "spoken_words"), ("anomaly-detection", "machine_noise")]
)
def test_a_tutorial_shows_the_commands_and_the_answer_that_were_measured(page: str, study: str) -> None:
    text = " ".join(TEXTS[f"docs/tutorials/{page}.md"].replace("\\\n", " ").split())
    assert STUDIES[study].typed[0] in text
    assert shlex.join(["python", *STUDIES[study].data]) in text
    report = (REPOSITORY / "benchmarks" / "results" / study / "report.html").read_text()
    answer = " ".join(re.findall(r"^> (.*)$", TEXTS[f"docs/tutorials/{page}.md"], re.MULTILINE))
    figures = FIGURE.findall(answer)
    assert len(figures) >= 4
    assert [figure for figure in figures if figure not in report] == []
