"""The only package that uses MLflow: opens runs, writes their records, and loads runs as rows."""

from experiments.tracking.address import Tracking
from experiments.tracking.connection import await_server, check_answer, connect, open_existing
from experiments.tracking.creation import MissingStoreError
from experiments.tracking.model import run_name
from experiments.tracking.rows import Row
from experiments.tracking.store import DETAILS, REUSED, Status, Store

__all__ = [
    "DETAILS",
    "REUSED",
    "MissingStoreError",
    "Row",
    "Status",
    "Store",
    "Tracking",
    "await_server",
    "check_answer",
    "connect",
    "open_existing",
    "run_name",
]
