"""Check or relocate a store, or close lost runs: `python -m experiments.store check|relocate|close`.

check reports problems: a damaged database, finished runs with missing files,
runs marked RUNNING that are not, incomplete models, orphaned folders, and
artifact addresses outside the project. It changes nothing, except that SQLite
itself completes or rolls back a transaction after a kill.

relocate updates the artifact addresses of a project folder that was renamed,
moved or copied, in one transaction. Only MLflow's own pages need this; the
commands of this suite find the files without it. --dry-run shows the changes
without making them.

close RUN... marks runs as KILLED that are marked RUNNING although they have
ended: on a lost machine, or in a container that is gone, which other machines
cannot detect. With the id of a sweep, its runs are closed too. If the process of
a run is still running here, the command refuses to close it.

A store has no export: mlflow.db and the folder mlruns/ beside it are all of it.
Move, copy or pack both together.

check and relocate require an SQLite store. Exit codes: 0 success; 1 check found problems;
2 invalid command or unusable store; 130 interrupted.
"""

from experiments.system.startup import stop_without_traceback

if __name__ == "__main__":
    stop_without_traceback()  # the imports below take seconds

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from experiments.system.errors import UserError, reporting_user_errors
from experiments.system.options import describe_errors
from experiments.system.program import program
from experiments.system.progress import say
from experiments.system.result import HELP, JSON, CommandParser, result
from experiments.tracking import Tracking, open_existing
from experiments.tracking.checking import check
from experiments.tracking.relocation import find_moved, relocate

SHOWN = 20  # of each kind


def main() -> None:
    """Run the command line."""
    options = parser().parse_args()
    with reporting_user_errors(), result("store", options.json) as document:
        if options.dry_run and options.verb != "relocate":
            raise UserError(f"--dry-run: has no effect with {options.verb}. Omit it.")
        if bool(options.run) != (options.verb == "close"):
            raise UserError(
                f"{options.verb}: {'requires the id of a run or sweep' if not options.run else 'takes no run'}."
            )
        if options.verb == "close":
            document["closed"] = closed = open_existing(options.uri, options.experiment).close_lost(options.run)
            say(f"marked as KILLED: {', '.join(closed)}")
            return
        database = _database(options.uri)
        if options.verb == "check":
            sys.exit(1 if _show_findings(database, document) else 0)
        _relocate(database, options.dry_run, document)


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = CommandParser(
        prog=program("store"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "verb",
        choices=("check", "relocate", "close"),
        help="report problems, update recorded paths, or close runs that have ended",
    )
    parser.add_argument("run", nargs="*", metavar="RUN", help="close: ids of runs or sweeps, or prefixes of them")
    parser.add_argument("--uri", default=Tracking.uri, help="MLflow tracking address (default: %(default)s)")
    parser.add_argument(
        "--experiment", default=Tracking.experiment, help="close: MLflow experiment (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="relocate: show the changes without making them")
    parser.add_argument(JSON, action="store_true", help=HELP)
    return parser


def _database(uri: str) -> Path:
    """Return the database file of a store.

    Raises:
        UserError: the store is not an SQLite file, or does not exist.
    """
    try:
        tracking = Tracking(uri=uri)
    except ValidationError as error:
        raise UserError(describe_errors("tracking", error)) from error
    if tracking.database is None:
        raise UserError(
            f"--uri {tracking.shown}: requires an SQLite file. Give sqlite:///PATH/mlflow.db; the server manages the "
            "addresses of other databases."
        )
    if not tracking.database.is_file():
        raise UserError(
            f"--uri {uri}: no file {tracking.database}. Give an existing database: --uri sqlite:///PATH/mlflow.db."
        )
    return tracking.database


def _show_findings(database: Path, document: dict[str, Any]) -> bool:
    """Print the findings; returns whether there are any."""
    findings = check(database)
    document["findings"] = findings
    for finding in findings:
        say(f"{len(finding.which)}: {finding.what}. {finding.remedy}")
        for each in finding.which[:SHOWN]:
            say(f"  {each}")
        if len(finding.which) > SHOWN:
            say(f"  and {len(finding.which) - SHOWN} more")
    if not findings:
        say(f"{database}: no problems found.")
    return bool(findings)


def _relocate(database: Path, dry_run: bool, document: dict[str, Any]) -> None:
    moved = find_moved(database) if dry_run else relocate(database)
    document |= {"addresses": moved, "dry_run": dry_run}
    for each in moved[:SHOWN]:
        say(f"{each.table}.{each.column}: {each.recorded} -> {each.current}")
    if len(moved) > SHOWN:
        say(f"and {len(moved) - SHOWN} more")
    if not moved:
        say(f"{database}: no address has to be updated. Addresses whose files do not exist are not checked.")
        return
    counts = Counter(f"{each.table}.{each.column}" for each in moved)
    listed = ", ".join(f"{count} in {place}" for place, count in counts.items())
    say(f"{'would be updated' if dry_run else 'updated'}: {listed}")


if __name__ == "__main__":
    main()
