"""What a store holds for people: parameters, views and summaries; and that tables read all settings all the same."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from experiments.comparison.columns import frame
from experiments.comparison.compared import Comparison
from experiments.comparison.summary import summary
from experiments.record.run_record import Setting
from experiments.runs.configuration import compose_request
from experiments.tracking import Store, Tracking, connect
from experiments.tracking.rows import SETTINGS
from experiments.tracking.view import KEPT, VIEW, new_key, superfluous, view_of
from tests import rows


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Store:
    shutil.copy(empty_store, tmp_path)
    return connect(Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db"))


def test_changed_parameters_are_those_that_differ_from_their_defaults() -> None:
    assert compose_request([]).changed == {}
    assert compose_request(["epochs=5", "seed=3", "cache.dir=elsewhere"]).changed == {}  # the defaults follow epochs
    assert compose_request(["training.epochs=5", "strategy=qat", "threads=2"]).changed == {
        "training.epochs": 5,
        "threads": 2,
    }
    assert compose_request(["model=mlp", "model.units=[8]", "keras=3"]).changed == {"model.units": [8], "keras": 3}


def opened(store: Store, *settings: str, every: bool) -> str:
    request = compose_request(["strategy=annotate", "strategy.layers=[Dense]", *settings])
    changed = None if every else request.changed
    run_id = store.open_run(request.experiment.setting, request.parameters, {}, None, 0, changed)
    store.close(run_id, "FAILED")
    return run_id


def test_a_row_has_all_settings_however_few_are_parameters(store: Store) -> None:
    new, old = (opened(store, "training.batch_size=50", every=every) for every in (False, True))
    few, many = (store.client.get_run(run_id).data.params for run_id in (new, old))
    assert {"strategy", "model", "dataset", "epochs", "finetune_epochs", "seed"} < few.keys() < many.keys()
    assert few["training.batch_size"] == "50"
    same = [{**store.row(run_id), "run_id": ""} for run_id in (new, old)]
    assert same[0] == same[1]
    by_tables = [{**row, "run_id": ""} for row in store.rows("all")]
    assert by_tables == same


def test_runs_of_both_kinds_have_the_same_digest_of_settings(store: Store) -> None:
    for every in (False, True):
        opened(store, every=every)
    assert frame(store.rows("all"))["settings"].nunique() == 1


@pytest.mark.parametrize("damaged", ["{", "[]", '{"training.epochs": 3}'])
def test_a_damaged_tag_leaves_the_parameters(damaged: str, store: Store) -> None:
    run_id = opened(store, every=True)
    store.client.set_tag(run_id, SETTINGS, damaged)
    assert store.row(run_id)["training.epochs"] == "1"


def test_settings_too_long_for_a_tag_are_parameters(store: Store) -> None:
    setting = Setting("none", "mlp", "mnist", 1, 0, 0)
    run_id = store.open_run(setting, {"model.units": "9" * 5000}, {}, None, 0, {})
    assert store.row(run_id)["model.units"] == "9" * 5000


def test_a_view_has_the_runs_of_a_sweep_and_the_parameters_that_vary() -> None:
    view = json.loads(view_of("sweep_1", ["epochs"]))
    assert view["searchFilter"] == "tags.`sweep_1` != ''"
    assert view["selectedColumns"][:3] == ["params.`strategy`", "params.`epochs`", "metrics.`tflite_accuracy`"]


def test_views_of_the_newest_sweeps_are_kept_with_those_of_others() -> None:
    tags = ["mlflow.note.content", f"{VIEW}shared-by-a-person", *(f"{VIEW}{n:010d}-abcdef12" for n in range(KEPT + 1))]
    assert superfluous(tags, f"{KEPT:010d}-abcdef12") == [f"{VIEW}{0:010d}-abcdef12"]
    assert superfluous(tags, new_key("abcdef123456")) == [f"{VIEW}{n:010d}-abcdef12" for n in (0, 1)]


def test_a_view_is_stored_with_the_experiment_and_its_address_returned(store: Store) -> None:
    address = store.save_view("abcdef123456")
    assert address.startswith(f"http://127.0.0.1:5000/#/experiments/{store.experiment_id}/runs?workflowType=")
    key = address.partition("viewStateShareKey=")[2]
    assert f"{VIEW}{key}" in store.client.get_experiment(store.experiment_id).tags


def test_a_view_of_errors_has_the_lowest_first_even_if_a_run_failed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [SimpleNamespace(tags={"metric_better": "lower"}, metrics={}), SimpleNamespace(tags={}, metrics={})]
    monkeypatch.setattr(Store, "_tagged", lambda *_: runs)
    store.save_view("abcdef123456")
    (view,) = (value for tag, value in store.client.get_experiment(store.experiment_id).tags.items() if VIEW in tag)
    assert json.loads(view)["orderByAsc"] is True


def test_a_sweep_is_summarized_by_its_valid_runs() -> None:
    runs = frame([*rows.ROWS, rows.row("broken", verified="false", tflite_accuracy=1.0), rows.FAILED])
    metrics, tags = summary(Comparison(runs, runs, lambda _: None))
    assert metrics == {
        "runs_finished": 3.0, "runs_failed": 1.0, "best_tflite_accuracy": 0.9812, "smallest_tflite_bytes": 156664.0,
        "best_speedup": 3.72,
    }  # fmt: skip
    assert tags["recommended_run_id"] == "run-qat"
    assert tags["recommended"].startswith("qat")


def test_a_sweep_without_a_finished_run_recommends_nothing() -> None:
    runs = frame([rows.FAILED])
    assert isinstance(runs, pd.DataFrame)
    assert summary(Comparison(runs, runs, lambda _: None)) == (
        {"runs_finished": 0.0, "runs_failed": 1.0},
        {"recommended": "", "recommended_run_id": ""},
    )
