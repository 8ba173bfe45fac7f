"""Times TFLite files side by side in a process that holds nothing but LiteRT and numpy.

Run with FOLDER; FOLDER/request.json says what to do, FOLDER/timings.npz receives the timings, FOLDER/failed.json the
reasons why files cannot be run, and standard output the share of the budget that is spent, a line a replicate.

One replicate makes fresh interpreters of every file, since two interpreters of one file truly differ (memory layout),
warms them up, and times blocks of invocations in random order, so that a slow moment of the machine hits all files
alike (randomised multiple interleaved trials: Abedi and Brecht, ICPE 2017). It ends when every ratio that is asked for
is known well enough, which is decided on the width of its interval alone: to look at its place would favour findings.
"""

import gc
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter, OpResolverType

Inputs = list[npt.NDArray[np.generic]]  # for each input of a file, values (n, ...)
Timings = Mapping[str, list[list[int]]]  # nanoseconds of every invocation, a list a replicate, by file

RESOLVERS = {"xnnpack": OpResolverType.AUTO, "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
WARM_UP = 10  # invocations, the first apart; or as many as fit into a tenth of a replicate's time
BLOCK_NS = 1_000_000  # one file's turn takes at least so long
REPLICATES_IN_BUDGET = 40
REPLICATES_AT_LEAST = 10
REPLICATES_OF_SLOW_FILES = 3  # where ten would take longer than the budget
MOST_IMAGES = 1000  # a block begins with any of them, and those of a file take turns
PADDING = 2**20  # bytes at most between two interpreters, so that each replicate has another memory layout


@dataclass(frozen=True)
class Contestant:
    """A file ready to be timed."""

    name: str
    interpreter: Any
    indices: list[int]  # of its inputs
    inputs: Inputs
    load_ns: int  # to read the file and to make it ready
    first_ns: int  # the first invocation

    def time(self, first: int, invocations: int) -> list[int]:
        """Nanoseconds of inferences in a row; setting the inputs is not part of them."""
        set_tensor, invoke, clock = self.interpreter.set_tensor, self.interpreter.invoke, time.perf_counter_ns
        nanoseconds = []
        for i in range(first, first + invocations):
            for index, values in zip(self.indices, self.inputs, strict=True):
                set_tensor(index, values[i % len(values)])
            started = clock()
            invoke()
            nanoseconds.append(clock() - started)
        return nanoseconds


def main(folder: Path) -> None:
    """Time the requested files and write what each took."""
    request = json.loads((folder / "request.json").read_text())
    rng = np.random.default_rng(request["seed"])
    inputs = {name: inputs_of(folder / f"{name}.npz") for name in request["names"]}
    failed: dict[str, str] = {}
    samples: dict[str, list[list[int]]] = defaultdict(list)
    loads: dict[str, list[tuple[int, int]]] = defaultdict(list)
    print(0.0, flush=True)  # ready
    started = time.perf_counter()
    while not finished(samples, time.perf_counter() - started, request):
        contestants, _padding = enter_all(folder, inputs, failed, request, rng)
        if not contestants:
            break
        for name, nanoseconds in one_replicate(contestants, request["seconds"] / REPLICATES_IN_BUDGET, rng).items():
            samples[name].append(nanoseconds)
        for contestant in contestants:
            loads[contestant.name].append((contestant.load_ns, contestant.first_ns))
        print(min(1.0, (time.perf_counter() - started) / request["seconds"]), flush=True)
    arrays: dict[str, Any] = {f"{name}.samples": as_rows(replicates) for name, replicates in samples.items()}
    arrays |= {f"{name}.loads": np.array(pairs, np.int64) for name, pairs in loads.items()}
    np.savez(folder / "timings.npz", **arrays)
    (folder / "failed.json").write_text(json.dumps(failed))


def inputs_of(path: Path) -> Inputs:
    """What a file is given, in the order of its inputs."""
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[str(place)] for place in range(len(arrays.files))]


def finished(samples: Timings, seconds: float, request: Mapping[str, Any]) -> bool:
    """Whether every ratio is known well enough, or the budget is spent."""
    replicates = len(next(iter(samples.values()), []))
    if replicates < REPLICATES_OF_SLOW_FILES:
        return False
    return seconds >= request["seconds"] or (
        replicates >= REPLICATES_AT_LEAST and widest(samples, request) <= request["precision"]
    )


