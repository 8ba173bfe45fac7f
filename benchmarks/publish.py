"""Publish a finished sweep: `python -m benchmarks.publish NAME`, in the folder where the sweep was run.

Writes benchmarks/results/NAME/ (comparison.csv, comparison.md, stamp.json) from the store, and puts the table into the
README between its marks. So no figure there is typed by hand, and a test sees that the two agree.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

from experiments.compare import COLUMNS, NOTE, WRITERS, for_people, load
from experiments.errors import UserError
from experiments.tracking import Tracking

HERE = Path(__file__).parent
README = HERE.parent / "README.md"


def publish(name: str, uri: str, sweep: str) -> None:
    """Write the results of a sweep and renew the README's table."""
    table = load(uri, sweep=sweep)
    failed = table[table["status"] != "FINISHED"]
    if not failed.empty:
        raise UserError(f"Only finished runs are published; these are not: {', '.join(failed['run_id'])}.")
    store = Tracking(uri=uri).connect(create=False)
    stamps = [store.stamp(run_id) for run_id in table["run_id"]]
    if any(stamp != stamps[0] for stamp in stamps):
        raise UserError(
            "The runs were made on different machines, versions or commits; only like is published with like."
        )
    folder = HERE / "results" / name
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS["csv"](table, folder / "comparison.csv")
    WRITERS["markdown"](table, folder / "comparison.md")
    (folder / "stamp.json").write_text(json.dumps(stamps[0], indent=2) + "\n")
    README.write_text(with_table(README.read_text(), name))


def with_table(readme: str, name: str) -> str:
    """The README's text with the published table of this name between its marks."""
    opening, closing = f"<!-- table {name} -->\n", f"<!-- end of table {name} -->"
    before, _, rest = readme.partition(opening)
    _, found, after = rest.partition(closing)
    if not found:
        raise UserError(
            f"README.md has no place for a table {name}: it needs the lines {opening.strip()} and {closing}."
        )
    return f"{before}{opening}{published(name)}{closing}{after}"


def published(name: str) -> str:
    """The published table as Markdown, made from its CSV alone."""
    if name == "exactness":
        return exactness_table(pd.read_csv(HERE / "results" / name / "exactness.csv"))
    table = pd.read_csv(HERE / "results" / name / "comparison.csv")
    table = table.reindex(
        columns=list(dict.fromkeys([*COLUMNS, *table.columns]))
    )  # one of an earlier version has fewer
    return f"{for_people(table).to_markdown(index=False, disable_numparse=True)}\n\n{NOTE}\n"


def exactness_table(table: pd.DataFrame) -> str:
    """What benchmarks.exactness found, for people."""
    shown = table.rename(columns=lambda name: name.replace("_", " ")).astype({"chosen": "string"})
    for name in ("bytes usual way", "bytes here"):
        shown[name] = [f"{size:,}" for size in shown[name]]
    return f"{shown.to_markdown(index=False, disable_numparse=True)}\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="folder in benchmarks/results, and mark in the README")
    parser.add_argument("--uri", default=Tracking.uri, help="MLflow tracking address (default: %(default)s)")
    parser.add_argument("--sweep", default="latest", help="latest, or the id of a sweep's parent run (default: latest)")
    options = parser.parse_args()
    try:
        publish(options.name, options.uri, options.sweep)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
