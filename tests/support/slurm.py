"""A Slurm cluster of one node on loopback, run by the user of the test, with a munge of its own."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil

from benchmarks.harness.loopback import LOOPBACK, free_port, wait_until

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "sinfo")
NODE = "node0"
PARTITION = "test"
SYSTEM_FOLDERS = "/usr/sbin:/sbin"  # often missing from the path of a user


def missing() -> str:
    """What Slurm lacks on this machine; empty where a cluster can be started."""
    absent = [program for program in (*DAEMONS, *CLIENTS) if _program(program) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)} missing): apt-get install slurm-wlm munge"
    return "" if find_spec("hydra_plugins.hydra_submitit_launcher") else "the submitit launcher is missing: extra slurm"


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_FOLDERS}")


@contextmanager
def running() -> Iterator[Mapping[str, str]]:
    """The environment in which `sbatch` finds the cluster; it ends with the block. Only where nothing is `missing`."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with ExitStack() as daemons:
            key, munge = folder / "munge.key", folder / "munge.socket"
            key.write_bytes(os.urandom(128))
            key.chmod(0o600)
            files = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("pid", "log", "seed")]
            options = [f"--socket={munge}", f"--key-file={key}", *files, "--num-threads=2", "--force", "--foreground"]
            daemons.enter_context(_daemon("munged", options, folder))
            wait_until(munge.exists, "munged listens")

            configuration = folder / "slurm.conf"
            configuration.write_text(_configuration(folder, munge))
            for place in ("state", "spool"):
                (folder / place).mkdir()
            daemons.enter_context(_daemon("slurmctld", ["-D", "-f", str(configuration)], folder))
            daemons.enter_context(_daemon("slurmd", ["-D", "-f", str(configuration), "-N", NODE], folder))
            environment = {**os.environ, "SLURM_CONF": str(configuration)}
            wait_until(lambda: _is_idle(environment), f"the node is idle (logs in {folder})")
            yield environment
    finally:
        shutil.rmtree(folder)


def _configuration(folder: Path, munge: Path) -> str:
    user = pwd.getpwuid(os.getuid()).pw_name
    # Slurm asks the operating system for a node's processors and refuses a node that claims more.
    memory = psutil.virtual_memory().total // 2**20 // 2
    settings = {
        "ClusterName": "loopback",
        "SlurmctldHost": f"{socket.gethostname()}({LOOPBACK})",
        "SlurmctldPort": free_port(),
        "SlurmdPort": free_port(),
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={munge}",
        "CredType": "cred/munge",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd.pid",
        # Containers have no cgroups to give away.
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "MpiDefault": "none",
        "ReturnToService": 2,
        "SchedulerParameters": "sched_interval=1,batch_sched_delay=0",
    }
    lines = [f"{name}={value}" for name, value in settings.items()]
    node = f"NodeAddr={LOOPBACK} NodeHostname={socket.gethostname()} CPUs={os.cpu_count()} RealMemory={memory}"
    return "\n".join(
        [
            *lines,
            f"NodeName={NODE} {node} State=UNKNOWN",
            f"PartitionName={PARTITION} Nodes={NODE} Default=YES State=UP",
            "",
        ]
    )


@contextmanager
def _daemon(name: str, options: Sequence[str], folder: Path) -> Iterator[None]:
    program = _program(name)
    assert program is not None, missing()
    with (folder / f"{name}.out").open("w") as log:
        process = subprocess.Popen([program, *options], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def _is_idle(environment: Mapping[str, str]) -> bool:
    asked = subprocess.run(
        ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() == "idle"
