"""Which layers of a model an engine can quantize, as plain data; TensorFlow is not imported."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from experiments.quantization.selection import Layer, select
from experiments.system.errors import UserError
from experiments.tflite.expectation import Difference

# Layers of Keras 2 and 3 that pass values on unchanged, so that a quantizer may precede or follow them. Dropout is
# included for another reason: it scales values during training, so the range must be learned before it.
PASSING_LAYERS = (
    "Dropout", "SpatialDropout2D", "Flatten", "Reshape", "Permute", "MaxPooling2D", "GlobalMaxPooling2D",
    "ZeroPadding2D", "Cropping2D",
)  # fmt: skip


@dataclass(frozen=True)
class SurveyedLayer:
    """The properties of a layer for quantization-aware training."""

    name: str
    kind: str  # its class name
    weighted: bool = False  # whether it has weights and is not a BatchNorm
    passing: bool = False  # whether it only passes values on, as those in PASSING_LAYERS, and is never quantized itself
    obstacle: str | None = None  # why it does not support quantization-aware training
    group: tuple[str, ...] = ()  # the layers that become one op with it, itself included
    neighbours: frozenset[str] = frozenset()  # the layers before and after it

    @property
    def members(self) -> tuple[str, ...]:
        """The layers that become one op, in order."""
        return self.group or (self.name,)


@dataclass(frozen=True)
class Survey:
    """The layers of a model in order, without its inputs."""

    layers: tuple[SurveyedLayer, ...]

    def select(self, patterns: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the selected layers, with the BatchNorm and activation layers folded into them.

        Raises:
            UserError: a pattern selects no layer.
        """
        named = select([Layer(each.name, each.kind, each.weighted) for each in self._computing], patterns)
        together = {member for each in self._computing if each.name in named for member in each.members}
        return tuple(each.name for each in self._computing if each.name in together)

    @property
    def units(self) -> dict[str, tuple[str, ...]]:
        """The layers that can be quantized separately, in order, each with the layers folded into it."""
        return {each.members[0]: each.members for each in self._computing}

    @property
    def supported(self) -> tuple[str, ...]:
        """The names of the layers that support quantization-aware training."""
        return tuple(each.name for each in self._computing if each.name not in self.unsupported)

    @property
    def unsupported(self) -> dict[str, str]:
        """The layers that stay float, with the reasons: an obstacle of their own, or of a layer of the same op."""
        obstacles = {each.name: each.obstacle for each in self.layers if each.obstacle}
        reasons = {}
        for each in self.layers:
            obstructed = next((member for member in each.members if member in obstacles), None)
            if each.name in obstacles:
                reasons[each.name] = obstacles[each.name]
            elif obstructed:
                reasons[each.name] = f"is one op with {obstructed}, which is not supported"
        return reasons

    @property
    def _computing(self) -> tuple[SurveyedLayer, ...]:
        return tuple(each for each in self.layers if not each.passing)

    def refuse_unsupported(self, names: Collection[str]) -> None:
        """Raise UserError with the layers among `names` that do not support quantization-aware training, and why."""
        self.refuse({name: reason for name, reason in self.unsupported.items() if name in names})

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Raise UserError with layers that do not support quantization-aware training, and why, if there are any."""
        if not reasons:
            return
        listed = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
        weighted = {each.name for each in self.layers if each.weighted}
        possible = [name for name in self.supported if name not in reasons and name in weighted]
        others = f"Annotate others, as in strategy=annotate 'strategy.layers=[{','.join(possible)}]', or quantize"
        raise UserError(
            f"Layers that do not support quantization-aware training: {listed}. "
            f"{others if possible else 'Quantize'} after training, with strategy=ptq_int8."
        )

    def breaking(self, layers: Collection[str] | None, found: Sequence[Difference]) -> dict[str, str]:
        """Return the quantized layers that cause differences between a file and its expectation, with the reasons.

        `layers` are the quantized ones; None means all supported. The reasons name the ops with other types or, if
        there are none, neighbours of an op that differs. Layers of the same op are included.

        Raises:
            UserError: no quantized layer causes the differences.
        """
        chosen = frozenset(self.supported if layers is None else layers)
        ops: dict[str, list[str]] = {}
        for each in found:
            if each.layer in chosen and each.op:
                ops.setdefault(each.layer, []).append(each.op)
        reasons = {
            name: f"the converter leaves its {', '.join(dict.fromkeys(its))} in float" for name, its in ops.items()
        }
        reasons = reasons or {each.layer: each.text for each in found if each.layer in chosen}
        if not reasons:
            beside = {name: each for each in found if each.layer for name in self._neighbours(each.layer)}
            reasons = {name: f"next to it, {each.text}" for name, each in beside.items() if name in chosen}
        if not reasons:
            described = "; ".join(difference.text for difference in found)
            raise UserError(
                f"The file of this model cannot meet the expectation: {described}. Quantize after training, with "
                "strategy=ptq_int8."
            )
        members = {each.name: each.members for each in self.layers}
        for name in list(reasons):
            for member in members[name]:
                if member in chosen:
                    reasons.setdefault(member, f"is one op with {name}, which stays float")
        return {each.name: reasons[each.name] for each in self.layers if each.name in reasons}

    def _neighbours(self, name: str) -> frozenset[str]:
        return next((each.neighbours for each in self.layers if each.name == name), frozenset())
