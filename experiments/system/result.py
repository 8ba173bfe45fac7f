"""Results for programs: with `--json`, a command writes one JSON document on standard output.

Everything else goes to standard error. The document has `schema_version`, `command` and `exit_code`. A command that
ends with an error has `error` with the message, and perhaps a part of the result. The form of all documents is
docs/reference/results.schema.json.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, is_dataclass
from math import isfinite
from typing import Any, NoReturn, TextIO

from experiments.system.errors import Ended, UserError
from experiments.system.progress import end_bars, use_standard_error

RESULT_VERSION = 1  # higher if a key is renamed, removed, or means something else
JSON = "--json"
HELP = "write the result as one JSON document on standard output, and everything else on standard error"
INVALID, INTERRUPTED = 2, 130  # exit codes


class CommandParser(argparse.ArgumentParser):
    """A parser that reports invalid arguments as JSON as well, if they contain --json."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        if JSON in sys.argv[1:]:
            command = self.prog.split()[-1].rpartition(".")[2]
            sys.stdout.write(_text(command, {"error": {"message": message}}, INVALID))
            sys.stdout.flush()
        super().error(message)


@contextmanager
def result(command: str, wanted: bool) -> Iterator[dict[str, Any]]:
    """Yield the result for the command to fill; if it is wanted, write it on standard output at the end.

    Everything that the command and its processes print meanwhile goes to standard error.
    """
    document: dict[str, Any] = {}
    if not wanted:
        yield document
        return
    output = _standard_output()
    use_standard_error()
    code = 0
    try:
        yield document
    except UserError as error:
        document["error"], code = {"message": str(error)}, INVALID
        raise
    except KeyboardInterrupt:
        document["error"], code = {"message": "interrupted"}, INTERRUPTED
        raise
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended, Ended):
            document["error"] = {"message": ended.message}
        raise
    except Exception as error:
        document["error"], code = {"message": f"{type(error).__name__}: {error}"}, 1
        raise
    finally:
        end_bars()
        with output as stream:
            stream.write(_text(command, document, code))
            stream.flush()


def _standard_output() -> AbstractContextManager[TextIO]:
    """Return a stream to the standard output, whose descriptor becomes that of standard error."""
    try:
        output, errors = sys.stdout.fileno(), sys.stderr.fileno()
    except (OSError, ValueError):  # replaced by a stream without a descriptor
        return nullcontext(sys.stdout)
    sys.stdout.flush()
    copy = os.fdopen(os.dup(output), "w", encoding="utf-8")
    os.dup2(errors, output)
    return copy


def _text(command: str, document: Mapping[str, Any], code: int) -> str:
    whole = {"schema_version": RESULT_VERSION, "command": command, "exit_code": code, **document}
    return f"{json.dumps(to_json_value(whole), indent=2, ensure_ascii=False, allow_nan=False)}\n"


def _text_or_null(value: Any) -> str | None:
    return None if isinstance(value, float) else str(value)


def to_json_value(value: Any) -> Any:
    """Return a value as JSON has it: null for numbers that are not finite, text for paths and unknown types."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    elif hasattr(value, "item"):  # a number of NumPy
        value = value.item()
    match value:
        case Mapping():
            return {str(name): to_json_value(each) for name, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [to_json_value(each) for each in value]
        case None | bool() | int() | str():
            return value
        case _:
            return value if isinstance(value, float) and isfinite(value) else _text_or_null(value)
