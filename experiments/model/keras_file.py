"""A user's own trained model, from a .keras or .h5 file of Keras 2."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic.dataclasses import dataclass as option

from experiments.dataset.shapes import shape_for
from experiments.model import Architecture
from experiments.model.flattening import plain
from experiments.model.inspection import inspect, is_archive, version_of_hdf5
from experiments.model.user_module import UserModule, find, names_in
from experiments.system.errors import UserError, first_cause, first_line
from experiments.system.files import UserPath
from experiments.system.options import OPTION, first_bytes

if TYPE_CHECKING:
    import h5py
    from tf_keras import Model

RULE = "model.path takes a model saved by Keras 2 (tf_keras) as .keras or .h5"
MOST_METADATA = 10_000  # bytes; Keras writes a hundred


@option(frozen=True, config=OPTION, kw_only=True)
class KerasFile(Architecture):
    """The model at `path`; epochs=0 takes it as it is.

    What the file names is looked at before Keras sees it, so that a file of a stranger runs no code. Layers and
    functions of a user's own come from `module`. With `trust`, for files of one's own, Keras makes whatever the file
    names, Python code inside the file included.
    """

    given: ClassVar[bool] = True

    path: UserPath
    module: str | None = None  # a Python file, or a module as in `import`
    trust: bool = False

    def build(self, input_shape: tuple[int, ...], classes: int) -> "Model":
        """The model as it was saved, once it is seen to fit the data set; raises UserError where it does not."""
        from experiments.system.tensorflow import keras

        user_module = find(self.module) if self.module else None
        objects = user_module.load() if user_module else {}
        inspect(self.path, objects, self.trust, self.module or "")
        from tf_keras.src.saving.serialization_lib import SafeModeScope

        keras.saving.get_custom_objects().update(objects)  # for copies of the model too; a run has its own process
        try:
            # The switch of load_model itself leaves .h5 files out.
            with SafeModeScope(safe_mode=not self.trust), self._readable() as file:
                model = keras.models.load_model(file, compile=False)
        except Exception as error:  # Keras raises every kind of exception for files it cannot read
            raise self._not_loaded(error, user_module) from error
        self._check_kind(model)
        return plain(model, shape_for(tuple(model.inputs[0].shape[1:]), input_shape), f"model.path={self.path}")

    def check(self) -> None:
        """The file has to be a Keras model, one of Keras 2, and safe to load; seen without loading it."""
        self._check_format()
        module = find(self.module) if self.module else None
        names = names_in(module) if module else frozenset[str]()
        # Names that only show when the module is run are checked then.
        inspect(self.path, names or (), self.trust or names is None, self.module or "")

    def sources(self) -> Sequence[Path]:
        """The module of the user, and what it imports."""
        return find(self.module).sources if self.module else ()

    def _not_loaded(self, error: Exception, module: UserModule | None) -> UserError:
        """What is wrong, in the words of its first cause: Keras puts advice of its own around it."""
        cause = first_cause(error)
        said = f"{type(cause).__name__}: {first_line(cause)}"
        if module and (line := module.line_of(error)):
            return UserError(
                f"model.path={self.path}: model.module={module.given} fails while it is loaded, in {line} ({said})."
            )
        return UserError(f"model.path={self.path}: Keras cannot load it ({said}). {RULE}.")

    @contextmanager
    def _readable(self) -> Iterator["Path | h5py.File"]:
        """The file, or a copy in memory: Keras writes functions into HDF5 files in a form that it cannot read."""
        import h5py

        if is_archive(self.path):
            yield self.path
            return
        with h5py.File(self.path, "r") as saved, h5py.File("copy", "w", driver="core", backing_store=False) as copy:
            config = json.loads(saved.attrs["model_config"])
            if (readable := _functions_by_name(config)) == config:
                yield self.path
                return
            for name in saved:
                saved.copy(name, copy)
            for name, value in saved.attrs.items():
                copy.attrs[name] = json.dumps(readable) if name == "model_config" else value
            yield copy

    def _check_format(self) -> None:
        """Tell what it is from its first bytes and its metadata."""
        if (self.path / "saved_model.pb").is_file():
            raise UserError(
                f"model.path={self.path}: a SavedModel, which is a folder. {RULE}: save it again, with "
                f"tf_keras.models.load_model({str(self.path)!r}).save({f'{self.path.name}.keras'!r})."
            )
        if first_bytes(self.path, "model.path") == b"\x89HDF\r\n\x1a\n":
            self._check_version(version_of_hdf5(self.path))
            return
        if not zipfile.is_zipfile(self.path):
            raise UserError(f"model.path={self.path}: no Keras model, or a truncated one. {RULE}.")
        try:
            with zipfile.ZipFile(self.path) as archive:
                if "metadata.json" not in archive.namelist():
                    raise UserError(f"model.path={self.path}: a zip file, but no Keras model. {RULE}.")
                with archive.open("metadata.json") as metadata:
                    version = str(json.loads(metadata.read(MOST_METADATA))["keras_version"])
        except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(f"model.path={self.path}: a damaged Keras model ({first_line(error)}). {RULE}.") from error
        self._check_version(version)

    def _check_version(self, version: str) -> None:
        if not version.startswith(("1.", "2.")):
            raise UserError(
                f"model.path={self.path}: saved by Keras {version}, and TensorFlow Model Optimization takes Keras 2 "
                f"only. {RULE}: rebuild the model with tf_keras, take over the weights "
                "(new.set_weights(old.get_weights())) and save it again."
            )

    def _check_kind(self, model: "Model") -> None:
        inputs, outputs = model.inputs or [], model.outputs or []  # a model that was never built has neither
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(
                f"model.path={self.path}: has {len(inputs)} inputs and {len(outputs)} outputs; "
                "a classifier of images has one of each."
            )
        if not model.inputs[0].dtype.is_floating:
            raise UserError(
                f"model.path={self.path}: takes images of {model.inputs[0].dtype.name}; data sets give float32. Save a "
                "model that takes floats."
            )
        answer = tuple(model.outputs[0].shape)
        if len(answer) != 2:
            raise UserError(
                f"model.path={self.path}: gives outputs of the shape {answer}, and a classifier gives (n, classes). "
                "Where the other axes are 1: keras.Sequential([model, keras.layers.Flatten()]).save('flat.keras')"
            )


def _functions_by_name(value: Any) -> Any:
    """A configuration in which functions are names, as those of Keras are."""
    match value:
        case {"class_name": "function", "config": str(name)}:
            return name
        case dict():
            return {key: _functions_by_name(each) for key, each in value.items()}
        case list():
            return [_functions_by_name(each) for each in value]
    return value
