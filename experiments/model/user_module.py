"""The user's module with the layers and functions of a model file: found and parsed before it is run."""

import ast
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from experiments.system.errors import UserError, first_line
from experiments.system.files import check_regular, expand_path
from experiments.system.keras_version import Version
from experiments.system.user_code import is_user_code, with_imports

REGISTER = "register_keras_serializable"
CHANGES_NAMES = frozenset({REGISTER, "get_custom_objects", "setattr", "globals", "exec"})
HARMLESS = frozenset({"numpy", "scipy"})  # installed packages that register nothing with Keras


@dataclass(frozen=True)
class UserModule:
    """A Python file or package of the user."""

    given: str  # as typed by the user, for messages
    file: Path
    name: str  # the name to import
    folder: Path  # the folder on sys.path with this name

    @property
    def sources(self) -> list[Path]:
        """The module's file and the user's files that it imports."""
        return with_imports([self.file])

    def load(self, version: Version = 2) -> Mapping[str, Any]:
        """Import the module; returns its classes and functions by their own and by their registered names.

        Raises:
            UserError: the module cannot be imported, or its classes are of another version of Keras.
        """
        from experiments.system.tensorflow import keras_version

        with self._explained(), _first_on_path(self.folder):
            module = self._run()
        defined = {name: value for name, value in vars(module).items() if _is_object(value)}
        known = keras_version(version).saving.get_custom_objects().items()
        objects = {**defined, **{name: value for name, value in known if ">" in name and _is_object(value)}}
        for name, value in objects.items():
            if isinstance(value, type) and (other := _other_keras(value, version)):
                raise UserError(f"model.module={self.given}: {name} is a {other}")
        return objects

    def _run(self) -> ModuleType:
        importlib.invalidate_caches()
        if "." in self.name or self.file.name == "__init__.py":
            return importlib.import_module(self.name)
        name = self.name
        loaded = sys.modules.get(name)
        if not is_user_code(name) or (loaded and getattr(loaded, "__file__", None) != str(self.file)):
            name = f"own_{name}"  # the name of another package
        spec = importlib.util.spec_from_file_location(name, self.file)
        assert spec and spec.loader
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            place = self.line_of(error)
            where = f"{place}: " if place else ""
            reason = f"{type(error).__name__}: {first_line(error)}"
            if isinstance(error, ModuleNotFoundError) and error.name:
                reason = f"it requires the module {error.name}, which is not installed"
            raise UserError(f"model.module={self.given}: cannot be imported ({where}{reason}).") from error

    def line_of(self, error: BaseException) -> str:
        """Return the innermost line of the user's code in an error's traceback or causes; empty if there is none."""
        sources = {str(file): file for file in self.sources}
        while error:
            frames = traceback.extract_tb(error.__traceback__)
            if isinstance(error, SyntaxError) and error.filename in sources:
                return f"line {error.lineno} of {sources[error.filename].name}"
            for frame in reversed(frames):
                if frame.filename in sources:
                    return f"line {frame.lineno} of {sources[frame.filename].name}"
            if not (before := error.__cause__ or error.__context__):
                break
            error = before
        return ""


def find_module(given: str) -> UserModule:
    """Find the module that a user named: a Python file, or a module in the working directory or on sys.path.

    Raises:
        UserError: the module does not exist, or is not valid Python.
    """
    module = _by_path(given) if given.endswith(".py") or "/" in given or given.startswith("~") else _by_name(given)
    _parsed(module)
    return module


def _by_path(given: str) -> UserModule:
    path = expand_path(given).absolute()
    if (path / "__init__.py").is_file():
        return UserModule(given, path / "__init__.py", path.name, path.parent)
    if not path.exists():
        raise _not_found(given, f"no such file{_suggest(path.name, _python_files(path.parent))}")
    check_regular(path, f"model.module={given}")
    return UserModule(given, path, path.stem, path.parent)


def _by_name(given: str) -> UserModule:
    parts = given.split(".")
    if not all(part.isidentifier() for part in parts):
        raise _not_found(given, "neither a Python file nor the name of a module")
    folders = [Path.cwd(), *(Path(entry) for entry in sys.path if entry)]
    for folder in folders:
        place = folder.joinpath(*parts)
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                return UserModule(given, file, given, folder)
    raise _not_found(given, f"no such module{_suggest(given, [name[:-3] for name in _python_files(Path.cwd())])}")


