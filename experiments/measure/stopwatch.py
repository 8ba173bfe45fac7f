"""Times TFLite files side by side in a process that holds nothing but LiteRT and numpy.

Run as `python stopwatch.py FOLDER`; FOLDER/request.json says what to do, FOLDER/samples.npz receives the timings.

One replicate makes fresh interpreters of every file, since two interpreters of one file truly differ (memory layout),
warms them up, and times blocks of single invocations in random order, so that a slow moment of the machine hits all
files alike (randomised multiple interleaved trials: Abedi and Brecht, ICPE 2017).
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

Inputs = npt.NDArray[np.generic]

WARM_UP = 10  # invocations, or as many as fit into half of a replicate's time
BLOCK = 10  # invocations of one file before another file's turn
REPLICATES_AT_LEAST = 3


@dataclass(frozen=True)
class Contestant:
    """A file ready to be timed; `inputs` (n, ...) are in the type that it takes."""

    name: str
    interpreter: Any
    index: int
    inputs: Inputs

    def time(self, image: int) -> int:
        """Nanoseconds of one inference; setting the input is not part of it."""
        self.interpreter.set_tensor(self.index, self.inputs[image][np.newaxis])
        started = time.perf_counter_ns()
        self.interpreter.invoke()
        return time.perf_counter_ns() - started


def main(folder: Path) -> None:
    """Time the requested files and write, for each, the replicate and the nanoseconds of every invocation."""
    request = json.loads((folder / "request.json").read_text())
    inputs = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in request["names"]}
    rng = np.random.default_rng(request["seed"])
    replicates, seconds = request["replicates"], request["seconds"]
    samples: dict[str, list[tuple[int, int]]] = {name: [] for name in inputs}
    started = time.perf_counter()
    for replicate in range(replicates):
        left = seconds - (time.perf_counter() - started)
        if left <= 0 and replicate >= REPLICATES_AT_LEAST:
            break
        contestants = [enter(folder, name, inputs[name], request["threads"]) for name in inputs]
        for name, nanoseconds in one_replicate(contestants, max(left, 0) / (replicates - replicate), rng):
            samples[name].append((replicate, nanoseconds))
    timings: dict[str, Any] = {name: np.array(pairs, np.int64) for name, pairs in samples.items()}
    np.savez(folder / "samples.npz", **timings)


def enter(folder: Path, name: str, inputs: Inputs, threads: int) -> Contestant:
    """A fresh interpreter of a file."""
    interpreter = Interpreter(str(folder / f"{name}.tflite"), num_threads=threads)
    interpreter.allocate_tensors()
    return Contestant(name, interpreter, interpreter.get_input_details()[0]["index"], inputs)


def one_replicate(contestants: list[Contestant], seconds: float, rng: np.random.Generator) -> list[tuple[str, int]]:
    """(name, nanoseconds) of invocations in random order of blocks, for about so long; one of each at the least."""
    images = len(contestants[0].inputs)
    started = time.perf_counter()
    for contestant in contestants:
        for image in range(min(WARM_UP, images)):
            contestant.time(image)
            if time.perf_counter() - started > seconds / 2:
                break
    timings: list[tuple[str, int]] = []
    while not timings or time.perf_counter() - started < seconds:
        # A model that is slow for the time there is gets single invocations, for every file has to have its turn.
        block = rng.permutation(images)[: BLOCK if seconds > 0.1 else 1]
        for i in rng.permutation(len(contestants)):
            timings += [(contestants[i].name, contestants[i].time(image)) for image in block]
    return timings


def end_with_starter() -> None:
    """Standard input is open as long as somebody waits for the timings."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    Thread(target=end_with_starter, daemon=True).start()
    main(Path(sys.argv[1]))
