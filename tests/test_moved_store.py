"""Renamed, moved and copied project folders: files are found and written beside the database."""

import errno
import json
import os
import shutil
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.entities import LoggedModelOutput, LoggedModelStatus

from experiments.record.artifacts import CHANGED, LAYERS, MODEL, NEEDED, RECORD, ROUNDS
from experiments.record.evidence import Predictions
from experiments.store import main
from experiments.system import files as system_files
from experiments.system.errors import UserError
from experiments.tracking import Store, Tracking, connect, rows
from experiments.tracking.checking import check
from experiments.tracking.intact import missing_in, missing_of
from experiments.tracking.places import Places, folder_of
from experiments.tracking.relocation import find_moved, relocate

CONTENT = b"a TFLite file"
PREDICTIONS = "truth,keras,tflite,float_reference\n1,1,2,3\n"


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("file:///data/ml%20runs/1/artifacts", Path("/data/ml runs/1/artifacts")),
        ("/data/mlruns/1/artifacts", Path("/data/mlruns/1/artifacts")),
        ("mlruns/1/artifacts", None),
        ("mlflow-artifacts:/1/artifacts", None),
        ("s3://bucket/1/artifacts", None),
        ("file://elsewhere/data/artifacts", None),
        ("", None),
    ],
)
def test_artifact_address_maps_to_a_local_folder_or_none(uri: str, folder: Path | None) -> None:
    assert folder_of(uri) == folder


FILES = (*NEEDED, "predictions.csv")


