"""Hydra's launchers: whether one can run jobs, and the threads that each job gets."""

import socket
from collections.abc import Sequence
from importlib.util import find_spec

from omegaconf import DictConfig

from experiments.runs.slurm import check_slurm
from experiments.system.errors import UserError
from experiments.system.extras import require
from experiments.system.machine import usable_cores

CLUSTER_PATIENCE = 5.0  # seconds
# The launcher that each plugin makes, and the extra that brings it.
EXTRAS = {
    "hydra_joblib_launcher": ("joblib", "joblib"),
    "hydra_ray_launcher": ("ray", "ray"),
    "hydra_submitit_launcher": ("submitit", "slurm"),
}


def check_launcher(launcher: DictConfig) -> None:
    """Check that a launcher can run jobs, before anything is run.

    Raises:
        UserError: its plugin is not installed, joblib may run no job, Ray has no cluster or too few cores, or Slurm is
            missing or rejects the jobs.
    """
    module = str(launcher._target_).rpartition(".")[0]
    plugin = module.partition("hydra_plugins.")[2].partition(".")[0]
    if plugin in EXTRAS:
        name, extra = EXTRAS[plugin]
        require(extra, f"hydra/launcher={name}")
    try:
        found = find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise UserError(
            f"hydra/launcher: the plugin module {module} is not installed. Install the package that provides it (such "
            f"as {(plugin or module).replace('_', '-')}), or use hydra/launcher=basic."
        )
    if launcher.get("n_jobs") == 0:
        raise UserError("hydra.launcher.n_jobs=0: requires the number of jobs to run at once, or -1 for one per core.")
    if "ray" in launcher:
        _check_cluster(launcher.ray)
    if launcher._target_.endswith(".SlurmLauncher"):
        check_slurm(launcher)


def _check_cluster(ray: DictConfig) -> None:
    """Check a Ray cluster: Ray waits forever for missing cores, and retries an address without a cluster 14 minutes."""
    address = str(ray.init.get("address") or "")
    asked, cores = ray.remote.get("num_cpus") or 1, ray.init.get("num_cpus") or usable_cores()
    if address == "local" and asked > cores:
        raise UserError(
            f"hydra.launcher.ray.remote.num_cpus={asked}: requires at most {cores}, the number of cores available."
        )
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), CLUSTER_PATIENCE).close()
    except OSError as error:
        raise UserError(
            f"hydra.launcher.ray.init.address={address}: no Ray cluster answers at this address ({error}). Start one "
            "with `ray start --head`, or omit the address to use this machine only."
        ) from error


def threads_per_job(launcher: DictConfig, asked: Sequence[int | None], cores: int) -> int | None:
    """Return TensorFlow's threads per job when a launcher runs jobs in parallel; None when it runs one at a time.

    `asked` holds the `threads` setting of each job; if any is set, nothing is chosen. On a cluster the cores of this
    machine do not matter: a job gets what it requests from its node.
    """
    if any(asked):
        return None
    match launcher._target_.rpartition(".")[2]:
        case "JoblibLauncher":
            wanted = int(launcher.n_jobs)
            at_once = wanted if wanted > 0 else cores + 1 + wanted  # joblib's convention
            return max(1, cores // max(1, min(at_once, len(asked))))
        case "RayLauncher":
            return max(1, int(launcher.ray.remote.get("num_cpus") or 1))
        case "SlurmLauncher":
            return int(launcher.cpus_per_task or 1)
        case _:
            return None
