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
from experiments.model.user_module import UserModule, find_module, provided_names
from experiments.system.errors import UserError, first_cause, first_line
from experiments.system.files import UserPath
from experiments.system.options import OPTION, first_bytes

if TYPE_CHECKING:
    import h5py
    from tf_keras import Model

RULE = "model.path requires a model saved by Keras 2 (tf_keras) as .keras or .h5"
MAX_METADATA = 10_000  # bytes; Keras writes about a hundred


@option(frozen=True, config=OPTION, kw_only=True)
class KerasFile(Architecture):
    """The model at `path`; epochs=0 uses its weights unchanged.

    The file is inspected before Keras loads it, so that an untrusted file runs no code. User layers and functions come
    from `module`. With `trust`, Keras creates whatever the file names, including Python code inside the file.
    """

    given: ClassVar[bool] = True

    path: UserPath
    module: str | None = None  # a Python file, or a module as in `import`
    trust: bool = False

    def build(self, input_shape: tuple[int, ...], classes: int) -> "Model":
        """Load the model and check that it fits the data set; raises UserError if it does not."""
        from experiments.system.tensorflow import keras

        user_module = find_module(self.module) if self.module else None
        objects = user_module.load() if user_module else {}
        inspect(self.path, objects, self.trust, self.module or "")
        from tf_keras.src.saving.serialization_lib import SafeModeScope

        keras.saving.get_custom_objects().update(objects)  # also needed to copy the model; a run has its own process
        try:
            # load_model's own safe_mode argument does not apply to .h5 files.
            with SafeModeScope(safe_mode=not self.trust), self._readable() as file:
                model = keras.models.load_model(file, compile=False)
        except Exception as error:  # Keras raises errors of any type for files it cannot read
            raise self._loading_error(error, user_module) from error
        self._check_kind(model)
        return plain(model, shape_for(tuple(model.inputs[0].shape[1:]), input_shape), f"model.path={self.path}")

    def check(self) -> None:
        """Check, without loading it, that the file is a safe Keras 2 model."""
        self._check_format()
        module = find_module(self.module) if self.module else None
        names = provided_names(module) if module else frozenset[str]()
        # Names that are known only after running the module are checked in `build`.
        inspect(self.path, names or (), self.trust or names is None, self.module or "")

    def sources(self) -> Sequence[Path]:
        """Return the user's module and the files that it imports."""
        return find_module(self.module).sources if self.module else ()

    def _loading_error(self, error: Exception, module: UserModule | None) -> UserError:
        """Return an error with the first cause; Keras wraps it in its own advice."""
        cause = first_cause(error)
        reason = f"{type(cause).__name__}: {first_line(cause)}"
        if module and (line := module.line_of(error)):
            return UserError(
                f"model.path={self.path}: model.module={module.given} fails to load the model, in {line} ({reason})."
            )
        return UserError(f"model.path={self.path}: Keras cannot load the file ({reason}). {RULE}.")

    @contextmanager
    def _readable(self) -> Iterator["Path | h5py.File"]:
        """Yield the file, or a fixed copy in memory: Keras writes functions to HDF5 files in a form it cannot read."""
        import h5py

        if is_archive(self.path):
            yield self.path
            return
        with h5py.File(self.path, "r") as saved, h5py.File("copy", "w", driver="core", backing_store=False) as copy:
            config = json.loads(saved.attrs["model_config"])
            if (readable := _name_functions(config)) == config:
                yield self.path
                return
            for name in saved:
                saved.copy(name, copy)
            for name, value in saved.attrs.items():
                copy.attrs[name] = json.dumps(readable) if name == "model_config" else value
            yield copy

    def _check_format(self) -> None:
        """Check the format by the first bytes and the metadata."""
        if (self.path / "saved_model.pb").is_file():
            raise UserError(
                f"model.path={self.path}: a SavedModel folder. {RULE}. Convert it: "
                f"tf_keras.models.load_model({str(self.path)!r}).save({f'{self.path.name}.keras'!r})."
            )
        if first_bytes(self.path, "model.path") == b"\x89HDF\r\n\x1a\n":
            self._check_version(version_of_hdf5(self.path))
            return
        if not zipfile.is_zipfile(self.path):
            raise UserError(f"model.path={self.path}: not a Keras model, or a truncated one. {RULE}.")
        try:
            with zipfile.ZipFile(self.path) as archive:
                if "metadata.json" not in archive.namelist():
                    raise UserError(f"model.path={self.path}: a zip file, but not a Keras model. {RULE}.")
                with archive.open("metadata.json") as metadata:
                    version = str(json.loads(metadata.read(MAX_METADATA))["keras_version"])
        except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(f"model.path={self.path}: a damaged Keras model ({first_line(error)}). {RULE}.") from error
        self._check_version(version)

    def _check_version(self, version: str) -> None:
        if not version.startswith(("1.", "2.")):
            raise UserError(
                f"model.path={self.path}: saved by Keras {version}, but TensorFlow Model Optimization requires Keras "
                f"2. {RULE}. Rebuild the model with tf_keras, copy the weights "
                "(new.set_weights(old.get_weights())) and save it again."
            )

    def _check_kind(self, model: "Model") -> None:
        inputs, outputs = model.inputs or [], model.outputs or []  # empty for a model that was never built
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(
                f"model.path={self.path}: requires one input and one output; the model has {len(inputs)} inputs and "
                f"{len(outputs)} outputs."
            )
        if not model.inputs[0].dtype.is_floating:
            raise UserError(
                f"model.path={self.path}: requires a float input, not {model.inputs[0].dtype.name}. Save the model "
                "with a float input."
            )
        answer = tuple(model.outputs[0].shape)
        if len(answer) != 2:
            raise UserError(
                f"model.path={self.path}: requires outputs of shape (n, classes), not {answer}. If the other axes are "
                "1: keras.Sequential([model, keras.layers.Flatten()]).save('flat.keras')"
            )


def _name_functions(value: Any) -> Any:
    """Replace function objects in a configuration by their names, as for Keras' own functions."""
    match value:
        case {"class_name": "function", "config": str(name)}:
            return name
        case dict():
            return {key: _name_functions(each) for key, each in value.items()}
        case list():
            return [_name_functions(each) for each in value]
    return value
