"""A store of runs after something happened to it: `python -m experiments.store check|relocate [--uri U] [--dry-run]`.

check says what is wrong: a damaged database, finished runs whose files are missing, runs that say RUNNING and are not,
models that were never finished, folders that belong to nothing, addresses that lead elsewhere. It changes nothing but
what SQLite itself completes or undoes after a kill.

relocate mends the addresses of a project folder that was renamed, moved or copied, in one transaction, for MLflow's
own pages; the commands of this suite find the files without that. --dry-run only shows what it would mend.

Both are for SQLite files. Exit codes: 0 well; 1 check found something; 2 the command is wrong, or the store cannot be
used; 130 stopped.
"""

from experiments.system.startup import stop_without_traceback

if __name__ == "__main__":
    stop_without_traceback()  # what follows takes seconds

import argparse
import sys
from collections import Counter
from pathlib import Path

from pydantic import ValidationError

from experiments.system.errors import UserError, reporting_user_errors
from experiments.system.options import problems
from experiments.system.program import program
from experiments.system.progress import say
from experiments.tracking import Tracking
from experiments.tracking.checking import check
from experiments.tracking.relocation import moved, relocate

SHOWN = 20  # of each kind


def main() -> None:
    """The command line."""
    options = parser().parse_args()
    with reporting_user_errors():
        if options.dry_run and options.verb != "relocate":
            raise UserError("--dry-run: has an effect with relocate only; check changes nothing.")
        database = _database(options.uri)
        if options.verb == "check":
            sys.exit(1 if _show_findings(database) else 0)
        _relocate(database, options.dry_run)


def parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = argparse.ArgumentParser(
        prog=program("store"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("check", "relocate"))
    parser.add_argument("--uri", default=Tracking.uri, help="MLflow tracking address (default: %(default)s)")
    parser.add_argument(
        "--dry-run", action="store_true", help="relocate: show what would be mended, and change nothing"
    )
    return parser


def _database(uri: str) -> Path:
    """The file of a store.

    Raises:
        UserError: it is none, or is not there.
    """
    try:
        tracking = Tracking(uri=uri)
    except ValidationError as error:
        raise UserError(problems("tracking", error)) from error
    if tracking.database is None:
        raise UserError(
            f"--uri {tracking.shown}: only SQLite files are checked and mended here. Give sqlite:///PATH/mlflow.db; "
            "the addresses of other databases are those of their server."
        )
    if not tracking.database.is_file():
        raise UserError(
            f"--uri {uri}: there is no file {tracking.database}. Give the folder's database with --uri "
            "sqlite:///PATH/mlflow.db."
        )
    return tracking.database


def _show_findings(database: Path) -> bool:
    """Whether anything was found; it is printed."""
    findings = check(database)
    for finding in findings:
        say(f"{len(finding.which)}: {finding.what}. {finding.remedy}")
        for each in finding.which[:SHOWN]:
            say(f"  {each}")
        if len(finding.which) > SHOWN:
            say(f"  and {len(finding.which) - SHOWN} more")
    if not findings:
        say(f"{database}: nothing is wrong.")
    return bool(findings)


def _relocate(database: Path, dry_run: bool) -> None:
    found = moved(database) if dry_run else relocate(database)
    for each in found[:SHOWN]:
        say(f"{each.table}.{each.column}: {each.recorded} -> {each.current}")
    if len(found) > SHOWN:
        say(f"and {len(found) - SHOWN} more")
    if not found:
        say(f"{database}: every address leads to its files, as far as these are there.")
        return
    counts = Counter(f"{each.table}.{each.column}" for each in found)
    listed = ", ".join(f"{count} in {place}" for place, count in counts.items())
    say(f"{'would be mended' if dry_run else 'mended'}: {listed}")


if __name__ == "__main__":
    main()
