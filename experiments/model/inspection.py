"""What is inside a model file, looked at before Keras sees it: a file of a stranger must not run code or open files.

Keras makes objects of whatever a configuration names, by importing modules if need be, and its safe mode looks at
Python lambdas only. So the configuration is read as data and everything in it that Keras could turn into an object is
held against the names of known_names.py. TensorFlow is not imported for it.
"""

import json
import stat
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from experiments.model.known_names import (
    ACTIVATIONS,
    CLASSES_BY_MODULE,
    CLASSES_WITHOUT_MODULE,
    CONSTRAINTS,
    FUNCTIONS_BY_MODULE,
    FUNCTIONS_WITHOUT_MODULE,
    INITIALIZERS,
    OPERATIONS,
    OPERATIONS_AS_LAYERS,
    REGISTERED,
    REGULARIZERS,
)
from experiments.system.errors import UserError, first_line, suggestion

if TYPE_CHECKING:
    import h5py

CONFIGURATION, WEIGHTS = "config.json", "model.weights.h5"
MOST_CONFIGURATION = 64 * 2**20  # bytes; EfficientNetB7 has one MB
EXPANSION = 100  # how many times larger than the file its unpacked content may be
SLACK = 2**20  # bytes that small files may unpack to besides
DEEPEST = 200  # levels of lists and objects in a configuration; nested models take ten each
FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})  # of HDF5: its own ones, and LZF, which h5py brings along
# What Keras writes for values that are no objects of a class.
VALUES = frozenset({"__bytes__", "__ellipsis__", "__numpy__", "__tensor__", "__tuple__", "TensorShape"})
# By the end of a key, what its text may name.
NAMED_BY_KEY: Mapping[str, frozenset[str]] = {
    "activation": ACTIVATIONS,
    "initializer": INITIALIZERS,
    "regularizer": REGULARIZERS,
    "constraint": CONSTRAINTS,
    "fn": FUNCTIONS_WITHOUT_MODULE,
}
FROM_FILES = frozenset({"idf_weights", "vocabulary"})  # what lookup layers take as values, or as the name of a file
RULE = (
    "A model file may name the layers of Keras and TensorFlow's arithmetic, for whatever else it names would be run. "
    "For layers and functions of your own, give the file that defines them, model.module=FILE.py; a file that you made "
    "yourself can be taken as it is, with the code inside it, by model.trust=true."
)
RULE_FOR_CODE = (
    "Write what it does as a layer with get_config in a Python file, build the model with that layer, take over the "
    "weights (new.set_weights(old.get_weights())), save it again, and give model.module=FILE.py. A file that you made "
    "yourself can be taken as it is, and the code inside it is then run, by model.trust=true."
)
HOLDS_CODE = frozenset({"Lambda", "__lambda__"})


class _Refused(Exception):  # noqa: N818  # why a file is refused, without its name
    """Something in a file that nobody may hand to Keras."""


