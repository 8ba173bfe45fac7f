"""What every option shares: where the files are, and a frozen dataclass whose fields are checked when they are read."""

from pathlib import Path

from pydantic import ConfigDict, ValidationError

from experiments.system.errors import UserError, redacted, spelled
from experiments.system.files import PACKAGE, check_regular

CONF = next(each for each in (PACKAGE / "conf", PACKAGE.parent / "conf") if each.is_dir())  # a wheel, or a checkout

OPTION = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_default=True, allow_inf_nan=False)


def first_bytes(path: Path, key: str) -> bytes:
    """The first bytes of a file that an option names, by which its kind is told; `key` is the setting.

    Raises:
        UserError: it cannot be read.
    """
    check_regular(path, f"{key}={path}")
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise UserError(f"{key}={path}: cannot be read ({error.strerror}).") from error


# Words of pydantic, and those of somebody who types settings.
PLAIN = {
    "a valid tuple": "a list, as in [a,b]",
    "tuple should": "the list should",
    " after validation": "",
    "Unexpected keyword argument": "unknown setting",
}

# Settings that options had in earlier versions, and what to do where an option of the user's still has them.
REMOVED = {
    "strategy.range_init": (
        "this setting was removed; quantization-aware training starts its ranges at -6 and 6. Delete the line "
        "(docs/results/ranges.md)"
    ),
    "strategy.calibration_samples": "this strategy does not calibrate. Delete the line",
}


def problems(key: str, error: ValidationError) -> str:
    """Each wrong value with its rule."""
    lines = []
    for problem in error.errors():
        name = ".".join([key, *(str(part) for part in problem["loc"])]).strip(".")
        rule = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "unexpected_keyword_argument":
            rule = REMOVED.get(name, rule)
        for words, plain in PLAIN.items():
            rule = rule.replace(words, plain)
        lines.append(f"{name}={redacted(spelled(problem['input']))}: {rule[0].lower()}{rule[1:]}")
    return "\n".join(lines)
