"""Run a TFLite file once in TensorFlow Lite Micro, which may crash the process.

Run with FOLDER, which has model.tflite and request.json; output.txt receives the output of the interpreter.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
from tflite_micro.python.tflite_micro import runtime

# More than any microcontroller has, so that the size never limits a model. Untouched pages cost nothing.
ARENA = 1 << 28


def main(folder: Path) -> None:
    """Run one inference with zeros, and print the allocations."""
    with (folder / "output.txt").open("wb") as output:
        os.dup2(output.fileno(), 2)  # native code writes there
    interpreter = runtime.Interpreter.from_file(str(folder / "model.tflite"), arena_size=ARENA)
    for place in range(json.loads((folder / "request.json").read_text())["inputs"]):
        details = interpreter.get_input_details(place)
        interpreter.set_input(np.zeros(details["shape"], details["dtype"]), place)
    interpreter.invoke()
    interpreter.print_allocations()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
