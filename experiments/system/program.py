"""The names of the distribution and of its console command."""

import sys

DISTRIBUTION = "keras-tflite-quantization-bench"
PROGRAM = "tqb"


def program(command: str) -> str:
    """Return how a command was started: `tqb run`, or `python -m experiments.run`."""
    started = f"{PROGRAM} {command}"
    return started if sys.argv[0] == started else f"python -m experiments.{command}"
