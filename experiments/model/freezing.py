"""Freeze layers of a model: a share of them, or layers by name."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from experiments.system.errors import UserError, format_value, suggestion

if TYPE_CHECKING:
    from tf_keras import Model


def checked(value: object) -> object:
    """Return a selection of layers: a share, or a list of names and patterns.

    Raises:
        ValueError: it is neither.
    """
    match value:
        case bool():
            pass
        case int() | float() if 0 <= value <= 1:
            return value
        case list() | tuple() if all(isinstance(each, str) and each for each in value):
            return tuple(value)
    raise ValueError("requires a share from 0 to 1, or a list of layers, such as [backbone*,conv_1]")


Layers = Annotated[Any, AfterValidator(checked)]


def freeze(model: "Model", selection: Any, key: str) -> tuple[str, ...]:
    """Freeze layers, and return their names; `key` is the setting. A frozen BatchNorm keeps its statistics.

    A share counts the layers with weights before the last one, which is the head, from the input on.

    Raises:
        UserError: a name or a pattern selects no layer with weights.
    """
    names = _chosen(model, selection, key)
    for layer in model.layers:
        if layer.name in names:
            layer.trainable = False
    return names


def _chosen(model: "Model", selection: Any, key: str) -> tuple[str, ...]:
    weighted = [layer.name for layer in model.layers if layer.weights]
    if not isinstance(selection, tuple):
        before = weighted[:-1]
        return tuple(before[: round(float(selection) * len(before))])
    return layers_named(selection, weighted, "layer with weights", f"{key}={format_value(selection)}")


def layers_named(patterns: tuple[str, ...], names: Sequence[str], kind: str, setting: str) -> tuple[str, ...]:
    """Return the names that match patterns, in their order; `kind` describes the layers that have them.

    Raises:
        UserError: a pattern matches no name.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"{setting}: no {kind} is named {pattern}. Use names, or patterns such as conv*. "
                f"{suggestion(pattern, names)}"
            )
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))
