"""Measure the memory of a TFLite file in a process with only LiteRT and NumPy.

Run with FOLDER, which has model.tflite, inputs.npz and request.json; memory.json receives the result in KiB.
"""

import json
import re
import resource
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")


def main(folder: Path) -> None:
    """Load the file, run it on each input, and write the peak memory and the increase by the model."""
    request = json.loads((folder / "request.json").read_text())
    with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
        inputs = [arrays[str(place)] for place in range(len(arrays.files))]
    imports = peak_kib()
    reset_peak()
    without_model = peak_kib()

    kernels = OpResolverType.AUTO if request["xnnpack"] else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        str(folder / "model.tflite"), num_threads=request["threads"], experimental_op_resolver_type=kernels
    )
    interpreter.allocate_tensors()
    for place in range(len(inputs[0])):
        for details, values in zip(interpreter.get_input_details(), inputs, strict=True):
            interpreter.set_tensor(details["index"], values[place : place + 1])
        interpreter.invoke()

    with_model = peak_kib()
    found = {"peak_kib": max(imports, with_model), "model_kib": with_model - without_model}
    (folder / "memory.json").write_text(json.dumps(found))


def reset_peak() -> None:
    """Reset the peak to the current resident memory, which only Linux supports, if /proc is writable."""
    try:
        RESET.write_text("5")
    except OSError:
        return  # the peak of the imports remains, which is slightly higher


def peak_kib() -> float:
    """Return the peak resident memory in KiB."""
    if STATUS.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)):
        return float(found[1])
    # Not used on Linux, where this number includes the memory of the parent process.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1024 if sys.platform == "darwin" else float(most)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
