"""The truth gate: what a strategy promises of its file, and whether the file keeps it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from experiments.graph import FLOAT16_WEIGHTS, SCALE_KEEPING, Op, idle_conversions

# Types that only weights can have: an op without weights stays float32 beside them.
WEIGHT_TYPES = frozenset({FLOAT16_WEIGHTS, "hybrid int8", "hybrid int4"})
# Ops that hold weights, or whole graphs, which are not looked into: in which types they compute is not known.
NOT_READ = frozenset(
    {
        "LSTM", "RNN", "SVDF", "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM",
        "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN", "WHILE", "IF", "CALL",
    }
)  # fmt: skip
# Kernels that pruning and clustering leave alone.
NEVER_COMPRESSED = frozenset({"DEPTHWISE_CONV_2D"})


@dataclass(frozen=True)
class Promise:
    """What a strategy says that its file computes in, in the words of Op.types, and what it keeps of the weights."""

    types: str  # of the chosen layers
    chosen: frozenset[str] | None = None  # layers; None: all
    kernels: frozenset[str] = frozenset()  # those of the chosen that have weights: each must show in the file
    rest: str = "float32"  # types of all other layers
    least_weights: int = 0  # ops with fewer weights than this stay in float
    left_float: Mapping[str, str] = field(default_factory=dict)  # layers that cannot be quantized, and why
    uncompressed: frozenset[str] = frozenset()  # layers that keep all their weights, as frozen ones do
    sparsity: float = 0.0  # least share of zeros among the weights of all pruned layers together
    clusters: int | None = None  # most distinct weights that a channel may have
    interface: str = "float32"  # type of what goes in and comes out

    @property
    def partial(self) -> bool:
        """Whether layers were left float that the strategy would have quantized."""
        return bool(self.left_float)


def broken(promise: Promise, ops: Sequence[Op]) -> tuple[str, ...]:
    """Each difference between a promise and the ops of a file, in words; empty where the file keeps it."""
    return (
        *_wrong_types(promise, ops),
        *(f"{name} is not in the file" for name in sorted(promise.kernels - {op.layer for op in ops})),
        *_idle_conversions(ops),
        *_wrong_weights(promise, ops),
    )


def wrong_interface(promise: Promise, taken: str, given: str) -> tuple[str, ...]:
    """Where the types that a file takes and gives are others than promised, in words."""
    found = {"takes": taken, "gives": given}
    return tuple(
        f"the file {does} {each} instead of {promise.interface}"
        for does, each in found.items()
        if each != promise.interface
    )


def _wrong_types(promise: Promise, ops: Sequence[Op]) -> Iterator[str]:
    for op in ops:
        expected = _expected(promise, op)
        if op.op in NOT_READ and (types := _promised(promise, op)) != "float32":
            yield f"{op.layer or 'the output'} ({op.op}) is not looked into, and was to compute in {types}"
        elif op.computes and op.types not in expected:
            yield f"{op.layer or 'a layer without a name'} ({op.op}) computes in {op.types} instead of {expected[0]}"


def _expected(promise: Promise, op: Op) -> tuple[str, ...]:
    """The types that keep the promise for this op, the first one for the message."""
    types = _promised(promise, op)
    if types in WEIGHT_TYPES and op.weights < max(1, promise.least_weights):
        types = "float32"
    if not op.weights:
        types = types.removesuffix("x8")  # int16x8 is int16 values and int8 weights
    if promise.chosen is not None and op.op in SCALE_KEEPING:
        return (types, promise.types, "float32")  # between integers it is one, whoever chose what
    return (types,)


def _promised(promise: Promise, op: Op) -> str:
    return promise.types if promise.chosen is None or op.layer in promise.chosen else promise.rest


def _idle_conversions(ops: Sequence[Op]) -> Iterator[str]:
    idle = idle_conversions(ops)
    if idle:
        behind = idle[0].layer or "the input"
        yield f"types change for nothing {len(idle)} times, first until the {idle[0].op} behind {behind}"


def _wrong_weights(promise: Promise, ops: Sequence[Op]) -> Iterator[str]:
    compressed = [op for op in ops if op.op not in NEVER_COMPRESSED and op.layer not in promise.uncompressed]
    with_weights = [op for op in compressed if op.weights]
    zeros = sum(op.sparsity * op.weights for op in with_weights)
    everything = sum(op.weights for op in with_weights)
    if zeros < promise.sparsity * everything - len(with_weights):  # each layer's number of zeros is rounded down
        yield f"{zeros / everything:.1%} of the weights are zero instead of {promise.sparsity:.1%}"
    for op in with_weights:
        if promise.clusters is not None and op.clusters > promise.clusters:
            yield f"{op.layer} has {op.clusters} distinct weights in a channel instead of {promise.clusters} at most"
