"""The README's picture of a sweep in MLflow: `python -m benchmarks.screenshots NAME`, in the folder where it was run.

Starts `mlflow ui` on the store there, opens the page of the newest sweep in Chromium, and writes
benchmarks/results/NAME/mlflow.png.
"""

import argparse
from pathlib import Path

from benchmarks.mlflow_pages import opened, served
from benchmarks.publish import HERE
from experiments.errors import UserError, mistakes_told
from experiments.tracking import Store, Tracking


def photograph(store: Store, path: Path) -> None:
    """The page of the newest sweep, with its whole table, as a PNG."""
    sweeps = store.find("tags.kind = 'sweep'", limit=1)
    if not sweeps:
        raise UserError(f"--uri {store.address.uri}: no sweep in it.")
    with served(store.client.tracking_uri) as address, opened(address, store.experiment_id) as pages:
        page = pages.run(sweeps[0].info.run_id)
        page.get_by_text("Show more").first.click()
        page.get_by_text("Child runs", exact=True).wait_for()
        page.get_by_text("Child runs loading").wait_for(state="hidden")
        page.wait_for_timeout(1000)  # milliseconds, for what is still being drawn
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshots", description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="folder in benchmarks/results")
    parser.add_argument("--uri", default=Tracking.uri, help="MLflow tracking address (default: %(default)s)")
    options = parser.parse_args()
    with mistakes_told():
        store = Tracking(uri=options.uri).connect(create=False)
        photograph(store, HERE / "results" / options.name / "mlflow.png")


if __name__ == "__main__":
    main()
