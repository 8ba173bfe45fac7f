"""The user's own source files that decide what an option or a layer does."""

import ast
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from functools import cache, partial
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from experiments.system.files import PACKAGE

if TYPE_CHECKING:
    from tf_keras import Model

# Packages whose versions are part of every key; their files are therefore not included.
KEYED_PACKAGES = frozenset(
    {"keras", "tensorflow", "tensorflow_model_optimization", "tf_keras", *sys.stdlib_module_names}
)
SQLITE = b"SQLite format 3\0"  # the first bytes of a database
SUFFIXES = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)
LONGEST = 256  # characters of a text that may be the name of a file
# Libraries whose versions are in every key, or affect no result: they check configurations and show progress.
UNDECISIVE = frozenset({*KEYED_PACKAGES, "experiments", "hydra", "numpy", "omegaconf", "psutil", "pydantic", "tqdm"})
IMPORTERS = frozenset({"import_module", "__import__"})  # functions that import the module of this name
# Functions and methods that write the file of this name. What a script writes decides no result.
WRITERS = frozenset(
    {
        "dump", "report", "save", "save_all", "save_model", "save_weights", "savefig", "savetxt", "savez",
        "savez_compressed", "to_csv", "to_excel", "to_html", "to_json", "to_latex", "to_markdown", "to_parquet",
    }
)  # fmt: skip
INSTALLED = frozenset({"site-packages", "dist-packages"})  # imports of packages here are not followed


def user_sources(kind: type, beside: bool = True) -> list[Path]:
    """Return the files outside this package that decide what a class does.

    These are the files of the class and its base classes, the modules in the same folder (`beside`), and the user's
    modules that they import.
    """
    files = _files_of(each.__module__ for each in kind.__mro__)
    own = _file_of(kind.__module__)
    return with_imports([*files, *own.parent.glob("*.py")] if beside and own and own in files else files)


def classes_of(kind: type) -> list[Path]:
    """Return the files of a class and its base classes, in this package or outside."""
    named = (_file_of(each.__module__) for each in kind.__mro__ if is_user_code(each.__module__))
    return [file for file in named if file]


def files_named_in(sources: Iterable[Path]) -> list[Path]:
    """Return the existing files whose names are texts in the user's code, such as that of `np.load("mean.npy")`.

    Files that the code writes do not count, nor does a store of runs: each run would change its own key.
    """
    own = [source for source in sources if not INSTALLED & set(source.parts)]
    named = [
        folder / text
        for source in own
        for folder in (source.parent, Path.cwd())
        for text in _names_in(_content(source))[1]
    ]
    return sorted({path for path in named if path.is_file() and not _is_store(path)})


def _is_store(path: Path) -> bool:
    """Whether a file is an MLflow database."""
    with path.open("rb") as file:
        if file.read(len(SQLITE)) != SQLITE:
            return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiment_tags'").fetchall())
    except sqlite3.Error:
        return False  # damaged; it counts by content


def libraries_of(files: Iterable[Path]) -> Mapping[str, str]:
    """Return the versions of the installed packages that these files import, by the name of the package.

    Those that are part of every key, or decide no result, are left out.
    """
    tops = {name.partition(".")[0] for file in files for name, level in _imported(file) if not level}
    return {name: found for name in sorted(tops - UNDECISIVE) if (found := _version_of(name))}


