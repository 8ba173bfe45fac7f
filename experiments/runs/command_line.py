"""Command-line arguments as Hydra reads them: names of files are taken as they stand, whatever characters they hold."""

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

COMMAND = ("python", "-m", "experiments.run")
MOST_JOBS = 10_000
LONGEST = 10_000  # characters of an argument; Hydra's parser is recursive
SETTING = re.compile(r"(\+{0,2}[A-Za-z_]\w*(?:\.\w+)+)=(.*)", re.DOTALL)
# Settings whose values are names: `true` or `12` is a file like any other.
NAMES = (".path", ".dir", ".uri", ".experiment", ".module")
QUOTING = (
    "A value with characters that mean something (= , : ( ) [ ] { } # ~ quotes, accents) is put in double quotes, and "
    "the whole argument in single ones for the shell, as in 'strategy.layers=[\"conv(1)\"]'."
)
SINGLE = ("training", "finetune", "latency", "cache", "tracking")
OWN = ("hydra.callbacks", "hydra.sweeper", "hydra/sweeper")


def readable(arguments: Sequence[str]) -> list[str]:
    """The arguments in an order and a form that Hydra understands.

    Raises:
        UserError: one of them is no text, or would hide the suite's own configuration.
    """
    for argument in arguments:
        _check_text(argument)
    options = [each for each in arguments if not _is_override(each)]
    if moved := next((each for each in options if each.startswith(("-cp", "--config-p"))), None):
        raise UserError(f"{moved}: the suite has its own configuration. Add options of yours with --config-dir FOLDER.")
    if named := next((each for each in options if each.startswith(("-cn", "--config-n"))), None):
        raise UserError(
            f"{named}: the suite has its own configuration, of which options are chosen one by one, as in model=mlp. "
            "Add options of yours with --config-dir FOLDER; a file FOLDER/suite/NAME.yaml of several settings is taken "
            "with +suite=NAME."
        )
    sweeps = bool({"-m", "--multirun"} & set(options))
    return [*options, *(_taken_as_it_stands(each, sweeps) for each in arguments if _is_override(each))]


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuse values that Hydra would accept and make nothing of.

    Raises:
        UserError: a group of options is given something else than a name, or a part of Hydra is changed that the suite
            needs.
    """
    for argument in filter(_is_override, arguments):
        override = _parsed(argument)
        if override is None or not override.key_or_group:
            raise UserError(cannot_be_read(argument, arguments))
        _check_own(override)
        _check_choice(override)


def cannot_be_read(argument: str, arguments: Sequence[str] = ()) -> str:
    """What is said of an argument that Hydra's grammar refuses, with the command that quotes it."""
    key, equals, value = argument.partition("=")
    said = f"{argument}: this cannot be read as KEY=VALUE"
    if not equals or not re.fullmatch(r"[+~]{0,2}[\w./@-]+", key):
        return f"{said}, as in epochs=5 or strategy=qat."
    right = f"{key}={_quoted_value(value)}"
    if "." not in key or _parsed(right) is None:
        return f"{said}. Close every bracket and quote. {QUOTING}"
    return f"{said}. {QUOTING} To give this value as it stands:\n{command(arguments, argument, right)}"


def command(arguments: Sequence[str], wrong: str = "", right: str = "", *options: str) -> str:
    """The command to type in a shell, with one argument replaced; or that argument alone, where no command is known."""
    if wrong not in arguments:
        return shlex.quote(right)
    return shlex.join([*COMMAND, *options, *(right if each == wrong else each for each in arguments)])


def count_of_jobs(overrides: Sequence[Override]) -> int:
    """How many jobs a sweep has, without making them.

    Raises:
        UserError: they are more than MOST_JOBS, or a range has no end.
    """
    swept = [each for each in overrides if each.is_sweep_override()]
    counts = [_count(each) for each in swept]
    if prod(counts) > MOST_JOBS:
        each = " x ".join(f"{count:,}" for count in counts)
        product = f" ({each})" if len(counts) > 1 else ""
        raise UserError(
            f"{' '.join(str(each.input_line) for each in swept)}: {prod(counts):,} jobs{product}, and a sweep has at "
            f"most {MOST_JOBS:,}. Give shorter ranges, or several sweeps."
        )
    return prod(counts)


def quoted(text: str) -> str:
    """A text as a quoted value of Hydra's grammar, whatever it holds."""
    return str(QuotedString(text.replace("${", r"\${"), Quote.double).with_quotes())


