"""Runs that fail, or whose results cannot be recorded, are closed with a message."""

import os
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest

from experiments.runs import job
from experiments.runs.configuration import Request, compose_request
from experiments.runs.job import JobError, StoreUnavailableError, run_job
from experiments.runs.worker import Failure, RunFailed
from experiments.system.contents import digest_value
from experiments.system.errors import UserError
from experiments.system.stamp import runtimes
from experiments.tracking import DETAILS, Row, Store, connect


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store of all tests is, for making one takes seconds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def asked(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """A run that ends well, in an experiment of its own."""
    monkeypatch.setattr(job, "run_in_process", lambda experiment: None)
    monkeypatch.setattr(job, "write_files", lambda *_: None)
    address = (f"tracking.uri=sqlite:///{folder / 'mlflow.db'}", f"tracking.experiment={tmp_path.name}")
    return compose_request([*address, f"cache.dir={tmp_path / 'cache'}"])


def raising(error: Exception) -> Any:
    def method(*_: object, **__: object) -> NoReturn:
        raise error

    return method


def recorded(request: Request) -> Row:
    (row,) = connect(request.tracking, create=False).rows("all")
    return row


def test_result_that_cannot_be_recorded_is_a_failed_run(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "finish", raising(UserError("the store is gone")))
    with pytest.raises(JobError, match=r"none.*: its result could not be recorded: the store is gone"):
        run_job(asked, job=0)


@pytest.mark.parametrize("error", [UserError("the interpreter crashed"), OSError(28, "No space left on device")])
def test_a_run_whose_rounds_fail_is_finished(
    error: Exception, asked: Request, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = {"run_id": "a", "status": "FINISHED"}
    monkeypatch.setattr(job, "_run_or_reuse", lambda *_: finished)
    monkeypatch.setattr(Store, "row", lambda *_: finished)
    monkeypatch.setattr(job, "complete_rounds", raising(error))
    assert run_job(asked, job=0) == finished
    assert (
        f"The run could not be timed in further rounds; it keeps those that it has. {error}" in capsys.readouterr().err
    )


@pytest.mark.parametrize("resume", [True, False])
def test_rounds_of_earlier_runs_are_reused_unless_resume_is_false(
    resume: bool, asked: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished, given = {"run_id": "a", "status": "FINISHED"}, {}
    monkeypatch.setattr(job, "_run_or_reuse", lambda *_: finished)
    monkeypatch.setattr(Store, "row", lambda *_: finished)
    monkeypatch.setattr(job, "complete_rounds", lambda *_, **options: given.update(options))
    run_job(replace(asked, resume=resume), job=0)
    assert given == {"reuse": resume}


@pytest.mark.parametrize("error", [UserError("no"), OSError(28, "No space left on device"), ZeroDivisionError("a bug")])
def test_any_recording_error_closes_the_run_with_the_reason(
    error: Exception, asked: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "finish", raising(error))
    with pytest.raises(JobError):
        run_job(asked, job=0)
    row = recorded(asked)
    assert row["status"] == "FAILED"
    assert row["error"].startswith("its result could not be recorded: ")
    details = connect(asked.tracking, create=False).content(row["run_id"], DETAILS)
    assert details is not None
    assert type(error).__name__ in details.decode()


def test_file_that_disappears_before_the_run_is_a_failed_run(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "run_key", raising(UserError("b.npz: cannot be read (Permission denied).")))
    with pytest.raises(JobError, match=r"failed: none.*: b\.npz: cannot be read"):
        run_job(asked, job=0)
    row = recorded(asked)
    assert (row["status"], row["error"]) == ("FAILED", "b.npz: cannot be read (Permission denied).")


def test_single_run_records_its_command(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "run_in_process", raising(UserError("no")))
    monkeypatch.setattr("sys.argv", ["run.py", "strategy=none", "tracking.uri=postgresql://me:secret@host/db"])
    with pytest.raises(JobError):
        run_job(asked, job=0)
    store = connect(asked.tracking, create=False)
    said = "python -m experiments.run strategy=none tracking.uri=postgresql://***@host/db"
    assert store.commands([recorded(asked)["run_id"]]) == [said]


@dataclass(frozen=True)
class Folder:
    """An option that names a folder, as one of a user's own may."""

    images: Path
    trainable: ClassVar[bool] = True


def test_changed_folder_of_an_option_is_another_run(asked: Request, tmp_path: Path) -> None:
    experiment = replace(asked.experiment, model=Folder(tmp_path / "images"))  # type: ignore[arg-type]
    (tmp_path / "images").mkdir()
    before = job.run_key(experiment)
    assert job.run_key(experiment) == before
    (tmp_path / "images" / "one.png").touch()
    assert job.run_key(experiment) != before


def test_files_that_change_places_in_the_folder_of_an_option_make_another_run(asked: Request, tmp_path: Path) -> None:
    experiment = replace(asked.experiment, model=Folder(tmp_path))  # type: ignore[arg-type]
    cat, dog, kept = (tmp_path / name for name in ("cat", "dog", "kept"))
    for path in (cat, dog):
        path.write_text(path.name)
        os.utime(path, ns=(0, 0))
    before = job.run_key(experiment)
    for path, target in ((cat, kept), (dog, cat), (kept, dog)):
        path.rename(target)
    assert job.run_key(experiment) != before


@pytest.mark.parametrize("change", ["replaced", "removed", "equal"])
def test_a_result_whose_files_changed_during_the_run_is_not_recorded_under_its_key(
    change: str, asked: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that waits for its turn reads its files minutes after its key was made."""
    (tmp_path / "data").write_text("1")

    def run(_: object) -> None:
        match change:
            case "replaced":
                (tmp_path / "data").write_text("2")
            case "removed":
                (tmp_path / "data").unlink()
            case _:
                (tmp_path / "data").write_text("1")

    monkeypatch.setattr(job, "run_in_process", run)
    monkeypatch.setattr(Store, "finish", lambda *_: None)
    monkeypatch.setattr(job, "complete_rounds", lambda *_, **__: None)
    experiment = replace(asked.experiment, latency=WithFile(tmp_path / "data"))  # type: ignore[arg-type]
    request = replace(asked, experiment=experiment)
    if change == "replaced":
        with pytest.raises(JobError, match="latency: files of this option have changed during the run"):
            run_job(request, job=0)
        assert recorded(asked)["status"] == "FAILED"
    else:
        run_job(request, job=0)


@dataclass(frozen=True)
class WithFile:
    """An option that names a file."""

    file: Path
    rounds: int = 1
    span: float | None = None


def test_unreadable_file_of_an_option_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").touch()
    monkeypatch.setattr(Path, "open", raising(PermissionError(13, "Permission denied")))
    with pytest.raises(UserError, match=r"images: cannot be read \(Permission denied\)"):
        digest_value(tmp_path / "images")


def test_run_stopped_without_its_store_is_stopped(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "run_in_process", raising(KeyboardInterrupt()))  # type: ignore[arg-type]
    monkeypatch.setattr(Store, "close", raising(UserError("gone")))
    with pytest.raises(KeyboardInterrupt):
        run_job(asked, job=0)


def own_architecture(folder: Path, module: str) -> Any:
    """A user's model, built on a class of another folder, with a module beside it."""
    for place, text in (
        ("base.py", "class Base:\n    trainable = True\n"),
        ("beside.py", ""),
        ("mine.py", OWN_ARCHITECTURE),
    ):
        (folder / module).mkdir(exist_ok=True)
        (folder / module / place).write_text(text)
    (folder / module / "elsewhere").mkdir(exist_ok=True)
    (folder / module / "base.py").rename(folder / module / "elsewhere" / "base.py")
    return import_module(f"{module}.mine").Mine()


OWN_ARCHITECTURE = """
from dataclasses import dataclass
from .elsewhere.base import Base

@dataclass(frozen=True)
class Mine(Base): ...
"""


@pytest.mark.parametrize("changed", ["mine.py", "beside.py", "elsewhere/base.py"])
def test_changed_code_of_a_user_model_is_another_run(
    changed: str, asked: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = f"own_{Path(changed).stem}"
    experiment = replace(asked.experiment, model=own_architecture(tmp_path, module))
    before = job.run_key(experiment)
    assert job.run_key(experiment) == before
    with (tmp_path / module / changed).open("a") as file:
        file.write("\n# another line\n")
    assert job.run_key(experiment) != before


@pytest.mark.parametrize("runtime", ["ai-edge-litert", "litert-quantizer", "tflite-micro"])
def test_another_version_of_a_runtime_is_another_run(
    runtime: str, asked: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = job.run_key(asked.experiment)
    monkeypatch.setattr(job, "runtimes", lambda: {**runtimes(), runtime: "another"})
    assert job.run_key(asked.experiment) != before


def test_a_run_that_cannot_be_started_is_closed(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "run_in_process", raising(FileNotFoundError(2, "No usable temporary directory")))
    with pytest.raises(JobError, match="No usable temporary directory"):
        run_job(asked, job=0)
    assert recorded(asked)["status"] == "FAILED"


def test_failure_is_recorded_without_details_on_a_full_disk(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "run_in_process", raising(RunFailed(Failure("it broke", "how"))))
    monkeypatch.setattr(Store, "fail", raising(UserError("no room")))
    with pytest.raises(JobError, match=r"it broke\n\(its details could not be recorded: no room\)"):
        run_job(asked, job=0)
    assert recorded(asked)["status"] == "FAILED"


def test_failure_without_a_store_reports_both(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_and_take_the_store_along(_: object) -> NoReturn:
        monkeypatch.setattr(job, "connect", raising(UserError("nobody answers")))
        raise RunFailed(Failure("it broke", "how"))

    monkeypatch.setattr(job, "run_in_process", fail_and_take_the_store_along)
    with pytest.raises(StoreUnavailableError, match="it broke\nThe failure could not be recorded: nobody answers"):
        run_job(asked, job=0)