@cache
def _version_of(package: str) -> str:
    """Return the version of the distribution with this package; empty for one that is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        spec = _spec_of(package)
        if not spec or not spec.origin or not INSTALLED & set(Path(spec.origin).parts):
            return ""
        return " ".join(version(name) for name in sorted(set(packages_distributions().get(package, ()))))


def sources_of(model: "Model") -> list[Path]:
    """Return the files outside this package that decide what a model does.

    They are those of its layers, of the functions that these hold, and of other objects with a configuration, such as
    quantizers: also in lists and in one another.
    """
    parts = list(model.submodules if hasattr(model, "submodules") else model._flatten_layers())  # of Keras 2, or 3
    values = list(_held_by(parts))
    functions = {value.__module__ for value in values if isinstance(value, FunctionType)}
    kinds = {type(each) for each in [*parts, *values] if hasattr(each, "get_config")}
    return with_imports(_files_of({*functions, *(each.__module__ for kind in kinds for each in kind.__mro__)}))


def _held_by(parts: Iterable[Any]) -> Iterator[Any]:
    """Yield what the parts of a model hold, also in containers, in objects with a configuration, and in partials."""
    waiting = [value for part in parts for value in vars(part).values()]
    seen = {id(part) for part in parts}
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        match value:
            case Mapping():
                waiting.extend(value.values())
            case list() | tuple() | set() | frozenset():
                waiting.extend(value)  # += fails with Keras' wrapped tuples
            case partial():
                waiting.extend([value.func, *value.args, *value.keywords.values()])
            case _:
                yield getattr(value, "python_function", value)  # unwrap tf.function
                waiting.extend(vars(value).values() if _has_configuration(value) else ())


def _has_configuration(value: Any) -> bool:
    return hasattr(value, "get_config") and hasattr(value, "__dict__")


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
    package = file.parent
    while (package / "__init__.py").exists():
        package = package.parent
    for name, level in _imported(file):
        folders = [file.parents[level - 1]] if 0 < level <= len(file.parents) else []
        yield from _modules(name, folders or [package, Path.cwd()], elsewhere=not level)


def _imported(file: Path) -> Iterable[tuple[str, int]]:
    """Return the dotted names that a file imports, each with the number of dots before it."""
    return _names_in(_content(file))[0]


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""  # the error is reported when the file is loaded


@cache
def _names_in(source: bytes) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...]]:
    """Return the imports of a source, and its texts that may be names of files; nothing of a source with errors."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return (), ()
    imports: list[tuple[str, int]] = []
    texts = []
    written: set[ast.expr] = set()
    for node in ast.walk(tree):  # a call before its arguments
        if isinstance(node, ast.Call) and _writes(node):
            written.update(node.args, (each.value for each in node.keywords))
        match node:
            case ast.Import():
                imports += [(alias.name, 0) for alias in node.names]
            case ast.ImportFrom():
                imports += [(f"{node.module or ''}.{alias.name}".strip("."), node.level) for alias in node.names]
            case ast.Call(
                func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(value=str(name)), *_]
            ) if called in IMPORTERS:
                imports.append((name.lstrip("."), len(name) - len(name.lstrip("."))))
            case ast.Constant(value=str(text)) if "." in text and len(text) <= LONGEST and text.isprintable():
                if node not in written:
                    texts.append(text)
    return tuple(imports), tuple(texts)


def _writes(call: ast.Call) -> bool:
    """Whether a call writes the file that it names."""
    match call.func:
        case ast.Attribute(attr=name) if name in WRITERS:
            return True
        case ast.Name(id="open"):
            modes = [*call.args[1:2], *(each.value for each in call.keywords if each.arg == "mode")]
            return any(isinstance(mode, ast.Constant) and not set("wax").isdisjoint(str(mode.value)) for mode in modes)
    return False


def _modules(name: str, folders: Iterable[Path], elsewhere: bool) -> Iterator[Path]:
    """Yield the files of a dotted name, with its packages, from the first folder that has any.

    With `elsewhere`, other places in which Python finds it are searched last: PYTHONPATH, a project installed with -e.
    """
    for folder in folders:
        if found := _files_in(folder, name):
            yield from found
            return
    top = name.partition(".")[0]
    if elsewhere and top not in UNDECISIVE and (spec := _spec_of(top)):
        places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else ())]
        for folder in {Path(place).parent for place in places}:
            if not INSTALLED & set(folder.parts):
                yield from _files_in(folder, name)


def _files_in(folder: Path, name: str) -> list[Path]:
    found, place = [], folder
    for part in name.split("."):
        place = place / part
        names = [place.parent / f"{part}{suffix}" for suffix in SUFFIXES]  # a module may be compiled
        found += [file for file in (*names, place / "__init__.py") if file.is_file()]
    return found


def _spec_of(top: str) -> ModuleSpec | None:
    try:
        return find_spec(top)
    except (ImportError, ValueError, AttributeError):  # modules without a specification, such as __main__
        return None
