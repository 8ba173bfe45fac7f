"""Runs a TFLite file once in the interpreter for microcontrollers, which may well end the process.

Run with FOLDER; FOLDER holds model.tflite, said.txt receives what the interpreter says.
"""

import os
import sys
from pathlib import Path

import numpy as np
from tflite_micro.python.tflite_micro import runtime

# More than any microcontroller has, so that no model fails for it. What is not touched costs nothing.
ARENA = 1 << 28


def main(folder: Path) -> None:
    """One inference with zeros, and the allocations that it needed."""
    with (folder / "said.txt").open("wb") as said:
        os.dup2(said.fileno(), 2)  # native code writes there
    interpreter = runtime.Interpreter.from_file(str(folder / "model.tflite"), arena_size=ARENA)
    entry = interpreter.get_input_details(0)
    interpreter.set_input(np.zeros(entry["shape"], entry["dtype"]), 0)
    interpreter.invoke()
    interpreter.print_allocations()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