def _check_text(argument: str) -> None:
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        shown = argument.encode(errors="backslashreplace").decode()
        raise UserError(f"{shown}: this is no text in UTF-8. Rename the file that is meant.") from error
    if len(argument) > LONGEST:
        raise UserError(f"{argument[:60]}...: {len(argument):,} characters, and an argument has at most {LONGEST:,}.")


def _is_override(argument: str) -> bool:
    return argument[:1] != "-" and ("=" in argument or argument[:1] == "~")


def _taken_as_it_stands(argument: str, sweeps: bool) -> str:
    """An override of a setting with a dot in its name; where Hydra would not read what was typed, quoted for it."""
    if not (setting := SETTING.fullmatch(argument)):
        return argument
    key, value = setting.groups()
    parsed, is_name = _parsed(argument), key.endswith(NAMES)
    if parsed is None:
        return _with_quotes(argument, key, value, sweeps) if is_name or value[:1] not in "[{\"'" else argument
    if not is_name or not value or isinstance(parsed._value, QuotedString):
        return argument
    if "${" in value:  # the value of another setting, unless a file has this name, or each of several files its own
        names = [value] if _is_there(value) or not sweeps else value.split(",")
        return f"{key}={','.join(map(quoted, names))}" if all(map(_is_there, names)) else argument
    if parsed.is_sweep_override():
        return f"{key}={quoted(value)}" if _is_there(value) else argument
    return argument if parsed.value() == value else f"{key}={quoted(value)}"


def _with_quotes(argument: str, key: str, value: str, sweeps: bool) -> str:
    """In a sweep, commas part values, unless the whole is a file that is there."""
    parts = value.split(",") if sweeps and not _is_there(value) else [value]
    whole = f"{key}={','.join(quoted(part) for part in parts)}"
    return whole if _parsed(whole) else argument


def _is_there(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def _quoted_value(value: str) -> str:
    """A value with its texts quoted; a list stays one."""
    if len(value) > 1 and value[0] == "[" and value[-1] == "]":
        return f"[{','.join(quoted(item.strip()) for item in value[1:-1].split(','))}]"
    return quoted(value)


def _parsed(argument: str) -> Override | None:
    """None where Hydra's grammar does not take it."""
    try:
        return OverridesParser.create().parse_override(argument)
    except (HydraException, RecursionError, ValueError):
        return None


def _check_own(override: Override) -> None:
    for part in OWN:
        if override.key_or_group == part or override.key_or_group.startswith(f"{part}."):
            raise UserError(f"{override.input_line}: {part} belongs to the suite, and cannot be changed.")


def _check_choice(override: Override) -> None:
    """A group of options takes the name of one; Hydra would merge a dict into the option that is chosen by default."""
    key = override.key_or_group
    options = _options(key)
    if override.is_delete() or not (options or key in SINGLE):
        return
    for value in _values(override):
        match value:
            case str() if options and not ("/" in value or value.endswith(".yaml")):
                continue
            case dict() if value and not options:
                continue  # training={epochs:5} is another way to say training.epochs=5
            case list() if options and all(isinstance(each, str) for each in value):
                ways = f"A sweep over several is {key}={','.join(value)}, with -m as the first argument."
            case _ if options:
                ways = suggestion(Path(str(value)).stem, options)
            case _:
                ways = f"Give its settings one by one, as in {key}.NAME=VALUE. See python -m experiments.run --help."
        raise UserError(
            f"{override.input_line}: {'the name of an option' if options else 'a setting'} is needed. {ways}"
        )


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in CONF.glob(f"{group}/*.yaml")) if re.fullmatch(r"\w+", group) else []


def _values(override: Override) -> Iterator[object]:
    """The value, or each that is swept over."""
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
            raise UserError(f"{override.input_line}: an interval has no values to run. Give a range, or a list.")
        case _:
            return sum(1 for _ in override.sweep_string_iterator())


def _steps(override: Override, start: float | None, stop: float | None, step: float | None) -> int:
    """The length of a range, as Hydra counts it: in decimals."""
    try:
        begin, end, by = (Decimal(str(each)) for each in (start, stop, 1 if step is None else step))
        return max(0, ceil((end - begin) / by))
    except (InvalidOperation, ZeroDivisionError, OverflowError, ValueError) as error:
        raise UserError(
            f"{override.input_line}: this range has no end. Give range(START,STOP) or range(START,STOP,STEP) with "
            "finite numbers and a step other than 0."
        ) from error
