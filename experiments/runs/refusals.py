"""What a user is told of a configuration that cannot be meant: ours, whoever refused it."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from traceback import walk_tb
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, Node, ScalarNode, YAMLError

from experiments.runs.command_line import NAMES, cannot_be_read, command, quoted
from experiments.system.errors import first_line, suggestion
from experiments.system.options import CONF, REMOVED

# What Hydra and its parts raise for a configuration that cannot be meant.
WRONG = (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError)


def is_wrong(error: Exception) -> bool:
    """Whether an error says that a configuration cannot be meant; of what PyYAML's constructors raise, any does."""
    return isinstance(error, WRONG) or _refused_node(error) is not None


def told(error: Exception) -> str:
    """A refusal, ours or Hydra's, in one message that names the value, the rule and the nearest alternatives."""
    match error:
        case OmegaConfBaseException() if error.full_key:
            return f"{error.full_key}: {first_line(error)}"
        case MissingConfigException():
            return _missing(error.missing_cfg_file or "''", error.options or ())
        case OverrideParseException():
            return cannot_be_read(error.override, sys.argv[1:])
        case Exception() if _is_of_yaml(error):
            return _no_yaml(error)
    message = str(error).strip()
    if not message and isinstance(error.__cause__, Exception):  # Hydra passes some refusals of OmegaConf on so
        return told(error.__cause__)
    found = ((re.search(pattern, message), said) for pattern, said in OF_HYDRA.items())
    return next((said(match[1], error) for match, said in found if match), message)


# What Hydra says, and what is said instead of the name that it speaks of.
OF_HYDRA: Mapping[str, Callable[[str, Exception], str]] = {
    r"Could not override '([^']+)'": lambda setting, _: _not_here(setting),
    r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'(?: requires|$|\n)": lambda given, _: _several(given),
    r"Multiple values for ([\w/@]+)": lambda group, _: f"{group}: is chosen already. Leave the plus out: {group}=NAME.",
    r"Config group override .* Got (\w+)": lambda kind, _: f"An option is chosen by its name, and not by a {kind}.",
    r"An item is already at '([^']+)'": lambda key, _: f"+{key}: is there already. Leave the plus out: {key}=VALUE.",
    r"Could not delete(?: from config\.)? '([^']+)'": lambda key, _: f"~{key}: there is nothing to be taken away.",
    r"Error merging override (.+)": lambda override, error: f"{override}: {first_line(error.__cause__ or error)}.",
    r"Additional config directory '(.+)' not found": lambda name, _: f"--config-dir {name}: there is no such folder.",
}


def _missing(file: str, options: Sequence[str]) -> str:
    group, _, option = file.rpartition("/")
    if group and options:
        return f"{group}={option}: there is no such option in conf/{group}. {suggestion(option, options)}"
    return f"{file}: there is no such configuration, neither in conf/ nor in --config-dir."


def _several(argument: str) -> str:
    key, _, value = argument.partition("=")
    said = f"{argument}: several values make a sweep, and a sweep is asked for with -m, as the first argument"
    if not key.endswith(NAMES):
        return f"{said}."
    right = command(sys.argv[1:], argument, f"{key}={quoted(value)}")
    return f"{said}. One name that holds commas is quoted within the argument:\n{right}"


def _no_yaml(error: Exception) -> str:
    """A file of settings that cannot be read."""
    match error:
        case RecursionError():
            return "The configuration contains itself: is there an anchor of YAML within what it names?"
        case UnicodeDecodeError():
            return f"{_first_without_text() or 'An option'}: no text in UTF-8 ({error.reason}, byte {error.start})."
        case MarkedYAMLError() if mark := error.problem_mark:
            return f"{mark.name}, line {mark.line + 1}: cannot be read as YAML ({error.problem})."
        case _ if not isinstance(error, YAMLError) and (node := _refused_node(error)):
            return _no_value(node)
    return f"An option cannot be read as YAML ({first_line(error)})."


def _is_of_yaml(error: Exception) -> bool:
    return isinstance(error, RecursionError | YAMLError | UnicodeDecodeError) or _refused_node(error) is not None


def _refused_node(error: Exception) -> Node | None:
    """The part of a YAML file of which no value could be made, where that is why the error was raised.

    PyYAML's constructors raise whatever Python does: a KeyError for !!bool x, an AttributeError for !!timestamp x.
    """
    nodes = [frame.f_locals.get("node") for frame, _ in walk_tb(error.__traceback__)]
    return next((node for node in reversed(nodes) if isinstance(node, Node)), None)


def _no_value(node: Node) -> str:
    tag, mark = node.tag.replace("tag:yaml.org,2002:", "!!"), node.start_mark
    value = str(node.value)[:80] if isinstance(node, ScalarNode) else "what stands here"
    return (
        f"{mark.name}, line {mark.line + 1}: cannot be read as YAML ({value or 'an empty text'} is no {tag}). Write a "
        "text in quotes, without a tag."
    )


def _first_without_text() -> Path | None:
    """The first file among the options that is no text."""
    folders = [CONF, *(Path(each) for each in _values_of_option(sys.argv, "--config-dir", "-cd"))]
    for file in (file for folder in folders for file in sorted(folder.glob("**/*.yaml")) if file.is_file()):
        try:
            file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return file
    return None


def _values_of_option(arguments: Sequence[str], *names: str) -> Iterator[str]:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in names:
            yield value if equals else following


def _not_here(setting: str) -> str:
    """What is said of a setting that the configuration has not."""
    group = setting.partition(".")[0]
    if group == "suite":
        return f"{setting}: a suite is added to the configuration, with a plus: +suite=NAME."
    if group == "hydra" and not setting.startswith("hydra.launcher."):
        return f"{setting}: Hydra has no such setting. One of its own that has no value yet: +{setting}=VALUE."
    if setting.startswith("hydra.launcher."):
        return f"{setting}: this launcher has no such setting. Choose another, as in hydra/launcher=joblib."
    known = list(known_settings())
    if setting in REMOVED and setting not in known:
        return f"{setting}: {REMOVED[setting]}."
    if setting in known:
        return (
            f"{setting}: this setting belongs to {_options_with(group, setting)}, and not to the option chosen here. "
            f"In a sweep over options that all have it, give it with two plus signs: ++{setting}=VALUE. For others as "
            f"well, make a variant an option of its own: conf/{group}/NAME.yaml, a copy with other values."
        )
    alike = [name for name in known if name.startswith(f"{group}.")] or known
    return f"{setting}: there is no such setting. {suggestion(setting, alike)}"


def _options_with(group: str, setting: str) -> str:
    """The options of a group that have a setting, as they are chosen: strategy=prune or strategy=cluster."""
    key = setting.partition(".")[2].partition(".")[0]
    options = sorted(CONF.glob(f"{group}/*.yaml"))
    return ", ".join(f"{group}={path.stem}" for path in options if key in list(OmegaConf.load(path)))


def known_settings() -> Iterator[str]:
    """Every setting that the options in conf/ hold, with its group: dataset.train_samples and so on."""
    main = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    assert isinstance(main, dict)
    settings = {str(key): value for key, value in main.items() if key not in ("hydra", "defaults")}
    yield from (key for key, _ in flat(settings) if not key.endswith("_target_"))
    for path in CONF.glob("*/*.yaml"):
        group = path.parent.name
        if group != "suite":
            yield group
            yield from (f"{group}.{key!s}" for key in OmegaConf.load(path) if key != "_target_")


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their whole names: training.epochs and so on."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
