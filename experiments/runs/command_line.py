"""Command-line arguments in the form that Hydra reads; file names are taken literally, whatever they contain."""

import re
import shlex
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from math import ceil, prod
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    ValueType,
)
from hydra.errors import HydraException

from experiments.system.errors import UserError, suggestion
from experiments.system.options import CONF
from experiments.system.program import program

MAX_JOBS = 10_000
MAX_LENGTH = 10_000  # characters of an argument; Hydra's parser is recursive
SETTING = re.compile(r"(\+{0,2}[A-Za-z_]\w*(?:\.\w+)+)=(.*)", re.DOTALL)
# Settings whose values are names: `true` or `12` is a valid file name.
NAMES = (".path", ".dir", ".uri", ".experiment", ".module")
QUOTING = (
    "A value with special characters (= , : ( ) [ ] { } # ~ quotes, accents) requires double quotes, and the whole "
    "argument single quotes for the shell, as in 'strategy.layers=[\"conv(1)\"]'."
)
SINGLE = ("training", "finetune", "latency", "cache", "tracking")
RESERVED = ("hydra.callbacks", "hydra.sweeper", "hydra/sweeper")


def normalize(arguments: Sequence[str]) -> list[str]:
    """Return the arguments in an order and a form that Hydra accepts.

    Raises:
        UserError: an argument is not UTF-8 text, or would hide the suite's own configuration.
    """
    for argument in arguments:
        _check_text(argument)
    options = [each for each in arguments if not _is_override(each)]
    if own_path := next((each for each in options if each.startswith(("-cp", "--config-p"))), None):
        raise UserError(f"{own_path}: cannot be changed in this suite. Add your own options with --config-dir FOLDER.")
    if own_name := next((each for each in options if each.startswith(("-cn", "--config-n"))), None):
        raise UserError(
            f"{own_name}: cannot be changed in this suite. Choose options one by one, as in model=mlp. Add your own "
            "options with --config-dir FOLDER; for several settings at once, write FOLDER/suite/NAME.yaml and type "
            "+suite=NAME."
        )
    sweeps = bool({"-m", "--multirun"} & set(options))
    return [*options, *(_literal(each, sweeps) for each in arguments if _is_override(each))]


def check_overrides(arguments: Sequence[str]) -> None:
    """Reject values that Hydra would accept but could not use.

    Raises:
        UserError: a config group is given a value that is not an option's name, or a part of Hydra's configuration that
            the suite needs is changed.
    """
    for argument in filter(_is_override, arguments):
        override = _parsed(argument)
        if override is None or not override.key_or_group:
            raise UserError(parse_error(argument, arguments))
        _check_reserved(override)
        _check_choice(override)


def parse_error(argument: str, arguments: Sequence[str] = ()) -> str:
    """Return the message for an argument that Hydra's grammar rejects, with the command that quotes it."""
    key, equals, value = argument.partition("=")
    problem = f"{argument}: cannot be parsed as KEY=VALUE"
    if not equals or not re.fullmatch(r"[+~]{0,2}[\w./@-]+", key):
        return f"{problem}, as in epochs=5 or strategy=qat."
    right = f"{key}={_quoted_value(value)}"
    if "." not in key or _parsed(right) is None:
        return f"{problem}. Close every bracket and quote. {QUOTING}"
    return f"{problem}. {QUOTING} To use this value literally, type:\n{command(arguments, argument, right)}"


def command(arguments: Sequence[str], wrong: str = "", right: str = "", *options: str) -> str:
    """Return the shell command with one argument replaced, or only that argument if the command is not known."""
    if wrong not in arguments:
        return shlex.quote(right)
    return shlex.join([*program("run").split(), *options, *(right if each == wrong else each for each in arguments)])


def count_jobs(overrides: Sequence[Override]) -> int:
    """Return the number of jobs of a sweep, without creating them.

    Raises:
        UserError: the sweep has more than MOST_JOBS, or a range is infinite.
    """
    swept = [each for each in overrides if each.is_sweep_override()]
    counts = [_count(each) for each in swept]
    if prod(counts) > MAX_JOBS:
        each = " x ".join(f"{count:,}" for count in counts)
        product = f" ({each})" if len(counts) > 1 else ""
        raise UserError(
            f"{' '.join(str(each.input_line) for each in swept)}: {prod(counts):,} jobs{product}; a sweep has at "
            f"most {MAX_JOBS:,}. Use shorter ranges, or several sweeps."
        )
    return prod(counts)


def quote(text: str) -> str:
    """Quote a text for Hydra's grammar, whatever characters it has."""
    return str(QuotedString(text.replace("${", r"\${"), Quote.double).with_quotes())


