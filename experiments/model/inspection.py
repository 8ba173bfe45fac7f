"""Inspection of a model file before Keras loads it: an untrusted file must not run code or open other files.

Keras creates whatever objects a configuration names, and imports modules for them; its safe mode rejects little more
than Python lambdas. So the configuration is read as data, and every name that Keras could turn into an object is
checked against the list for the version that loads the file, keras2/known_names.py or keras3/known_names.py. TensorFlow
is not imported.
"""

import json
import stat
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from experiments.model.keras2 import known_names as keras2
from experiments.model.keras3 import known_names as keras3
from experiments.model.known_names import KnownNames
from experiments.system.errors import UserError, first_line, suggestion
from experiments.system.files import ARCHIVE_DAMAGE
from experiments.system.keras_version import Version

if TYPE_CHECKING:
    import h5py

METADATA, CONFIGURATION, WEIGHTS = "metadata.json", "config.json", "model.weights.h5"
MAX_METADATA = 10_000  # bytes; Keras writes about a hundred
MAX_CONFIGURATION = 64 * 2**20  # bytes; EfficientNetB7 has one MB
EXPANSION = 100  # maximum ratio of unpacked content to file size
SLACK = 2**20  # bytes that small files may unpack to in addition
MAX_DEPTH = 200  # nesting levels of a configuration; each nested model takes ten
FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})  # HDF5's own filters, and LZF of h5py
# Keras' markers for values that are not objects of a class.
VALUES = frozenset(
    {
        "__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__", "__tuple__",
        "TensorShape",
    }
)  # fmt: skip
FROM_FILES = frozenset({"idf_weights", "vocabulary"})  # lookup layers accept these as values or as a file name
RULE = (
    "A model file may only name Keras layers and TensorFlow arithmetic, since other names could run code. For your own "
    "layers and functions, type model.module=FILE.py with the file that defines them. If you trust the model file, "
    "type model.trust=true to load it with the code inside."
)
RULE_FOR_CODE = (
    "Write it as a layer with get_config in a Python file, build the model with that layer, copy the weights "
    "(new.set_weights(old.get_weights())), save it again, and type model.module=FILE.py. If you trust the model file, "
    "type model.trust=true to run the code inside."
)
RULE_FOR_BACKENDS = (
    "A TFLite file requires layers that compute with TensorFlow. Rebuild this part of the model from layers of "
    "keras.layers and functions of keras.ops, and copy its weights."
)
RULE_FOR_QUANTIZED = "The strategies quantize a float model. Save the model before model.quantize(...)."
ONLY_IN_ARCHIVES = (
    "Keras loads operations of keras.ops from .keras files only. Save the model with model.save('my.keras')."
)
HOLDS_CODE = frozenset({"Lambda", "__lambda__"})
RULES: Mapping[str, str] = {
    **dict.fromkeys(HOLDS_CODE, RULE_FOR_CODE),
    **dict.fromkeys(keras3.OTHER_BACKENDS, RULE_FOR_BACKENDS),
    **dict.fromkeys(keras3.QUANTIZED, RULE_FOR_QUANTIZED),
}


class _Refused(Exception):  # noqa: N818  # internal; becomes a UserError with the name of the file
    """A file has content that must not be loaded."""


