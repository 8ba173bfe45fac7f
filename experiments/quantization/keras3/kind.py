"""What quantization-aware training needs to know of a kind of layer. Kinds are registered by the files in kinds/."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Operation = Any  # a layer of Keras 3, or another operation of its functional graphs
Role = Literal["batchnorm", "relu"]

# Activations that the op before them applies itself.
FUSED = ("linear", "relu", "relu6")

# The op of an activation that the converter refuses to give 16-bit activations.
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
    """What each channel is multiplied by, and what is added; arrays or tensors of one value, or of one for each."""

    factors: Any
    offsets: Any | None = None  # None: nothing


def _none(_operation: Operation) -> None:
    return None


def _no_scaling(_operation: Operation, _offsets: bool) -> bool:
    return False


@dataclass(frozen=True)
class Kind:
    """A kind of layer that can be trained quantization-aware, or that only passes values on.

    `compute(run, *args, **kwargs)` returns the layer's outputs, with fake quantization where the ops of the TFLite file
    have it, and hands its result to `run.output`. `batchnorm` is done to a BatchNorm by the layer's own op, `relu` to a
    ReLU; a layer says by `role` which of these it is to the one before it.
    """

    compute: "Callable[..., Any] | None" = None  # None: it passes values on, as pooling and Flatten do
    obstacle: Callable[[Operation], str | None] = _none  # why this layer of the kind cannot be
    role: Callable[[Operation], Role | None] = _none
    fuses: frozenset[Role] = frozenset()
    folds: bool = False  # whether `compute` folds a BatchNorm itself, which the converter cannot
    int4: bool = True  # whether TFLite has kernels for its weights in 4 bits, if it has any; else they have 8
    scales: Callable[[Operation], Scaling] | None = None  # of a kind that scales channels, and does nothing else
    takes_scaling: Callable[[Operation, bool], bool] = _no_scaling  # whether `compute` can do that; True: with offsets
    no_int16: str = ""  # the op of it that the converter refuses to give 16-bit activations
    moves: bool = False  # whether it computes nothing, and just puts several values together
    quantizes_inputs: bool = False  # whether it does so itself; else they come as integers
    splits_activation: bool = False  # whether its activation is an op of its own unless it is among FUSED

    @property
    def passing(self) -> bool:
        """Whether it passes values on."""
        return self.compute is None

    @property
    def function(self) -> Callable[..., Any]:
        """What computes it; of a kind that computes."""
        assert self.compute is not None
        return self.compute


PASSING = Kind()
_KINDS: dict[type, Kind] = {}


def register(kind: Kind, *classes: type) -> None:
    """Let layers of these classes be of this kind."""
    _KINDS.update(dict.fromkeys(classes, kind))


def registered(operation: Operation) -> Kind | None:
    """Return the kind of a layer: that of its class, or of one whose `call` it inherits."""
    bases: tuple[Any, ...] = type(operation).__mro__
    base = next((each for each in bases if each in _KINDS), None)
    return _KINDS[base] if base is not None and type(operation).call is base.call else None


def activation_of(operation: Operation) -> str:
    """Return the name of a layer's activation; `linear` if it has none."""
    activation = getattr(operation, "activation", None)
    return "linear" if activation is None else str(getattr(activation, "__name__", type(activation).__name__))
