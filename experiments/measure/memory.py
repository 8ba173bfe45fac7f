"""How much memory a file needs: in LiteRT, and in the arena of the runtime for microcontrollers."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from experiments.dataset import Images
from experiments.measure.accuracy import input_of, quantized
from experiments.measure.child import run_child
from experiments.measure.interpreter import xnnpack_refusal
from experiments.system.errors import UserError
from experiments.system.progress import say
from experiments.system.temporary import temporary_folder
from experiments.tflite.conversion import TFLiteModel

MEMORY_PROBE = Path(__file__).with_name("memory_probe.py")
MICRO_PROBE = Path(__file__).with_name("micro_probe.py")
INFERENCES = 5

ARENA_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
SOURCE_FILE = re.compile(r"^\S+\.(cc|h)(:\d+)?:? ")
FAILED_OP = re.compile(r"^Node (\w+) \(number (\d+)\) failed", re.MULTILINE)
UNTRUE = " was not true."
# From C++ to words, for the conditions that kernels set.
WORDS = {"->": " ", "==": "is", "!=": "is not", "||": "or", "&&": "and"}
TYPE = re.compile(r"kTfLite(\w+)")


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process that runs nothing but the model, KiB."""

    peak_kib: float  # of the whole process, with Python, numpy and LiteRT
    model_kib: float  # what loading and running the model added to it


@dataclass(frozen=True)
class Arena:
    """What the runtime for microcontrollers (TFLM) makes of a file."""

    # In use after an inference, None where it does not run; the file itself is not counted, as it stays in flash.
    bytes: int | None
    reason: str  # why it does not run; empty where it does


def footprint(model: TFLiteModel, images: Images, threads: int) -> tuple[Memory, Arena | None]:
    """What `peak_memory` and `arena` find, in two processes side by side."""
    with ThreadPoolExecutor(2) as pool:
        memory, micro = pool.submit(peak_memory, model, images, threads), pool.submit(arena, model)
        return memory.result(), micro.result()


def peak_memory(model: TFLiteModel, images: Images, threads: int) -> Memory:
    """The memory that a file takes in a clean process with LiteRT and numpy, on a few images.

    `model_kib` counts the pages of the file (the interpreter maps it), the weights as XNNPACK packs them, the
    activations, and what of LiteRT's own code is needed for the first time: 3 MiB even for a model of a few neurons.

    Raises:
        UserError: the interpreter ended the process, as it does on files it cannot run.
    """
    with temporary_folder("memory") as folder:
        (folder / "model.tflite").write_bytes(model.content)
        np.save(folder / "inputs.npy", quantized(images[:INFERENCES], input_of(model)))
        request = {"threads": threads, "xnnpack": not xnnpack_refusal(model)}
        (folder / "request.json").write_text(json.dumps(request))
        run_child(MEMORY_PROBE, folder)
        found = json.loads((folder / "memory.json").read_text())
    return Memory(found["peak_kib"], found["model_kib"])


def arena(model: TFLiteModel) -> Arena | None:
    """Whether the file runs on microcontrollers, and in how large an arena; None where tflite-micro cannot tell.

    The bytes are the total that TFLM reports. While it allocates, it needs a few hundred more for a moment; and a
    32-bit device needs fewer for its records, since pointers are half as long there.
    """
    if find_spec("tflite_micro") is None:
        return None
    with temporary_folder("arena") as folder:
        (folder / "model.tflite").write_bytes(model.content)
        try:
            run_child(MICRO_PROBE, folder)
        except UserError as error:
            if not (folder / "said.txt").exists():  # made by the probe once tflite-micro is loaded
                say(f"  micro arena not measured: {error}")
                return None
            return Arena(None, _reason(folder / "said.txt") or str(error))
        return Arena(_total((folder / "said.txt").read_text(errors="replace")), "")


def _total(said: str) -> int:
    found = ARENA_TOTAL.search(said)
    if found is None:
        raise UserError(f"This version of tflite-micro reports no arena. It said: {said.strip() or 'nothing'}")
    return int(found[1])


def _reason(said: Path) -> str:
    """What the interpreter cannot do, and with which op; empty where it said nothing."""
    text = said.read_text(errors="replace") if said.exists() else ""
    native, _, python = text.partition("Traceback")
    first = next((line.strip() for line in native.splitlines() if line.strip()), "")
    if not first:
        return (python.strip().splitlines() or [""])[-1]
    reason = SOURCE_FILE.sub("", first)
    if reason.endswith(UNTRUE):
        reason = f"it demands that {_in_words(reason.removesuffix(UNTRUE))}"
    op = FAILED_OP.search(native)
    return f"{op[1]} (op {op[2]}): {reason}" if op else reason


def _in_words(condition: str) -> str:
    for symbol, word in WORDS.items():
        condition = condition.replace(symbol, word)
    return TYPE.sub(lambda found: found[1].lower(), condition)
