"""The pages of docs/reference/, written from the code they describe: `python -m benchmarks.reference`.

columns.md is the schema of columns, commands.md the parsers of the commands and the options in conf/, benchmarks.md the
registry of benchmarks, python.md the API of experiments.bench, comparison.schema.json the form of JSON files, and
results.schema.json that of results with --json. A test holds that the committed pages are what this writes.
"""

import argparse
import ast
import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.registry import BENCHMARKS
from experiments import bench, cache, compare, completion, latency, run, sensitivity, store
from experiments.comparison.files import json_schema
from experiments.runs.menu import GROUPS, first_comment, settings_text
from experiments.system.options import CONF
from experiments.system.progress import say
from experiments.system.result import RESULT_VERSION
from experiments.tracking.schema import SCHEMA, Column

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
GENERATED = "<!-- Written by `python -m benchmarks.reference`; edits here are lost. -->"
PARSERS = {
    "compare": compare.parser, "latency": latency.parser, "cache": cache.parser, "store": store.parser,
    "completion": completion.parser,
}  # fmt: skip
SOURCES = {
    "setting": "Settings",
    "metric": "Measurements (MLflow metrics)",
    "verdict": "Findings (MLflow tags)",
    "tag": "Provenance (MLflow tags)",
    "run": "Run",
    "derived": "Derived columns",
    "comparison": "With `--baseline`: comparison with the runs of one strategy",
    "group": "In rows that combine several runs",
}


def columns() -> str:
    """Return the page of all columns."""
    parts = [
        GENERATED,
        "# Columns",
        "`python -m experiments.compare --csv FILE` writes these columns; metrics and tags have the same names in "
        "MLflow. For a column with an interval, `NAME_low` and `NAME_high` are the ends of the 95 % interval; for one "
        "with a p-value, `NAME_p` is that of McNemar's exact test for accuracies, and of the paired bootstrap for "
        "other scores. Settings that differ between runs, such as `strategy.layers`, have their own columns. For the "
        "meaning and the limits of the numbers, see [numbers](../explanation/numbers.md).",
    ]
    for source, title in SOURCES.items():
        rows = [_row_of(each) for each in SCHEMA.values() if each.source == source and not each.of]
        parts += [f"## {title}", _table(("column", "heading", "kind", "unit", "better", "meaning"), rows)]
    return _page(parts)


def _row_of(column: Column) -> list[str]:
    further = [text for text, holds in (("interval", column.interval), ("p-value", column.p_value)) if holds]
    kind = ", ".join([column.kind, *further])
    heading = column.heading.format("STRATEGY")
    return [f"`{column.name}`", heading, kind, column.unit, column.better, column.doc]


def commands() -> str:
    """Return the page of all commands."""
    parts = [
        GENERATED,
        "# Commands",
        "Type `python -m experiments.NAME` or, if the package is installed, `tqb NAME`.",
        "## run",
        _text(run.__doc__),
        "Settings are typed as `KEY=VALUE`; with `-m`, `KEY=V1,V2` starts a sweep over every combination.",
    ]
    for group, meaning in GROUPS.items():
        prefix = "+" if group == "suite" else ""
        files = sorted((CONF / group).glob("*.yaml"))
        options = [[f"`{prefix}{group}={path.stem}`", first_comment(path)] for path in files]
        parts += [f"### {prefix}{group}: {meaning}", _table(("option", "description"), options)]
    parts += ["### Settings and their defaults", f"```yaml\n{settings_text()}\n```"]
    for name, parser in PARSERS.items():
        parts += [f"## {name}", *_of_parser(name, parser)]
    own = [[f"`{each.name}`", f"`{each.default}`"] for each in dataclasses.fields(sensitivity.Options)]
    parts += ["## sensitivity", _text(sensitivity.__doc__), _table(("setting", "default"), own)]
    return _page(parts)


