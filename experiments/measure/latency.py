"""How long one inference takes, measured together with the float model of the same baseline."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as card

from experiments.card import CARD
from experiments.dataset import Images
from experiments.errors import UserError
from experiments.machine import Watch, alone
from experiments.measure.accuracy import input_of, quantized
from experiments.measure.stopwatch import REPLICATES_AT_LEAST
from experiments.progress import bar
from experiments.statistics import Estimate, ratio_of_medians
from experiments.tflite import TFLiteModel

STOPWATCH = Path(__file__).with_name("stopwatch.py")
IMAGES = 100  # test images that take turns as input


@card(frozen=True, config=CARD, kw_only=True)
class LatencyProtocol:
    """How to measure: interpreter threads, replicates with fresh interpreters, seconds for all of it."""

    threads: PositiveInt = 1
    replicates: Annotated[int, Field(ge=REPLICATES_AT_LEAST)] = 10
    seconds: PositiveFloat = 5.0


@dataclass(frozen=True)
class Latency:
    """Timings of single inferences with one image; `samples` (n, 2) int64 are (replicate, nanoseconds)."""

    samples: npt.NDArray[np.int64]
    reference_samples: npt.NDArray[np.int64]
    speedup: Estimate  # latency of the float reference over this model's: above 1 is faster
    other_cores: float  # that were busy with something else meanwhile

    def percentile_us(self, percent: float) -> float:
        """Microseconds that `percent` of all timed inferences stayed below."""
        return float(np.percentile(self.samples[:, 1], percent) / 1000)

    @property
    def min_us(self) -> float:
        """Microseconds of the fastest inference."""
        return float(self.samples[:, 1].min() / 1000)


def measure_latency(
    model: TFLiteModel, reference: TFLiteModel, images: Images, protocol: LatencyProtocol, seed: int
) -> Latency:
    """Time a model and its float reference in one clean process, in turns, while no other run computes here.

    Raises:
        UserError: the interpreter ended the process, as it does on files it cannot run.
    """
    contestants = {"model": model, "reference": reference}
    with tempfile.TemporaryDirectory(prefix="latency-") as name, bar("Latency", total=1) as advance:
        folder = Path(name)
        for contestant, content in contestants.items():
            (folder / f"{contestant}.tflite").write_bytes(content.content)
            np.save(folder / f"{contestant}.npy", quantized(images[:IMAGES], input_of(content)))
        request = {
            "names": list(contestants),
            "threads": protocol.threads,
            "replicates": protocol.replicates,
            "seconds": protocol.seconds,
            "seed": seed,
        }
        (folder / "request.json").write_text(json.dumps(request))
        with alone():
            watch = Watch()
            _run(folder)
            other_cores = watch.other_cores()
        advance(1)
        with np.load(folder / "samples.npz", allow_pickle=False) as samples:
            timed, timed_reference = samples["model"], samples["reference"]
    speedup = ratio_of_medians(medians(timed_reference), medians(timed))
    return Latency(timed, timed_reference, speedup, other_cores)


def medians(samples: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Median nanoseconds of each replicate."""
    replicates = np.unique(samples[:, 0])
    return np.array([np.median(samples[samples[:, 0] == replicate, 1]) for replicate in replicates])


def _run(folder: Path) -> None:
    alive, ours = os.pipe()  # closed when this process ends, however it does: then nobody waits for the timings
    try:
        done = subprocess.run(
            [sys.executable, str(STOPWATCH), str(folder)], stdin=alive, capture_output=True, check=False
        )
    finally:
        os.close(alive)
        os.close(ours)
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"The interpreter could not run the model: the process that times it ended with {done.returncode} ({last})."
        )