class _NotProvided(_Refused):
    """A file has a name that is neither Keras' own nor provided by the user's module."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"it names {what}. {RULES.get(name, RULE)}")
        self.what, self.name = what, name


def inspect(
    path: Path, provided: Collection[str] = (), trust: bool = False, module: str = "", version: Version = 2
) -> None:
    """Check a model file, .keras or HDF5, without loading it.

    Args:
        path: The file.
        provided: Names of the user's own layers and functions, which the file may use.
        trust: Skip the check of names; damage and references to other files are still checked.
        module: The module that the user typed, for messages; empty if none.
        version: The version of Keras that will load the file.

    Raises:
        UserError: the file has a name that is neither Keras' own nor provided, is malicious, or is damaged.
    """
    import h5py

    try:
        if is_archive(path):
            with zipfile.ZipFile(path) as archive:
                configuration = _check_archive(archive, path.stat().st_size)
        else:
            with h5py.File(path, "r") as file:
                configuration = _check_hdf5(file, path.stat().st_size)
        if not trust:
            names = keras2.NAMES if version == 2 else keras3.NAMES
            _NameCheck(frozenset(provided), names).check(configuration)
    except _NotProvided as refusal:
        if not module or refusal.name in RULES:
            raise UserError(f"model.path={path}: {refusal}") from refusal
        own = [name for name in provided if not name.startswith("_")]
        raise UserError(
            f"model.path={path}: names {refusal.what}, which model.module={module} does not define. "
            f"{suggestion(refusal.name, own)}"
        ) from refusal
    except _Refused as refusal:
        raise UserError(f"model.path={path}: {refusal}") from refusal
    except RecursionError as error:
        raise UserError(f"model.path={path}: a damaged Keras model (nested too deeply).") from error
    except ARCHIVE_DAMAGE as error:
        raise UserError(f"model.path={path}: a damaged Keras model ({first_line(error)}).") from error


def written_by(path: Path) -> str:
    """Return the Keras version that a file records, such as 3.15.1; 2.0 for an HDF5 file that does not record it.

    Raises:
        UserError: the file is damaged, or a zip file that is no Keras model.
    """
    import h5py

    try:
        if is_archive(path):
            with zipfile.ZipFile(path) as archive:
                if METADATA not in archive.namelist():
                    raise UserError(f"model.path={path}: a zip file, but not a Keras model.")
                with archive.open(METADATA) as metadata:
                    return str(json.loads(metadata.read(MAX_METADATA))["keras_version"])
        with h5py.File(path, "r") as file:
            version = file.attrs.get("keras_version", "2.0")
    except ARCHIVE_DAMAGE as error:
        raise UserError(f"model.path={path}: a damaged Keras model ({first_line(error)}).") from error
    return version.decode(errors="replace") if isinstance(version, bytes) else str(version)


def is_archive(path: Path) -> bool:
    """Whether Keras would open a file as a zip archive: it checks the suffix and the end of the file."""
    return str(path).endswith(".keras") and zipfile.is_zipfile(path)


def _check_archive(archive: zipfile.ZipFile, size: int) -> Any:
    """Return the configuration of a .keras file, after checking everything else in it."""
    import h5py

    _check_members(archive.infolist(), size)
    with archive.open(WEIGHTS) as weights, h5py.File(weights, "r") as file:
        _check_contents(file, size)
    return _parsed(_read(archive.open(CONFIGURATION)))


def _check_members(members: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Check the members of an archive: Keras reads them by name, and unpacks all if there are assets."""
    seen: set[str] = set()
    for member in members:
        name, shown = member.filename, repr(member.filename)
        if name != member.orig_filename.replace("\\", "/") or "\\" in member.orig_filename or not name.isprintable():
            raise _Refused(f"the archive has a member with an unusual name, {member.orig_filename!r}. {_DAMAGED}")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in name:
            raise _Refused(f"the archive has a member outside of itself, {shown}. {_DAMAGED}")
        if name in seen:
            raise _Refused(f"the archive has several members named {shown}. {_DAMAGED}")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _Refused(f"the archive has a member that is not a file, {shown}. {_DAMAGED}")
        if member.flag_bits & 1:
            raise _Refused(f"the archive has an encrypted member, {shown}. {_DAMAGED}")
        seen.add(name)
    if "model.weights.npz" in seen:
        raise _Refused(f"the weights are not an HDF5 file. {_DAMAGED}")
    for name in (CONFIGURATION, WEIGHTS):
        if name not in seen:
            raise _Refused(f"the archive lacks {name}. {_DAMAGED}")
    _check_expansion(sum(member.file_size for member in members), size)


