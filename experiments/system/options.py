"""Shared by all options: their folder, the configuration of their dataclasses, and messages for invalid values."""

from pathlib import Path

from pydantic import ConfigDict, ValidationError

from experiments.system.errors import UserError, format_value, redact
from experiments.system.files import PACKAGE, check_regular

CONF = next(each for each in (PACKAGE / "conf", PACKAGE.parent / "conf") if each.is_dir())  # a wheel, or a checkout

OPTION = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_default=True, allow_inf_nan=False)


def first_bytes(path: Path, key: str) -> bytes:
    """Return the first bytes of a file, which identify its format; `key` is the setting that names the file.

    Raises:
        UserError: the file cannot be read.
    """
    check_regular(path, f"{key}={path}")
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise UserError(f"{key}={path}: cannot be read ({error.strerror}).") from error


# Replacements for pydantic's terms, in the terms of the command line.
REPLACEMENTS = {
    "a valid tuple": "a list, as in [a,b]",
    "tuple should": "the list should",
    " after validation": "",
    "Unexpected keyword argument": "unknown setting",
}

# Settings of earlier versions, and what to do if a user's option still has them.
REMOVED = {
    "strategy.range_init": (
        "this setting was removed; quantization-aware training starts its ranges at -6 and 6. Delete the line "
        "(docs/results/ranges.md)"
    ),
    "strategy.calibration_samples": "this strategy does not calibrate. Delete the line",
}


def describe_errors(key: str, error: ValidationError) -> str:
    """Return one line per invalid value, with its rule."""
    lines = []
    for problem in error.errors():
        name = ".".join([key, *(str(part) for part in problem["loc"])]).strip(".")
        rule = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "unexpected_keyword_argument":
            rule = REMOVED.get(name, rule)
        for words, plain in REPLACEMENTS.items():
            rule = rule.replace(words, plain)
        lines.append(f"{name}={redact(format_value(problem['input']))}: {rule[0].lower()}{rule[1:]}")
    return "\n".join(lines)
