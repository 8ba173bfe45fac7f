"""The user's own source files that decide what an option or a layer does."""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING

from experiments.system.errors import UserError
from experiments.system.files import PACKAGE, check_regular

if TYPE_CHECKING:
    from tf_keras import Model

BLOCK = 2**20  # bytes to read at a time
# Packages whose versions are part of every key; their files are therefore not included.
KEYED_PACKAGES = frozenset(
    {"keras", "tensorflow", "tensorflow_model_optimization", "tf_keras", *sys.stdlib_module_names}
)
INSTALLED = frozenset({"site-packages", "dist-packages"})  # imports of packages here are not followed


def user_sources(kind: type) -> list[Path]:
    """Return the files outside this package that decide what a class does.

    These are the files of the class and its base classes, the modules in the same folder, and the user's modules that
    they import.
    """
    files = _files_of(each.__module__ for each in kind.__mro__)
    own = _file_of(kind.__module__)
    return with_imports([*files, *own.parent.glob("*.py")] if own and own in files else files)


def sources_of(model: "Model") -> list[Path]:
    """Return the files outside this package that decide what a model does: those of its layers and their functions."""
    parts = list(model.submodules if hasattr(model, "submodules") else model._flatten_layers())  # of Keras 2, or 3
    held = [value for part in parts for value in vars(part).values()]
    values = [getattr(value, "python_function", value) for value in held]  # unwrap tf.function
    functions = {value.__module__ for value in values if isinstance(value, FunctionType)}
    kinds = {type(each) for each in [*parts, *values] if hasattr(each, "get_config")}
    return with_imports(_files_of({*functions, *(each.__module__ for kind in kinds for each in kind.__mro__)}))


def _files_of(modules: Iterable[str]) -> list[Path]:
    named = (_file_of(module) for module in modules if is_user_code(module))
    return [file for file in named if file and not file.is_relative_to(PACKAGE)]


def is_user_code(module: str) -> bool:
    """Whether a module may be the user's: it is not part of Keras, TensorFlow or Python."""
    return module.partition(".")[0] not in KEYED_PACKAGES


def _file_of(module: str) -> Path | None:
    path = getattr(sys.modules.get(module), "__file__", None)
    return Path(path) if path else None


def with_imports(files: Iterable[Path]) -> list[Path]:
    """Add the modules that these files import, recursively, from their folders, packages and the working directory.

    Imports are found by parsing; no code is run.
    """
    found: set[Path] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file not in found and not file.is_relative_to(PACKAGE):
            found.add(file)
            if not INSTALLED & set(file.parts):
                waiting += _imports(file)
    return sorted(found)


def _imports(file: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # the error is reported when the file is loaded
    package = file.parent
    while (package / "__init__.py").exists():
        package = package.parent
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield from _modules(alias.name, [package, Path.cwd()])
            case ast.ImportFrom():
                folders = [file.parents[node.level - 1]] if 0 < node.level <= len(file.parents) else []
                for alias in node.names:
                    name = f"{node.module or ''}.{alias.name}".strip(".")
                    yield from _modules(name, folders or [package, Path.cwd()])


def _modules(name: str, folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the files of a dotted name, with its packages, from the first folder that has any."""
    for folder in folders:
        found, place = [], folder
        for part in name.split("."):
            place = place / part
            found += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
        if found:
            yield from found
            return


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file.

    Raises:
        UserError: the file cannot be read.
    """
    check_regular(path, str(path))
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(BLOCK):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
