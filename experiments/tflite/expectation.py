"""The expected types of a file, derived from scheme and model, and the comparison with the file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from experiments.tflite.conversion import LEAST_DYNAMIC
from experiments.tflite.graph import FLOAT16_WEIGHTS, SCALE_KEEPING, Op, idle_conversions
from experiments.tflite.schemes import (
    Dynamic,
    DynamicInt4,
    Float16,
    Float32,
    Int8,
    Int16x8,
    Learned,
    Rest,
    Scheme,
    Static,
    interface_of,
)
from experiments.tflite.static import FOUR_BIT

if TYPE_CHECKING:
    from tf_keras import Model

# Types of ops with weights; ops without weights are float32 in these files.
WEIGHT_TYPES = frozenset({FLOAT16_WEIGHTS, "hybrid int8", "hybrid int4"})
# Ops with subgraphs, or weights in places that are not read: their types are unknown.
NOT_READ = frozenset(
    {
        "LSTM", "RNN", "SVDF", "BIDIRECTIONAL_SEQUENCE_LSTM",
        "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN", "WHILE", "IF", "CALL",
    }
)  # fmt: skip
TYPES_OF_THE_REST: Mapping[Rest, str] = {"float": "float32", "dynamic": "hybrid int8", "float16": FLOAT16_WEIGHTS}
UNKNOWN = "unknown"  # types of these ops
# Kernels that pruning and clustering do not change.
NEVER_COMPRESSED = frozenset({"DEPTHWISE_CONV_2D"})


@dataclass(frozen=True)
class Expectation:
    """The expected types of a file, as in Op.types, and its weight compression; does not affect the conversion."""

    types: str  # of the chosen layers
    chosen: frozenset[str] | None = None  # layers; None: all
    kernels: frozenset[str] = frozenset()  # chosen layers with weights, each of which must be in the file
    rest: str = "float32"  # types of all other layers
    least_weights: int = 0  # ops with fewer weights than this stay in float
    left_float: Mapping[str, str] = field(default_factory=dict)  # layers that cannot be quantized, with the reasons
    uncompressed: frozenset[str] = frozenset()  # layers with unchanged weights, such as frozen ones
    exempt: frozenset[tuple[str, str]] = frozenset()  # (layer, op) without a TFLite kernel for these types
    sparsity: float = 0.0  # minimum share of zeros among the weights of all pruned layers
    clusters: int | None = None  # maximum number of distinct weights per channel
    interface: str = "float32"  # type of input and output

    @property
    def partial(self) -> bool:
        """Whether layers stay float that the strategy would quantize."""
        return bool(self.left_float)


@dataclass(frozen=True)
class Compression:
    """The compression of weights by training; `uncompressed` are layers with unchanged weights."""

    sparsity: float = 0.0
    clusters: int | None = None
    uncompressed: frozenset[str] = frozenset()


# The types of every layer, by scheme.
OF_EVERY_LAYER: Mapping[type[Scheme], Expectation] = {
    Float32: Expectation("float32"),
    Dynamic: Expectation("hybrid int8", least_weights=LEAST_DYNAMIC),
    DynamicInt4: Expectation("hybrid int4"),
    Float16: Expectation(FLOAT16_WEIGHTS),
    Int8: Expectation("int8"),
    Int16x8: Expectation("int16x8"),
    Static: Expectation("int8"),
    Learned: Expectation("int8"),
}


def expected(scheme: Scheme, model: "Model", compression: Compression | None = None) -> Expectation:
    """Return the expectation of a model's file that is converted with this scheme."""
    made = compression or Compression()
    expectation = replace(
        OF_EVERY_LAYER[type(scheme)],
        interface=interface_of(scheme),
        sparsity=made.sparsity,
        clusters=made.clusters,
        uncompressed=made.uncompressed,
    )
    if isinstance(scheme, Static):
        rest = scheme.rest.types if scheme.rest else "float32"
        expectation = replace(expectation, types=scheme.precision.types, rest=rest)
    if isinstance(scheme, Learned):
        expectation = replace(expectation, types=scheme.types)
    if isinstance(scheme, Int8 | Static | Learned) and scheme.layers is not None:
        kernels = _with_kernels(model, scheme.layers)
        expectation = replace(expectation, chosen=frozenset(scheme.layers), kernels=kernels)
        if isinstance(scheme, Learned):
            expectation = replace(expectation, rest=TYPES_OF_THE_REST[scheme.rest], left_float=scheme.left_float)
    return expectation


def _with_kernels(model: "Model", layers: Iterable[str]) -> frozenset[str]:
    """Return the layers whose weights are in the file; those of BatchNorm and Normalization may be folded."""
    from experiments.system.tensorflow import keras_of

    known = keras_of(model).layers
    folded = (known.BatchNormalization, known.Normalization)
    names = frozenset(layers)  # in Keras 3, of operations of keras.ops as well, which have no weights
    named = [layer for layer in model.layers if layer.name in names]
    return frozenset(layer.name for layer in named if layer.weights and not isinstance(layer, folded))


