"""Slurm with one node, Ray with two, two machines on one server, and a server that asks for a password: on loopback."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.compare import load
from experiments.runs.slurm import check_slurm, reason
from experiments.system.errors import UserError
from experiments.tracking import Tracking, connect
from tests.conftest import ENVIRONMENT, Done, run, save_images, start
from tests.support import slurm
from tests.support.mlflow_server import Server

SMALL = (
    "model=mlp", "dataset=npz", "dataset.path=images.npz", "training.batch_size=50", "latency.seconds=0.1",
    "latency.rounds=1", "threads=1",
)  # fmt: skip
SLURM = ("hydra/launcher=submitit", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2")
needs_slurm = pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing() or "none")
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None or find_spec("hydra_plugins.hydra_ray_launcher") is None,
    reason="Ray is not installed: pip install -c constraints.txt -e '.[ray]'",
)
needs_auth = pytest.mark.skipif(find_spec("flask_wtf") is None, reason="MLflow's extra auth is not installed")

# Each node of the cluster has a working directory of its own, as two machines would.
TWO_NODES = """
import os, subprocess, sys
from ray.cluster_utils import Cluster

cluster = Cluster()
try:
    for node in sys.argv[1].split(","):
        os.chdir(node)
        cluster.add_node(num_cpus=1, include_dashboard=False)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    sys.stdin.read()
finally:
    cluster.shutdown()
"""


def launcher(**settings: object) -> DictConfig:
    module = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
    return OmegaConf.create({"_target_": f"{module}.SlurmLauncher", "cpus_per_task": 1, **settings})


def sweep_at(server: Server, *arguments: str) -> tuple[str, ...]:
    return ("-m", "tracking=server", f"tracking.uri={server.uri}", *SMALL, *arguments)


def sweep(folder: Path, server: Server, *arguments: str, **environment: str) -> Done:
    return run(folder, "experiments.run", *sweep_at(server, *arguments), measured=False, **environment)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Mapping[str, str]]:
    with slurm.running() as environment:
        yield environment


def node(folder: Path, name: str) -> Path:
    place = folder / name
    place.mkdir()
    save_images(place / "images.npz")
    return place


@needs_slurm
@pytest.mark.endtoend
def test_slurm_runs_every_job_and_the_table_is_in_their_order(
    cluster: Mapping[str, str], server: Server, tmp_path: Path
) -> None:
    experiment = "tracking.experiment=slurm"
    done = sweep(node(tmp_path, "login"), server, *SLURM, experiment, "strategy=ptq_dynamic,none", **cluster)
    assert done.returncode == 0, done.stderr
    rows = load(server.uri, experiment="slurm")
    assert list(rows["strategy"]) == ["ptq_dynamic", "none"]
    assert set(rows["status"]) == {"FINISHED"}


@needs_slurm
@pytest.mark.endtoend
@pytest.mark.parametrize(
    ("setting", "problem"), [({"partition": "nope"}, "invalid partition"), ({"mem_gb": 99_999}, "configuration")]
)
def test_settings_that_slurm_would_reject_are_refused_before_the_sweep(
    setting: dict[str, object], problem: str, cluster: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster["SLURM_CONF"])
    check_slurm(launcher())
    with pytest.raises(UserError, match=f"Slurm would reject these jobs .*{problem}"):
        check_slurm(launcher(**setting))


def test_a_machine_without_slurm_is_refused_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="submitit: requires Slurm, but sbatch, srun, scontrol cannot be found"):
        check_slurm(launcher())


def test_what_slurm_prints_becomes_one_line() -> None:
    printed = "sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid\n"
    assert reason(printed) == "invalid partition specified: nope; Batch job submission failed: Invalid"


@needs_ray
@pytest.mark.endtoend
@pytest.mark.nightly  # a minute; one node is in test_launchers.py
def test_two_ray_nodes_share_a_sweep_and_keep_a_cache_each(server: Server, tmp_path: Path) -> None:
    nodes = [node(tmp_path, name) for name in ("first", "second")]
    command = [sys.executable, "-c", TWO_NODES, ",".join(map(str, nodes))]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as ray:
        assert ray.stdout is not None
        address = next(line.strip() for line in ray.stdout if line[:1].isdigit())
        launch = ("hydra/launcher=ray", f"hydra.launcher.ray.init.address={address}")
        own = ("hydra.launcher.ray.remote.num_cpus=1", "tracking.experiment=ray", "strategy=none,ptq_dynamic")
        done = sweep(node(tmp_path, "laptop"), server, *launch, *own)
        ray.communicate("")
    assert done.returncode == 0, done.stderr
    assert list(load(server.uri, experiment="ray")["status"]) == ["FINISHED", "FINISHED"]
    assert [len(list(place.glob("cache/training/*"))) for place in nodes] == [1, 1]
    assert not (tmp_path / "laptop" / "cache" / "training").exists()


@pytest.mark.endtoend
def test_two_machines_that_reuse_a_run_at_the_same_moment_both_have_it(server: Server, tmp_path: Path) -> None:
    experiment, machines = "tracking.experiment=race", [node(tmp_path, name) for name in ("one", "two")]
    assert sweep(machines[0], server, experiment, "strategy=none").returncode == 0
    again = sweep_at(server, experiment, "strategy=none")
    sweeps = [start(machine, "experiments.run", *again, measured=False) for machine in machines]
    outcomes = [(process.communicate()[1], process.returncode) for process in sweeps]
    assert outcomes == [("", 0), ("", 0)]
    store = connect(Tracking(uri=server.uri, experiment="race"), create=False)
    parents = [run.info.run_id for run in store.find("tags.kind = 'sweep'")]
    assert [len(store.rows(parent)) for parent in parents] == [1, 1, 1]
    assert len(store.rows("all")) == 1


@needs_auth
@pytest.mark.endtoend
def test_a_server_with_a_password_is_used_with_it_and_refuses_without(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "server"
    place.mkdir()
    shutil.copy(empty_store, place)
    settings = place / "auth.ini"
    settings.write_text(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{place}/auth.db\n"
        "admin_username = owner\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    secrets = {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": "a long password",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for the test",
    }
    server = Server(f"sqlite:///{place}/mlflow.db", place / "artifacts", ("--app-name", "basic-auth"), secrets)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "owner")
    try:
        server.start()
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another")
        with pytest.raises(UserError, match=r"requires a valid user and password.*MLFLOW_TRACKING_USERNAME"):
            connect(Tracking(uri=server.uri))
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secrets["MLFLOW_AUTH_ADMIN_PASSWORD"])
        store = connect(Tracking(uri=server.uri))
        store.close(store.open_sweep("a sweep", {}), "FINISHED")
        assert len(store.find("tags.kind = 'sweep'")) == 1
    finally:
        server.kill()