_DAMAGED = "Keras does not write such files. Save the model again with model.save."


def _check_expansion(unpacked: int, size: int) -> None:
    if unpacked > EXPANSION * size + SLACK:
        raise _Refused(f"its {size:,} bytes would unpack to {unpacked:,}. {_DAMAGED}")


def _read(member: IO[bytes]) -> bytes:
    with member:
        content = member.read(MAX_CONFIGURATION + 1)
    if len(content) > MAX_CONFIGURATION:
        raise _Refused(f"its configuration is larger than {MAX_CONFIGURATION:,} bytes. {_DAMAGED}")
    return content


def _check_hdf5(file: "h5py.File", size: int) -> Any:
    """Return the configuration of an HDF5 file, after checking everything else in it."""
    _check_contents(file, size)
    configuration = file.attrs.get("model_config")
    if configuration is None:
        raise _Refused(
            "the file has weights only, and no architecture. Save the whole model with model.save('my.keras'), not "
            "save_weights."
        )
    if not isinstance(configuration, str | bytes):
        raise _Refused(f"its configuration is not text. {_DAMAGED}")
    if len(configuration) > MAX_CONFIGURATION:
        raise _Refused(f"its configuration is larger than {MAX_CONFIGURATION:,} bytes. {_DAMAGED}")
    return _parsed(configuration)


def _check_contents(file: "h5py.File", size: int) -> None:
    """Reject HDF5 files that read data from other files on the disk, or unpack to a huge size."""
    import h5py

    unpacked = 0
    for name, group in _groups(file):
        for key in group:
            shown = f"{name}/{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink | h5py.SoftLink):
                raise _Refused(f"it reads {shown} from another file on the disk. {_DAMAGED}")
            item = group.get(key) if isinstance(group.get(key, getlink=True), h5py.HardLink) else None
            if not isinstance(item, h5py.Dataset):
                continue
            if item.is_virtual or item.external:
                raise _Refused(f"it reads the values of {shown} from another file on the disk. {_DAMAGED}")
            layout = item.id.get_create_plist()
            if {layout.get_filter(n)[0] for n in range(layout.get_nfilters())} - FILTERS:
                raise _Refused(f"{shown} requires an HDF5 plugin to unpack. {_DAMAGED}")
            if item.dtype.hasobject:  # many may refer to the same bytes
                raise _Refused(f"{shown} has values of no fixed size. {_DAMAGED}")
            unpacked += item.size * item.dtype.itemsize if item.size else 0
    _check_expansion(unpacked, size)


def _groups(file: "h5py.File") -> Iterator[tuple[str, "h5py.Group"]]:
    """Yield every group of a file with its name, once; external links are not followed."""
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
    configuration = json.loads(text, object_pairs_hook=_unique_keys)
    if not isinstance(configuration, dict):
        raise _Refused(f"its configuration is not an object. {_DAMAGED}")
    configuration.pop("compile_config", None)  # not used, since KerasFile.build loads with compile=False
    return configuration


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject duplicate keys: only the last value would be checked."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Refused(f"its configuration has a duplicate key. {_DAMAGED}")
    return values


@dataclass(frozen=True)
class _Place:
    """The position of a value in a configuration."""

    key: str = ""
    layer: str = ""  # with the names of enclosing models, outermost first
    depth: int = 0
    is_user_code: bool = False  # inside the config of a user's class, whose keys have no known meaning


TOP = _Place()


