"""How a sweep divides the machine, what it says of launchers that cannot work, what it was spared, and how it ends."""

import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

import pytest
from omegaconf import OmegaConf

from experiments.comparison.columns import frame
from experiments.comparison.files import FORMS
from experiments.record.run_record import Setting
from experiments.run import _is_launcher_error
from experiments.runs import sweep
from experiments.runs.configuration import compose_request
from experiments.runs.launchers import check_launcher, threads_per_job
from experiments.runs.sweep import SweepCallback, check_same_store, shared_modules, training_totals
from experiments.system.disk import RESERVED
from experiments.system.errors import UserError
from experiments.system.options import CONF
from experiments.system.progress import format_duration
from experiments.tracking import Store, Tracking, connect
from tests import rows
from tests.conftest import ENVIRONMENT, run


def launcher(option: str, *changes: str) -> Any:
    loaded = OmegaConf.load(CONF / "hydra" / "launcher" / f"{option}.yaml")
    return OmegaConf.merge(loaded, OmegaConf.from_dotlist(list(changes)))


@pytest.mark.parametrize(
    ("n_jobs", "jobs", "cores", "threads"),
    [
        (2, 6, 8, 4),
        (2, 1, 8, 8),  # a job that is alone has every core
        (3, 6, 8, 2),
        (16, 16, 8, 1),
        (-1, 16, 8, 1),
        (-2, 16, 8, 1),
        (-5, 16, 8, 2),
        (-1, 2, 8, 4),
        (-99, 16, 8, 8),
    ],
)
def test_joblib_s_jobs_share_the_cores(n_jobs: int, jobs: int, cores: int, threads: int) -> None:
    assert threads_per_job(launcher("joblib", f"n_jobs={n_jobs}"), [None] * jobs, cores) == threads


@pytest.mark.parametrize(("option", "asks"), [("ray", "ray.remote.num_cpus"), ("submitit", "cpus_per_task")])
def test_a_job_on_a_cluster_uses_as_many_threads_as_it_requests(option: str, asks: str) -> None:
    assert threads_per_job(launcher(option, f"{asks}=3"), [None] * 100, cores=2) == 3


