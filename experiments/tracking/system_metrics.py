"""The load of the machine while a run goes on, as MLflow's system metrics; never sampled while a time is measured."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

import psutil

from experiments.system.machine import compute_lock

INTERVAL = 5.0  # seconds between two samples


@contextmanager
def sampled(run_id: str, uri: str) -> Iterator[None]:
    """Sample processors, memory, disk and network (and GPUs) of the whole machine into a run during the block."""
    ended = Event()
    sampler = Thread(target=_sample, args=(run_id, uri, ended), name="system metrics", daemon=True)
    sampler.start()
    try:
        yield
    finally:
        ended.set()
        sampler.join()


def _sample(run_id: str, uri: str, ended: Event) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor: Any = SystemMetricsMonitor(run_id, INTERVAL, tracking_uri=uri)  # type: ignore[no-untyped-call]
    with suppress(MlflowException):  # the store is gone: the run itself, which needs it, says so
        psutil.cpu_percent()  # later samples count from here on; the first of a process is always 0
        over = False
        while not over:
            over = ended.wait(monitor.sampling_interval)  # MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL has its say
            with compute_lock():  # which waits while a time is measured anywhere on this machine
                monitor.collect_metrics()
                monitor.publish_metrics(monitor.aggregate_metrics())
        monitor.mlflow_logger.flush()
