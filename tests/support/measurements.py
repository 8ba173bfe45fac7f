"""Made-up measurements of a run, for tests of everything else about it: each real one costs a process or two.

The measurements themselves have tests of their own, and runs that are measured are those of test_pipeline.py,
test_endtoend.py and test_mlflow_ui.py. Pictures are those of test_plots.py and test_report.py, and the last two.
"""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.dataset import Images
from experiments.measure.latency import SENTINEL, Latency, LatencyProtocol, Session, Timings, stopwatch_digest
from experiments.measure.memory import Arena, Memory
from experiments.measure.op_profile import OpTime, Profile
from experiments.system.machine import Conditions
from experiments.tflite.conversion import TFLiteModel
from experiments.tflite.graph import Op

IDLE = Conditions(cores=2, other_cores=0.0, steal_cores=0.0, load_before=0.0, load_after=0.0)
REPLICATES = 5
# Nanoseconds of three inferences in each replicate, and of loading and the first inference.
TIMINGS = Timings(
    np.array([(replicate, 1000 + inference) for replicate in range(REPLICATES) for inference in range(3)]),
    np.full((REPLICATES, 2), 5000),
)


def latency(model: TFLiteModel, reference: TFLiteModel, _: Images, protocol: LatencyProtocol, __: int) -> Latency:
    """Files that take a microsecond on an idle machine."""
    session = Session(
        dict.fromkeys(("reference", "model", SENTINEL), TIMINGS), IDLE, protocol.threads, 0.1,
        delegate=protocol.delegate, started=time.time(), id=secrets.token_hex(8), seconds=protocol.seconds,
        precision=protocol.precision, stopwatch=stopwatch_digest(),
    )  # fmt: skip
    return Latency(session, model.digest == reference.digest)


def profile(_: TFLiteModel, ops: Sequence[Op], *__: object) -> Profile:
    """Ops that all take the same time."""
    times = (OpTime(op.index, op.op, op.layer, op.types, 1.0, 1 / len(ops), "") for op in ops)
    return Profile(tuple(times), whole_us=len(ops) + 1.0, call_us=1.0)


def footprint(*_: object) -> tuple[Memory, Arena]:
    return Memory(peak_kib=50_000.0, model_kib=500.0), Arena(10_000, "")


# What experiments.runs.pipeline calls to measure, and what stands in for it.
MADE_UP: Mapping[str, Callable[..., Any]] = {
    "measure_latency": latency,
    "op_profile": profile,
    "footprint": footprint,
}


def shorten_sweeps() -> None:
    """Let sweeps in this process, and in those that are forked from it, draw no pictures and add no rounds of timing.

    Pictures take seconds, and each round takes a process for each file.
    """
    from experiments.plots.comparison import Pictures
    from experiments.report import page
    from experiments.runs import job, sweep

    for module, name, function in (
        (page, "draw_pictures", lambda *_: Pictures({}, {})),
        (sweep, "complete_rounds", lambda *_, **__: None),
        (job, "save_pictures", lambda *_: None),
    ):
        assert hasattr(module, name)
        setattr(module, name, function)


def make_up() -> None:
    """Make up the measurements of all runs in this process, and in those that are forked from it."""
    from experiments.runs import pipeline

    for name, function in MADE_UP.items():
        setattr(pipeline, name, function)
