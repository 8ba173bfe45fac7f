"""The three laws of the house, read from the source."""

import ast
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from experiments.menu import first_comment
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "experiments"
CARDS = sorted((REPOSITORY / "conf").glob("*/*.yaml"))
ROOMS = {
    "hydra": {"command_line", "composition", "configuration", "refusals", "run", "sweep"},
    "omegaconf": {"composition", "configuration", "refusals", "run", "sweep"},
    "mlflow": {
        "tracking.connection", "tracking.creation", "tracking.failures", "tracking.model", "tracking.registry",
        "tracking.rows", "tracking.store", "tracking.system_metrics",
    },
    "sqlalchemy": {"tracking.failures", "tracking.tables"},
    "pandas": {
        "compare", "latency", "comparison.baseline", "comparison.columns", "comparison.compared", "comparison.files",
        "comparison.condition", "comparison.gates", "comparison.groups", "comparison.names", "comparison.pairs",
        "comparison.people", "comparison.query", "comparison.regressions", "comparison.terminal", "plots.bars",
        "plots.comparison", "plots.epochs", "plots.histories", "plots.points", "plots.tradeoffs",
        "report.choices", "report.details", "report.page",
    },
    "tensorflow": {"tensorflow_quietly", "strategy.rewritten"},
    "tensorflow_model_optimization": {"strategy.annotation", "strategy.compression", "strategy.rewritten"},
    "ai_edge_litert": {
        "exact", "graph", "measure.interpreter", "measure.memory_probe", "measure.profile",
        "measure.stopwatch", "tracking.litert_model", "weights",
    },
    "tflite_micro": {"measure.micro_probe"},
    "matplotlib": {
        "plots", "plots.bars", "plots.comparison", "plots.epochs", "plots.histories", "plots.labels", "plots.run",
        "plots.sensitivity", "plots.tradeoffs",
    },
    "litert_quantizer": {"weights"},
    "jinja2": {"report.page"},
    "PIL": {"report.details"},
}  # fmt: skip
# Rooms that import a heavy library at their top; everybody else imports them inside functions.
HEAVY = {"tensorflow_quietly", "strategy.annotation", "strategy.compression", "strategy.rewritten"}


def title(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        yield name, ast.parse(path.read_text())


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def imported_at_the_top(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            yield from imported(statement)


@pytest.mark.parametrize("library", ROOMS)
def test_each_heavy_library_has_its_rooms(library: str) -> None:
    users = {name for name, tree in modules() if any(i.partition(".")[0] == library for i in imported(tree))}
    assert users == ROOMS[library]


def test_tensorflow_is_imported_only_when_it_is_needed() -> None:
    doors = {f"experiments.{name}" for name in HEAVY}
    users = {name for name, tree in modules() if doors & set(imported_at_the_top(tree))}
    assert users <= HEAVY


def test_imports_go_one_way() -> None:
    uses = {
        name: {i.removeprefix("experiments").lstrip(".") for i in imported_at_the_top(tree) if "experiments" in i}
        for name, tree in modules()
    }
    while leaves := {name for name, used in uses.items() if not (used & uses.keys()) - {name}}:
        uses = {name: used for name, used in uses.items() if name not in leaves}
    assert not uses, f"cycle among {sorted(uses)}"


@pytest.mark.parametrize("path", [card for card in CARDS if card.parent.name != "suite"], ids=title)
def test_a_card_holds_exactly_the_fields_of_its_class(path: Path) -> None:
    card = yaml.safe_load(path.read_text())
    module, _, name = card.pop("_target_").rpartition(".")
    assert set(card) == {field.name for field in fields(getattr(import_module(module), name))}


@pytest.mark.parametrize("path", CARDS, ids=title)
def test_a_card_opens_with_the_line_that_the_menu_shows(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert len(first_comment(path)) > 20


def test_every_strategy_file_has_a_card_of_its_name() -> None:
    kinds = {path.stem for path in (PACKAGE / "strategy").glob("*.py")} - {
        "__init__",
        "annotation",
        "checked",
        "compression",
        "rewritten",
        "selection",
    }
    assert kinds <= {path.stem for path in CARDS if path.parent.name == "strategy"}
