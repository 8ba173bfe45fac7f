"""Messages for invalid configurations, whether Hydra, OmegaConf, PyYAML or this suite rejects them."""

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

from experiments.runs.command_line import NAMES, command, parse_error, quote
from experiments.system.errors import first_line, suggestion
from experiments.system.options import CONF, REMOVED

# What Hydra and its parts raise for an invalid configuration.
CONFIGURATION_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError)


def is_configuration_error(error: Exception) -> bool:
    """Whether an error means that the configuration is invalid; PyYAML's constructors raise errors of any type."""
    return isinstance(error, CONFIGURATION_ERRORS) or _invalid_node(error) is not None


def explain(error: Exception) -> str:
    """Return one message for a configuration error, with the value, the rule and the nearest alternatives."""
    match error:
        case OmegaConfBaseException() if error.full_key:
            return f"{error.full_key}: {first_line(error)}"
        case MissingConfigException():
            return _unknown_option(error.missing_cfg_file or "''", error.options or ())
        case OverrideParseException():
            return parse_error(error.override, sys.argv[1:])
        case Exception() if _is_yaml_error(error):
            return _invalid_yaml(error)
    message = str(error).strip()
    if not message and isinstance(error.__cause__, Exception):  # Hydra raises some of OmegaConf's errors like this
        return explain(error.__cause__)
    found = ((re.search(pattern, message), reword) for pattern, reword in HYDRA_MESSAGES.items())
    return next((reword(match[1], error) for match, reword in found if match), message)


# Patterns of Hydra's messages, and functions that return this suite's message from the captured name and the error.
HYDRA_MESSAGES: Mapping[str, Callable[[str, Exception], str]] = {
    r"Could not override '([^']+)'": lambda setting, _: _unknown_setting(setting),
    r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'(?: requires|$|\n)": lambda given, _: _requires_sweep(
        given
    ),
    r"Multiple values for ([\w/@]+)": lambda group, _: f"+{group}: already chosen. Type {group}=NAME, without the +.",
    r"Config group override .* Got (\w+)": lambda kind, _: f"A config group requires an option's name, not a {kind}.",
    r"An item is already at '([^']+)'": lambda key, _: f"+{key}: already set. Type {key}=VALUE, without the +.",
    r"Could not delete(?: from config\.)? '([^']+)'": lambda key, _: f"~{key}: not set, so it cannot be removed.",
    r"Error merging override (.+)": lambda override, error: f"{override}: {_merge_failure(error.__cause__ or error)}.",
    r"Additional config directory '(.+)' not found": lambda name, _: f"--config-dir {name}: no such folder.",
}


# OmegaConf's words for a value of another kind than the option's, and what the option requires.
OTHER_KINDS = {
    "Cannot merge DictConfig with ListConfig": "requires a list, as in [a,b], not a mapping",
}


def _merge_failure(error: BaseException) -> str:
    message = first_line(error).rstrip(".")
    return OTHER_KINDS.get(message, message)


def _unknown_option(file: str, options: Sequence[str]) -> str:
    group, _, option = file.rpartition("/")
    if group and options:
        return f"{group}={option}: unknown option in conf/{group}. {suggestion(option, options)}"
    return f"{file}: no such configuration in conf/ or --config-dir."


def _requires_sweep(argument: str) -> str:
    key, _, value = argument.partition("=")
    problem = f"{argument}: several values require a sweep. Type -m as the first argument"
    if not key.endswith(NAMES):
        return f"{problem}."
    right = command(sys.argv[1:], argument, f"{key}={quote(value)}")
    return f"{problem}. For one name with commas, quote it within the argument:\n{right}"


def _invalid_yaml(error: Exception) -> str:
    """Return the message for a YAML file that cannot be parsed."""
    match error:
        case RecursionError():
            return (
                "The configuration contains itself. Check the anchors (&name) and aliases (*name) in your YAML files."
            )
        case UnicodeDecodeError():
            return f"{_first_undecodable_file() or 'An option'}: not UTF-8 text ({error.reason}, byte {error.start})."
        case MarkedYAMLError() if mark := error.problem_mark:
            return f"{mark.name}, line {mark.line + 1}: invalid YAML ({error.problem})."
        case _ if not isinstance(error, YAMLError) and (node := _invalid_node(error)):
            return _invalid_value(node)
    return f"An option is not valid YAML ({first_line(error)})."


def _is_yaml_error(error: Exception) -> bool:
    return isinstance(error, RecursionError | YAMLError | UnicodeDecodeError) or _invalid_node(error) is not None


def _invalid_node(error: Exception) -> Node | None:
    """Return the YAML node that could not be converted to a value, if that is why the error was raised.

    PyYAML's constructors let Python's errors through: a KeyError for !!bool x, an AttributeError for !!timestamp x.
    """
    nodes = [frame.f_locals.get("node") for frame, _ in walk_tb(error.__traceback__)]
    return next((node for node in reversed(nodes) if isinstance(node, Node)), None)


def _invalid_value(node: Node) -> str:
    tag, mark = node.tag.replace("tag:yaml.org,2002:", "!!"), node.start_mark
    value = str(node.value)[:80] if isinstance(node, ScalarNode) else "this value"
    return (
        f"{mark.name}, line {mark.line + 1}: invalid YAML ({value or 'an empty text'} is not a valid {tag}). For "
        "text, use quotes and no tag."
    )


def _first_undecodable_file() -> Path | None:
    """Return the first option file that is not UTF-8 text."""
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


def _unknown_setting(setting: str) -> str:
    """Return the message for a setting that the configuration does not have."""
    group = setting.partition(".")[0]
    if group == "suite":
        return f"{setting}: a suite requires a plus. Type +suite=NAME."
    if group == "hydra" and not setting.startswith("hydra.launcher."):
        return f"{setting}: unknown setting of Hydra. If it is one without a default, type +{setting}=VALUE."
    if setting.startswith("hydra.launcher."):
        return f"{setting}: this launcher has no such setting. Choose another launcher, as in hydra/launcher=joblib."
    known = list(known_settings())
    if setting in REMOVED and setting not in known:
        return f"{setting}: {REMOVED[setting]}."
    if setting in known:
        return (
            f"{setting}: requires {_options_with(group, setting)}; the option chosen here does not have it. In a sweep "
            f"over options that all have it, type ++{setting}=VALUE. In a sweep with other options too, copy the "
            f"option to conf/{group}/NAME.yaml, change the value there, and choose {group}=NAME."
        )
    similar = [name for name in known if name.startswith(f"{group}.")] or known
    return f"{setting}: unknown setting. {suggestion(setting, similar)}"


def _options_with(group: str, setting: str) -> str:
    """Return the options of a group that have a setting, as typed: strategy=prune, strategy=cluster."""
    key = setting.partition(".")[2].partition(".")[0]
    options = sorted(CONF.glob(f"{group}/*.yaml"))
    return " or ".join(f"{group}={path.stem}" for path in options if key in list(OmegaConf.load(path)))


def known_settings() -> Iterator[str]:
    """Yield every setting of the options in conf/ with its group, such as dataset.train_samples."""
    main = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    assert isinstance(main, dict)
    settings = {str(key): value for key, value in main.items() if key not in ("hydra", "defaults")}
    yield from (key for key, _ in flatten(settings) if not key.endswith("_target_"))
    for path in CONF.glob("*/*.yaml"):
        group = path.parent.name
        if group != "suite":
            yield group
            yield from (f"{group}.{key!s}" for key in OmegaConf.load(path) if key != "_target_")


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings with dotted keys, such as training.epochs."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
