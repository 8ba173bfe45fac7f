"""Servers that a benchmark or a test starts on this machine: where they listen, and waiting for them."""

import socket
import time
from collections.abc import Callable

LOOPBACK = "127.0.0.1"
SECONDS_TO_START = 120.0


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_until(ready: Callable[[], bool], what: str, seconds: float = SECONDS_TO_START) -> None:
    """Poll ten times a second.

    Raises:
        TimeoutError: the condition is still false.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)
