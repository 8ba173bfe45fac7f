"""Settings that are a name, or a name with arguments: `cosine`, or `{cosine: {end: 0.01}}`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.system.errors import format_value, suggestion

Arguments = Mapping[str, Sequence[str]]  # the arguments of each name


@dataclass(frozen=True)
class Named:
    """A name, and arguments for it."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def typed(self) -> str:
        """The setting as it is typed on the command line."""
        return f"{{{self.name}:{format_value(dict(self.arguments))}}}" if self.arguments else self.name


def named(value: object, known: Arguments) -> Named:
    """Return the name and the arguments of a setting.

    Raises:
        ValueError: it has another form, or an unknown name or argument.
    """
    arguments: object = {}
    match value:
        case str():
            name = value
        case Mapping() if len(value) == 1:
            ((name, arguments),) = value.items()
        case _:
            raise ValueError("requires a name, or one name with arguments, as in {name: {argument: value}}")
    if name not in known:
        raise ValueError(f"unknown name {format_value(name)}. {suggestion(str(name), known)}")
    match arguments:
        case None:
            return Named(str(name), {})
        case Mapping():
            for argument in arguments:
                if argument not in known[name]:
                    raise ValueError(f"{name} has no argument {argument}. {suggestion(str(argument), known[name])}")
            return Named(str(name), dict(arguments))
    raise ValueError(f"{name} requires named arguments, as in {_example(str(name), known)}")


def _example(name: str, known: Arguments) -> str:
    return f"{{{name}: {{{next(iter(known[name]), 'argument')}: value}}}}"


def each_named(values: Sequence[object], known: Arguments) -> Iterator[Named]:
    """Yield the names and arguments of a list of settings."""
    for value in values:
        yield named(value, known)


def valid(read: Callable[[object], object]) -> Callable[[object], object]:
    """Return a check that a setting can be read, which keeps the setting as it was given."""

    def check(value: object) -> object:
        read(value)
        return value

    return check
