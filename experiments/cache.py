"""The cache of training states, conversions, evaluations and decoded data.

`python -m experiments.cache [list|verify|clear] [--dir cache]`

Exit codes: 0 success; 1 damaged entries were found; 2 invalid command; 130 interrupted.
"""

from experiments.system.startup import stop_without_traceback

if __name__ == "__main__":
    stop_without_traceback()  # the imports below take seconds

import argparse
import math
import sys
import time
from collections import defaultdict
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from experiments.system.cache import DATA, DAY, LOCK, NAMED, RESULTS, TRAINING, Cache, Entry, entries_in, size
from experiments.system.errors import UserError, reporting_user_errors
from experiments.system.files import argument_path
from experiments.system.locks import file_lock_if_free
from experiments.system.program import program
from experiments.system.progress import CONSOLE, bar, say
from experiments.system.result import HELP, JSON, CommandParser, result


def show(folder: Path, document: dict[str, Any]) -> None:
    """Print the entries of the cache, most recently used first."""
    groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries_in(folder):
        place = entry.path.parent.name if entry.kind == TRAINING else entry.path.name
        groups[entry.kind, place].append(entry)
    document["entries"] = []
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading, justify in (("kind", "left"), ("what", "left"), ("epochs", "right"), ("size", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("used", no_wrap=True)
    for (kind, _), entries in sorted(groups.items(), key=lambda group: -max(entry.used for entry in group[1])):
        epochs = str(len(entries)) if kind == TRAINING else ""
        latest, total = max(entry.used for entry in entries), sum(entry.bytes for entry in entries)
        used = datetime.fromtimestamp(latest).strftime("%Y-%m-%d %H:%M")
        table.add_row(kind, entries[-1].about, epochs, size(total), used)
        document["entries"].append(
            {
                "kind": kind,
                "what": entries[-1].about,
                "files": sum(entry.files for entry in entries),
                "bytes": total,
                "used": latest,
            }
        )
    CONSOLE.print(table)
    document["bytes"] = sum(entry.bytes for group in groups.values() for entry in group)
    say(f"{folder}: {size(document['bytes'])}")


def verify(folder: Path, remove: bool, document: dict[str, Any]) -> bool:
    """Read every entry and report damaged ones; remove them if `remove`. Returns whether no damaged entry is left."""
    entries = entries_in(folder)
    with bar("Reading", total=len(entries)) as advance:
        damaged: list[tuple[Entry, str]] = []
        for entry in entries:
            if damage := entry.damage:
                damaged.append((entry, damage))
            advance(1)
    for entry, damage in damaged:
        if remove:
            entry.remove()
        say(f"damaged{', removed' if remove else ''}: {entry.path} {damage}")
    document |= {
        "intact": len(entries) - len(damaged),
        "damaged": [{"path": entry.path, "damage": damage, "removed": remove} for entry, damage in damaged],
    }
    say(f"{len(entries) - len(damaged)} of {len(entries)} entries are intact.")
    return remove or not damaged


def clear(folder: Path, kind: str, days: float, document: dict[str, Any]) -> None:
    """Remove the entries of a kind that were unused for this many days, and partial files of killed processes."""
    cut = time.time() - days * DAY
    freed: list[int] = []
    in_use: dict[Path, str] = {}
    for entry in entries_in(folder):
        if kind not in ("all", entry.kind) or entry.used > cut:
            continue
        with entry.unused() as unused:
            if unused:
                entry.remove()
                freed.append(entry.bytes)
            else:
                data = entry.kind == DATA
                in_use[entry.path if data else entry.path.parent] = "a run" if data else "a training"
    for trajectory in (folder / TRAINING).glob("*") if kind in ("all", TRAINING) else ():
        if trajectory.is_dir():
            _remove_if_empty(trajectory)
    Cache(dir=folder).remove_leftovers()
    for path, user in sorted(in_use.items()):
        say(f"kept, in use by {user}: {path}")
    document |= {"removed": len(freed), "bytes": sum(freed), "in_use": sorted(in_use)}
    say(f"Removed {len(freed)} entries, {size(sum(freed))}.")


def _remove_if_empty(trajectory: Path) -> None:
    """Remove a folder that has only names and its lock file, unless another process uses it."""
    with suppress(PermissionError), file_lock_if_free(trajectory / LOCK) as free:  # another user may own it
        left = list(trajectory.iterdir()) if free else []
        if left and all(path.name.startswith((LOCK, NAMED)) for path in left):
            for path in left:
                path.unlink(missing_ok=True)
            with suppress(OSError):  # another process has just come
                trajectory.rmdir()


USED_BY = {"remove": "verify", "kind": "clear", "unused_for": "clear"}  # options of a single verb


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 <= days < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: requires a number of days, at least 0")
    return days


def main() -> None:
    """Run the command line."""
    arguments = parser()
    options = arguments.parse_args()
    with reporting_user_errors(), result("cache", options.json) as document:
        for name, verb in USED_BY.items():
            if getattr(options, name) != arguments.get_default(name) and options.verb != verb:
                raise UserError(f"--{name.replace('_', '-')}: requires {verb}; it has no effect with {options.verb}.")
        try:
            _run(options, document)
        except OSError as error:
            raise UserError(f"--dir {options.dir}: {error}.") from error


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = CommandParser(
        prog=program("cache"),
        description="List, verify or clear the cache of training states, conversions, evaluations and decoded data. "
        "Exit codes: 0 success; 1 damaged entries were found; 2 invalid command; 130 interrupted.",
    )
    parser.add_argument(
        "verb", nargs="?", choices=("list", "verify", "clear"), default="list",
        help="list the entries (default); verify: read every entry and report damaged ones; clear: remove entries",
    )  # fmt: skip
    parser.add_argument(
        "--dir", type=argument_path, default=Path("cache"), help="the cache folder (default: %(default)s)"
    )
    parser.add_argument("--remove", action="store_true", help="verify: remove damaged entries")
    parser.add_argument(
        "--kind", choices=("all", TRAINING, RESULTS, DATA), default="all", help="clear: only these entries"
    )
    parser.add_argument(
        "--unused-for", type=_days, metavar="DAYS", default=0.0, help="clear: only entries unused for this many days"
    )
    parser.add_argument(JSON, action="store_true", help=HELP)
    return parser


def _run(options: argparse.Namespace, document: dict[str, Any]) -> None:
    if not any((options.dir / kind).is_dir() for kind in (TRAINING, RESULTS, DATA)):
        raise UserError(
            f"--dir {options.dir}: no cache in this folder. Give the value of cache.dir; its default is cache/ in the "
            "folder where experiments.run was started."
        )
    match options.verb:
        case "list":
            show(options.dir, document)
        case "verify":
            sys.exit(0 if verify(options.dir, options.remove, document) else 1)
        case "clear":
            clear(options.dir, options.kind, options.unused_for, document)


if __name__ == "__main__":
    main()
