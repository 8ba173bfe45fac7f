"""The names of the distribution and of its console command."""

import sys
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "tflite-quantization-bench"
PROGRAM = "tqb"


def program(command: str) -> str:
    """Return how to type a command, as this process was started: `tqb run` or `python -m experiments.run`."""
    by_console_command = sys.argv[0].startswith(f"{PROGRAM} ")
    return f"{PROGRAM} {command}" if by_console_command else f"python -m experiments.{command}"


def version_line() -> str:
    """Return the name and the version of this suite, as `--version` prints them."""
    try:
        return f"{PROGRAM} {version(DISTRIBUTION)}\n"
    except PackageNotFoundError:
        return f"{PROGRAM} (not installed)\n"
