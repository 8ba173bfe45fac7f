"""A TensorFlow SavedModel: a graph of operations without Keras layers, for quantization after training."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic.dataclasses import dataclass as option

from experiments.dataset.entries import forms
from experiments.dataset.shapes import Entry, Shape
from experiments.model import Architecture
from experiments.system.errors import UserError, first_line
from experiments.system.files import UserPath
from experiments.system.options import OPTION

if TYPE_CHECKING:
    from tf_keras import Model

GRAPH = "saved_model.pb"
INITIALIZER = "__saved_model_init_op"  # listed with the signatures, and none
EXPORTED = {"serve", "serving_default"}  # two names that model.export of Keras 3 gives to one signature
# Operations with a state, or that TensorFlow marks as such, that only compute or hold weights and tables. All others
# with a state may write files, call Python or use the network; of those without, the ones in FROM_OUTSIDE may.
WITH_STATE = frozenset(
    {
        "Assert", "AssignAddVariableOp", "AssignSubVariableOp", "AssignVariableOp", "Case", "DestroyResourceOp",
        "DisableCopyOnRead", "For",
        "HashTable", "HashTableV2", "If", "InitializeTable", "InitializeTableV2", "LookupTableFind",
        "LookupTableFindV2", "LookupTableImportV2", "LookupTableSizeV2", "MutableHashTableV2", "Multinomial",
        "Placeholder", "RandomStandardNormal", "RandomUniform", "RandomUniformInt", "ReadVariableOp", "ResourceGather",
        "ResourceGatherNd", "StatefulPartitionedCall", "TruncatedNormal", "VarHandleOp", "VarIsInitializedOp",
        "Variable", "VariableV2", "While",
    }
)  # fmt: skip
# Operations that keep values from one example to the next, or draw random numbers.
UNSTEADY = frozenset(
    {
        "AssignAddVariableOp", "AssignSubVariableOp", "AssignVariableOp", "Multinomial", "RandomStandardNormal",
        "RandomUniform", "RandomUniformInt", "TruncatedNormal",
    }
)  # fmt: skip
# Others are known by what they take, such as the name of a file (`reaches_outside`).
FROM_OUTSIDE = frozenset({"EagerPyFunc", "ImmutableConst", "MatchingFiles", "PyFunc", "PyFuncStateless"})
# What TensorFlow adds to every SavedModel to save and restore its weights, in functions that the model does not call.
SAVING = frozenset({"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"})


@option(frozen=True, config=OPTION, kw_only=True)
class SavedModelFolder(Architecture):
    """The SavedModel in the folder `path`; `signature` is required if it has several.

    The operations are checked before TensorFlow loads the folder, so that an untrusted model reads and writes no
    files. With `trust`, it may.
    """

    given: ClassVar[bool] = True

    path: UserPath
    signature: str | None = None
    trust: bool = False

    @property
    def trainable(self) -> bool:
        """See Architecture.trainable."""
        return False

    def check(self) -> None:
        """Check that the folder holds a SavedModel; its operations are checked before it is loaded."""
        if self.path.is_file():
            raise UserError(
                f"{self._named}: a file, but a SavedModel is a folder. For .keras and .h5, type model=keras_file; for "
                ".tflite, model=tflite_file."
            )
        if not (self.path / GRAPH).is_file():
            raise UserError(f"{self._named}: no SavedModel, which is a folder with the file {GRAPH}.")

    def build(self, input_shape: Shape | Mapping[str, Shape], classes: int) -> "Model":
        """Return a model of one layer, which computes the signature; raises UserError if it does not fit."""
        from experiments.system.tensorflow import keras, tf

        self._check_operations()
        try:
            loaded = tf.saved_model.load(str(self.path))
            function = loaded.signatures[self._chosen(set(loaded.signatures) - {INITIALIZER})]
        except UserError:
            raise
        except Exception as error:  # TensorFlow raises errors of any type for damaged folders
            raise UserError(f"{self._named}: TensorFlow cannot load the SavedModel ({first_line(error)}).") from error
        self._check_steady(function)
        specs, given = self._inputs(function), self._outputs(function)
        entries = {name: Entry(tuple(spec.shape[1:]), spec.dtype.name) for name, spec in specs.items()}
        images = [
            keras.Input(shape, batch_size=spec.shape[0], name=_as_name(name), dtype=spec.dtype)
            for (name, spec), shape in zip(specs.items(), forms(entries, input_shape), strict=True)
        ]
        layer = _layer_of()(loaded, function, list(specs), given, self._digest())
        outputs = layer(images if len(images) > 1 else images[0])
        if len(given) > 1:  # a layer for each, which has the name of the output
            outputs = [
                keras.layers.Activation("linear", name=_as_name(name))(output)
                for name, output in zip(given, outputs, strict=True)
            ]
        # The model has the same name whatever the folder is called.
        return keras.Model(images if len(images) > 1 else images[0], outputs, name="saved_model_folder")

    @property
    def _named(self) -> str:
        return f"model.path={self.path}"

    def _graph(self) -> bytes:
        try:
            return (self.path / GRAPH).read_bytes()
        except OSError as error:
            raise UserError(f"{self._named}: {GRAPH} cannot be read ({error.strerror}).") from error

    def _digest(self) -> str:
        """Return the digest of the graph and of the files that it reads, such as vocabularies, without weights."""
        digest = hashlib.sha256(self._graph())
        for file in sorted(path for path in (self.path / "assets").rglob("*") if path.is_file()):
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def _check_operations(self) -> None:
        """Refuse operations that reach outside of the model, and custom ones, for which TFLite has no kernels."""
        from experiments.system.tensorflow import is_stateful, reaches_outside, saved_model_graphs

        try:
            metas = saved_model_graphs(self._graph())
        except Exception as error:  # of the protocol buffer library
            raise UserError(f"{self._named}: a damaged SavedModel ({first_line(error)}).") from error
        if not metas or not all(each.object_graph_def.nodes for each in metas):
            raise UserError(f"{self._named}: not saved by TensorFlow 2. Export the model with model.export(path).")
        graphs = [each.graph_def for each in metas]
        functions = {function.signature.name for graph in graphs for function in graph.library.function}
        stateful = {name: is_stateful(name) for name in {op for op, _ in _operations(graphs)}}
        if custom := sorted(name for name, known in stateful.items() if known is None and name not in functions):
            raise UserError(
                f"{self._named}: has custom operations ({', '.join(custom)}), for which TFLite has no kernels. Export "
                "the model without them."
            )
        refused = {
            op
            for op, function in _operations(graphs)
            if op in FROM_OUTSIDE
            or reaches_outside(op)
            or (stateful[op] and op not in WITH_STATE and not (op in SAVING and _only_saves(function, graphs)))
        }
        if refused and not self.trust:
            raise UserError(
                f"{self._named}: has operations that may reach outside of the model: {', '.join(sorted(refused))}. If "
                "you trust the model, type model.trust=true."
            )

    def _check_steady(self, function: Any) -> None:
        """Refuse a signature whose outputs do not depend on its inputs alone."""
        if unsteady := sorted(UNSTEADY & {op for op, _ in _operations([function.graph.as_graph_def()])}):
            raise UserError(
                f"{self._named}: gives different outputs for the same input ({', '.join(unsteady)}). Export a model "
                "whose outputs depend on its inputs alone."
            )

    def _chosen(self, signatures: set[str]) -> str:
        listed = ", ".join(sorted(signatures))
        if not signatures:
            raise UserError(
                f"{self._named}: has no serving signature. Export the model with model.export(path), or "
                "tf.saved_model.save(model, path, signatures=function)."
            )
        if self.signature is not None and self.signature not in signatures:
            raise UserError(f"model.signature={self.signature}: the SavedModel has {listed}.")
        if self.signature is None and signatures == EXPORTED:
            return "serving_default"
        if self.signature is None and len(signatures) > 1:
            raise UserError(f"{self._named}: has several signatures ({listed}). Choose one with model.signature=NAME.")
        return self.signature or listed

    def _inputs(self, function: Any) -> Mapping[str, Any]:
        """Return the specifications of the signature's inputs by name."""
        inputs: Mapping[str, Any] = function.structured_input_signature[1]
        if not inputs:
            raise UserError(f"{self._named}: requires an input; the signature has none.")
        for spec in inputs.values():
            if spec.dtype.name not in (("float32", "int32", "int64") if len(inputs) > 1 else ("float32",)):
                raise UserError(f"{self._named}: requires a float32 input, not {spec.dtype.name}.")
            if spec.shape.rank is None or spec.shape.rank < 2 or None in spec.shape[1:]:
                raise UserError(
                    f"{self._named}: requires an input of a fixed shape, not {spec.shape}. Export it with one."
                )
            if spec.shape[0] not in (None, 1):
                raise UserError(
                    f"{self._named}: requires batches of any size, or of one; the signature takes {spec.shape[0]}."
                )
        return inputs

    def _outputs(self, function: Any) -> list[str]:
        """Return the names of the signature's outputs."""
        for spec in function.structured_outputs.values():
            if spec.shape.rank != 2 or spec.shape[1] is None:
                raise UserError(f"{self._named}: requires outputs of shape (n, classes), not {spec.shape}.")
        return list(function.structured_outputs)