def _check_text(argument: str) -> None:
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        shown = argument.encode(errors="backslashreplace").decode()
        raise UserError(f"{shown}: not UTF-8 text. If this is a file name, rename the file.") from error
    if len(argument) > MAX_LENGTH:
        raise UserError(f"{argument[:60]}...: {len(argument):,} characters; an argument has at most {MAX_LENGTH:,}.")


def _is_override(argument: str) -> bool:
    return argument[:1] != "-" and ("=" in argument or argument[:1] == "~")


def _literal(argument: str, sweeps: bool) -> str:
    """Return an override of a setting with a dot in its name, quoted if Hydra would not read it as typed."""
    if not (setting := SETTING.fullmatch(argument)):
        return argument
    key, value = setting.groups()
    parsed, is_name = _parsed(argument), key.endswith(NAMES)
    if parsed is None:
        return _with_quotes(argument, key, value, sweeps) if is_name or value[:1] not in "[{\"'" else argument
    if not is_name or not value or isinstance(parsed._value, QuotedString):
        return argument
    if "${" in value:  # the value of another setting, unless a file has this name, or each of several files its own
        names = [value] if _exists(value) or not sweeps else value.split(",")
        return f"{key}={','.join(map(quote, names))}" if all(map(_exists, names)) else argument
    if parsed.is_sweep_override():
        return f"{key}={quote(value)}" if _exists(value) else argument
    return argument if parsed.value() == value else f"{key}={quote(value)}"


def _with_quotes(argument: str, key: str, value: str, sweeps: bool) -> str:
    """Quote the value; in a sweep, commas separate values, unless the whole is an existing file."""
    parts = value.split(",") if sweeps and not _exists(value) else [value]
    whole = f"{key}={','.join(quote(part) for part in parts)}"
    return whole if _parsed(whole) else argument


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def _quoted_value(value: str) -> str:
    """Quote a value, or each item of a list."""
    if len(value) > 1 and value[0] == "[" and value[-1] == "]":
        return f"[{','.join(quote(item.strip()) for item in value[1:-1].split(','))}]"
    return quote(value)


def _parsed(argument: str) -> Override | None:
    """Parse an override; None if Hydra's grammar rejects it."""
    try:
        return OverridesParser.create().parse_override(argument)
    except (HydraException, RecursionError, ValueError):
        return None


def _check_reserved(override: Override) -> None:
    for part in RESERVED:
        if override.key_or_group == part or override.key_or_group.startswith(f"{part}."):
            raise UserError(f"{override.input_line}: {part} is set by the suite and cannot be changed.")


def _check_choice(override: Override) -> None:
    """A config group requires an option's name; Hydra would merge a dict into the default option."""
    key = override.key_or_group
    options = _options(key)
    if override.is_delete() or not (options or key in SINGLE):
        return
    for value in _values(override):
        match value:
            case str() if options and not ("/" in value or value.endswith(".yaml")):
                continue
            case dict() if value and not options:
                continue  # training={epochs:5} is the same as training.epochs=5
            case list() if options and all(isinstance(each, str) for each in value):
                hint = f"To sweep over several, type -m as the first argument and {key}={','.join(value)}."
            case _ if options:
                hint = suggestion(Path(str(value)).stem, options)
            case _:
                hint = f"Give settings one by one, as in {key}.NAME=VALUE. See {program('run')} --help."
        raise UserError(
            f"{override.input_line}: {key} requires {'the name of an option' if options else 'a setting'}. {hint}"
        )


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in CONF.glob(f"{group}/*.yaml")) if re.fullmatch(r"\w+", group) else []


def _values(override: Override) -> Iterator[object]:
    """Yield the value, or each value of a sweep."""
    match override.value():
        case ChoiceSweep(list=several):
            yield from (Override._convert_value(each) for each in several)
        case RangeSweep() as numbers:
            yield numbers.start
        case Glob():
            return
        case value:
            yield value


def _count(override: Override) -> int:
    match override.value():
        case ChoiceSweep(list=several):
            return len(several)
        case RangeSweep(start=start, stop=stop, step=step):
            return _steps(override, start, stop, step)
        case _ if override.value_type is ValueType.INTERVAL_SWEEP:
            raise UserError(f"{override.input_line}: an interval has no single values. Use a range or a list.")
        case _:
            return sum(1 for _ in override.sweep_string_iterator())


def _steps(override: Override, start: float | None, stop: float | None, step: float | None) -> int:
    """Return the length of a range, counted in decimals as Hydra does."""
    try:
        begin, end, by = (Decimal(str(each)) for each in (start, stop, 1 if step is None else step))
        return max(0, ceil((end - begin) / by))
    except (InvalidOperation, ZeroDivisionError, OverflowError, ValueError) as error:
        raise UserError(
            f"{override.input_line}: the range is infinite. Use range(START,STOP) or range(START,STOP,STEP) with "
            "finite numbers and a step other than 0."
        ) from error
