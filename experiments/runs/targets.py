"""Make an object from an option: look up its class, and check the class before creating an instance.

A configuration is data, and `_target_` is the only key that names code. It may name only a subclass of the type that
the option is for. A recorded configuration may come from anyone, so its targets are restricted further.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from inspect import isabstract
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from experiments.system.errors import UserError, first_line, format_value, suggestion
from experiments.system.keras_version import choose_keras_2
from experiments.system.options import CONF, describe_errors

Kind = TypeVar("Kind")
TARGET = "_target_"
# Former names of classes, which users' options and recorded configurations may still have.
EARLIER = {
    "experiments.cache.Cache": "experiments.system.cache.Cache",
    "experiments.training.Training": "experiments.training.loop.Training",
    "experiments.strategy.ptq_dynamic.PTQDynamic": "experiments.strategy.post_training.PTQDynamic",
    "experiments.strategy.ptq_float16.PTQFloat16": "experiments.strategy.post_training.PTQFloat16",
    "experiments.strategy.ptq_int16x8.PTQInt16x8": "experiments.strategy.post_training.PTQInt16x8",
    "experiments.strategy.ptq_int4.PTQInt4": "experiments.strategy.post_training.PTQInt4",
    "experiments.strategy.ptq_int8.PTQInt8": "experiments.strategy.post_training.PTQInt8",
}
DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
SPECIAL = re.compile(r"_.*_")  # keys that make Hydra call something: _target_, _partial_ and so on
# What PyYAML raises for damaged text, and for values that do not match their tag, such as !!bool x.
UNREADABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)
MOST_TEXT = 2**20  # characters of a recorded configuration; real ones have about a thousand


def make(key: str, settings: Mapping[str, Any], kind: type[Kind]) -> Kind:
    """Make the object that an option describes; `key` is its group, such as strategy, and `kind` its base class.

    Raises:
        UserError: the option names no subclass of `kind`, or the class rejects the values.
    """
    named = settings.get(TARGET)
    if not isinstance(named, str) or not DOTTED.fullmatch(named):
        given = "missing" if named is None else format_value(named)
        raise UserError(f"{key}: _target_ ({given}) requires the name of a subclass of {_name(kind)}.")
    values = {name: value for name, value in settings.items() if name != TARGET}
    for place in _special(values, key):
        raise UserError(f"{place}: an option requires plain values; only its own _target_ may name a class.")
    made = _class(key, named, kind)
    try:
        return made(**values)
    except ValidationError as error:
        raise UserError(describe_errors(key, error)) from error
    except UserError:
        raise
    except Exception as error:  # the class may be a user's own
        raise UserError(
            f"{key}: {named} rejects these values ({type(error).__name__}: {first_line(error)})."
        ) from error


def _class(key: str, named: str, kind: type[Kind]) -> type[Kind]:
    """Import the class of this name and check that it is a concrete subclass of `kind`."""
    module, _, name = EARLIER.get(named, named).rpartition(".")
    choose_keras_2()  # a module of the user's own may import TensorFlow
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name and not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"{key}: {module} requires the module {error.name}, which is not installed.") from error
        raise UserError(
            f"{key}: its _target_ {named} requires the module {error.name}, which cannot be found. Put your own module "
            "in the folder where the command is started, or on PYTHONPATH."
        ) from error
    except Exception as error:  # a module of the user's own
        raise UserError(f"{key}: {module} cannot be imported ({type(error).__name__}: {first_line(error)}).") from error
    if not isinstance(found, type) or not issubclass(found, kind):
        raise UserError(f"{key}: _target_ ({named}) requires the name of a subclass of {_name(kind)}.")
    if isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise UserError(f"{key}: {named} is abstract. It must define {missing}.")
    return found


def _special(value: Any, place: str) -> Iterator[str]:
    """Yield the keys inside an option's values at which Hydra would call something."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            inside = f"{place}.{key}"
            if SPECIAL.fullmatch(str(key)):
                yield inside
            yield from _special(each, inside)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _special(each, f"{place}[{number}]")


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def recorded_option(text: str, key: str, modules: Collection[str]) -> dict[str, Any]:
    """Return an option of a recorded configuration; nothing is resolved, imported or instantiated.

    Its class must be one that an option in conf/ names, or be in one of these user modules.

    Raises:
        UserError: the text is not a configuration, has no such option, or the option names another class.
    """
    option = recorded(text, key)
    if not option:
        raise UserError(f"the recorded config.yaml has no option for {key}.")
    named, known = str(option.get(TARGET)), _known_targets(key)
    if EARLIER.get(named, named) not in known and not any(named.startswith(f"{module}.") for module in modules):
        raise UserError(
            f"{key}: the recorded config.yaml names {named[:200]}, which no option in conf/{key} names. Using "
            "it would run that code. Only if you trust the module, type --module "
            f"{named.rpartition('.')[0][:200] or 'NAME'}. {suggestion(named[:200], known)}"
        )
    return option


def recorded(text: str, key: str) -> dict[str, Any]:
    """Return the values of a group of a recorded configuration, as plain data; empty if there is no such group.

    Raises:
        UserError: the text cannot be parsed.
    """
    try:
        configuration = yaml.load(text, _Plain) if len(text) <= MOST_TEXT else None
    except UNREADABLE as error:
        raise UserError(f"the recorded config.yaml cannot be parsed ({first_line(error)}).") from error
    group = configuration.get(key) if isinstance(configuration, dict) else None
    return group if isinstance(group, dict) else {}


def _known_targets(group: str) -> set[str]:
    return {str(yaml.safe_load(path.read_text())[TARGET]) for path in (CONF / group).glob("*.yaml")}


class _Plain(yaml.SafeLoader):
    """Loads YAML without aliases, since a few lines with aliases can expand to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it contains aliases")
        return super().compose_node(parent, index)
