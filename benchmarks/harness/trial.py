"""One comparison of two files at one moment, as long as the timing of a run, as a row of a table."""

import time

from experiments.dataset import Images
from experiments.measure.latency import LatencyProtocol, Session, time_together
from experiments.tflite.conversion import TFLiteModel


def one_moment(
    file: TFLiteModel,
    reference: TFLiteModel,
    images: Images,
    seed: int,
    protocol: LatencyProtocol = LatencyProtocol(),  # noqa: B008  # it is immutable
) -> Session:
    """Time a file and its reference in one session, for as long as a run has for all of its rounds."""
    files = {"reference": reference, "model": file}
    return time_together(files, dict.fromkeys(files, images), protocol, [("reference", "model")], seed)


def trial(file: TFLiteModel, reference: TFLiteModel, images: Images, seed: int) -> dict[str, object]:
    """Return the verdict over the replicates of one moment, and the cost of the comparison."""
    started = time.perf_counter()
    session = one_moment(file, reference, images, seed)
    speedup = session.ratio("reference", "model")
    return {
        "speedup": speedup.value,
        "speedup_low": speedup.low,
        "speedup_high": speedup.high,
        "speed": session.verdict(speedup),
        "replicates": len(session.timings["model"].medians),
        "other_cores": session.conditions.other_cores,
        "start_seconds": session.start_seconds,
        "seconds": time.perf_counter() - started,
    }
