"""Where and with what a result was made: what a reader needs to judge it, and to make it again."""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from experiments.system.files import PACKAGE
from experiments.system.program import program

PACKAGES = (
    "tensorflow", "tf-keras", "tensorflow-model-optimization", "mlflow", "hydra-core", "numpy",
)  # fmt: skip
# The code that decides what a run records. Whoever edits a picture, a table or a command measures nothing anew.
DECISIVE = (
    "dataset", "task", "model", "quantization", "strategy", "tflite", "training", "measure", "statistics", "record",
    "runs", "system/tensorflow.py",
)  # fmt: skip
COMMITTED = (":/experiments", ":/conf")  # new files too, for a strategy of one's own is one
# Virtual machines shorten the name of a CPU; these tell generations apart, the first three on x86, the others on ARM.
KIND = ("cpu family", "model", "stepping", "CPU implementer", "CPU variant", "CPU part", "CPU revision")
# The instructions that int8 and bfloat16 kernels look for.
DECISIVE_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")


@cache
def stamp() -> Mapping[str, str]:
    """The machine, versions and git commit, as short texts; `machine` stands for all that decides latencies."""
    machine = _machine()
    return {
        **machine,
        "machine": hashlib.sha256(repr(machine).encode()).hexdigest()[:8],
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        **{name: installed for name, installed in runtimes().items() if installed},
        "git_commit": _git("rev-parse", "HEAD") or "unknown",
        "git_dirty": str(is_changed()).lower(),
    }


# What converts and runs files beside TensorFlow; the last one where the extra `micro` is installed.
RUNTIMES = ("ai-edge-litert", "litert-quantizer", "tflite-micro")


@cache
def runtimes() -> Mapping[str, str]:
    """The versions of what converts and runs files beside TensorFlow; empty where it is not installed."""
    return {name: _installed(name) for name in RUNTIMES}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _machine() -> dict[str, str]:
    """What decides how long an inference takes. Latencies of machines that differ here are never compared."""
    model, flags = _cpu()
    return {
        "cpu": model,
        "cpu_flags": " ".join(flag for flag in DECISIVE_FLAGS if flag in flags) or "none known",
        "cores": str(os.cpu_count()),
        "governor": _governor(),
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.0f}",
        "os": platform.platform(terse=True),
        "ai-edge-litert": version("ai-edge-litert"),
    }


def _governor() -> str:
    """What decides the clock rate of the first core; virtual machines do not tell."""
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else "unknown"


def code_digest(package: Path) -> str:
    """The digest of the code in this folder of the package that decides results."""
    decisive = [package / name for name in DECISIVE]
    files = sorted(file for path in decisive for file in ([path] if path.is_file() else path.rglob("*.py")))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


# Of the code that is loaded now, not of what it may become while a sweep runs: results of other code are not results
# of this one.
CODE_DIGEST = code_digest(PACKAGE)


def _cpu() -> tuple[str, frozenset[str]]:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine(), frozenset()
    lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    kind = [f"{key} {fields[key]}" for key in KIND if key in fields]
    name = ", ".join([fields.get("model name", platform.machine()), *kind])
    return name, frozenset(fields.get("flags", fields.get("Features", "")).split())


def typed() -> str:
    """The command that makes a run or a sweep, as a shell takes it."""
    return shlex.join([*program("run").split(), *sys.argv[1:]])


def is_changed() -> bool:
    """Whether what decides a result is no longer, or not yet, what the commit has; False where there is no commit."""
    return bool(_git("status", "--porcelain", "--", *COMMITTED))


def _git(*arguments: str) -> str:
    """What git says of the checkout that this package lies in; empty where it is installed without one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
