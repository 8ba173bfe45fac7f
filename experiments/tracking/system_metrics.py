"""The load of the machine during a run, as MLflow's system metrics; not sampled while latency is measured."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

import psutil

from experiments.system.machine import compute_lock

INTERVAL = 5.0  # seconds between two samples


@contextmanager
def record_system_metrics(run_id: str, uri: str) -> Iterator[None]:
    """Record the machine's CPU, memory, disk, network and GPU load with a run while the block runs."""
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
    with suppress(MlflowException):  # if the store is unavailable, the run itself reports it
        psutil.cpu_percent()  # the first call returns 0, and starts the interval of the next one
        over = False
        while not over:
            over = ended.wait(monitor.sampling_interval)  # MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL can change it
            with compute_lock():  # waits while latency is measured on this machine
                monitor.collect_metrics()
                monitor.publish_metrics(monitor.aggregate_metrics())
        monitor.mlflow_logger.flush()
