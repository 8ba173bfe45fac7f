"""Checks before a sweep on Slurm: its programs are installed, and it would accept the jobs."""

import logging
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from experiments.system.errors import UserError

PROGRAMS = ("sbatch", "srun", "scontrol")  # called by the launcher
ANSWER_SECONDS = 30.0
# Settings of the launcher's option, and the arguments of `sbatch`.
OPTIONS: Mapping[str, str] = {
    "partition": "--partition={}",
    "qos": "--qos={}",
    "account": "--account={}",
    "constraint": "--constraint={}",
    "nodes": "--nodes={}",
    "tasks_per_node": "--ntasks-per-node={}",
    "cpus_per_task": "--cpus-per-task={}",
    "mem_gb": "--mem={}G",
    "timeout_min": "--time={}",
    "gpus_per_node": "--gpus-per-node={}",
    "gres": "--gres={}",
}


def check_slurm(launcher: Mapping[str, Any]) -> None:
    """Check that Slurm would accept a job with these settings; nothing is submitted.

    Raises:
        UserError: Slurm's programs are missing, its controller does not answer, or it rejects the settings.
    """
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        raise UserError(
            f"hydra/launcher=submitit: requires Slurm, but {', '.join(absent)} cannot be found on this machine. Start "
            "the sweep on a login node of the cluster, or use hydra/launcher=joblib."
        )
    # Every poll of a cluster without accounting logs a warning; the outcome is read from the job's files anyway.
    logging.getLogger("submitit").setLevel(logging.ERROR)
    asked = {name: launcher.get(name) for name in OPTIONS if launcher.get(name) is not None}
    options = [OPTIONS[name].format(value) for name, value in asked.items()]
    try:
        answer = subprocess.run(
            ["sbatch", "--test-only", *options, "--wrap=true"],
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"hydra/launcher=submitit: Slurm's controller does not answer within {ANSWER_SECONDS:.0f} s. Type `sinfo` "
            "to see whether it is running."
        ) from error
    if answer.returncode:
        settings = " ".join(f"hydra.launcher.{name}={value}" for name, value in asked.items())
        raise UserError(
            f"hydra/launcher=submitit: Slurm would reject these jobs ({reason(answer.stderr)}). They request "
            f"{settings}. Type `sinfo` for the partitions and their nodes."
        )


def reason(text: str) -> str:
    """Return the error messages of Slurm's programs as one line."""
    prefixes = ("allocation failure: ", "sbatch: ", "error: ", "fatal: ")
    lines = []
    for line in text.strip().splitlines():
        for prefix in prefixes:
            line = line.removeprefix(prefix)  # noqa: PLW2901  # a line may have several prefixes
        lines.append(line.strip())
    return "; ".join(dict.fromkeys(lines))
