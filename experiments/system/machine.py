"""Machine-wide locks: runs compute in parallel, but latency is measured only while nothing else computes.

The locks are in a folder of the user, so that other users cannot hold them; the load by other users is recorded in the
conditions of a measurement. A lock is held for one step, such as an epoch, and never while waiting for another.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from experiments.system.locks import file_lock, remove_dead_names
from experiments.system.temporary import user_folder

IDLE = ("idle", "iowait")
_held = threading.local()


@contextmanager
def compute_lock() -> Iterator[None]:
    """Compute in parallel with other runs; waits while another process of this user measures latency.

    A thread that holds the lock does not wait for it again: a waiting measurement blocks new holders, so both would
    wait for each other forever.
    """
    if getattr(_held, "by_this_thread", False):
        yield
        return
    with ExitStack() as stack:
        with file_lock(_locks() / "entrance", "latency is being measured"):
            stack.enter_context(file_lock(_locks() / "work", "latency is being measured", shared=True))
        _held.by_this_thread = True
        try:
            yield
        finally:
            _held.by_this_thread = False


@contextmanager
def timing_lock() -> Iterator[None]:
    """Measure latency: waits for running computations, and prevents others from starting."""
    # The entrance lock keeps new computations out; otherwise a measurement might wait forever.
    with (
        file_lock(_locks() / "entrance", "another latency measurement is running or waiting"),
        file_lock(_locks() / "work", "latency is measured when nothing else computes"),
    ):
        yield


@contextmanager
def recording_lock() -> Iterator[None]:
    """Change what finished runs record of their timing; another process may add rounds to the same runs."""
    with file_lock(_locks() / "record", "another process records rounds of timing"):
        yield


@cache
def _locks() -> Path:
    folder = user_folder()
    remove_dead_names(folder)
    return folder


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Conditions:
    """How much other processes used the cores of this process while it or its children measured something."""

    cores: int
    other_cores: float  # cores used by others on average, including time stolen by other virtual machines
    steal_cores: float  # the part of `other_cores` that was stolen by other virtual machines
    load_before: float  # the operating system's load average over a minute
    load_after: float


class Watch:
    """Observes the load of the machine, starting when it is created."""

    def __init__(self) -> None:
        self._started, self._load = time.perf_counter(), _load()
        self._busy, self._stolen, self._own = _busy_seconds(), _stolen_seconds(), _own_seconds()

    def conditions(self) -> Conditions:
        """Return the conditions since the creation."""
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
    return float(sum(getattr(core, "steal", 0.0) for core in _usable()))  # Linux only


def _busy_seconds() -> float:
    omitted = (*IDLE, "guest", "guest_nice")  # guest time is also counted as user time
    return float(sum(value for core in _usable() for name, value in core._asdict().items() if name not in omitted))


def _usable() -> list[Any]:
    """Return the CPU times of the cores that this process may run on; load on other cores does not matter."""
    cores = psutil.cpu_times(percpu=True)
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(cores))
    return [core for number, core in enumerate(cores) if number in own]


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