class _NotProvided(_Refused):
    """A name in a file that is neither Keras' own nor provided by the user's module."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"it names {what}. {RULE_FOR_CODE if name in HOLDS_CODE else RULE}")
        self.what, self.name = what, name


def inspect(path: Path, provided: Collection[str] = (), trust: bool = False, module: str = "") -> None:
    """Look at a model file, .keras or HDF5, without making anything of it.

    Args:
        path: The file.
        provided: Names of the user's own layers and functions, which the file may use.
        trust: The file is the user's own: names are not looked at, but damage and references to other files are.
        module: What the user typed to provide these names; empty where no module was given.

    Raises:
        UserError: it names what is neither Keras' own nor provided, holds what only an attack needs, or is damaged.
    """
    import h5py

    try:
        if is_archive(path):
            with zipfile.ZipFile(path) as archive:
                configuration = _of_archive(archive, path.stat().st_size)
        else:
            with h5py.File(path, "r") as file:
                configuration = _of_hdf5(file, path.stat().st_size)
        if not trust:
            _Names(frozenset(provided)).check(configuration)
    except _NotProvided as refusal:
        if not module or refusal.name in HOLDS_CODE:
            raise UserError(f"model.path={path}: {refusal}") from refusal
        own = [name for name in provided if not name.startswith("_")]
        raise UserError(
            f"model.path={path}: it names {refusal.what}, which model.module={module} does not define. "
            f"{suggestion(refusal.name, own)}"
        ) from refusal
    except _Refused as refusal:
        raise UserError(f"model.path={path}: {refusal}") from refusal
    except RecursionError as error:
        raise UserError(f"model.path={path}: a damaged Keras model (nested too deeply).") from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"model.path={path}: a damaged Keras model ({first_line(error)}).") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"model.path={path}: a damaged Keras model ({first_line(error)}).") from error


def version_of_hdf5(path: Path) -> str:
    """The version of Keras that an HDF5 file says it was written with; 2.0 where it says none.

    Raises:
        UserError: it is damaged.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            version = file.attrs.get("keras_version", "2.0")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"model.path={path}: a damaged Keras model ({first_line(error)}).") from error
    return version.decode(errors="replace") if isinstance(version, bytes) else str(version)


def is_archive(path: Path) -> bool:
    """Whether Keras takes a file for its zip format: by its name and its end, whatever it begins with."""
    return str(path).endswith(".keras") and zipfile.is_zipfile(path)


def _of_archive(archive: zipfile.ZipFile, size: int) -> Any:
    """The configuration in a .keras file, once nothing else in it can do harm."""
    import h5py

    _check_members(archive.infolist(), size)
    with archive.open(WEIGHTS) as weights, h5py.File(weights, "r") as file:
        _check_contents(file, size)
    return _parsed(_read(archive.open(CONFIGURATION)))


