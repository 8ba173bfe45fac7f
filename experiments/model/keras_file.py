"""A user's own trained model, from a .keras or .h5 file of Keras 2 or 3."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic.dataclasses import dataclass as option

from experiments.dataset.entries import forms
from experiments.dataset.shapes import Shape
from experiments.model import Architecture
from experiments.model.ends import dtype_of, entries_of
from experiments.model.flattening import flatten
from experiments.model.inspection import inspect, is_archive, written_by
from experiments.model.saved_model import GRAPH, SavedModelFolder
from experiments.model.user_module import UserModule, find_module, provided_names
from experiments.system.errors import UserError, first_cause, first_line
from experiments.system.files import UserPath
from experiments.system.keras_version import Version
from experiments.system.options import OPTION, first_bytes
from experiments.system.stopping import ending_at_once

if TYPE_CHECKING:
    import h5py
    from tf_keras import Model

INTEGERS = ("int32", "int64")  # of word indices and the like
OF_LAMBDAS = (
    "Keras cannot load every Lambda, such as one that uses an array from outside of its function: write it as a layer, "
    "in a Python file for model.module."
)
RULE = "model.path requires a model that Keras 2 or 3 saved as .keras or .h5"


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

    @property
    def trainable(self) -> bool:
        """See Architecture.trainable; a SavedModel, which Keras once wrote by default, is not."""
        return not (self.path / GRAPH).is_file()

    def build(self, input_shape: Shape | Mapping[str, Shape], classes: int) -> "Model":
        """Load the model and check that it fits the data set; raises UserError if it does not."""
        from experiments.system.tensorflow import keras_version

        if not self.trainable:
            return self._as_saved_model().build(input_shape, classes)
        version = self._version()
        user_module = find_module(self.module) if self.module else None
        objects = user_module.load(version) if user_module else {}
        inspect(self.path, objects, self.trust, self.module or "", version)
        keras_version(version).saving.get_custom_objects().update(objects)  # also needed to copy the model
        try:
            model = self._load_keras_2() if version == 2 else self._load_keras_3()
        except Exception as error:  # Keras raises errors of any type for files it cannot read
            raise self._loading_error(error, user_module) from error
        self._check_kind(model)
        return flatten(model, forms(entries_of(model), input_shape), f"model.path={self.path}")

    def check(self) -> None:
        """Check, without loading it, that the file is a safe Keras model."""
        if not self.trainable:
            self._as_saved_model().check()
            return
        self._check_format()
        module = find_module(self.module) if self.module else None
        names = provided_names(module) if module else frozenset[str]()
        with ending_at_once():
            # Names that are known only after running the module are checked in `build`.
            inspect(self.path, names or (), self.trust or names is None, self.module or "", self._version())

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
        rule = f"{RULE}. {OF_LAMBDAS}" if self.trust else f"{RULE}."
        return UserError(f"model.path={self.path}: Keras cannot load the file ({reason}). {rule}")

    def _as_saved_model(self) -> SavedModelFolder:
        return SavedModelFolder(path=self.path, trust=self.trust)

    def _load_keras_2(self) -> "Model":
        from tf_keras.src.saving.serialization_lib import SafeModeScope

        from experiments.system.tensorflow import keras

        # load_model's own safe_mode argument does not apply to .h5 files.
        with SafeModeScope(safe_mode=not self.trust), self._readable() as file:
            return keras.models.load_model(file, compile=False)

    def _load_keras_3(self) -> "Model":
        from keras.src.legacy.saving.legacy_h5_format import load_model_from_hdf5

        from experiments.system.tensorflow import keras_3

        if is_archive(self.path):
            model = keras_3().saving.load_model(self.path, compile=False, safe_mode=not self.trust)
        else:
            model = load_model_from_hdf5(str(self.path), compile=False, safe_mode=not self.trust)  # whatever its name
        shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
        if hasattr(model, "inputs") or len(shapes) != 1:
            return model
        images = keras_3().Input(shapes[0][1:])  # a model that is written as a class becomes one layer
        return keras_3().Model(images, model(images), name=f"{model.name}_model")

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
        if (self.path / "config.json").is_file():
            raise UserError(
                f"model.path={self.path}: an unzipped Keras model. {RULE}. Save it again with model.save('my.keras')."
            )
        if first_bytes(self.path, "model.path") == b"\x89HDF\r\n\x1a\n":
            return
        if not zipfile.is_zipfile(self.path):
            raise UserError(f"model.path={self.path}: not a Keras model, or a truncated one. {RULE}.")
        if not is_archive(self.path):
            raise UserError(
                f"model.path={self.path}: a zip file that is not named .keras. If it is a Keras model, rename it."
            )

    def _version(self) -> Version:
        """Return the version of Keras that loads the file: the one that saved it, as the file records."""
        written = written_by(self.path)
        if written.startswith(("1.", "2.")):
            return 2
        if written.startswith("3."):
            return 3
        raise UserError(f"model.path={self.path}: saved by Keras {written}, which is not supported. {RULE}.")

    def _check_kind(self, model: "Model") -> None:
        # Empty for a model that was never built, or whose inputs Keras does not know.
        inputs, outputs = getattr(model, "inputs", None) or [], getattr(model, "outputs", None) or []
        if not inputs or not outputs:
            raise UserError(
                f"model.path={self.path}: requires inputs and outputs; the model has {len(inputs)} inputs and "
                f"{len(outputs)} outputs."
            )
        if len({id(tensor) for tensor in outputs}) < len(outputs):
            raise UserError(
                f"model.path={self.path}: requires outputs that differ; the model returns the same one twice, and a "
                "TFLite file would have it once. Save a model that returns it once."
            )
        for tensor in inputs:
            if "float" not in (dtype := dtype_of(tensor)) and dtype not in INTEGERS:
                raise UserError(
                    f"model.path={self.path}: requires inputs of float, {' or '.join(INTEGERS)}, not {dtype}. Save the "
                    "model with such inputs."
                )
        if given := [dtype_of(each) for each in outputs if "float" not in dtype_of(each)]:
            raise UserError(f"model.path={self.path}: requires float outputs, not {given[0]}.")


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