def _of_parser(name: str, make: Callable[[], argparse.ArgumentParser]) -> list[str]:
    parser = make()
    rows = []
    for action in parser._actions:  # argparse has no public list of them
        if action.dest == "help":
            continue
        spelled = ", ".join(f"`{each}`" for each in action.option_strings) or f"`{_metavar(action)}`"
        if action.option_strings and action.nargs != 0:
            spelled += f" `{_metavar(action)}`"
        meaning = (action.help or "") % {**vars(action), "prog": f"python -m experiments.{name}"}
        rows.append([spelled, meaning])
    return [_text(parser.description), _table(("argument", "meaning"), rows)]


def _metavar(action: argparse.Action) -> str:
    if action.choices is not None and action.metavar is None:
        return "|".join(map(str, action.choices))
    shown = action.metavar or action.dest.upper()
    return " ".join(shown) if isinstance(shown, tuple) else shown


def benchmarks() -> str:
    """Return the page of all benchmarks."""
    rows = [
        [f"`{each.name}`", each.title, each.duration, "yes" if each.published else ""] for each in BENCHMARKS.values()
    ]
    return _page([
        GENERATED,
        "# Benchmarks",
        "`python -m benchmarks NAME` repeats a benchmark, updates its table in the docs, and shows the committed table "
        "for comparison. Durations are approximate, on two cores; an archived one requires the code of its commit.",
        _table(("name", "question", "duration", "published"), rows),
    ])  # fmt: skip


def python() -> str:
    """Return the page of the Python API, from its signatures and docstrings."""
    parts = [GENERATED, "# Python", _text(bench.__doc__)]
    for name in ("run", "load", "Result", "Best", "RunFailedError"):
        each = getattr(bench, name)
        if not inspect.isclass(each):
            parts += [f"## bench.{name}", *_of_function(each, f"bench.{name}")]
            continue
        parts += [f"## bench.{name}", _text(each.__doc__)]
        for attribute, member in vars(each).items():
            if isinstance(member, property):
                parts += [f"### {name}.{attribute}", _text(member.__doc__)]
            elif inspect.isfunction(member) and not attribute.startswith("_"):
                parts += [f"### {name}.{attribute}", *_of_function(member, f"{name}.{attribute}")]
    return _page(parts)


def _of_function(function: Callable[..., object], name: str) -> list[str]:
    """Return the signature of a function, and its docstring with its lists as those of Markdown."""
    lines = []
    for line in _text(function.__doc__).splitlines():
        match line.strip():
            case "Args:" | "Raises:":
                lines.append(f"**{line.strip().removesuffix(':')}**\n")
            case _ if item := re.match(r"    (\w+): (.*)", line):
                lines.append(f"- `{item[1]}`: {item[2]}")
            case _:
                lines.append(f"  {line.strip()}" if line.startswith("  ") else line)
    return [f"```python\n{name}{_signature(function)}\n```", "\n".join(lines)]


