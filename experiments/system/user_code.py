"""Code that is not of this suite: the files of a user that decide what an option or a layer does."""

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

BLOCK = 2**20  # bytes that are read at a time
# Where other classes come from: of each of these packages, a key holds the version.
KNOWN = frozenset({"keras", "tensorflow", "tensorflow_model_optimization", "tf_keras", *sys.stdlib_module_names})
INSTALLED = frozenset({"site-packages", "dist-packages"})  # folders of packages that nobody edits


def user_sources(kind: type) -> list[Path]:
    """The files outside this package that decide what a class does.

    They are those of the class and of the classes that it is built on, the modules that stand beside its own one, and
    the user's modules that these import.
    """
    files = _files_of(each.__module__ for each in kind.__mro__)
    own = _file_of(kind.__module__)
    return with_imports([*files, *own.parent.glob("*.py")] if own and own in files else files)


def sources_of(model: "Model") -> list[Path]:
    """The files outside this package that decide what a model does: of its layers, and of their functions."""
    parts = list(model.submodules)
    held = [value for part in parts for value in vars(part).values()]
    values = [getattr(value, "python_function", value) for value in held]  # inside what tf.function makes of it
    functions = {value.__module__ for value in values if isinstance(value, FunctionType)}
    kinds = {type(each) for each in [*parts, *values] if hasattr(each, "get_config")}
    return with_imports(_files_of({*functions, *(each.__module__ for kind in kinds for each in kind.__mro__)}))


def _files_of(modules: Iterable[str]) -> list[Path]:
    named = (_file_of(module) for module in modules if is_user_code(module))
    return [file for file in named if file and not file.is_relative_to(PACKAGE)]


def is_user_code(module: str) -> bool:
    """Whether a module may be of a user: one of Keras, TensorFlow or Python is not."""
    return module.partition(".")[0] not in KNOWN


def _file_of(module: str) -> Path | None:
    path = getattr(sys.modules.get(module), "__file__", None)
    return Path(path) if path else None


def with_imports(files: Iterable[Path]) -> list[Path]:
    """These files, and the modules in their folders, packages and the working directory that they import, at any depth.

    What a file imports is read from its text: nothing is run.
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
        return  # whoever loads it says so
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
    """The files of a dotted name, its packages included, in the first folder that has any; what is no file is left."""
    for folder in folders:
        found, place = [], folder
        for part in name.split("."):
            place = place / part
            found += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
        if found:
            yield from found
            return


def sha256(path: Path) -> str:
    """The digest of a file.

    Raises:
        UserError: it cannot be read.
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