def files_of_a_run(folder: Path) -> Path:
    """The artifacts of a finished run."""
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text(PREDICTIONS if name == "predictions.csv" else name)
    (folder / LAYERS).write_text(
        "layer,op,arithmetic,weights,weights_bytes,macs,xnnpack\ndense,FULLY_CONNECTED,int8,1,1,1,true\n"
    )
    (folder / MODEL).write_bytes(CONTENT)
    (folder / RECORD).write_text(json.dumps({"tflite_sha256": sha256(CONTENT).hexdigest()}))
    return folder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one finished run of the suite, its model, and a registered version of it."""
    folder = tmp_path_factory.mktemp("before") / "project"
    folder.mkdir()
    store = connect(Tracking(uri=f"sqlite:///{folder}/mlflow.db"))
    client = store.client
    sweep = store.open_sweep("a sweep", {})
    setting = {
        "strategy": "none",
        "model": "mlp",
        "dataset": "mnist",
        "epochs": "1",
        "finetune_epochs": "0",
        "seed": "0",
    }
    tags = {"kind": "run", "run_key": "a key", "mlflow.parentRunId": sweep, f"sweep_{sweep}": "00000", **setting}
    run_id = client.create_run(store.experiment_id, tags=tags, run_name="none").info.run_id
    for name in rows.NEEDED:
        client.log_metric(run_id, name, len(CONTENT) if name == "tflite_bytes" else 0.5)
    files_of_a_run(folder / "mlruns" / run_id / "artifacts")
    model = client.create_logged_model(store.experiment_id, "model", run_id, model_type="tflite")
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    (place := folder / "mlruns" / "models" / model.model_id / "artifacts").mkdir(parents=True)
    for name in ("MLmodel", MODEL):
        (place / name).write_bytes(CONTENT)
    client.create_registered_model("best")
    client.create_model_version("best", model.artifact_location, run_id)
    client.set_terminated(run_id)
    client.set_terminated(sweep)
    return folder


@pytest.fixture
def project(recorded: Path, tmp_path: Path) -> Path:
    """The project under its recorded paths, which may be changed and moved."""
    folder = tmp_path / "project"
    shutil.copytree(recorded, folder)
    relocate(folder / "mlflow.db")
    return folder


def opened(folder: Path, create: bool = False) -> Store:
    return connect(Tracking(uri=f"sqlite:///{folder}/mlflow.db"), create=create)


def the_run(store: Store) -> str:
    (row,) = store.rows("all")
    return str(row["run_id"])


def renamed(folder: Path) -> Path:
    return folder.rename(folder.with_name("re named # 100%"))


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(folder, folder.with_name("copy")))


def files_under(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted((folder / "mlruns").rglob("*")) if path.is_file()}


def test_artifacts_are_found_in_a_renamed_folder(project: Path) -> None:
    here = renamed(project)
    store = opened(here)
    run_id = the_run(store)
    said = store.read_evidence(run_id)
    assert isinstance(said, Predictions)
    assert list(said.tflite) == [2]
    assert store.fetch(run_id, MODEL, Path("/nowhere")).is_relative_to(here)


def test_each_copy_reads_its_own_files(project: Path) -> None:
    here = copied(project)
    store = opened(here)
    (here / "mlruns" / the_run(store) / "artifacts" / "predictions.csv").write_text(
        "truth,keras,tflite,float_reference\n7,7,7,7\n"
    )
    assert [list(each.read_evidence(the_run(each)).tflite) for each in (store, opened(project))] == [[7], [2]]  # type: ignore[union-attr]


@pytest.mark.parametrize("move", [renamed, copied])
def test_new_runs_write_beside_the_open_database(move: Any, project: Path, tmp_path: Path) -> None:
    here = move(project)
    before = files_under(project) if project.exists() else {}
    store = opened(here, create=True)
    run_id = store.client.create_run(store.experiment_id).info.run_id
    (files := tmp_path / "files").mkdir()
    (files / "new.txt").write_text("new")
    store.attach(run_id, files)
    model = store.client.create_logged_model(store.experiment_id, "model", run_id)
    assert (here / "mlruns" / run_id / "artifacts" / "new.txt").read_text() == "new"
    assert folder_of(str(model.artifact_location)) == here / "mlruns" / "models" / model.model_id / "artifacts"
    assert (files_under(project) if project.exists() else {}) == before


def test_latency_session_of_an_old_run_is_stored_in_the_copy(project: Path, tmp_path: Path) -> None:
    here = copied(project)
    before = files_under(project)
    store = opened(here)
    (files := tmp_path / "session").mkdir()
    (files / "files.csv").write_text("times")
    store.add_session(the_run(store), "now", files, 1.0)
    assert (here / "mlruns" / the_run(store) / "artifacts" / "latency_sessions" / "now" / "files.csv").exists()
    assert files_under(project) == before


def test_move_is_reported_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = renamed(project)
    opened(here, create=True)
    assert f"was moved or copied from {project}" in capsys.readouterr().out
    opened(here, create=True)
    assert "moved" not in capsys.readouterr().out


def test_database_moved_without_its_files_still_uses_them(project: Path, tmp_path: Path) -> None:
    (here := tmp_path / "elsewhere").mkdir()
    (project / "mlflow.db").rename(here / "mlflow.db")
    store = opened(here, create=True)
    run = store.client.create_run(store.experiment_id)
    assert store.read_evidence(the_run_of(store)) is not None
    assert str(run.info.artifact_uri).startswith((project / "mlruns").as_uri())


def the_run_of(store: Store) -> str:
    (row,) = [row for row in store.rows("all") if row["status"] == "FINISHED"]
    return str(row["run_id"])


def test_database_copied_without_its_files_reads_the_originals(project: Path, tmp_path: Path) -> None:
    (here := tmp_path / "elsewhere").mkdir()
    shutil.copy(project / "mlflow.db", here / "backup.db")
    store = connect(Tracking(uri=f"sqlite:///{here}/backup.db"))
    assert store.read_evidence(the_run_of(store)) is not None
    run = store.client.create_run(store.experiment_id)
    assert str(run.info.artifact_uri).startswith((here / "mlruns").as_uri())


def test_symlinked_folder_is_not_a_moved_folder(project: Path, tmp_path: Path) -> None:
    (link := tmp_path / "link").symlink_to(project)
    assert find_moved(link / "mlflow.db") == []
    store = opened(link, create=True)
    assert store.client.get_experiment(store.experiment_id).artifact_location == (project / "mlruns").as_uri()


@pytest.mark.parametrize(
    "written",
    ["file:///C:/Users/me/project/mlruns/{id}/artifacts", r"C:\Users\me\project\mlruns\{id}\artifacts",
     "mlruns/{id}/artifacts", "./mlruns/{id}/artifacts", "/home/you/mlruns/{id}/artifacts"],
)  # fmt: skip
def test_paths_of_other_systems_map_beside_the_database(written: str, tmp_path: Path) -> None:
    (folder := tmp_path / "mlruns" / "0123" / "artifacts").mkdir(parents=True)
    places = Places(tmp_path / "mlflow.db")
    assert places.candidates(written.format(id="0123"))[0] == folder
    assert places.current(written.format(id="gone")) == tmp_path / "mlruns" / "gone" / "artifacts"


@pytest.mark.parametrize(
    "uri",
    ["s3://bucket/mlruns/1/artifacts", "mlflow-artifacts:/1/mlruns/artifacts", "models:/m-1", "runs:/1/model", ""],
)
def test_addresses_other_than_paths_map_to_no_folder(uri: str, tmp_path: Path) -> None:
    assert Places(tmp_path / "mlflow.db").candidates(uri) == ()


def test_recorded_path_cannot_escape_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret" / "artifacts").mkdir(parents=True)
    places = Places(tmp_path / "project" / "mlflow.db")
    assert tmp_path / "secret" / "artifacts" not in places.candidates("file:///x/mlruns/../../secret/artifacts")


def test_files_in_a_folder_with_another_name_are_found(tmp_path: Path) -> None:
    (folder := tmp_path / "results" / "3" / "0123" / "artifacts").mkdir(parents=True)
    assert Places(tmp_path / "mlflow.db").current("file:///old/results/3/0123/artifacts") == folder


def test_missing_files_are_reported_once_with_the_command(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(project / "mlruns")
    store = opened(project)
    assert [store.read_evidence(the_run(store)) for _ in range(3)] == [None] * 3
    assert capsys.readouterr().err.count("files of runs are missing") == 1
    with pytest.raises(UserError, match=rf"the artifact {MODEL} is missing; searched {project}/mlruns"):
        store.fetch(the_run(store), MODEL, project)


def recorded_paths(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        return "\n".join(connection.iterdump())


def test_relocate_updates_all_addresses(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = renamed(project)
    relocate(here / "mlflow.db")
    assert str(project) not in recorded_paths(here / "mlflow.db")
    assert find_moved(here / "mlflow.db") == []
    store = opened(here, create=True)
    assert "moved" not in capsys.readouterr().out
    version = store.client.get_model_version("best", "1")
    assert (folder_of(str(version.source)) or Path()).is_relative_to(here)
    assert store.client.list_artifacts(the_run(store))  # as MLflow's own pages find them


def test_relocate_keeps_correct_addresses(project: Path) -> None:
    before = (project / "mlflow.db").read_bytes()
    assert relocate(project / "mlflow.db") == []
    assert (project / "mlflow.db").read_bytes() == before


def test_relocate_keeps_addresses_of_missing_files(project: Path) -> None:
    here = copied(project)
    shutil.rmtree(here / "mlruns")
    before = opened(project)
    assert not [
        each for each in find_moved(here / "mlflow.db") if each.table == "runs" and the_run(before) in each.recorded
    ]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["store", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_commands_have_the_documented_exit_codes(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = copied(project)
    uri = f"--uri=sqlite:///{here}/mlflow.db"
    before = (here / "mlflow.db").read_bytes()
    assert command(monkeypatch, "relocate", "--dry-run", uri) == 0
    assert "would be updated" in capsys.readouterr().out
    assert (here / "mlflow.db").read_bytes() == before
    assert [command(monkeypatch, *arguments, uri) for arguments in (["close"], ["check", "0"], ["close", "0"])] == [
        2
    ] * 3
    told = capsys.readouterr().err.splitlines()
    assert (told[0], told[1]) == ("close: requires the id of a run or sweep.", "check: takes no run.")
    assert "0: no RUNNING run has this id." in told[2]
    assert command(monkeypatch, "check", uri) == 1
    assert command(monkeypatch, "relocate", uri) == 0
    assert command(monkeypatch, "check", uri) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["check", "--uri", "http://127.0.0.1:9"], "requires an SQLite file"),
        (["check", "--uri", "sqlite:///nothing.db"], "no file "),
        (["relocate", "--uri", "mlflow.db"], "requires sqlite:///FILE.db"),
        (["check", "--dry-run"], "has no effect with check"),
    ],
)
def test_mistakes_cause_one_message(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, *arguments) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["check", "relocate"])
def test_database_of_another_program_is_not_changed(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        database.execute("CREATE TABLE runs (artifact_uri)")
        database.commit()
    assert command(monkeypatch, verb, f"--uri=sqlite:///{tmp_path}/other.db") == 2
    assert "is not an MLflow store" in capsys.readouterr().err


def told_of(folder: Path) -> dict[str, tuple[str, ...]]:
    return {finding.what: finding.which for finding in check(folder / "mlflow.db")}


def test_check_finds_missing_files(project: Path) -> None:
    run_id = the_run(opened(project))
    (project / "mlruns" / run_id / "artifacts" / MODEL).unlink()
    ((one,),) = told_of(project).values()
    assert one.startswith(f"{run_id} (none): {MODEL} is missing; searched {project}")


def test_check_ignores_missing_files_of_repeated_runs(project: Path) -> None:
    store = opened(project)
    run_id = the_run(store)
    again = store.client.create_run(store.experiment_id, tags={"kind": "run", "run_key": "a key"}).info.run_id
    store.client.set_terminated(again)
    files_of_a_run(project / "mlruns" / again / "artifacts")
    (project / "mlruns" / run_id / "artifacts" / MODEL).unlink()
    assert told_of(project) == {}


def test_check_finds_leftovers_of_killed_processes(project: Path) -> None:
    store = opened(project)
    run_id = store.open_sweep("killed", {})
    store.client.set_tag(run_id, "process", "999999999@0")
    model = store.client.create_logged_model(store.experiment_id, "model", model_type="tflite").model_id
    (orphan := project / "mlruns" / ("0" * 32)).mkdir()
    (partial := project / "mlflow.db.partial").touch()
    found = told_of(project)
    assert found["runs marked RUNNING whose process has ended"] == (f"{run_id} (killed)",)
    assert found["models marked PENDING whose run has ended"] == (model,)
    assert found["folders of unknown runs or models"] == (str(orphan),)
    assert found["files left by killed processes"] == (str(partial),)
    assert len(found) == 4


def test_check_does_not_report_runs_that_may_be_running(project: Path) -> None:
    store = opened(project)
    store.open_sweep("at work", {})
    elsewhere = store.open_sweep("elsewhere", {})
    store.client.set_tag(elsewhere, "host", "another-machine")
    store.client.set_tag(elsewhere, "boot_id", "another")
    assert told_of(project) == {
        "runs marked RUNNING on another machine or in another container, which cannot be checked from here": (
            f"{elsewhere} (elsewhere), started on another-machine",
        )
    }


@pytest.mark.parametrize("page", [5, 60])
def test_check_finds_a_damaged_database(page: int, project: Path) -> None:
    with (project / "mlflow.db").open("r+b") as file:
        file.seek(4096 * page)
        file.write(os.urandom(4096 * 40))
    assert list(told_of(project)) == ["the database is damaged"]


def test_a_finished_run_with_all_its_files_is_reused(project: Path) -> None:
    store = opened(project)
    row = store.reuse("a key", None, 0)
    assert row is not None
    assert row["run_id"] == the_run(store)


def test_a_finished_run_is_reused_in_a_copy(project: Path) -> None:
    here = renamed(project)
    assert opened(here, create=True).reuse("a key", None, 0) is not None


@pytest.mark.parametrize("name", FILES)
def test_finished_run_with_a_missing_file_is_repeated_with_a_message(
    name: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = opened(project)
    (project / "mlruns" / the_run(store) / "artifacts" / name).unlink()
    assert store.reuse("a key", None, 0) is None
    assert f"run {the_run(store)} is finished, but {name} is missing; it is repeated" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content"), [("predictions.csv", PREDICTIONS[:-3]), (LAYERS, "layer,op\n"), (CHANGED, "")]
)
def test_finished_run_with_a_damaged_file_is_repeated_with_a_message(
    name: str, content: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = opened(project)
    (project / "mlruns" / the_run(store) / "artifacts" / name).write_text(content)
    assert store.reuse("a key", None, 0) is None
    assert name in capsys.readouterr().out


def test_finished_run_without_results_is_not_reused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = opened(project)
    store.client.delete_tag(the_run(store), "strategy")
    assert store.reuse("a key", None, 0) is None
    assert "has no tag strategy" in capsys.readouterr().out


def test_finished_run_with_a_deleted_model_is_not_reused(project: Path) -> None:
    shutil.rmtree(project / "mlruns" / "models")
    assert opened(project).reuse("a key", None, 0) is None


@pytest.mark.parametrize(
    ("content", "told"), [(b"short", "has 5 bytes instead of 13"), (CONTENT[::-1], "has changed since it was recorded")]
)
def test_replaced_file_is_detected(content: bytes, told: str, tmp_path: Path) -> None:
    folder = files_of_a_run(tmp_path / "artifacts")
    (folder / MODEL).write_bytes(content)
    assert told in missing_in([folder], {"tflite_bytes": len(CONTENT)})


def test_run_with_an_unreadable_record_is_not_reused(tmp_path: Path) -> None:
    folder = files_of_a_run(tmp_path / "artifacts")
    (folder / RECORD).write_text("{")
    assert missing_in([folder], {}) == f"{RECORD} cannot be read"


def test_files_on_a_server_are_checked_by_name_and_size() -> None:
    sizes: dict[str, int | None] = dict.fromkeys(FILES, 5)
    assert missing_of(sizes, {"tflite_bytes": 5}) == ""
    assert missing_of(sizes, {"tflite_bytes": 6}) == f"{MODEL} has 5 bytes instead of 6"
    assert missing_of({**sizes, MODEL: None}, {"tflite_bytes": 6}) == ""
    assert missing_of({}, {}).endswith("are missing")


def test_files_on_a_server_are_listed_once(tmp_path: Path) -> None:
    listed = []

    class Client:
        def list_artifacts(self, run_id: str) -> list[Any]:
            listed.append(run_id)
            return [SimpleNamespace(path=name, file_size=5) for name in FILES]

    info = SimpleNamespace(artifact_uri="mlflow-artifacts:/1/2/artifacts", run_id="one")
    run: Any = SimpleNamespace(info=info, data=SimpleNamespace(metrics={"tflite_bytes": 5}))
    store = Store(Client(), "7", Tracking(uri="http://127.0.0.1:9"))  # type: ignore[arg-type]
    assert store._missing(run) == ""
    assert listed == ["one"]


def test_model_with_an_outdated_address_is_not_registered(project: Path) -> None:
    here = renamed(project)
    store = opened(here)
    with pytest.raises(UserError, match=r"python -m experiments\.store relocate"):
        store.register(the_run(store), "name", "why")


def test_a_run_whose_timing_is_damaged_is_repeated(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = opened(project)
    (project / "mlruns" / the_run(store) / "artifacts" / ROUNDS).write_text('{"own": "a')
    assert store.reuse("a key", None, 0) is None
    assert f"{ROUNDS} cannot be read" in capsys.readouterr().out


def test_a_file_of_a_finished_run_is_replaced_as_a_whole(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder = opened(project), tmp_path / "new"
    kept = project / "mlruns" / the_run(store) / "artifacts" / RECORD
    before = kept.read_bytes()
    (folder / "inside").mkdir(parents=True)
    (folder / RECORD).write_bytes(b"new")
    (folder / "inside" / "file").write_bytes(b"new")

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"n")
        if source.name == RECORD:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))

    with monkeypatch.context() as short_of_space:
        short_of_space.setattr(system_files, "copyfile", full)
        with pytest.raises(UserError, match="No space left on device"):
            store.attach(the_run(store), folder)
    assert kept.read_bytes() == before
    kept.with_name(f"{RECORD}.partial").write_bytes(b"of a killed process")
    store.attach(the_run(store), folder)
    assert kept.read_bytes() == (kept.parent / "inside" / "file").read_bytes() == b"new"
    assert not list(kept.parent.rglob("*.partial"))


def test_a_link_in_a_store_of_somebody_else_is_replaced_not_followed(project: Path, tmp_path: Path) -> None:
    store, folder, mine = opened(project), tmp_path / "new", tmp_path / "mine"
    mine.write_text("mine")
    folder.mkdir()
    (folder / ROUNDS).write_text("{}")
    link = project / "mlruns" / the_run(store) / "artifacts" / ROUNDS
    link.symlink_to(mine)
    store.attach(the_run(store), folder)
    assert (mine.read_text(), link.is_symlink(), link.read_text()) == ("mine", False, "{}")
