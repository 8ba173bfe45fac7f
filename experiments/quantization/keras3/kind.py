"""How quantization-aware training treats a kind of layer. The files in kinds/ register the kinds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Operation = Any  # a layer of Keras 3, or another operation of its functional graphs
Role = Literal["batchnorm", "relu"]

# Activations that the op before them applies itself.
FUSED = ("linear", "relu", "relu6")

# The op of an activation for which the converter refuses 16-bit activations.
NO_INT16 = {
    "sigmoid": "LOGISTIC",
    "silu": "LOGISTIC",
    "hard_silu": "HARD_SWISH",
    "hard_sigmoid": "ADD",
    "gelu": "GELU",
    "tanh": "TANH",
    "softmax": "SOFTMAX",
}


class Scaling(NamedTuple):
    """Factors and offsets of channels: arrays or tensors with one value, or with one for each channel."""

    factors: Any
    offsets: Any | None = None  # None: nothing


def _none(_operation: Operation) -> None:
    return None


def _no_scaling(_operation: Operation, _offsets: bool) -> bool:
    return False


@dataclass(frozen=True)
class Kind:
    """A kind of layer that supports quantization-aware training, or that only passes values on.

    `compute(run, *args, **kwargs)` returns the layer's outputs, with fake quantization where the ops of the TFLite file
    round, and passes its result to `run.output`. A layer's `role`, batchnorm or relu, says that the op of the layer
    before it may absorb it; `fuses` holds the roles that ops of this kind absorb.
    """

    compute: "Callable[..., Any] | None" = None  # None: it only passes values on, as pooling and Flatten do
    obstacle: Callable[[Operation], str | None] = _none  # why this layer does not support quantization-aware training
    role: Callable[[Operation], Role | None] = _none
    fuses: frozenset[Role] = frozenset()
    folds: bool = False  # whether `compute` folds a BatchNorm itself, because the converter cannot
    int4: bool = True  # whether TFLite has kernels for its weights in 4 bits; otherwise they have 8
    scales: Callable[[Operation], Scaling] | None = None  # for kinds that only scale channels
    takes_scaling: Callable[[Operation, bool], bool] = _no_scaling  # whether one (True: with offsets) can be folded
    no_int16: str = ""  # its op without a correct kernel for 16-bit activations
    moves: bool = False  # whether it only joins several values, without computing
    quantizes_inputs: bool = False  # whether it quantizes its inputs itself, all in one range
    keeps_scale: bool = False  # whether its outputs have the scale of its inputs
    splits_activation: bool = False  # whether its activation is a separate op unless it is in FUSED

    @property
    def passing(self) -> bool:
        """Whether it passes values on."""
        return self.compute is None

    @property
    def function(self) -> Callable[..., Any]:
        """`compute`, for a kind that has it."""
        assert self.compute is not None
        return self.compute


# What a class may change of the one that it inherits from, and still compute the same.
NOT_COMPUTING = frozenset({"__init__", "__new__", "__module__", "__doc__", "build", "get_config", "from_config"})

PASSING = Kind()
_KINDS: dict[type, Kind] = {}


def register(kind: Kind, *classes: type) -> None:
    """Register the kind of these classes of layers."""
    _KINDS.update(dict.fromkeys(classes, kind))


def registered(operation: Operation) -> Kind | None:
    """Return the kind of a layer: that of its class, or of one from which it inherits all that computes."""
    bases: tuple[Any, ...] = type(operation).__mro__
    base = next((each for each in bases if each in _KINDS), None)
    if base is None:
        return None
    changed = {name for each in bases[: bases.index(base)] for name in vars(each) if hasattr(base, name)}
    return None if changed - NOT_COMPUTING else _KINDS[base]


def activation_of(operation: Operation) -> str:
    """Return the name of a layer's activation; `linear` if it has none."""
    activation = getattr(operation, "activation", None)
    return "linear" if activation is None else str(getattr(activation, "__name__", type(activation).__name__))