def _signature(function: Callable[..., object]) -> str:
    """Return the signature of a function as its source has it, without self."""
    (found,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(found, ast.FunctionDef)
    given = found.args
    given.args = [each for each in given.args if each.arg != "self"]
    for each in [*given.args, *given.kwonlyargs]:
        if isinstance(each.annotation, ast.Constant):  # in quotes, since its type is imported for checks only
            each.annotation = ast.parse(str(each.annotation.value), mode="eval").body
    assert found.returns is not None
    returned = ast.unparse(found.returns).strip("'")
    return f"({ast.unparse(given)}) -> {returned}"


def form_of_json() -> str:
    """Return the JSON Schema of what `compare --json FILE` writes."""
    return json.dumps(json_schema(), indent=2) + "\n"


TEXT, NUMBER, COUNT = {"type": "string"}, {"type": "number"}, {"type": "integer"}
RUN_ID = {"type": ["string", "null"], "description": "MLflow's id of a run."}
MEASURED = {"$ref": "#/$defs/measured"}


def _list(**properties: Any) -> dict[str, Any]:
    """Return the schema of a list of objects with these keys."""
    return {"type": "array", "items": _object(**properties)}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


ROWS = {"type": "array", "items": {"$ref": "#/$defs/row"}, "description": "One object per run, as in --json FILE."}
LINES = {"type": "array", "items": TEXT}
CELLS = {"type": "array", "items": {"type": "object"}}
RESULTS: Mapping[str, tuple[dict[str, Any], ...]] = {  # of each command, the keys of its possible results
    "run": (
        {
            "sweep": TEXT, "rows": ROWS, "answer": LINES, "failed": _list(run_id=TEXT, error=TEXT),
            "not_recorded": LINES, "unverified": _list(run_id=TEXT, error=TEXT),
            "mlflow": _object(ui=TEXT, page=TEXT, view=TEXT),
        },
        {"rows": ROWS, "mlflow": _object(ui=TEXT, page=TEXT)},
        {"plan": _object(
            summary=TEXT, seconds={"type": ["number", "null"]},
            runs=_list(
                name=TEXT, reused={"type": ["string", "null"]}, epochs_to_train=COUNT, epochs_shared=COUNT,
                epochs_cached=COUNT, may_stop_early={"type": "boolean"}, settings={"type": "object"},
            ),
        )},
    ),
    "compare": (
        {
            "rows": ROWS, "answer": LINES, "shipped_run_id": RUN_ID, "regressions": LINES, "remarks": LINES,
            "saved": LINES,
        },
        {"pairs": CELLS},
        {"matrix": CELLS},
    ),
    "latency": ({"files": CELLS, "pairs": CELLS, "invalid": TEXT},),
    "sensitivity": (
        {
            "layers": _list(layer=TEXT, only_this_in_int8=MEASURED, only_this_in_float=MEASURED),
            "metric": TEXT, "metric_better": TEXT, "all_in_float": MEASURED, "all_in_int8": MEASURED,
            "proposal": MEASURED,
            "untrainable": {"type": "object", "additionalProperties": TEXT},
        },
    ),
    "cache": (
        {"entries": _list(kind=TEXT, what=TEXT, files=COUNT, bytes=COUNT, used=NUMBER), "bytes": COUNT},
        {"intact": COUNT, "damaged": _list(path=TEXT, damage=TEXT, removed={"type": "boolean"})},
        {"removed": COUNT, "bytes": COUNT, "in_use": LINES},
    ),
    "store": (
        {"findings": _list(what=TEXT, which=LINES, remedy=TEXT)},
        {"addresses": _list(table=TEXT, column=TEXT, recorded=TEXT, current=TEXT), "dry_run": {"type": "boolean"}},
        {"closed": LINES},
    ),
}  # fmt: skip


def form_of_results() -> str:
    """Return the JSON Schema of what each command writes with --json."""
    return json.dumps(results_schema(), indent=2) + "\n"


def results_schema() -> dict[str, Any]:
    """Return the JSON Schema of the results of all commands."""
    row = json_schema()["properties"]["rows"]["items"]
    forms = [_result(command, keys) for command, kinds in RESULTS.items() for keys in kinds]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The result of a command, as `--json` writes it on standard output",
        "oneOf": [*forms, {"$ref": "#/$defs/failed"}],
        "$defs": {
            "row": row,
            "measured": _object(
                chosen=LINES, bytes=COUNT, score=NUMBER, change=_object(value=NUMBER, low=NUMBER, high=NUMBER),
                lost=NUMBER, rms_logit_error=NUMBER,
            ),
            "failed": {
                "type": "object",
                "properties": {**_envelope({"enum": list(RESULTS)}), "error": _object(message=TEXT)},
                "required": [*_envelope({}), "error"],
            },
        },
    }  # fmt: skip


def _envelope(command: dict[str, Any]) -> dict[str, Any]:
    return {"schema_version": {"const": RESULT_VERSION}, "command": command, "exit_code": COUNT}


def _result(command: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    return _object(**_envelope({"const": command}), **keys)


PAGES: Mapping[str, Callable[[], str]] = {
    "columns.md": columns, "commands.md": commands, "benchmarks.md": benchmarks, "python.md": python,
    "comparison.schema.json": form_of_json,
    "results.schema.json": form_of_results,
}  # fmt: skip


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _text(doc: str | None) -> str:
    return inspect.cleandoc(doc or "")


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [[*headings], ["---" for _ in headings], *rows]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def main() -> None:
    """Run the command line."""
    argparse.ArgumentParser(prog="python -m benchmarks.reference", description=__doc__).parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
        say(f"wrote {FOLDER / name}")


if __name__ == "__main__":
    main()