def _check_members(members: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Keras reads members by name, and unpacks all of them where there are assets."""
    seen: set[str] = set()
    for member in members:
        name, shown = member.filename, repr(member.filename)
        if name != member.orig_filename.replace("\\", "/") or "\\" in member.orig_filename or not name.isprintable():
            raise _Refused(f"the archive has a member with an unusual name, {member.orig_filename!r}. {_DAMAGED}")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in name:
            raise _Refused(f"the archive has a member outside of itself, {shown}. {_DAMAGED}")
        if name in seen:
            raise _Refused(
                f"the archive has several members {shown}, and programs differ in which they read. {_DAMAGED}"
            )
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _Refused(f"the archive has a member that is no file, {shown}. {_DAMAGED}")
        if member.flag_bits & 1:
            raise _Refused(f"the archive has a member that is encrypted, {shown}. {_DAMAGED}")
        seen.add(name)
    if "model.weights.npz" in seen:
        raise _Refused(f"the weights are no HDF5 file. {_DAMAGED}")
    for name in (CONFIGURATION, WEIGHTS):
        if name not in seen:
            raise _Refused(f"the archive lacks {name}. {_DAMAGED}")
    _check_expansion(sum(member.file_size for member in members), size)


_DAMAGED = "Keras writes no such file; save the model again with model.save."


def _check_expansion(unpacked: int, size: int) -> None:
    if unpacked > EXPANSION * size + SLACK:
        raise _Refused(f"its {size:,} bytes would unpack to {unpacked:,}. {_DAMAGED}")


def _read(member: IO[bytes]) -> bytes:
    with member:
        content = member.read(MOST_CONFIGURATION + 1)
    if len(content) > MOST_CONFIGURATION:
        raise _Refused(f"its configuration is larger than {MOST_CONFIGURATION:,} bytes. {_DAMAGED}")
    return content


def _of_hdf5(file: "h5py.File", size: int) -> Any:
    """The configuration in an HDF5 file, once nothing else in it can do harm."""
    _check_contents(file, size)
    configuration = file.attrs.get("model_config")
    if configuration is None:
        raise _Refused("holds weights, and no model. Save the whole model, with model.save instead of save_weights.")
    if not isinstance(configuration, str | bytes):
        raise _Refused(f"its configuration is no text. {_DAMAGED}")
    if len(configuration) > MOST_CONFIGURATION:
        raise _Refused(f"its configuration is larger than {MOST_CONFIGURATION:,} bytes. {_DAMAGED}")
    return _parsed(configuration)


def _check_contents(file: "h5py.File", size: int) -> None:
    """An HDF5 file can take data from any other file on the disk, and can hold little that unpacks to very much."""
    import h5py

    unpacked = 0
    for name, group in _groups(file):
        for key in group:
            shown = f"{name}/{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink | h5py.SoftLink):
                raise _Refused(f"it takes {shown} from another file on the disk. {_DAMAGED}")
            item = group.get(key) if isinstance(group.get(key, getlink=True), h5py.HardLink) else None
            if not isinstance(item, h5py.Dataset):
                continue
            if item.is_virtual or item.external:
                raise _Refused(f"it takes the values of {shown} from another file on the disk. {_DAMAGED}")
            layout = item.id.get_create_plist()
            if {layout.get_filter(n)[0] for n in range(layout.get_nfilters())} - FILTERS:
                raise _Refused(f"{shown} is packed in a way that needs a program from elsewhere. {_DAMAGED}")
            unpacked += item.size * item.dtype.itemsize if item.size else 0
    _check_expansion(unpacked, size)


def _groups(file: "h5py.File") -> Iterator[tuple[str, "h5py.Group"]]:
    """Every group of a file with its name, each once; links to elsewhere are not followed."""
    import h5py

    seen: set[int] = set()
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    while waiting:
        name, group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        yield name, group
        for key in group:
            if isinstance(group.get(key, getlink=True), h5py.HardLink):
                item = group.get(key)
                if isinstance(item, h5py.Group):
                    waiting.append((f"{name}/{key}", item))


def _parsed(text: str | bytes) -> Any:
    configuration = json.loads(text, object_pairs_hook=_once_each)
    if not isinstance(configuration, dict):
        raise _Refused(f"its configuration is no object. {_DAMAGED}")
    configuration.pop("compile_config", None)  # how it was trained: Keras makes nothing of it, see KerasFile.build
    return configuration


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Keras would look at each of several values under one key, before the last one counts."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Refused(f"its configuration gives a key twice. {_DAMAGED}")
    return values


@dataclass(frozen=True)
class _Place:
    """Where a value stands in a configuration."""

    key: str = ""
    layer: str = ""  # with those of the models around it, outermost first
    depth: int = 0
    is_user_code: bool = False  # in the configuration of one of the user's own classes, whose keys mean what they like


TOP = _Place()


@dataclass(frozen=True)
class _Names:
    """Everything in a configuration that Keras could turn into an object, against what may be named."""

    provided: frozenset[str]

    def check(self, value: Any, place: "_Place" = TOP) -> None:
        """Look at a value, and at all that it holds."""
        if place.depth > DEEPEST:
            raise _Refused(f"its configuration is nested too deeply. {_DAMAGED}")
        match value:
            case dict():
                place = self._place_of(value, place)
                self._check_object(value, place.layer)
                for key, each in value.items():
                    inside = replace(place, key=key, depth=place.depth + 1)
                    if key in FROM_FILES and not place.is_user_code:
                        _check_vocabulary(each, inside)
                    self.check(each, inside)
            case list():
                for each in value:
                    self.check(each, replace(place, depth=place.depth + 1))
            case str() if not place.is_user_code:
                self._check_text(value, place.key, place.layer)

    def _place_of(self, value: Mapping[str, Any], outer: "_Place") -> "_Place":
        """Where the values of an object stand: in its layer, or in that of the model around it."""
        if "class_name" not in value:
            return outer
        config = value.get("config")
        name = config.get("name") if isinstance(config, dict) else None
        layer = f"{outer.layer}/{name}".strip("/") if isinstance(name, str) else outer.layer
        is_user_code = bool({value["class_name"], value.get("registered_name")} & self.provided)
        return replace(outer, layer=layer, is_user_code=is_user_code)

    def _check_object(self, value: Mapping[str, Any], layer: str) -> None:
        if "_TYPE" in value:
            raise _refused("a tensor of a kind of its own", layer)
        if "class_name" not in value:
            return
        name, module, registered = value["class_name"], value.get("module"), value.get("registered_name")
        if not isinstance(name, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
            raise _refused(f"{name!r} as a class", layer)
        if name in VALUES and not {"module", "registered_name"} & value.keys():
            return
        if name == "function":
            self._check_function(value, module, registered, layer)
            return
        self._check_class(name, module, registered, "module" in value or "registered_name" in value, layer)
        if name in OPERATIONS_AS_LAYERS:
            self._check_operation(value, layer)

    def _check_function(self, value: Mapping[str, Any], module: str | None, registered: str | None, layer: str) -> None:
        name = value.get("config")
        if isinstance(name, str) and name in self.provided:
            return  # Keras looks there first
        known = FUNCTIONS_WITHOUT_MODULE if module is None else FUNCTIONS_BY_MODULE.get(module, frozenset())
        if name not in known or registered not in (None, "function", name):
            raise _refused(f"the function {_dotted(module, name)}", layer, name)

    def _check_class(self, name: str, module: str | None, registered: str | None, is_new: bool, layer: str) -> None:
        """A class as both generations write it: files of the new one say its module, and what it is registered as."""
        # What is registered comes first, whatever the module; only then is the module imported.
        if (registered if is_new else name) in self.provided | REGISTERED:
            return
        known = CLASSES_WITHOUT_MODULE if module is None else CLASSES_BY_MODULE.get(module, frozenset())
        if name not in known or registered not in (None, name):
            raise _refused(_shown(name, module, registered), layer, name)

    def _check_operation(self, value: Mapping[str, Any], layer: str) -> None:
        config = value.get("config")
        operation = config.get("function") if isinstance(config, dict) else None
        if not isinstance(operation, str) or operation.removeprefix("compat.v1.") not in OPERATIONS:
            raise _refused(f"the function {operation} of TensorFlow", layer)

    def _check_text(self, text: str, key: str, layer: str) -> None:
        known = next((names for end, names in NAMED_BY_KEY.items() if key == end or key.endswith(f"_{end}")), None)
        if known is not None and text not in known | self.provided:
            raise _refused(f"{key}={_short(text)}", layer, text)


def _check_vocabulary(value: Any, place: _Place) -> None:
    """Lookup layers read what is a text here from the file of this name."""
    if isinstance(value, dict) and value.get("class_name") == "__tuple__":
        value = value.get("items")
    is_list = isinstance(value, list) and all(isinstance(each, str | int | float) for each in value)
    if value is not None and not is_list:
        raise _Refused(
            f"layer {_short(place.layer)!r} reads its {place.key} from a file of its choice, {_short(value)}. Save the "
            "model with the words themselves (layer.set_vocabulary), or take a file that you made yourself by "
            "model.trust=true."
        )


WHY: Mapping[str, str] = {
    "Lambda": "a Lambda layer holds Python code",
    "__lambda__": "it holds Python code",
    "TensorFlowOpLayer": "it can call every operation of TensorFlow, those that write files included",
    "ClassMethod": "it calls methods by their names",
    "InstanceMethod": "it calls methods by their names",
    "InstanceProperty": "it reads attributes by their names",
    "TFSMLayer": "it runs a SavedModel from a place of its choice",
}


def _shown(name: str, module: str | None, registered: str | None) -> str:
    also = f", registered as {_short(registered)}" if registered not in (None, name) else ""
    why = f" ({WHY[name]})" if name in WHY else ""
    return f"{_dotted(module, name)}{also}{why}"


def _dotted(module: str | None, name: Any) -> str:
    return _short(f"{module}.{name}" if module else str(name))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _refused(what: str, layer: str, name: Any = "") -> _Refused:
    where = f" in layer {_short(layer)!r}" if layer else ""
    return _NotProvided(f"{what}{where}", str(name))
