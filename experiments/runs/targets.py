"""From what an option names to an object: the class is looked up and its kind is checked before anything is made.

A configuration is data, and `_target_` is the one key in it that names code. It may name a class of the kind that the
option is for, and nothing else; a recorded configuration may come from anybody, and names only what is asked for here.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from inspect import isabstract
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from experiments.system.errors import UserError, first_line, spelled, suggestion
from experiments.system.options import CONF, problems

Kind = TypeVar("Kind")
TARGET = "_target_"
# Where classes stood in earlier versions: users' own options, and recorded configurations, still name them there.
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
SPECIAL = re.compile(r"_.*_")  # keys by which Hydra calls what is named, _target_, _partial_ and so on
# What PyYAML raises for a damaged text, and for values that are none of the kind that their tag says, as !!bool x is.
UNREADABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)
MOST_TEXT = 2**20  # characters of a recorded configuration; a thousand would do


def make(key: str, settings: Mapping[str, Any], kind: type[Kind]) -> Kind:
    """What an option describes; `key` is its setting, such as strategy, and `kind` what it has to make.

    Raises:
        UserError: it names no such class, or the class refuses the values.
    """
    named = settings.get(TARGET)
    if not isinstance(named, str) or not DOTTED.fullmatch(named):
        said = "which it lacks" if named is None else spelled(named)
        raise UserError(f"{key}: the _target_ of this option, {said}, does not make a {_name(kind)}.")
    values = {name: value for name, value in settings.items() if name != TARGET}
    for place in _special(values, key):
        raise UserError(f"{place}: an option holds plain values, and only its own _target_ names a class.")
    made = _class(key, named, kind)
    try:
        return made(**values)
    except ValidationError as error:
        raise UserError(problems(key, error)) from error
    except UserError:
        raise
    except Exception as error:  # the class may be a user's own
        raise UserError(
            f"{key}: {named} refuses these values ({type(error).__name__}: {first_line(error)})."
        ) from error


def _class(key: str, named: str, kind: type[Kind]) -> type[Kind]:
    """The class of this name, once it is seen to be of the kind that is needed."""
    module, _, name = EARLIER.get(named, named).rpartition(".")
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name and not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"{key}: {module} needs the module {error.name}, which is not installed.") from error
        raise UserError(
            f"{key}: there is no module {error.name}, which its _target_ {named} names. A module of your own is found "
            "in the folder where the command is started, or on PYTHONPATH."
        ) from error
    except Exception as error:  # a module of the user's own
        raise UserError(f"{key}: {module} cannot be imported ({type(error).__name__}: {first_line(error)}).") from error
    if not isinstance(found, type) or not issubclass(found, kind):
        raise UserError(f"{key}: the _target_ of this option, {named}, does not make a {_name(kind)}.")
    if isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise UserError(f"{key}: {named} cannot be used as it is: it does not define {missing}.")
    return found


def _special(value: Any, place: str) -> Iterator[str]:
    """The places inside an option's values at which Hydra would call something."""
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
    """An option of a recorded configuration, as it stands there: nothing is resolved, imported or made.

    Its class has to be one that an option of conf/ names, or be in one of these modules of the user's.

    Raises:
        UserError: the text is no configuration, holds no such option, or the option names another class.
    """
    try:
        configuration = yaml.load(text[: MOST_TEXT + 1], _Plain) if len(text) <= MOST_TEXT else None
    except UNREADABLE as error:
        raise UserError(f"the recorded config.yaml cannot be read ({first_line(error)}).") from error
    option = configuration.get(key) if isinstance(configuration, dict) else None
    if not isinstance(option, dict):
        raise UserError(f"the recorded config.yaml holds no option for {key}.")
    named, known = str(option.get(TARGET)), _known_targets(key)
    if EARLIER.get(named, named) not in known and not any(named.startswith(f"{module}.") for module in modules):
        raise UserError(
            f"{key}: the recorded config.yaml names {named[:200]}, which no option in conf/{key} does, and whatever a "
            "recorded configuration names would be run. Only if you wrote that module yourself, allow it with --module "
            f"{named.rpartition('.')[0][:200] or 'NAME'}. {suggestion(named[:200], known)}"
        )
    return option


def _known_targets(group: str) -> set[str]:
    return {str(yaml.safe_load(path.read_text())[TARGET]) for path in (CONF / group).glob("*.yaml")}


class _Plain(yaml.SafeLoader):
    """YAML without references, of which a few lines can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds references")
        return super().compose_node(parent, index)