def _as_name(text: str) -> str:
    """Return a text with only those characters that TensorFlow accepts in the name of a layer."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in text)
    return kept if kept[:1].isalnum() else f"model{kept}"


def _operations(graphs: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield every operation with the function that it is in; empty for the graphs themselves."""
    for graph in graphs:
        yield from ((node.op, "") for node in graph.node)
        for function in graph.library.function:
            yield from ((node.op, function.signature.name) for node in function.node_def)


def _only_saves(function: str, graphs: list[Any]) -> bool:
    """Whether a function is called by none but the outermost graph, which is not run when a model is loaded."""
    if not function:
        return True
    calls = {
        called
        for graph in graphs
        for each in graph.library.function
        for node in each.node_def
        for called in (node.op, *_functions_in(node.attr))
    }
    return function.startswith(("__inference__traced_save", "__inference__traced_restore")) and function not in calls


def _functions_in(attributes: Mapping[str, Any]) -> Iterator[str]:
    for value in attributes.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)


def _layer_of() -> type:
    from experiments.system.tensorflow import keras, tf

    class SavedModel(keras.layers.Layer):  # type: ignore[misc]
        """Computes a signature of a SavedModel, whose weights are not trained."""

        def __init__(self, loaded: Any, function: Any, taken: list[str], given: list[str], digest: str) -> None:
            super().__init__(name="saved_model", trainable=False)
            self.loaded, self.function, self.held = [loaded], function, list(function.variables)
            self.taken, self.given, self.digest = taken, given, digest

        def call(self, images: Any) -> Any:
            values = list(images) if len(self.taken) > 1 else [images]
            specs = self.function.structured_input_signature[1]
            if specs[self.taken[0]].shape[0] == 1 and values[0].shape[0] != 1:
                types = [tf.float32] * len(self.given)
                outputs = tf.map_fn(
                    lambda each: [of[0] for of in self._run([one[None] for one in each])], values, types
                )
            else:
                outputs = self._run(values)
            return outputs if len(self.given) > 1 else outputs[0]

        def _run(self, values: list[Any]) -> list[Any]:
            found = self.function(**dict(zip(self.taken, values, strict=True)))
            return [found[name] for name in self.given]

        def get_config(self) -> dict[str, Any]:
            one = len(self.taken) == len(self.given) == 1
            ends = {"input": self.taken[0], "output": self.given[0]} if one else {"in": self.taken, "out": self.given}
            return {"name": self.name, **ends, "digest": self.digest}

    return SavedModel
