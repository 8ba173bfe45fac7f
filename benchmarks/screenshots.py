"""Pictures of a published sweep's pages: `python -m benchmarks.screenshots NAME`, in the folder where it was run.

Starts `mlflow ui` on the store there, opens the page of the newest sweep in Chromium, then the published report, and
writes mlflow.png, mlflow_runs.png, report.png and answer.png in benchmarks/results/NAME/. With `--report-only` no store
is needed, and the pictures of MLflow's pages stay as they are.
"""

import argparse
from pathlib import Path

from benchmarks.harness.mlflow_pages import browsed, opened, served
from benchmarks.harness.pages import RESULTS
from benchmarks.publish import SCREENSHOTS
from experiments.system.errors import UserError, reporting_user_errors
from experiments.tracking import Store, Tracking, open_existing


def photograph(store: Store, path: Path) -> None:
    """Return the page of the newest sweep with its whole table, as a PNG."""
    with served(store.client.tracking_uri) as address, opened(address, store.experiment_id) as pages:
        page = pages.run(_newest_sweep(store))
        page.get_by_text("Show more").first.click()
        page.get_by_text("Child runs", exact=True).wait_for()
        page.get_by_text("Child runs loading").wait_for(state="hidden")
        page.wait_for_timeout(1000)  # milliseconds, for what is still being drawn
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path)


def photograph_runs(store: Store, path: Path) -> None:
    """Return the view of the runs of the newest sweep, as a PNG."""
    view = store.save_view(_newest_sweep(store)).partition("#")[2]
    with served(store.client.tracking_uri) as address, opened(address, store.experiment_id) as pages:
        pages.page.set_viewport_size({"width": 1440, "height": 640})
        pages.view(view)
        pages.page.wait_for_timeout(1000)  # milliseconds, for what is still being drawn
        pages.page.screenshot(path=path)


def _newest_sweep(store: Store) -> str:
    sweeps = store.find("tags.kind = 'sweep'", limit=1)
    if not sweeps:
        raise UserError(f"--uri {store.address.uri}: no sweep in it.")
    return str(sweeps[0].info.run_id)


def photograph_report(report: Path, path: Path) -> None:
    """Return the beginning of a report, as a PNG."""
    if not report.exists():
        raise UserError(f"{report}: there is none. Publish the sweep first: python -m benchmarks.publish NAME")
    with browsed() as page:
        page.goto(report.as_uri())
        page.screenshot(path=path)


# Styles that leave only the answer and the first picture of a report: accuracy against size.
ANSWER_ONLY = """
nav, .how, #table, #table ~ *:not(#accuracy_size), main > p.soft { display: none }
main { padding: 1rem }
#answer { margin-top: 1rem }
figure#accuracy_size { margin: 1rem auto; width: fit-content }
"""


def photograph_answer(report: Path, path: Path) -> None:
    """Return a report's recommendation and its picture of accuracy against size, as a PNG."""
    with browsed() as page:
        page.goto(report.as_uri())
        page.add_style_tag(content=ANSWER_ONLY)
        page.locator("main").screenshot(path=path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshots", description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="folder in benchmarks/results")
    parser.add_argument("--uri", default=Tracking.uri, help="MLflow tracking address (default: %(default)s)")
    parser.add_argument("--report-only", action="store_true", help="leave out MLflow's page, which needs the store")
    options = parser.parse_args()
    with reporting_user_errors():
        folder = RESULTS / options.name
        of_mlflow, of_runs, of_report, of_answer = (folder / name for name in SCREENSHOTS)
        if not options.report_only:
            photograph(open_existing(options.uri), of_mlflow)
            photograph_runs(open_existing(options.uri), of_runs)
        photograph_report(folder / "report.html", of_report)
        photograph_answer(folder / "report.html", of_answer)


if __name__ == "__main__":
    main()
