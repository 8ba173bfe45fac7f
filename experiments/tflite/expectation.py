"""What a file is expected to compute in, from the scheme and the model; and whether the file does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from experiments.tflite.conversion import (
    LEAST_DYNAMIC,
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
from experiments.tflite.graph import FLOAT16_WEIGHTS, SCALE_KEEPING, Op, idle_conversions
from experiments.tflite.static import FOUR_BIT

if TYPE_CHECKING:
    from tf_keras import Model

# Types that only weights can have: an op without weights stays float32 beside them.
WEIGHT_TYPES = frozenset({FLOAT16_WEIGHTS, "hybrid int8", "hybrid int4"})
# Ops that hold whole graphs, or weights in places that are not looked into: in which types they compute is unknown.
NOT_READ = frozenset(
    {
        "LSTM", "RNN", "SVDF", "BIDIRECTIONAL_SEQUENCE_LSTM",
        "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN", "WHILE", "IF", "CALL",
    }
)  # fmt: skip
TYPES_OF_THE_REST: Mapping[Rest, str] = {"float": "float32", "dynamic": "hybrid int8", "float16": FLOAT16_WEIGHTS}
UNKNOWN = "unknown"  # in which types they compute
# Kernels that pruning and clustering leave alone.
NEVER_COMPRESSED = frozenset({"DEPTHWISE_CONV_2D"})


@dataclass(frozen=True)
class Expectation:
    """What a file computes in, in the words of Op.types, and what it keeps of the weights; nothing obeys it."""

    types: str  # of the chosen layers
    chosen: frozenset[str] | None = None  # layers; None: all
    kernels: frozenset[str] = frozenset()  # those of the chosen that have weights: each must show in the file
    rest: str = "float32"  # types of all other layers
    least_weights: int = 0  # ops with fewer weights than this stay in float
    left_float: Mapping[str, str] = field(default_factory=dict)  # what cannot be quantized, and why
    uncompressed: frozenset[str] = frozenset()  # layers that keep all their weights, as frozen ones do
    exempt: frozenset[tuple[str, str]] = frozenset()  # (layer, op): TFLite has no kernel for them in these types
    sparsity: float = 0.0  # least share of zeros among the weights of all pruned layers together
    clusters: int | None = None  # most distinct weights that a channel may have
    interface: str = "float32"  # type of what goes in and comes out

    @property
    def partial(self) -> bool:
        """Whether layers were left float that the strategy would have quantized."""
        return bool(self.left_float)


@dataclass(frozen=True)
class Compression:
    """What a training has made of the weights; `uncompressed` are layers that keep all of theirs."""

    sparsity: float = 0.0
    clusters: int | None = None
    uncompressed: frozenset[str] = frozenset()


# By scheme, what every layer computes in.
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
    """What the file of a model is expected to hold that is converted by this scheme."""
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
    if isinstance(scheme, Int8 | Static | Learned) and scheme.layers is not None:
        kernels = _with_kernels(model, scheme.layers)
        expectation = replace(expectation, chosen=frozenset(scheme.layers), kernels=kernels)
        if isinstance(scheme, Learned):
            expectation = replace(expectation, rest=TYPES_OF_THE_REST[scheme.rest], left_float=scheme.left_float)
    return expectation


def _with_kernels(model: "Model", layers: Iterable[str]) -> frozenset[str]:
    """Those of the layers that have weights which show in the file; those of BatchNorm are folded away."""
    from experiments.system.tensorflow import keras_of

    folded = keras_of(model).layers.BatchNormalization
    named = [model.get_layer(name) for name in layers]
    return frozenset(layer.name for layer in named if layer.weights and not isinstance(layer, folded))


@dataclass(frozen=True)
class Difference:
    """How a file differs from the expectation, in words; `layer`, `op`, `types` where it is about one op's types."""

    said: str
    layer: str = ""
    op: str = ""
    types: str = ""


def differences(expectation: Expectation, ops: Sequence[Op]) -> tuple[Difference, ...]:
    """Each difference between an expectation and the ops of a file; empty where there is none."""
    missing = sorted(expectation.kernels - {op.layer for op in ops})
    return (
        *_wrong_types(expectation, ops),
        *(Difference(f"{name} is not in the file", layer=name) for name in missing),
        *_idle_conversions(ops),
        *(Difference(said) for said in _wrong_weights(expectation, ops)),
    )


def broken(expectation: Expectation, ops: Sequence[Op]) -> tuple[str, ...]:
    """The differences in words alone."""
    return tuple(difference.said for difference in differences(expectation, ops))


def without_float_ops(expectation: Expectation, found: Sequence[Difference]) -> Expectation:
    """The expectation but for ops that the converter leaves in float; the same where anything else differs."""
    ops = {(each.layer, each.op) for each in found}
    if expectation.types == "float32" or not all(each.op and each.types in ("float32", UNKNOWN) for each in found):
        return expectation
    why = {
        f"{each.op} of {each.layer or 'the model'}": (
            "the ops of a loop or another graph are not looked into"
            if each.types == UNKNOWN
            else f"the converter leaves it, for TFLite has no {expectation.types} kernel"
        )
        for each in found
    }
    return replace(expectation, exempt=expectation.exempt | ops, left_float={**expectation.left_float, **why})


def wrong_interface(expectation: Expectation, taken: str, given: str) -> tuple[str, ...]:
    """Where the types of a file's input and output differ from the expectation, in words."""
    found = {"takes": taken, "gives": given}
    return tuple(
        f"the file {does} {each} instead of {expectation.interface}"
        for does, each in found.items()
        if each != expectation.interface
    )


def _wrong_types(expectation: Expectation, ops: Sequence[Op]) -> Iterator[Difference]:
    for op in ops:
        if (op.layer, op.op) in expectation.exempt and (op.op in NOT_READ or op.types == "float32"):
            continue
        expected = _expected(expectation, op)
        if op.op in NOT_READ and (types := _expected_types(expectation, op)) != "float32":
            said = f"{op.layer or 'the output'} ({op.op}) is not looked into, and was to compute in {types}"
            yield Difference(said, op.layer, op.op, UNKNOWN)
        elif op.computes and op.types not in expected:
            name = op.layer or "a layer without a name"
            said = f"{name} ({op.op}) computes in {op.types} instead of {expected[0]}"
            yield Difference(said, op.layer, op.op, op.types)


def _expected(expectation: Expectation, op: Op) -> tuple[str, ...]:
    """The types that meet the expectation for this op, the first one for the message."""
    types = _expected_types(expectation, op)
    if types in WEIGHT_TYPES and op.weights < max(1, expectation.least_weights):
        types = "float32"
    if types == "int8x4" and op.op not in FOUR_BIT:
        types = "int8"
    if not op.weights:
        types = types.removesuffix("x8").removesuffix("x4")  # int16x8 is int16 values and int8 weights
    if expectation.chosen is not None and op.op in SCALE_KEEPING:
        return (types, expectation.types.partition("x")[0], "float32")  # between integers it is one, whoever chose what
    return (types,)


def _expected_types(expectation: Expectation, op: Op) -> str:
    return expectation.types if expectation.chosen is None or op.layer in expectation.chosen else expectation.rest


def _idle_conversions(ops: Sequence[Op]) -> Iterator[Difference]:
    idle = idle_conversions(ops)
    if idle:
        behind = idle[0].layer or "the input"
        said = f"types change for nothing {len(idle)} times, first until the {idle[0].op} behind {behind}"
        yield Difference(said, idle[0].layer)


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
            yield f"{op.layer} has {op.clusters} distinct weights in a channel instead of {most} at most"
