"""The provenance of a result: machine, versions, commit and command, with which it can be judged and reproduced."""

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from experiments.system.files import PACKAGE
from experiments.system.program import PROGRAM, program

PACKAGES = (
    "tensorflow", "tf-keras", "tensorflow-model-optimization", "mlflow", "hydra-core", "numpy",
)  # fmt: skip
# The code that decides the results of a run. Changes elsewhere, such as in plots and tables, invalidate no results.
RESULT_CODE = (
    "dataset", "task", "model", "quantization", "strategy", "tflite", "training", "measure", "statistics", "record",
    "runs", "system/tensorflow.py",
)  # fmt: skip
COMMITTED = (":/experiments", ":/conf")  # includes untracked files, such as a new strategy
# Virtual machines abbreviate the name of the CPU; these fields identify its generation, the first three on x86, the
# others on ARM.
CPU_FIELDS = ("cpu family", "model", "stepping", "CPU implementer", "CPU variant", "CPU part", "CPU revision")
# Instruction sets that int8 and bfloat16 kernels check for.
KERNEL_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
# More of them, which decide the last digits of a training, but no comparison of latencies: an older stamp has none.
FURTHER_FLAGS = ("fma", "avx_vnni", "avx512_fp16", "amx_bf16", "amx_tile", "sve", "sve2", "bf16")


@cache
def stamp() -> Mapping[str, str]:
    """Return machine, versions and git commit as text; `machine` is a digest of everything that affects latency."""
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


# Files with an id of the system, which differs between machines of one kind. The last is readable for root only.
MACHINE_IDS = tuple(map(Path, ("/etc/machine-id", "/var/lib/dbus/machine-id", "/sys/class/dmi/id/product_uuid")))


@cache
def this_machine() -> str:
    """Return what names this machine in its timings: `machine` of the stamp, and a digest of the id of the system.

    The id itself is confidential. Without one, as in many containers, machines of one kind are not distinguished.
    """
    kind = stamp()["machine"]
    found = next(filter(None, map(_machine_id, MACHINE_IDS)), "")
    return f"{kind}-{hashlib.sha256(f'{PROGRAM} {found}'.encode()).hexdigest()[:8]}" if found else kind


def is_this_machine(name: str) -> bool:
    """Whether a round was timed on this machine; the name in records of earlier versions is only that of its kind."""
    return name in (this_machine(), stamp()["machine"])


def _machine_id(path: Path) -> str:
    """Return the id in a file; empty without a valid one, such as before the first start of a system."""
    try:
        found = path.read_text(errors="replace").strip().replace("-", "")
    except OSError:
        return ""
    return found if re.fullmatch("[0-9a-fA-F]{32}", found) and int(found, 16) else ""


# Packages other than TensorFlow that convert or run files; the last one requires the extra `micro`.
RUNTIMES = ("ai-edge-litert", "litert-quantizer", "tflite-micro")


@cache
def runtimes() -> Mapping[str, str]:
    """Return the versions of RUNTIMES; empty for packages that are not installed."""
    return {name: _installed(name) for name in RUNTIMES}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _machine() -> dict[str, str]:
    """Return the properties that affect latency; latencies of machines that differ in one are never compared."""
    model, flags = _cpu()
    return {
        "cpu": model,
        "cpu_flags": " ".join(flag for flag in KERNEL_FLAGS if flag in flags) or "none known",
        "cores": str(os.cpu_count()),
        "governor": _governor(),
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.0f}",
        "os": platform.platform(terse=True),
        "ai-edge-litert": version("ai-edge-litert"),
    }


def further_cpu_flags() -> str:
    """Return the FURTHER_FLAGS of this machine, each after a space."""
    flags = _cpu()[1]
    return "".join(f" {flag}" for flag in FURTHER_FLAGS if flag in flags)


def _governor() -> str:
    """Return the frequency governor of the first core; unknown on virtual machines."""
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else "unknown"


def code_digest(package: Path) -> str:
    """Return the digest of the code that decides results, in a folder of the package."""
    paths = [package / name for name in RESULT_CODE]
    files = sorted(file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py")))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


# Computed at import: if the files change during a sweep, the loaded code still has produced its results.
CODE_DIGEST = code_digest(PACKAGE)


def _cpu() -> tuple[str, frozenset[str]]:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine(), frozenset()
    lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    details = [f"{key} {fields[key]}" for key in CPU_FIELDS if key in fields]
    name = ", ".join([fields.get("model name", platform.machine()), *details])
    return name, frozenset(fields.get("flags", fields.get("Features", "")).split())


def typed_command() -> str:
    """Return the command that started this process, quoted for a shell."""
    return shlex.join([*program("run").split(), *sys.argv[1:]])


def is_changed() -> bool:
    """Whether the code or the options differ from the commit; False without a repository."""
    return bool(_git("status", "--porcelain", "--", *COMMITTED))


def _git(*arguments: str) -> str:
    """Return git's output for the checkout with this package; empty if it was installed without one."""
    try:
        result = subprocess.run(
            ["git", "-C", str(PACKAGE), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
