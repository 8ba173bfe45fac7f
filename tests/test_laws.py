"""Rules of the code base that are checked in the source; the import contracts are in pyproject.toml."""

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from experiments.runs.menu import first_comment
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "experiments"
OPTIONS = sorted((REPOSITORY / "conf").glob("*/*.yaml"))
# Modules and packages that import a heavy library at their top; everybody else imports them inside functions.
HEAVY = (
    "strategy.annotation",
    "system.tensorflow",
    "quantization.scaling",
    "quantization.tfmot",
    "quantization.keras3",
)


def is_heavy(module: str) -> bool:
    """Whether a module may load TensorFlow when it is imported."""
    return any(module == heavy or module.startswith(f"{heavy}.") for heavy in HEAVY)


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


def test_tensorflow_is_imported_only_in_allowed_modules() -> None:
    users = {
        name
        for name, tree in modules()
        if any(is_heavy(each.removeprefix("experiments.")) for each in imported_at_the_top(tree))
    }
    assert [name for name in users if not is_heavy(name)] == []


def in_cycles(imports: Callable[[ast.Module], Iterable[str]], package: str = "") -> list[str]:
    """The modules of a package that import one another in a circle."""
    uses = {
        name: {i.removeprefix("experiments").lstrip(".") for i in imports(tree) if "experiments" in i}
        for name, tree in modules()
        if name.startswith(package)
    }
    while leaves := {name for name, used in uses.items() if not (used & uses.keys()) - {name}}:
        uses = {name: used for name, used in uses.items() if name not in leaves}
    return sorted(uses)


def test_imports_have_no_cycles() -> None:
    assert in_cycles(imported_at_the_top) == []


def test_the_engine_for_keras_3_has_none_within_functions_either() -> None:
    assert in_cycles(imported, "quantization.keras3") == []


@pytest.mark.parametrize("path", [option for option in OPTIONS if option.parent.name != "suite"], ids=title)
def test_option_has_exactly_the_fields_of_its_class(path: Path) -> None:
    option = yaml.safe_load(path.read_text())
    module, _, name = option.pop("_target_").rpartition(".")
    assert set(option) == {field.name for field in fields(getattr(import_module(module), name))}


@pytest.mark.parametrize("path", OPTIONS, ids=title)
def test_option_starts_with_the_line_for_the_menu(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert len(first_comment(path)) > 20


def test_every_strategy_is_defined_in_the_strategy_package() -> None:
    named = [yaml.safe_load(path.read_text())["_target_"] for path in OPTIONS if path.parent.name == "strategy"]
    assert {each.rpartition(".")[0].rpartition(".")[0] for each in named} == {"experiments.strategy"}