def test_one_job_after_another_has_no_number_of_its_own() -> None:
    basic = OmegaConf.create({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"})
    assert threads_per_job(basic, [None] * 4, cores=8) is None


def test_jobs_that_set_threads_have_exactly_those() -> None:
    assert threads_per_job(launcher("joblib", "n_jobs=2"), [1, 2], cores=8) is None


def test_a_plugin_that_is_not_installed_is_named() -> None:
    missing = {"_target_": "hydra_plugins.hydra_missing_launcher.core.Launcher"}
    with pytest.raises(UserError, match=r"hydra_missing_launcher\.core is not installed.*hydra-missing-launcher"):
        check_launcher(OmegaConf.create(missing))


def test_installed_launchers_pass() -> None:
    check_launcher(launcher("joblib"))


def test_more_cores_for_a_job_than_ray_has_are_refused() -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="the extra ray is not installed")
    with pytest.raises(UserError, match=r"hydra.launcher.ray.remote.num_cpus=3: requires at most 2"):
        check_launcher(launcher("ray", "ray.init.num_cpus=2", "ray.remote.num_cpus=3"))
    check_launcher(launcher("ray", "ray.init.num_cpus=2", "ray.remote.num_cpus=2"))


def test_ray_takes_every_setting_of_its_launcher() -> None:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    settings = OmegaConf.to_container(launcher("ray").ray)
    assert isinstance(settings, dict)
    signature(ray.init).bind(**settings["init"])
    assert callable(ray.remote(**settings["remote"])(lambda: None).remote)


def test_a_lost_worker_process_is_told_from_other_errors() -> None:
    of_ray = type("WorkerCrashedError", (Exception,), {"__module__": "ray.exceptions"})
    errors = (of_ray(), BrokenProcessPool(), ValueError())
    assert [_is_launcher_error(error) for error in errors] == [True, True, False]


def test_a_sweep_is_kept_in_one_place() -> None:
    with pytest.raises(
        UserError,
        match=r"all of its runs, not sqlite:///mlflow\.db \(a\) and sqlite:///mlflow\.db \(b\)",
    ):
        check_same_store([Tracking(experiment=name) for name in ("a", "b", "a")])


def test_whether_the_load_is_watched_may_differ_within_a_sweep() -> None:
    check_same_store([Tracking(), Tracking(system_metrics=True)])


FAULT = """
from experiments import run
from experiments.runs import job
def perform(*_, **__):
    raise ValueError("shape mismatch")
job.run_job = perform
run.main()
"""


@pytest.mark.parametrize("arguments", [["strategy=none"], ["-m", "strategy=none"]])
def test_an_error_of_the_suite_is_not_reported_as_an_invalid_configuration(
    arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "faulty.py").write_text(FAULT)
    done = run(tmp_path, "faulty", *arguments)
    assert done.returncode == 1
    assert "ValueError: shape mismatch" in done.stderr
    assert "This is a bug in the suite" in done.stderr


def row(trained: int, from_cache: int, seconds: float, seconds_reused: float, **more: Any) -> dict[str, Any]:
    epochs = {"epochs_trained": trained, "epochs_reused": from_cache}
    times = {"train_seconds": seconds, "train_seconds_reused": seconds_reused}
    return {"status": "FINISHED", "reused": False, **epochs, **times, **more}


def test_epochs_of_the_cache_and_of_finished_runs_were_saved() -> None:
    rows = [
        row(2, 0, seconds=20, seconds_reused=0),
        row(1, 2, seconds=30, seconds_reused=20),
        row(4, 1, seconds=50, seconds_reused=10, reused=True),  # made by an earlier sweep
    ]
    assert training_totals(rows) == "Epochs trained: 3; reused: 7, which saved 1 min 10 s of training."


def test_epochs_of_failed_runs_are_reported_as_not_counted() -> None:
    rows = [row(2, 0, seconds=20, seconds_reused=0), {"status": "FAILED"}]
    assert training_totals(rows).endswith("The 1 failed runs are not counted.")


@pytest.mark.parametrize(("seconds", "said"), [(8.4, "8 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_times_are_shown_in_the_unit_that_fits(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said


@pytest.mark.parametrize(
    ("strategies", "shared"),
    [
        (["qat"], []),
        (["qat", "none"], ["experiments.dataset.mnist_loaded"]),
        (["qat", "prune_qat"], ["experiments.dataset.mnist_loaded", "experiments.quantization.tfmot.rewritten"]),
    ],
)
def test_modules_that_several_runs_need_are_loaded_once(strategies: list[str], shared: list[str]) -> None:
    experiments = [compose_request([f"strategy={name}"]).experiment for name in strategies]
    assert shared_modules(experiments) == shared


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return connect(Tracking(uri=f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"))


def over(store: Store, *jobs: str) -> SweepCallback:
    """A sweep whose jobs are over."""
    callback = SweepCallback([job.split() for job in jobs])
    callback._store, callback._sweep = store, store.open_sweep("a sweep", {})
    return callback


def failed_run(store: Store, sweep: str) -> None:
    run_id = store.open_run(Setting("none", "mlp", "mnist", 1, 0, 0), {}, {}, sweep, 0)
    store.fail(run_id, "it broke", "how")


def test_a_sweep_of_which_no_run_was_recorded_lists_its_jobs_and_has_failed(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = over(store, "strategy=none seed=1", "strategy=qat seed=1")
    with pytest.raises(SystemExit) as ended:
        callback.on_multirun_end()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "2 of 2 jobs recorded no run:\n  strategy=none seed=1\n  strategy=qat seed=1\n"
    assert store.client.get_run(callback._sweep).info.status == "FAILED"


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of a comparison can be written."""

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sweep, "show_and_write", full)


@pytest.mark.usefixtures("no_room")
def test_a_comparison_without_disk_space_is_one_message_after_the_list_of_failed_runs(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = over(store, "strategy=none")
    failed_run(store, callback._sweep)
    with pytest.raises(SystemExit) as ended:
        callback.on_multirun_end()
    said = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1
    assert said[0] == "1 of 1 runs failed:"
    (refused,) = said[2:]
    assert refused.startswith("The comparison cannot be written ([Errno 28] No space left on device; the disk at /")
    assert refused.endswith("). Free space there, or set TMPDIR.")


@pytest.mark.usefixtures("no_room")
def test_a_sweep_whose_comparison_has_no_disk_space_has_failed_and_was_not_killed(store: Store) -> None:
    callback = over(store, "strategy=none")
    failed_run(store, callback._sweep)
    with pytest.raises(SystemExit):
        callback.on_multirun_end()
    callback._close_early()
    assert store.client.get_run(callback._sweep).info.status == "FAILED"


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_a_comparison_that_cannot_be_written_is_named(form: str, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / f"comparison{FORMS[form].ending}"
    with pytest.raises(UserError, match=r"nowhere/comparison\.\w+: cannot be written"):
        FORMS[form].write(accented(), path)


def accented() -> Any:
    return frame([rows.row("é")])


def test_files_for_people_are_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from experiments.comparison.files import FORMS\n"
        "from experiments.report import page\n"
        "from tests.test_sweep import accented\n"
        "for name in ('csv', 'markdown', 'html', 'latex'):\n"
        "    FORMS[name].write(accented(), Path(name))\n"
        "page.report = lambda *_: '\\xe9'\n"
        "page.write_report(None, None, None, [], Path('report'))\n"
    )
    ascii_only = {**ENVIRONMENT, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=ascii_only, check=True)
    assert all("é" in path.read_text(encoding="utf-8") for path in tmp_path.iterdir())


def test_the_model_of_a_run_that_did_not_finish_has_failed(store: Store) -> None:
    sweep = store.open_sweep("a sweep", {})
    run_id = store.open_run(Setting("none", "mlp", "mnist", 1, 0, 0), {}, {}, sweep, 0)
    model = store.client.create_logged_model(store.experiment_id, name="model", source_run_id=run_id)
    store.close_unfinished(sweep)
    assert store.client.get_logged_model(model.model_id).status == "FAILED"


def test_what_a_process_has_open_is_closed_when_it_is_stopped(store: Store) -> None:
    sweep = store.open_sweep("a sweep", {})
    run_id = store.open_run(Setting("none", "mlp", "mnist", 1, 0, 0), {}, {}, None, 0)
    store.close_own()
    assert [store.client.get_run(each).info.status for each in (sweep, run_id)] == ["KILLED", "KILLED"]


def test_room_is_kept_beside_a_database_and_what_a_killed_process_kept_is_given_back(store: Store) -> None:
    assert store.address.database
    folder = store.address.database.parent
    left = folder / ".mlflow.db.room-99999999@1"
    left.touch()
    store.reserve_space()
    (own,) = folder.glob(".mlflow.db.room-*")
    assert own != left
    assert own.stat().st_blocks * 512 >= RESERVED
    store.release_space()
    assert not own.exists()
