"""The learned ranges of a model's values: which of them an op finds behind it, and which have to have one scale."""

from typing import Any

from experiments.quantization.keras3.fake_quantization import Range, share_limits
from experiments.quantization.keras3.kinds import kind_of
from experiments.quantization.keras3.wrapper import Quantized
from experiments.system.tensorflow import keras_3

Node = Any


class KnownRanges:
    """The ranges that the values of a model's tensors are rounded in, as far as they are learned."""

    def __init__(self) -> None:
        self._ranges: dict[int, tuple[Range, ...]] = {}  # by tensor; several, which share their limits, once joined

    def connect(self, node: Node, wrapper: Quantized, call: int) -> bool:
        """Give a quantized layer the ranges of its inputs before a call; return whether it joins values of one scale.

        An op that requires one scale for several values, such as CONCATENATION, takes values whose ranges share their
        limits. Otherwise the file converts them from scale to scale, and XNNPACK rounds the ratio of two scales to 8
        bits.
        """
        kind = wrapper.kind
        given = keras_3().tree.flatten(node.arguments.args)
        found = [self._ranges.get(id(each), ()) for each in given]
        if kind.quantizes_inputs and found and all(found):
            share_limits(each for ranges in found for each in ranges)
            wrapper.joining.append(call)
            return True
        if kind.keeps_scale and found and found[0]:
            wrapper.inherited[call] = found[0][0]
        return False

    def follow(self, node: Node, copy: Any, call: int) -> None:
        """Record the ranges of an operation's outputs after this call."""
        found: tuple[Range, ...] = ()
        if (kind := kind_of(node.operation)) is not None and kind.passing:
            found = self._ranges.get(id(node.input_tensors[0]), ())
        elif isinstance(copy, Quantized):
            learned = copy.inherited.get(call) or copy.range_of_outputs(call)
            found = (learned,) if learned else ()
            if call in copy.joining:
                found = tuple(each for tensor in node.input_tensors for each in self._ranges[id(tensor)])
        self._ranges.update({id(tensor): found for tensor in node.outputs if found})
