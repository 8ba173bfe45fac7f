"""MLflow's pages as users see them: a real `mlflow ui`, opened in headless Chromium."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.harness.loopback import LOOPBACK, free_port, wait_until
from experiments.system.errors import UserError

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZE = (1280, 900)
# The state of MLflow's pages for a regular user: model training selected, and the assistant closed.
SETTLED = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
}


def chromium() -> str | None:
    """Return the path of the browser; None if none is installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def served(uri: str) -> Iterator[str]:
    """Yield the address of an `mlflow ui` on a store; the server ends with the block."""
    port = str(free_port())
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", port, "--workers", "1"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
        try:
            await_answer(f"http://{LOOPBACK}:{port}/health", process)
            yield f"http://{LOOPBACK}:{port}"
        finally:
            end(process)


def end(server: "subprocess.Popen[bytes]") -> None:
    """End a server and its workers; it must have been started in its own session."""
    with suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def await_answer(address: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait for a server that was started.

    Raises:
        UserError: it has ended.
        TimeoutError: it does not answer within two minutes.
    """
    wait_until(lambda: _answers(address) or process.poll() is not None, f"{address} answers")
    if process.poll() is not None:
        raise UserError(f"The server has ended with {process.returncode}; it was to answer at {address}.")


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Pages:
    """The pages of an experiment, in a browser."""

    page: "Page"
    address: str
    experiment_id: str

    def runs(self) -> "Page":
        """Return the table of runs."""
        return self._opened("runs")

    def view(self, address: str) -> "Page":
        """Return a view of the table of runs, whose address ends in this fragment, once it shows runs."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}/#{address}")
        self.page.locator("[role=row] [col-id*='Run Name'] a").first.wait_for(timeout=60_000)  # milliseconds
        return self.page

    def unfold(self) -> None:
        """Show the runs below the newest sweep of the table."""
        self.page.locator("[role=row] [col-id*='Run Name'] button").first.click()

    def charts(self) -> None:
        """Switch from the table to the charts of its runs."""
        self.page.locator("label:has(input[value=CHART])").click()

    def run(self, run_id: str) -> "Page":
        """Return the beginning of a run's page."""
        return self._opened(f"runs/{run_id}")

    def models(self) -> "Page":
        """Return the models of the experiment."""
        return self._opened("models")

    def artifact(self, run_id: str, path: str = "") -> "Page":
        """Return the artifacts of a run, one of them shown."""
        return self._opened(f"runs/{run_id}/artifacts/{path}".rstrip("/"))

    def _opened(self, place: str) -> "Page":
        self.page.goto("about:blank")  # otherwise, an address that differs only in its fragment would not be loaded
        self.page.goto(f"{self.address}/#/experiments/{self.experiment_id}/{place}")
        return self.page


@contextmanager
def opened(address: str, experiment_id: str) -> Iterator[Pages]:
    """A browser on MLflow's pages of an experiment."""
    # Sections that were expanded before are collapsed again.
    settled = "localStorage.clear();" + "".join(
        f"localStorage.setItem({key!r}, {value!r});" for key, value in SETTLED.items()
    )
    with browsed() as page:
        page.add_init_script(f"if (location.protocol == 'http:') {{ {settled} }}")
        yield Pages(page, address, experiment_id)


@contextmanager
def browsed() -> "Iterator[Page]":
    """An empty page of a browser.

    Raises:
        UserError: there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    program = chromium()
    if program is None:
        raise UserError("Chromium is not installed: apt-get install chromium")
    width, height = SIZE
    with sync_playwright() as playwright:
        # Chromium has no sandbox for root, and opens the pages of this machine only.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()
