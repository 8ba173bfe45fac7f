"""Measures the memory of a TFLite file in a process that holds nothing but LiteRT and numpy.

Run with FOLDER; FOLDER holds model.tflite, inputs.npy and request.json, and memory.json receives KiB.
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
    """Load the file, run it on each input, and write how high memory rose before and because of it."""
    request = json.loads((folder / "request.json").read_text())
    inputs = np.load(folder / "inputs.npy", allow_pickle=False)
    imports = peak_kib()
    forget_peak()
    without_model = peak_kib()

    kernels = OpResolverType.AUTO if request["xnnpack"] else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        str(folder / "model.tflite"), num_threads=request["threads"], experimental_op_resolver_type=kernels
    )
    interpreter.allocate_tensors()
    for values in inputs:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values[np.newaxis])
        interpreter.invoke()

    with_model = peak_kib()
    found = {"peak_kib": max(imports, with_model), "model_kib": with_model - without_model}
    (folder / "memory.json").write_text(json.dumps(found))


def forget_peak() -> None:
    """Let the peak begin anew at what is resident now, where the system can: Linux, if we may write there."""
    try:
        RESET.write_text("5")
    except OSError:
        return  # the peak of the imports stands, which lies little above what they leave resident


def peak_kib() -> float:
    """The most memory that was resident so far, KiB."""
    if STATUS.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)):
        return float(found[1])
    # Not on Linux, where this number begins with the memory of the process that started this one.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1024 if sys.platform == "darwin" else float(most)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
