"""One comparison of two files by the default protocol, as a row of figures."""

import time

from experiments.dataset import Images
from experiments.measure.latency import LatencyProtocol, measure_latency
from experiments.tflite.conversion import TFLiteModel


def trial(file: TFLiteModel, reference: TFLiteModel, images: Images, seed: int) -> dict[str, object]:
    """Return the suite's verdict on a file and its reference, and the cost of the comparison."""
    started = time.perf_counter()
    latency = measure_latency(file, reference, images, LatencyProtocol(), seed)
    return {
        "speedup": latency.speedup.value,
        "speedup_low": latency.speedup.low,
        "speedup_high": latency.speedup.high,
        "speed": latency.verdict,
        "replicates": len(latency.own.medians),
        "other_cores": latency.session.conditions.other_cores,
        "start_seconds": latency.session.start_seconds,
        "seconds": time.perf_counter() - started,
    }
