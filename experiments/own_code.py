"""Code that is not of this suite: the files of a user that decide what a card or a layer does."""

import hashlib
import sys
from pathlib import Path

from experiments.errors import UserError
from experiments.files import check_regular

BLOCK = 2**20  # bytes that are read at a time
PACKAGE = Path(__file__).parent
# Where other classes come from: of each of these packages, a key holds the version.
KNOWN = frozenset({"keras", "tensorflow", "tensorflow_model_optimization", "tf_keras", *sys.stdlib_module_names})


def own_sources(kind: type) -> list[Path]:
    """The files outside this package that decide what a class does.

    They are those of the class and of the classes that it is built on, and the modules that stand beside its own one.
    """
    modules = (each.__module__ for each in kind.__mro__ if each.__module__.partition(".")[0] not in KNOWN)
    named = (_file_of(module) for module in modules)
    files = {file for file in named if file and not file.is_relative_to(PACKAGE)}
    own = _file_of(kind.__module__)
    return sorted({*files, *own.parent.glob("*.py")} if own and own in files else files)


def _file_of(module: str) -> Path | None:
    path = getattr(sys.modules.get(module), "__file__", None)
    return Path(path) if path else None


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