@dataclass(frozen=True)
class Difference:
    """A difference between a file and its expectation, as text; with `layer`, `op`, `types` if it concerns one op."""

    text: str
    layer: str = ""
    op: str = ""
    types: str = ""


def differences(expectation: Expectation, ops: Sequence[Op]) -> tuple[Difference, ...]:
    """Return the differences between an expectation and the ops of a file."""
    missing = sorted(expectation.kernels - {op.layer for op in ops})
    return (
        *_wrong_types(expectation, ops),
        *(Difference(f"{name} is not in the file", layer=name) for name in missing),
        *_idle_conversions(ops),
        *(Difference(text) for text in _wrong_weights(expectation, ops)),
    )


def broken(expectation: Expectation, ops: Sequence[Op]) -> tuple[str, ...]:
    """Return the differences as text."""
    return tuple(difference.text for difference in differences(expectation, ops))


def without_float_ops(expectation: Expectation, found: Sequence[Difference]) -> Expectation:
    """Remove ops that the converter leaves in float from the expectation, unless anything else differs."""
    ops = {(each.layer, each.op) for each in found}
    if expectation.types == "float32" or not all(each.op and each.types in ("float32", UNKNOWN) for each in found):
        return expectation
    why = {
        f"{each.op} of {each.layer or 'the model'}": (
            "the ops of loops and subgraphs are not checked"
            if each.types == UNKNOWN
            else f"TFLite has no {expectation.types} kernel for it"
        )
        for each in found
    }
    return replace(expectation, exempt=expectation.exempt | ops, left_float={**expectation.left_float, **why})


def wrong_interface(expectation: Expectation, taken: str, given: str) -> tuple[str, ...]:
    """Describe differences of a file's input and output types from the expectation."""
    found = {"input": taken, "output": given}
    return tuple(
        f"the {side} of the file is {each} instead of {expectation.interface}"
        for side, each in found.items()
        if each and each != expectation.interface
    )


def _wrong_types(expectation: Expectation, ops: Sequence[Op]) -> Iterator[Difference]:
    for op in ops:
        if (op.layer, op.op) in expectation.exempt and (op.op in NOT_READ or op.types == "float32"):
            continue
        expected = _expected(expectation, op)
        if op.op in NOT_READ and (types := _expected_types(expectation, op)) != "float32":
            text = f"{op.layer or 'the output'} ({op.op}) cannot be checked, but must compute in {types}"
            yield Difference(text, op.layer, op.op, UNKNOWN)
        elif op.computes and op.types not in expected:
            name = op.layer or "an unnamed layer"
            text = f"{name} ({op.op}) computes in {op.types} instead of {expected[0]}"
            yield Difference(text, op.layer, op.op, op.types)


def _expected(expectation: Expectation, op: Op) -> tuple[str, ...]:
    """Return the allowed types of an op; messages show the first one."""
    types = _expected_types(expectation, op)
    if types in WEIGHT_TYPES and op.weights < max(1, expectation.least_weights):
        types = "float32"
    if not op.weights:
        types = types.removesuffix("x8").removesuffix("x4")  # int16x8 means int16 values and int8 weights
    if expectation.chosen is not None and op.op in SCALE_KEEPING:
        return (
            types,
            expectation.types.partition("x")[0],
            "float32",
        )  # between integer ops it is an integer op, whether or not it was chosen
    if types == "int8x4" and op.op not in FOUR_BIT:
        return (types, "int8")  # there may be no kernel for its weights in 4 bits
    return (types,)


def _expected_types(expectation: Expectation, op: Op) -> str:
    return expectation.types if expectation.chosen is None or op.layer in expectation.chosen else expectation.rest


def _idle_conversions(ops: Sequence[Op]) -> Iterator[Difference]:
    idle = idle_conversions(ops)
    if idle:
        before = idle[0].layer or "the input"
        text = f"{len(idle)} redundant type conversions, first up to the {idle[0].op} after {before}"
        yield Difference(text, idle[0].layer)


def _wrong_weights(expectation: Expectation, ops: Sequence[Op]) -> Iterator[str]:
    compressed = [op for op in ops if op.op not in NEVER_COMPRESSED and op.layer not in expectation.uncompressed]
    with_weights = [op for op in compressed if op.weights]
    zeros = sum(op.sparsity * op.weights for op in with_weights)
    everything = sum(op.weights for op in with_weights)
    if zeros < expectation.sparsity * everything - len(with_weights):  # each layer's number of zeros is rounded down
        yield f"{zeros / everything:.1%} of the weights are zero instead of {expectation.sparsity:.1%}"
    for op in with_weights:
        if expectation.clusters is not None and op.clusters > expectation.clusters:
            most = expectation.clusters
            yield f"{op.layer} has {op.clusters} distinct weights in a channel instead of at most {most}"