def widest(samples: Timings, request: Mapping[str, Any]) -> float:
    """Half the width of the widest 95 % interval of the ratios that are asked for, as a share of the ratio.

    Where none is asked for, there is never enough, and the budget is spent.
    """
    if not request["pairs"]:
        return float("inf")
    logs = {name: np.log([np.median(replicate) for replicate in replicates]) for name, replicates in samples.items()}
    replicates = len(next(iter(logs.values())))
    critical = request["critical"][min(replicates - 2, len(request["critical"]) - 1)]
    errors = [np.std(logs[one] - logs[other], ddof=1) for one, other in request["pairs"]]
    return float(np.expm1(critical * max(errors) / np.sqrt(replicates)))


def enter_all(
    folder: Path,
    inputs: Mapping[str, Inputs],
    failed: dict[str, str],
    request: Mapping[str, Any],
    rng: np.random.Generator,
) -> tuple[list[Contestant], list[Any]]:
    """Fresh interpreters of all files, in random order, and what lies between them.

    A file that cannot be run joins `failed` where that is allowed.
    """
    contestants, padding = [], []
    for name in rng.permutation([name for name in inputs if name not in failed]):
        padding.append(np.ones(int(rng.integers(1, PADDING)), np.uint8))
        try:
            contestants.append(enter(folder / f"{name}.tflite", inputs[name], request))
        except (ValueError, RuntimeError) as error:
            if not request["may_fail"]:
                raise
            failed[str(name)] = str(error)
    return contestants, padding


def enter(path: Path, inputs: Inputs, request: Mapping[str, Any]) -> Contestant:
    """A fresh interpreter of a file, which has answered once; LiteRT's own kernels run what XNNPACK refuses."""
    try:
        return enter_on(request["delegate"], path, inputs, request["threads"])
    except (ValueError, RuntimeError):
        if request["delegate"] == "builtin":
            raise
        return enter_on("builtin", path, inputs, request["threads"])


def enter_on(delegate: str, path: Path, inputs: Inputs, threads: int) -> Contestant:
    """A fresh interpreter of a file on these kernels, which has answered once."""
    started = time.perf_counter_ns()
    interpreter = Interpreter(str(path), num_threads=threads, experimental_op_resolver_type=RESOLVERS[delegate])
    interpreter.allocate_tensors()
    loaded = time.perf_counter_ns()
    indices = [entry["index"] for entry in interpreter.get_input_details()]
    contestant = Contestant(path.stem, interpreter, indices, inputs, loaded - started, 0)
    return replace(contestant, first_ns=contestant.time(0, 1)[0])


def one_replicate(contestants: Sequence[Contestant], seconds: float, rng: np.random.Generator) -> dict[str, list[int]]:
    """Nanoseconds of invocations in random order of blocks, for about so long; one of each file at the least."""
    blocks = [block_size(contestant, seconds / 10 / len(contestants)) for contestant in contestants]
    timings: dict[str, list[int]] = {contestant.name: [] for contestant in contestants}
    started = time.perf_counter()
    gc.disable()
    while not timings[contestants[0].name] or time.perf_counter() - started < seconds:
        image = int(rng.integers(MOST_IMAGES))
        for i in rng.permutation(len(contestants)):
            timings[contestants[i].name] += contestants[i].time(image, blocks[i])
    gc.enable()
    return timings


def block_size(contestant: Contestant, seconds: float) -> int:
    """Warm a file up; how many of its invocations make a block."""
    fastest, started = contestant.first_ns, time.perf_counter()
    for i in range(WARM_UP):
        known = i > 0 or fastest > BLOCK_NS  # the first invocation alone says little of a fast file
        if known and time.perf_counter() - started + fastest / 1e9 > seconds:
            break
        fastest = min(fastest, *contestant.time(i, 1))
    return -(-BLOCK_NS // max(fastest, 1))


def as_rows(replicates: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """(replicate, nanoseconds) of every invocation."""
    numbers = np.repeat(np.arange(len(replicates)), [len(replicate) for replicate in replicates])
    return np.stack([numbers, np.concatenate(replicates)], axis=1).astype(np.int64)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
