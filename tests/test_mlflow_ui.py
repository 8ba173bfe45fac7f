"""MLflow's pages in a real browser, the served model and the registry, on a small sweep."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.loopback import free_port
from benchmarks.harness.mlflow_pages import Pages, await_answer, chromium, end, opened, served
from experiments.measure.accuracy import tflite_logits
from experiments.tflite.conversion import TFLiteModel
from experiments.tracking import Store, Tracking, connect
from tests.conftest import bare, run, save_images

pytestmark = pytest.mark.endtoend

# The names of files carry a digest of what they hold.
RUNS = tuple(re.compile(rf"^{strategy} mlp images \(\w+\) epochs=1 seed=0$") for strategy in ("none", "ptq_int8"))
# Artifacts of a sweep that MLflow shows, and a text in each.
SHOWN = {
    "comparison.csv": "tflite_accuracy",
    "comparison.md": "ptq_int8",
    "report.html": "Which quantization to ship",
}
SECONDS_TO_SHOW = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """Where a sweep was run, and its best model registered."""
    folder = tmp_path_factory.mktemp("sweep")
    shutil.copy(empty_store, folder)
    save_images(folder / "images.npz")
    small = ("model=mlp", "dataset=npz", "dataset.path=images.npz", "training.batch_size=50", "latency.seconds=0.1",
             "latency.rounds=1")  # fmt: skip
    swept = run(folder, "experiments.run", "-m", "strategy=none,ptq_int8", "tracking.system_metrics=true", *small)
    assert (swept.returncode, swept.stderr) == (0, "")
    shipped = run(folder, "experiments.compare", "--require", "tflite_bytes < 1e6", "--register", "shipped")
    assert shipped.returncode == 0, shipped.stderr
    assert "Model registered as shipped, version 1." in shipped.stdout
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return connect(Tracking(uri=f"sqlite:///{folder}/mlflow.db"), create=False)


@pytest.fixture(scope="module")
def sweep(store: Store) -> str:
    return str(store.find("tags.kind = 'sweep'")[0].info.run_id)


@pytest.fixture(scope="module")
def pages(store: Store) -> Iterator[Pages]:
    if chromium() is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with served(store.client.tracking_uri) as address, opened(address, store.experiment_id) as pages:
        yield pages


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS_TO_SHOW
    while not holds():
        assert time.monotonic() < deadline, f"{what} within {SECONDS_TO_SHOW:.0f} s"
        time.sleep(0.2)


def shows(pages: Pages, text: str | re.Pattern[str]) -> None:
    """A page or a document in it shows this text."""
    until(lambda: any(frame.get_by_text(text).first.is_visible() for frame in pages.page.frames), f"{text!r} is shown")


def test_runs_are_listed_below_their_sweep(pages: Pages) -> None:
    pages.runs()
    shows(pages, "sweep strategy=none,ptq_int8")
    assert not pages.page.get_by_text(RUNS[0]).count()
    pages.unfold()
    for name in RUNS:
        shows(pages, name)


def test_the_view_of_a_sweep_lists_its_runs_best_first_with_the_columns_that_decide(
    pages: Pages, store: Store, sweep: str
) -> None:
    page = pages.view(store.save_view(sweep).partition("#")[2])
    for heading in ("strategy", "tflite_accuracy", "tflite_bytes"):
        shows(pages, heading)
    assert not page.get_by_text("sweep strategy=none,ptq_int8").count()
    assert page.get_by_text("2 matching runs").is_visible()


def test_addresses_that_are_printed_open_the_view_for_model_training(pages: Pages, store: Store, sweep: str) -> None:
    pages.page.add_init_script("localStorage.removeItem('mlflow.workflowType_v1')")  # as on a first visit
    pages.page.goto("about:blank")
    pages.page.goto(f"{pages.address}/#{store.page(sweep).partition('#')[2]}")
    until(pages.page.get_by_text("Model registry").first.is_visible, "the pages for model training are shown")


def test_a_sweep_has_the_best_values_of_its_runs_and_what_is_recommended(store: Store, sweep: str) -> None:
    parent, runs = store.client.get_run(sweep).data, store.rows(sweep)
    assert parent.metrics["best_tflite_accuracy"] == max(run["tflite_accuracy"] for run in runs)
    assert parent.metrics["smallest_tflite_bytes"] == min(run["tflite_bytes"] for run in runs)
    is_suspect = any(run["warnings"] for run in runs)  # nothing is recommended after an implausible baseline
    assert parent.tags["recommended_run_id"] in ([""] if is_suspect else [run["run_id"] for run in runs])
    assert parent.tags["recommended"].split()[:1] in ([[]] if is_suspect else [["none"], ["ptq_int8"]])


def test_parameters_are_those_that_people_look_for(store: Store, sweep: str) -> None:
    params = store.client.get_run(store.rows(sweep)[1]["run_id"]).data.params
    assert params == {
        "strategy": "ptq_int8", "model": "mlp", "dataset": "npz", "epochs": "1", "finetune_epochs": "0", "seed": "0",
        "dataset.path": "images.npz", "training.batch_size": "50", "latency.seconds": "0.1", "latency.rounds": "1",
        "task": "classification",
    }  # fmt: skip


def test_models_are_named_after_their_runs(store: Store) -> None:
    names = {model.name for model in store.client.search_logged_models([store.experiment_id])}
    assert {re.sub(r"images_\w{6}", "images", name) for name in names} == {
        f"{strategy}_mlp_images_epochs_1_seed_0" for strategy in ("none", "ptq_int8")
    }


def test_the_chart_view_has_the_training_curves_of_the_runs(pages: Pages) -> None:
    pages.runs()
    pages.unfold()
    pages.charts()
    shows(pages, "baseline/val_accuracy")
    until(lambda: pages.page.locator(".js-plotly-plot .scatterlayer .trace").count() >= len(RUNS), "curves are drawn")


@pytest.mark.parametrize("artifact", SHOWN)
def test_the_artifacts_of_a_sweep_are_shown(pages: Pages, sweep: str, artifact: str) -> None:
    pages.artifact(sweep, artifact)
    shows(pages, SHOWN[artifact])


def test_the_page_of_a_sweep_begins_with_the_answer(pages: Pages, store: Store, sweep: str) -> None:
    (run,) = (each for each in store.find("tags.kind = 'sweep'", limit=9) if each.info.run_id == sweep)
    note = run.data.tags["mlflow.note.content"]
    assert re.match(r"\*\*(Ship |No winner|Nothing to ship yet)", note)
    assert "| strategy" in note


def test_page_of_a_run_has_its_description(pages: Pages, store: Store, sweep: str) -> None:
    pages.run(store.rows(sweep)[1]["run_id"])
    shows(pages, "% accuracy")
    shows(pages, "Training")  # the use of a data set


def test_the_models_of_the_sweep_are_listed_with_the_registered_one(pages: Pages) -> None:
    pages.models()
    shows(pages, RUNS[1])
    shows(pages, "shipped")


def test_registered_model_has_the_reasons(store: Store) -> None:
    version = store.client.get_model_version("shipped", "1")
    assert "required: tflite_bytes < 1e6" in unescape(str(version.description))
    assert "% accuracy**" in str(version.description)
    assert version.tags["strategy"] == "ptq_int8"


def test_the_same_run_is_registered_once(folder: Path) -> None:
    again = run(folder, "experiments.compare", "--register", "shipped")
    assert "Model already registered as shipped, version 1." in again.stdout


def test_nothing_is_registered_if_no_run_meets_the_requirements(folder: Path, store: Store) -> None:
    done = run(folder, "experiments.compare", "--require", "tflite_accuracy > 1", "--register", "never")
    assert done.returncode == 3
    assert not store.client.search_registered_models("name = 'never'")


def test_a_registered_model_is_served_without_tensorflow(folder: Path, store: Store, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 8, 8, 1)).astype(np.float32)
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/shipped/1", "--env-manager", "local",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    environment = {**bare(tmp_path), "PATH": programs, "MLFLOW_TRACKING_URI": store.client.tracking_uri}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        await_answer(f"http://127.0.0.1:{port}/ping", server)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"inputs": images.tolist()}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = np.array(json.load(answer)["predictions"], np.float32)
    finally:
        end(server)
    run_id = store.client.get_model_version("shipped", "1").run_id
    file = TFLiteModel(store.fetch(str(run_id), "model.tflite", tmp_path).read_bytes())
    assert said.tobytes() == tflite_logits(file, images, threads=1).tobytes()


def test_runs_have_their_data_sets(store: Store, sweep: str) -> None:
    inputs = [store.client.get_run(row["run_id"]).inputs for row in store.rows(sweep)]
    used = {(use.dataset.name, use.tags[0].value) for each in inputs if each for use in each.dataset_inputs}
    assert used == {("images", "training"), ("images", "testing")}


def test_system_metrics_are_recorded_if_set(store: Store, sweep: str) -> None:
    for row in store.rows(sweep):
        assert row["system/cpu_utilization_percentage"] > 0
