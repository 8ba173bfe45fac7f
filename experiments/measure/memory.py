"""Memory of a file: in LiteRT, and in the arena of TensorFlow Lite Micro (TFLM)."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from experiments.dataset import Images
from experiments.measure.accuracy import in_order
from experiments.measure.child import run_child
from experiments.measure.interpreter import xnnpack_refusal
from experiments.system.errors import UserError
from experiments.system.progress import say
from experiments.system.temporary import temporary_folder
from experiments.tflite.conversion import TFLiteModel
from experiments.tflite.graph import inputs_of

MEMORY_PROBE = Path(__file__).with_name("memory_probe.py")
MICRO_PROBE = Path(__file__).with_name("micro_probe.py")
INFERENCES = 5

ARENA_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
SOURCE_FILE = re.compile(r"^\S+\.(cc|h)(:\d+)?:? ")
FAILED_OP = re.compile(r"^Node (\w+) \(number (\d+)\) failed", re.MULTILINE)
UNTRUE = " was not true."
# Replacements of C++ operators in the conditions of kernels.
WORDS = {"->": " ", "==": "is", "!=": "is not", "||": "or", "&&": "and"}
TYPE = re.compile(r"kTfLite(\w+)")


@dataclass(frozen=True)
class Memory:
    """Resident memory in KiB of a process that only runs the model."""

    peak_kib: float  # of the whole process, with Python, NumPy and LiteRT
    model_kib: float  # increase by loading and running the model


@dataclass(frozen=True)
class Arena:
    """The arena of a file in TFLM."""

    # In use after an inference; None if the file does not run. Excludes the file itself, which stays in flash.
    bytes: int | None
    reason: str  # why the file does not run; empty if it does


def footprint(model: TFLiteModel, images: Images, threads: int) -> tuple[Memory, Arena | None]:
    """Measure `peak_memory` and `arena` in two parallel processes."""
    with ThreadPoolExecutor(2) as pool:
        memory, micro = pool.submit(peak_memory, model, images, threads), pool.submit(arena, model)
        return memory.result(), micro.result()


def peak_memory(model: TFLiteModel, images: Images, threads: int) -> Memory:
    """Measure the memory of a file in a clean process with LiteRT and NumPy, on a few images.

    `model_kib` includes the mapped pages of the file, the weights as packed by XNNPACK, the activations, and LiteRT
    code that is loaded on first use: 3 MiB even for a tiny model.

    Raises:
        UserError: the interpreter crashed, as it does for some files that it cannot run.
    """
    with temporary_folder("memory") as folder:
        (folder / "model.tflite").write_bytes(model.content)
        values: dict[str, Any] = {str(place): each for place, each in enumerate(in_order(model, images[:INFERENCES]))}
        np.savez(folder / "inputs.npz", **values)
        request = {"threads": threads, "xnnpack": not xnnpack_refusal(model)}
        (folder / "request.json").write_text(json.dumps(request))
        run_child(MEMORY_PROBE, folder)
        found = json.loads((folder / "memory.json").read_text())
    return Memory(found["peak_kib"], found["model_kib"])


def arena(model: TFLiteModel) -> Arena | None:
    """Measure the arena of a file in TFLM; None if tflite-micro is not installed or not usable.

    The bytes are the total that TFLM reports. During allocation it needs a few hundred more; a 32-bit device needs
    fewer, since its pointers are half as long.
    """
    if find_spec("tflite_micro") is None:
        return None
    with temporary_folder("arena") as folder:
        (folder / "model.tflite").write_bytes(model.content)
        (folder / "request.json").write_text(json.dumps({"inputs": _count_inputs(model)}))
        try:
            run_child(MICRO_PROBE, folder)
        except UserError as error:
            if not (folder / "output.txt").exists():  # the probe creates it after loading tflite-micro
                say(f"  micro arena not measured: {error}")
                return None
            return Arena(None, _reason(folder / "output.txt") or str(error))
        return Arena(_total((folder / "output.txt").read_text(errors="replace")), "")


def _count_inputs(model: TFLiteModel) -> int:
    """Return the number of inputs; 1 for an invalid file, of which TFLM says what is wrong."""
    try:
        return len(inputs_of(model.content))
    except UserError:
        return 1


def _total(output: str) -> int:
    found = ARENA_TOTAL.search(output)
    if found is None:
        raise UserError(f"This version of tflite-micro reports no arena. Its output: {output.strip() or 'none'}")
    return int(found[1])


def _reason(output: Path) -> str:
    """Return why the interpreter failed, and the op; empty if it printed nothing."""
    text = output.read_text(errors="replace") if output.exists() else ""
    native, _, python = text.partition("Traceback")
    first = next((line.strip() for line in native.splitlines() if line.strip()), "")
    if not first:
        return (python.strip().splitlines() or [""])[-1]
    reason = SOURCE_FILE.sub("", first)
    if reason.endswith(UNTRUE):
        reason = f"requires that {_in_words(reason.removesuffix(UNTRUE))}"
    op = FAILED_OP.search(native)
    return f"{op[1]} (op {op[2]}): {reason}" if op else reason


def _in_words(condition: str) -> str:
    for symbol, word in WORDS.items():
        condition = condition.replace(symbol, word)
    return TYPE.sub(lambda found: found[1].lower(), condition)
