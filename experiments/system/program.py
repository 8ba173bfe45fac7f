"""The names of this program: of its distribution, and of the command that somebody typed."""

import sys

DISTRIBUTION = "keras-tflite-quantization-bench"
PROGRAM = "tqb"


def program(command: str) -> str:
    """How a command was started: `tqb run`, or `python -m experiments.run`."""
    started = f"{PROGRAM} {command}"
    return started if sys.argv[0] == started else f"python -m experiments.{command}"
