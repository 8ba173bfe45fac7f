"""Which layers a selection means: names, class names, regular expressions, first:n, last:n. Pure data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from experiments.system.errors import UserError, suggestion

POSITION = re.compile(r"(first|last):(\d+)")


@dataclass(frozen=True)
class Layer:
    """What a selection can see of a layer; `weighted` layers are those that first:n and last:n count."""

    name: str
    kind: str  # its class name
    weighted: bool


def checked(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The patterns; ValueError where one of them cannot mean anything, whatever the model."""
    for pattern in patterns:
        _check(pattern)
    return patterns


def _check(pattern: str) -> None:
    if position := POSITION.fullmatch(pattern):
        if int(position[2]) == 0:
            raise ValueError(f"{pattern!r} chooses no layer; count from 1, as in {position[1]}:1")
        return
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression ({error})") from error


Patterns = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(checked)]


def select(layers: Sequence[Layer], patterns: Sequence[str]) -> tuple[str, ...]:
    """Names of the layers that any of the patterns chooses, in the order of the model.

    A pattern that is the name or the class name of a layer means just that; else it is `first:n` or `last:n`, the last
    part of one name (conv1 of backbone/conv1 or backbone.conv1), or a regular expression that a layer's whole name
    matches.

    Raises:
        UserError: a pattern chooses nothing, is the last part of several names, or counts more layers than there are.
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
        raise UserError(f"strategy.layers: {pattern!r} is the name of several layers: {', '.join(inside)}.")
    matched = inside or [layer.name for layer in layers if re.fullmatch(pattern, layer.name)]
    if not matched:
        known = [layer.name for layer in layers] + [layer.kind for layer in layers]
        raise UserError(
            f"strategy.layers: {pattern!r} chooses no layer of the model; give names, class names, regular "
            f"expressions, first:n or last:n. {suggestion(pattern, known)}"
        )
    return matched


def _by_position(layers: Sequence[Layer], pattern: str, end: str, count: int) -> list[str]:
    weighted = [layer.name for layer in layers if layer.weighted]
    if not 1 <= count <= len(weighted):
        raise UserError(
            f"strategy.layers: {pattern!r} asks for {count} layers, and the model has {len(weighted)} with weights: "
            f"{', '.join(weighted)}."
        )
    return weighted[:count] if end == "first" else weighted[-count:]