@dataclass(frozen=True)
class _NameCheck:
    """Checks every name in a configuration that Keras could turn into an object."""

    provided: frozenset[str]
    names: KnownNames

    def check(self, value: Any, place: "_Place" = TOP) -> None:
        """Check a value and everything inside."""
        if place.depth > MAX_DEPTH:
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
        """Return the position of the values inside an object."""
        if "class_name" not in value:
            return outer
        config = value.get("config")
        name = config.get("name") if isinstance(config, dict) else None
        layer = f"{outer.layer}/{name}".strip("/") if isinstance(name, str) else outer.layer
        is_user_code = _looked_up(value) <= self.provided
        return replace(outer, layer=layer, is_user_code=is_user_code)

    def _check_object(self, value: Mapping[str, Any], layer: str) -> None:
        if "_TYPE" in value:
            raise _refused("a custom tensor type", layer)
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
        self._check_class(value, name, module, registered, layer)
        if name in self.names.operations_as_layers:
            self._check_operation(value, layer)

    def _check_function(self, value: Mapping[str, Any], module: str | None, registered: str | None, layer: str) -> None:
        name = value.get("config")
        if isinstance(name, str) and name in self.provided:
            return  # Keras searches the provided objects first
        known = self.names.functions_without_module
        known = known if module is None else self.names.functions.get(module, frozenset())
        if name not in known or registered not in (None, "function", name):
            raise _refused(f"the function {_dotted(module, name)}", layer, name)

    def _check_class(
        self, value: Mapping[str, Any], name: str, module: str | None, registered: str | None, layer: str
    ) -> None:
        """Check a class; new files also record its module and registered name, old ones do not."""
        # Keras searches registered names first, whatever the module; only then it imports the module.
        if _looked_up(value) <= self.provided | self.names.registered:
            return
        known = self.names.classes_without_module
        known = known if module is None else self.names.classes.get(module, frozenset())
        if module is None and name in self.names.only_with_module:
            raise _Refused(
                f"it names {_shown(name, module, registered)} in layer {_short(layer)!r}. {ONLY_IN_ARCHIVES}"
            )
        if name not in known or registered not in (None, name):
            raise _refused(_shown(name, module, registered), layer, name)

    def _check_operation(self, value: Mapping[str, Any], layer: str) -> None:
        config = value.get("config")
        operation = config.get("function") if isinstance(config, dict) else None
        if not isinstance(operation, str) or operation.removeprefix("compat.v1.") not in self.names.operations:
            raise _refused(f"the function {operation} of TensorFlow", layer)

    def _check_text(self, text: str, key: str, layer: str) -> None:
        known = next((names for end, names in self.names.by_key.items() if key == end or key.endswith(f"_{end}")), None)
        if known is not None and text not in known | self.provided:
            raise _refused(f"{key}={_short(text)}", layer, text)


def _looked_up(value: Mapping[str, Any]) -> set[Any]:
    """Return the names under which Keras may look up a class before it imports a module.

    It takes the registered name if there is one. But the loaders of older formats take the class name, and they are
    used where there is no module.
    """
    name = value["class_name"]
    registered = value.get("registered_name", name)
    return {registered} if "module" in value else {name, name if registered is None else registered}


def _check_vocabulary(value: Any, place: _Place) -> None:
    """Reject a vocabulary that is not a list: lookup layers would read a file of this name."""
    if isinstance(value, dict) and value.get("class_name") == "__tuple__":
        value = value.get("items")
    is_list = isinstance(value, list) and all(isinstance(each, str | int | float) for each in value)
    if value is not None and not is_list:
        raise _Refused(
            f"layer {_short(place.layer)!r}: its {place.key} requires a list, not {_short(value)}. Save the model with "
            "the words themselves (layer.set_vocabulary), or type model.trust=true if you trust the file."
        )


WHY: Mapping[str, str] = {
    "Lambda": "a Lambda layer contains Python code",
    "__lambda__": "it contains Python code",
    "TensorFlowOpLayer": "it can call any TensorFlow operation, including ones that write files",
    "ClassMethod": "it calls methods by name",
    "InstanceMethod": "it calls methods by name",
    "InstanceProperty": "it reads attributes by name",
    "TFSMLayer": "it runs a SavedModel from any path",
    **dict.fromkeys(keras3.OTHER_BACKENDS, "it computes with another backend of Keras"),
    **dict.fromkeys(keras3.QUANTIZED, "the model is quantized already"),
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
