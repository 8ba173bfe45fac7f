"""Gradual unfreezing: after how many epochs which frozen layers of a model are trained as well.

What is frozen in an epoch depends on nothing but the model, the setting and the epoch, so that a training that resumes
trains the layers of one without interruption. When the layers change, the optimizer starts anew, as Keras requires.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.model.freezing import layers_named
from experiments.system.errors import UserError, format_value

if TYPE_CHECKING:
    from tf_keras import Model

LAST = re.compile(r"last:([1-9]\d*)")
EXAMPLE = "{2: last:3, 4: 0.5, 6: 1}"


def unfreezing_of(value: object) -> dict[int, Any]:
    """Return which layers are trained as well after how many epochs, by rising epochs.

    Raises:
        ValueError: the setting is invalid.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"requires layers by the number of epochs after which they are trained, as in {EXAMPLE}")  # noqa: TRY004
    found: dict[int, Any] = {}
    for epoch, selection in value.items():
        number = int(epoch) if isinstance(epoch, str) and epoch.isdecimal() else epoch  # JSON has no other keys
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(
                f"{epoch}: requires a number of epochs from 1 on, as in {EXAMPLE}. From the start: model.freeze"
            )
        found[number] = _selection(selection)
    return dict(sorted(found.items()))


def _selection(value: object) -> Any:
    match value:
        case bool():
            pass
        case int() | float() if 0 < value <= 1:
            return value
        case str() if LAST.fullmatch(value):
            return value
        case list() | tuple() if value and all(isinstance(each, str) and each for each in value):
            return tuple(value)
    raise ValueError(
        f"{format_value(value)}: requires a share of the frozen layers above 0 and up to 1, last:N, or a list of "
        "layers, such as [block_3*]"
    )


@dataclass(frozen=True)
class Unfreezing:
    """The frozen layers of a model with weights, in its order, and those that are trained after some epochs."""

    frozen: tuple[str, ...]
    trained: Mapping[int, frozenset[str]]  # by rising epochs, each with those before it

    def after(self, epoch: int) -> frozenset[str]:
        """Return the names of the layers that are trained as well after this number of epochs."""
        return next((names for first, names in reversed(list(self.trained.items())) if first <= epoch), frozenset())

    def apply(self, model: "Model", epoch: int) -> None:
        """Freeze the layers as after this number of epochs; nothing is changed without a setting."""
        trained = self.after(epoch)
        for layer in model.layers:
            if self.trained and layer.name in self.frozen:
                layer.trainable = layer.name in trained


def unfreezing_for(model: "Model", value: object, key: str = "training") -> Unfreezing:
    """Return the unfreezing of a model, whose layers are frozen as before the training.

    Raises:
        UserError: no layer is frozen, or a selection has none of them.
    """
    stages = unfreezing_of(value)
    weighted = [layer for layer in model.layers if layer.weights]
    frozen = tuple(layer.name for layer in weighted if not layer.trainable)
    if stages and not frozen:
        raise UserError(
            f"{key}.unfreeze={format_value(value)}: requires frozen layers, and the model has none. Freeze them with "
            f"model=pretrained model.path=FILE model.freeze=1, or remove {key}.unfreeze."
        )
    trained: dict[int, frozenset[str]] = {}
    names: frozenset[str] = frozenset()
    for epoch, selection in stages.items():
        names |= _chosen(frozen, selection, f"{key}.unfreeze={{{epoch}: {format_value(selection)}}}")
        trained[epoch] = names
    return Unfreezing(frozen, trained)


def _chosen(frozen: tuple[str, ...], selection: Any, setting: str) -> frozenset[str]:
    match selection:
        case str():
            count = int(selection.partition(":")[2])
            if count > len(frozen):
                raise UserError(f"{setting}: requires {count} frozen layers, and the model has {len(frozen)}.")
            return frozenset(frozen[-count:])
        case tuple():
            return frozenset(layers_named(selection, frozen, "frozen layer", setting))
    count = max(1, round(float(selection) * len(frozen)))
    return frozenset(frozen[-count:])
