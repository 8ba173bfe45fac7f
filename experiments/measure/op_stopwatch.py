"""Times the ops of a TFLite file, each in a file of its own, beside the whole one; in a process with LiteRT and numpy.

Run with FOLDER; FOLDER/request.json says what to do, FOLDER/samples.npz receives nanoseconds by file, and
FOLDER/failed.json the reasons why files cannot be run.

Fresh interpreters and random turns of short blocks, as in stopwatch.py, for the same reasons.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter, OpResolverType

Inputs = list[npt.NDArray[np.generic]]  # for each input of a file, values (n, ...)

RESOLVERS = {"xnnpack": OpResolverType.AUTO, "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
BLOCK = 10  # invocations of one file before another file's turn
ROUNDS_AT_LEAST = 5  # in which each file has its turn, of each replicate, where longer blocks leave no time for so many


@dataclass(frozen=True)
class Contestant:
    """A file ready to be timed."""

    name: str
    interpreter: Any
    indices: list[int]
    inputs: Inputs

    def time(self, which: int) -> int:
        """Nanoseconds of one inference; setting the inputs is not part of it."""
        for index, values in zip(self.indices, self.inputs, strict=True):
            self.interpreter.set_tensor(index, values[which % len(values)])
        started = time.perf_counter_ns()
        self.interpreter.invoke()
        return time.perf_counter_ns() - started


def main(folder: Path) -> None:
    """Time the requested files, and say which cannot be run."""
    request = json.loads((folder / "request.json").read_text())
    rng = np.random.default_rng(request["seed"])
    replicates, seconds = request["replicates"], request["seconds"]
    inputs = {name: entered(folder / f"{name}.npz") for name in request["names"]}
    samples: dict[str, list[int]] = {name: [] for name in inputs}
    failed: dict[str, str] = {}
    started = time.perf_counter()
    for replicate in range(replicates):
        left = seconds - (time.perf_counter() - started)
        if replicate and left <= 0:
            break
        contestants = []
        for name in [name for name in inputs if name not in failed]:
            try:
                contestants.append(enter(folder / f"{name}.tflite", inputs[name], request))
            except (ValueError, RuntimeError) as error:
                failed[name] = str(error)
        for name, nanoseconds in one_replicate(contestants, max(left, 0) / (replicates - replicate), rng):
            samples[name].append(nanoseconds)
    timings: dict[str, Any] = {name: np.array(times, np.int64) for name, times in samples.items()}
    np.savez(folder / "samples.npz", **timings)
    (folder / "failed.json").write_text(json.dumps(failed))


def entered(path: Path) -> Inputs:
    """What a file is given, in the order of its inputs."""
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[str(i)] for i in range(len(arrays.files))]


def enter(path: Path, inputs: Inputs, request: Mapping[str, Any]) -> Contestant:
    """A fresh interpreter of a file, after its first inference, which shows whether it can be run at all."""
    interpreter = Interpreter(
        str(path), num_threads=request["threads"], experimental_op_resolver_type=RESOLVERS[request["delegate"]]
    )
    interpreter.allocate_tensors()
    contestant = Contestant(
        path.stem, interpreter, [entry["index"] for entry in interpreter.get_input_details()], inputs
    )
    contestant.time(0)
    return contestant


def one_replicate(contestants: list[Contestant], seconds: float, rng: np.random.Generator) -> list[tuple[str, int]]:
    """(name, nanoseconds) of invocations in random order of blocks, for about so long; one of each at the least."""
    started = time.perf_counter()
    once = sum(contestant.time(1) for contestant in contestants) / 1e9
    block = int(np.clip(seconds / (ROUNDS_AT_LEAST * once), 1, BLOCK))
    timings: list[tuple[str, int]] = []
    while not timings or time.perf_counter() - started < seconds:
        for i in rng.permutation(len(contestants)):
            # The first of a block finds the processor's caches as another file left them, and is not counted.
            times = [contestants[i].time(which) for which in range(block + (block > 1))]
            timings += [(contestants[i].name, nanoseconds) for nanoseconds in times[block > 1 :]]
    return timings


if __name__ == "__main__":
    main(Path(sys.argv[1]))
