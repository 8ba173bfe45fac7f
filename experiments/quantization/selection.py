"""Select layers by name, class name, regular expression, first:n or last:n; without TensorFlow."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from experiments.system.errors import UserError, suggestion

POSITION = re.compile(r"(first|last):(\d+)")


@dataclass(frozen=True)
class Layer:
    """A layer as seen by selections; first:n and last:n count `weighted` layers."""

    name: str
    kind: str  # its class name
    weighted: bool


def checked(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns; raises ValueError if one is invalid for any model."""
    for pattern in patterns:
        _check(pattern)
    return patterns


def _check(pattern: str) -> None:
    if position := POSITION.fullmatch(pattern):
        if int(position[2]) == 0:
            raise ValueError(f"{pattern!r} selects no layer; requires at least 1, as in {position[1]}:1")
        return
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a valid regular expression ({error})") from error


Patterns = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(checked)]


def select(layers: Sequence[Layer], patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the layers that any of the patterns selects, in the order of the model.

    A pattern that equals a layer's name or class name selects it; otherwise it is `first:n` or `last:n`, the last
    part of one name (conv1 of backbone/conv1 or backbone.conv1), or a regular expression that a layer's whole name
    matches.

    Raises:
        UserError: a pattern selects nothing, is the last part of several names, or requires more layers than exist.
    """
    names = {name for pattern in patterns for name in _chosen(layers, pattern)}
    return tuple(layer.name for layer in layers if layer.name in names)


def _chosen(layers: Sequence[Layer], pattern: str) -> list[str]:
    exact = [layer.name for layer in layers if pattern in (layer.name, layer.kind)]
    if exact:
        return exact
    if position := POSITION.fullmatch(pattern):
        return _by_position(layers, pattern, position[1], int(position[2]))
    inside = [layer.name for layer in layers if re.split(r"[/.]", layer.name)[-1] == pattern]
    if len(inside) > 1:
        raise UserError(
            f"strategy.layers: {pattern!r} is the name of several layers: {', '.join(inside)}. Give the whole names."
        )
    matched = inside or [layer.name for layer in layers if re.fullmatch(pattern, layer.name)]
    if not matched:
        known = [layer.name for layer in layers] + [layer.kind for layer in layers]
        raise UserError(
            f"strategy.layers: {pattern!r} selects no layer of the model. Use names, class names, regular expressions, "
            f"first:n or last:n. {suggestion(pattern, known)}"
        )
    return matched


def _by_position(layers: Sequence[Layer], pattern: str, end: str, count: int) -> list[str]:
    weighted = [layer.name for layer in layers if layer.weighted]
    if not 1 <= count <= len(weighted):
        raise UserError(
            f"strategy.layers: {pattern!r} requires {count} layers, but the model has {len(weighted)} with weights: "
            f"{', '.join(weighted)}."
        )
    return weighted[:count] if end == "first" else weighted[-count:]