def _not_found(given: str, reason: str) -> UserError:
    return UserError(
        f"model.module={given}: {reason}. Give the Python file that defines the model's layers and functions, as in "
        "model.module=mylayers.py, or a module in the working directory or on PYTHONPATH."
    )


def _python_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.py"))


def _suggest(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, n=3)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _parsed(module: UserModule) -> ast.Module:
    try:
        return ast.parse(module.file.read_bytes(), module.file.name)
    except SyntaxError as error:
        line = f"line {error.lineno}: " if error.lineno else ""
        text = f": {error.text.strip()}" if error.text else ""
        raise UserError(f"model.module={module.given}: {line}{error.msg}{text}") from error
    except ValueError as error:
        raise UserError(f"model.module={module.given}: not a Python file ({first_line(error)}).") from error
    except OSError as error:
        raise UserError(f"model.module={module.given}: cannot be read ({error.strerror}).") from error


def provided_names(module: UserModule) -> frozenset[str] | None:
    """Return the names that a module provides, by parsing it; None if it may provide others when run.

    Raises:
        UserError: the file cannot be read.
    """
    names: set[str] = set()
    for source in module.sources:
        own = source == module.file
        try:
            tree = ast.parse(source.read_bytes())
        except (SyntaxError, ValueError, OSError):
            return None
        if _changes_names(tree, {each.stem for each in module.sources} | {each.parent.name for each in module.sources}):
            return None
        for node in _statements(tree.body):
            if own:
                names |= set(_bound(node))
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                for decorator in node.decorator_list:
                    if _called_name(decorator) == REGISTER:
                        if (registered := _registered_name(decorator, node.name)) is None:
                            return None
                        names.add(registered)
    return frozenset(names)


def _changes_names(tree: ast.Module, local: Collection[str]) -> bool:
    """Whether a module may get names from packages that register classes, from star imports, or from calls."""
    decorators = {
        id(part)
        for node in _statements(tree.body)
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        for decorator in node.decorator_list
        for part in ast.walk(decorator)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                packages = [alias.name for alias in names]
            case ast.ImportFrom(module=str(package), names=names, level=level):
                if any(alias.name == "*" for alias in names):
                    return True
                packages = [package] if not level else []
            case ast.Call() if id(node) not in decorators and _called_name(node) in CHANGES_NAMES:
                return True
            case _:
                continue
        tops = {package.partition(".")[0] for package in packages}
        if any(is_user_code(top) for top in tops - HARMLESS - set(local)):
            return True
    return False


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the top-level statements of a module, including those inside `if` and `try`."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _statements(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)


def _bound(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            yield name
        case ast.ImportFrom(names=names, module=package, level=level) if level or is_user_code(package or ""):
            yield from (alias.asname or alias.name for alias in names)
        case ast.Assign(targets=targets):
            yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name


def _called_name(node: ast.expr) -> str:
    """Return the last part of the name of a called function or a decorator."""
    called = node.func if isinstance(node, ast.Call) else node
    match called:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _registered_name(decorator: ast.expr, defined: str) -> str | None:
    """Return the name under which a decorator registers a class or function; None if it is computed."""
    if not isinstance(decorator, ast.Call):
        return None
    given = dict(zip(("package", "name"), decorator.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in decorator.keywords if keyword.arg}
    values = {key: value.value for key, value in given.items() if isinstance(value, ast.Constant)}
    package, name = values.get("package", "Custom"), values.get("name") or defined
    if values.keys() != given.keys() or not isinstance(package, str) or not isinstance(name, str):
        return None
    return f"{package}>{name}"


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """Put a folder first on sys.path while the block runs, and last from then on."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
        if entry not in sys.path:
            sys.path.append(entry)


def _is_object(value: Any) -> bool:
    function = getattr(value, "python_function", value)  # unwrap tf.function
    return isinstance(function, type | FunctionType) and is_user_code(function.__module__)


def _other_keras(kind: type, version: Version) -> str | None:
    """Say what to change if a class is one of the other version of Keras."""
    packages = {base.__module__.partition(".")[0] for base in kind.__mro__}
    if version == 2 and "keras" in packages:
        return (
            "Keras 3 class, but the model file requires Keras 2. Replace 'import keras' by 'import tf_keras as keras' "
            "or 'from tensorflow import keras'."
        )
    if version == 3 and "tf_keras" in packages:
        return (
            "Keras 2 class, but the model file requires Keras 3. Replace 'import tf_keras as keras' or 'from "
            "tensorflow import keras' by 'import keras': tf.keras is Keras 2 here."
        )
    return None
