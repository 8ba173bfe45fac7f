"""Runs read from a store's tables equal those of MLflow's API, which is used for unknown schemas."""

import math
import re
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config

from benchmarks.harness.generated_runs import METRICS, PARAMETERS
from experiments import compare
from experiments.record.evidence import Predictions
from experiments.system.errors import UserError
from experiments.tracking import Store, Tracking, connect
from experiments.tracking.database import open_for_reading
from experiments.tracking.tables import SCHEMAS
from tests.generated import OTHERS, RUNS, exactly, fill_variously, through_the_api


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store; the path needs quoting in an address."""
    path = tmp_path_factory.mktemp("a store #") / "mlflow.db"
    fill_variously(connect(Tracking(uri=f"sqlite:///{path}")))
    return path


@pytest.fixture(scope="module")
def store(filled: Path) -> Store:
    return connect(Tracking(uri=f"sqlite:///{filled}"), create=False)


@pytest.fixture
def copied(filled: Path, tmp_path: Path) -> Path:
    """A store that may be changed."""
    return Path(shutil.copy(filled, tmp_path / "copied.db"))


@pytest.fixture
def unknown(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    """A store whose tables nobody has looked at."""
    monkeypatch.setattr("experiments.tracking.store.SCHEMAS", ())
    return Tracking(uri=f"sqlite:///{copied}")


@pytest.mark.parametrize("sweep", ["all", "latest"])
def test_rows_from_the_tables_are_those_of_the_api(store: Store, sweep: str) -> None:
    assert exactly(store.rows(sweep)) == exactly(through_the_api(store).rows(sweep))


def test_only_runs_of_the_suite_are_read(store: Store) -> None:
    rows = store.rows("all")
    assert len(rows) == RUNS + 2
    assert {row["status"] for row in rows} == {"FINISHED", "FAILED", "RUNNING"}
    assert "deleted" not in {row["strategy"] for row in rows}


def test_a_sweep_has_its_runs_in_the_order_of_its_jobs(store: Store) -> None:
    assert [(row["strategy"], row["reused"]) for row in store.rows("latest")] == [
        ("plain", False),
        ("strange", False),
        ("qat", True),
    ]


def test_finished_runs_with_a_file_are_found_by_its_digest(copied: Path) -> None:
    store = connect(Tracking(uri=f"sqlite:///{copied}"), create=False)
    finished, failed = (
        next(row["run_id"] for row in store.rows("all") if row["status"] == status) for status in ("FINISHED", "FAILED")
    )
    for run_id in (finished, failed):
        store.client.set_tag(run_id, "tflite_sha256", "3f2a91")
    assert [row["run_id"] for row in store.find_by_file("3f2a91")] == [finished]
    assert exactly(store.find_by_file("3f2a91")) == exactly(through_the_api(store).find_by_file("3f2a91"))
    assert store.find_by_file("another") == []


def test_special_values_equal_those_of_the_api(store: Store) -> None:
    (strange,) = (run.metrics for run in store._tagged("kind", "run") if run.tags["strategy"] == "strange")
    assert math.isnan(strange["sqnr_min_db"])
    assert strange["speedup"] == -strange["logit_rmse"] == sys.float_info.max  # how MLflow keeps what is infinite
    assert strange["baseline/loss"] == 0.7
    assert "size_ratio" not in strange


def test_row_has_only_the_metrics_of_the_run(store: Store) -> None:
    _, strange, _ = store.rows("latest")
    assert not {"sqnr_min_db", "speedup", "logit_rmse"} & strange.keys()
    assert strange["train_seconds"] == 5e-324


def test_targets_select_the_same_runs_both_ways(store: Store) -> None:
    sweep, run_id = store._tagged("kind", "sweep")[-1].run_id, store.rows("all")[5]["run_id"]
    for target in (sweep, run_id[:12]):
        assert exactly(store.select_runs(target)) == exactly(through_the_api(store).select_runs(target))


def test_generated_run_equals_a_recorded_run(store: Store) -> None:
    (generated,) = (run for run in store._tagged("kind", "run") if run.tags["mlflow.runName"] == "none 0")
    assert (len(generated.metrics), len(generated.params)) == (len(METRICS), PARAMETERS) == (30, 30)
    client = store.client
    run_id = client.create_run(
        client.create_experiment("written"), run_name="none 0", tags=dict(generated.tags)
    ).info.run_id
    for name, value in generated.params.items():
        client.log_param(run_id, name, value)
    for name, number in generated.metrics.items():
        client.log_metric(run_id, name, number)
    client.set_terminated(run_id)
    written, given = client.get_run(run_id), client.get_run(generated.run_id)
    assert written.data.to_dictionary() == given.data.to_dictionary()
    known = ("status", "lifecycle_stage", "run_name", "user_id")
    assert [getattr(written.info, name) for name in known] == [getattr(given.info, name) for name in known]


def test_runs_of_other_programs_are_counted(store: Store) -> None:
    assert store.count_others() == through_the_api(store).count_others() == str(OTHERS)


def test_count_through_the_api_is_limited(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.tracking.store.MOST_COUNTED", 2)
    assert through_the_api(store).count_others() == "2 or more"


def test_comparison_counts_runs_of_other_programs(
    filled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", "--uri", f"sqlite:///{filled}", "--columns", "strategy"])
    compare.main()
    assert f"Omitted {OTHERS} runs of other programs in experiment quantization" in capsys.readouterr().out


def test_tables_are_read_only(filled: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        open_for_reading(filled).execute("DELETE FROM runs")


def test_unknown_schema_is_read_through_the_api(
    unknown: Tracking, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = connect(unknown, create=False)
    assert exactly(opened.rows("all")) == exactly(store.rows("all"))
    assert opened.count_others() == str(OTHERS)
    assert capsys.readouterr().out.count("Runs are read through MLflow's API") == 1


def test_store_rejected_by_mlflow_causes_one_message(copied: Path) -> None:
    with sqlite3.connect(copied) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(UserError, match=r"copied\.db: an older MLflow wrote it .*451aebb31d03.*mlflow db upgrade"):
        connect(Tracking(uri=f"sqlite:///{copied}"), create=False)


def test_no_migration_between_known_schemas_changes_the_tables() -> None:
    config = _get_alembic_config("")  # type: ignore[no-untyped-call]
    migrations = {each.revision: each.path for each in ScriptDirectory.from_config(config).walk_revisions()}
    tables = re.compile(r"""["'](runs|tags|params|latest_metrics)["']""")
    assert not [schema for schema in SCHEMAS if tables.search(Path(migrations[schema]).read_text())]


def test_other_databases_are_read_through_the_api() -> None:
    assert Tracking(uri="http://127.0.0.1:9").tables is None
    assert Tracking(uri="mysql://somebody@somewhere/mlflow").tables is None


def test_many_runs_are_read_in_pages_with_a_bar(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []

    class Bar:
        def __init__(self, description: str, total: int | None) -> None:
            assert (description, total) == ("reading runs", None)

        def __enter__(self) -> object:
            return moved.append

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("experiments.tracking.store.bar", Bar)
    monkeypatch.setattr("experiments.tracking.store.RUNS_A_PAGE", 25)
    runs = through_the_api(store).rows("all")
    assert moved == [25, 25, len(runs) - 50]


def test_predictions_come_from_the_folder_of_the_run(store: Store) -> None:
    run_id, *_ = [row["run_id"] for row in store.rows("all")]
    (folder,) = store._folders(run_id)
    assert store.read_evidence(run_id) is None
    folder.mkdir(parents=True)
    (folder / "predictions.csv").write_text("truth,keras,tflite,float_reference\n1,1,2,3\n")
    said = store.read_evidence(run_id)
    assert isinstance(said, Predictions)
    assert list(said.tflite) == [2]


def test_folder_of_a_new_run_is_requested_from_the_api(store: Store) -> None:
    run_id = store.client.create_run(store.client.create_experiment("later")).info.run_id
    folder, *_ = store._folders(run_id)
    assert run_id in folder.parts
