"""Time TFLite files together in a process with only LiteRT and NumPy.

Run with FOLDER. FOLDER/request.json has the request, FOLDER/timings.npz receives the timings, FOLDER/failed.json the
errors of files that cannot be run, and standard output the used share of the time budget, one line per replicate.

Each replicate creates new interpreters of every file, since two interpreters of one file differ (memory layout), warms
them up, and times blocks of invocations in random order, so that a slow phase of the machine affects all files equally
(randomised multiple interleaved trials: Abedi and Brecht, ICPE 2017). It stops when every requested ratio is precise
enough. Only the width of the interval decides this: stopping by its position would favour significant results.
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
Timings = Mapping[str, list[list[int]]]  # nanoseconds of every invocation by file, a list per replicate

RESOLVERS = {"xnnpack": OpResolverType.AUTO, "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
WARM_UP = 10  # invocations after the first; fewer if they take more than a tenth of a replicate's time
BLOCK_NS = 1_000_000  # minimum duration of a block
REPLICATES_IN_BUDGET = 40
REPLICATES_AT_LEAST = 10
REPLICATES_OF_SLOW_FILES = 3  # if ten would exceed the budget
MOST_IMAGES = 1000  # bound of the random start index of a block
PADDING = 2**20  # maximum bytes between two interpreters, which vary the memory layout


@dataclass(frozen=True)
class LoadedFile:
    """A file with its interpreter."""

    name: str
    interpreter: Any
    indices: list[int]  # of its inputs
    inputs: Inputs
    load_ns: int  # time to load the file
    first_ns: int  # the first invocation

    def time(self, first: int, invocations: int) -> list[int]:
        """Return the nanoseconds of consecutive inferences, excluding the time to set the inputs."""
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
    """Time the requested files and write the timings."""
    request = json.loads((folder / "request.json").read_text())
    rng = np.random.default_rng(request["seed"])
    inputs = {name: inputs_of(folder / f"{name}.npz") for name in request["names"]}
    failed: dict[str, str] = {}
    samples: dict[str, list[list[int]]] = defaultdict(list)
    loads: dict[str, list[tuple[int, int]]] = defaultdict(list)
    print(0.0, flush=True)  # ready
    started = time.perf_counter()
    while not finished(samples, time.perf_counter() - started, request):
        files, _padding = load_all(folder, inputs, failed, request, rng)
        if not files:
            break
        for name, nanoseconds in one_replicate(files, request["seconds"] / REPLICATES_IN_BUDGET, rng).items():
            samples[name].append(nanoseconds)
        for file in files:
            loads[file.name].append((file.load_ns, file.first_ns))
        print(min(1.0, (time.perf_counter() - started) / request["seconds"]), flush=True)
    arrays: dict[str, Any] = {f"{name}.samples": to_rows(replicates) for name, replicates in samples.items()}
    arrays |= {f"{name}.loads": np.array(pairs, np.int64) for name, pairs in loads.items()}
    np.savez(folder / "timings.npz", **arrays)
    (folder / "failed.json").write_text(json.dumps(failed))


def inputs_of(path: Path) -> Inputs:
    """Load the values of a file's inputs, in order."""
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[str(place)] for place in range(len(arrays.files))]


def finished(samples: Timings, seconds: float, request: Mapping[str, Any]) -> bool:
    """Whether every ratio is precise enough, or the budget is used up."""
    replicates = len(next(iter(samples.values()), []))
    if replicates < REPLICATES_OF_SLOW_FILES:
        return False
    return seconds >= request["seconds"] or (
        replicates >= REPLICATES_AT_LEAST and widest(samples, request) <= request["precision"]
    )


def widest(samples: Timings, request: Mapping[str, Any]) -> float:
    """Return half the width of the widest 95 % interval of the requested ratios, relative to the ratio.

    Without requested ratios it is infinite, so the whole budget is used.
    """
    if not request["pairs"]:
        return float("inf")
    logs = {name: np.log([np.median(replicate) for replicate in replicates]) for name, replicates in samples.items()}
    replicates = len(next(iter(logs.values())))
    critical = request["critical"][min(replicates - 2, len(request["critical"]) - 1)]
    errors = [np.std(logs[one] - logs[other], ddof=1) for one, other in request["pairs"]]
    return float(np.expm1(critical * max(errors) / np.sqrt(replicates)))


def load_all(
    folder: Path,
    inputs: Mapping[str, Inputs],
    failed: dict[str, str],
    request: Mapping[str, Any],
    rng: np.random.Generator,
) -> tuple[list[LoadedFile], list[Any]]:
    """Create new interpreters of all files in random order; returns them and the padding between them.

    With `may_fail`, a file that cannot be run is added to `failed`.
    """
    files, padding = [], []
    for name in rng.permutation([name for name in inputs if name not in failed]):
        padding.append(np.ones(int(rng.integers(1, PADDING)), np.uint8))
        try:
            files.append(load(folder / f"{name}.tflite", inputs[name], request))
        except (ValueError, RuntimeError) as error:
            if not request["may_fail"]:
                raise
            failed[str(name)] = str(error)
    return files, padding


def load(path: Path, inputs: Inputs, request: Mapping[str, Any]) -> LoadedFile:
    """Create an interpreter and run it once; falls back to LiteRT's own kernels if XNNPACK rejects the file."""
    try:
        return load_with(request["delegate"], path, inputs, request["threads"])
    except (ValueError, RuntimeError):
        if request["delegate"] == "builtin":
            raise
        return load_with("builtin", path, inputs, request["threads"])


def load_with(delegate: str, path: Path, inputs: Inputs, threads: int) -> LoadedFile:
    """Create an interpreter with these kernels, and run it once."""
    started = time.perf_counter_ns()
    interpreter = Interpreter(str(path), num_threads=threads, experimental_op_resolver_type=RESOLVERS[delegate])
    interpreter.allocate_tensors()
    loaded = time.perf_counter_ns()
    indices = [details["index"] for details in interpreter.get_input_details()]
    file = LoadedFile(path.stem, interpreter, indices, inputs, loaded - started, 0)
    return replace(file, first_ns=file.time(0, 1)[0])


def one_replicate(files: Sequence[LoadedFile], seconds: float, rng: np.random.Generator) -> dict[str, list[int]]:
    """Time blocks in random order for about `seconds`, at least one per file; returns nanoseconds by file."""
    blocks = [block_size(file, seconds / 10 / len(files)) for file in files]
    timings: dict[str, list[int]] = {file.name: [] for file in files}
    started = time.perf_counter()
    gc.disable()
    while not timings[files[0].name] or time.perf_counter() - started < seconds:
        image = int(rng.integers(MOST_IMAGES))
        for i in rng.permutation(len(files)):
            timings[files[i].name] += files[i].time(image, blocks[i])
    gc.enable()
    return timings


def block_size(file: LoadedFile, seconds: float) -> int:
    """Warm up a file; returns the number of invocations per block."""
    fastest, started = file.first_ns, time.perf_counter()
    for i in range(WARM_UP):
        is_representative = i > 0 or fastest > BLOCK_NS  # the first invocation of a fast file is not
        if is_representative and time.perf_counter() - started + fastest / 1e9 > seconds:
            break
        fastest = min(fastest, *file.time(i, 1))
    return -(-BLOCK_NS // max(fastest, 1))


def to_rows(replicates: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """Convert lists per replicate to rows (replicate, nanoseconds)."""
    numbers = np.repeat(np.arange(len(replicates)), [len(replicate) for replicate in replicates])
    return np.stack([numbers, np.concatenate(replicates)], axis=1).astype(np.int64)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
