"""Who may use the machine: runs compute side by side, and one that measures time waits until it is alone.

The locks are in a folder of the user, so that nobody else can hold them; what other users do shows in the conditions of
a measurement. They are taken for one piece of work at a time, such as an epoch, and never while another lock is waited
for.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from experiments.system.locks import file_lock, remove_dead_names
from experiments.system.temporary import own_folder

IDLE = ("idle", "iowait")


@contextmanager
def compute_lock() -> Iterator[None]:
    """Compute, beside others who do; wait while a time is being measured by a process of this user."""
    with ExitStack() as stack:
        with file_lock(_locks() / "entrance", "a time is being measured"):
            stack.enter_context(file_lock(_locks() / "work", "a time is being measured", shared=True))
        yield


@contextmanager
def timing_lock() -> Iterator[None]:
    """Measure a time: wait for those at work, and keep others from beginning."""
    # Holding the entrance keeps newcomers out, or work without a gap would never let a measurement begin.
    with (
        file_lock(_locks() / "entrance", "another time is being measured, or is to be"),
        file_lock(_locks() / "work", "a time is measured when nothing else computes"),
    ):
        yield


@cache
def _locks() -> Path:
    folder = own_folder()
    remove_dead_names(folder)
    return folder


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Conditions:
    """How busy others kept the cores that this process may use, while it or its children measured something."""

    cores: int
    other_cores: float  # cores kept busy by others on average; time that other virtual machines took counts as busy
    steal_cores: float  # of them, those that other virtual machines took
    load_before: float  # the operating system's load average over a minute
    load_after: float


class Watch:
    """Sees, from its making on, what else goes on."""

    def __init__(self) -> None:
        self._started, self._load = time.perf_counter(), _load()
        self._busy, self._stolen, self._own = _busy_seconds(), _stolen_seconds(), _own_seconds()

    def conditions(self) -> Conditions:
        """What has gone on until now."""
        seconds = time.perf_counter() - self._started
        others = _busy_seconds() - self._busy - (_own_seconds() - self._own)
        return Conditions(
            cores=usable_cores(),
            other_cores=max(0.0, others / seconds),
            steal_cores=(_stolen_seconds() - self._stolen) / seconds,
            load_before=self._load,
            load_after=_load(),
        )


def _load() -> float:
    return os.getloadavg()[0]


def _stolen_seconds() -> float:
    return float(sum(getattr(core, "steal", 0.0) for core in _usable()))  # known on Linux only


def _busy_seconds() -> float:
    left_out = (*IDLE, "guest", "guest_nice")  # the latter two are counted as those of a user as well
    return float(sum(value for core in _usable() for name, value in core._asdict().items() if name not in left_out))


def _usable() -> list[Any]:
    """The times of the cores that this process may run on: what others do elsewhere does not disturb it."""
    cores = psutil.cpu_times(percpu=True)
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(cores))
    return [core for number, core in enumerate(cores) if number in own]


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
