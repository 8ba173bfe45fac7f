"""The memory of runs whose models have large outputs: `python -m benchmarks.large_outputs`.

Segmentation of 1,000 and 4,000 generated test images, of which each model has outputs of 0.26 and 1.05 GB; a run that
trains, converts to int8, evaluates and compares. Memory is read as by benchmarks.large_data; the same run on a few test
images, which are a full batch of the evaluation, shows what TensorFlow and the program take in any case.
Writes benchmarks/results/large_outputs/ (large_outputs.csv).
"""

import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness import sweeps
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from benchmarks.large_data import BATCH, GIB, LIMIT_GIB, allowed_gib, peak_memory
from experiments.system.progress import say

EDGE, CLASSES = 128, 4
OUTPUTS = EDGE * EDGE * CLASSES * 4  # bytes for an image
TRAIN = 200
FEW = 400  # test images of the run that shows the memory needed in any case; batches have 256 of them
COUNTS = (1000, 4000)
BLOCK = 16  # pixels
SETTINGS = (
    "strategy=ptq_int8", "model=encoder_decoder", "dataset=npz", "dataset.path=data.npz", "epochs=1",
    f"training.batch_size={BATCH}", "latency.seconds=0.2", "cache.gib=64",
)  # fmt: skip


def save_data(path: Path, test: int) -> None:
    """Save noisy images of blocks of four colours, with the colour of each pixel as target."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", TRAIN), ("test", test)):
        blocks = rng.integers(0, CLASSES, (count, EDGE // BLOCK, EDGE // BLOCK), np.uint8)
        y = blocks.repeat(BLOCK, 1).repeat(BLOCK, 2)
        noise = rng.integers(0, 60, (count, EDGE, EDGE, 3), np.uint8)
        arrays |= {f"x_{part}": 60 * y[..., np.newaxis] + noise, f"y_{part}": y}
    np.savez(path, **arrays)


def measured(counts: tuple[int, ...]) -> pd.DataFrame:
    """Return a row for each number of test images, first that of a few."""
    rows = []
    for count in (FEW, *counts):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
            save_data(Path(name) / "data.npz", count)
            rows.append({"test_images": count, **peak_memory(Path(name), SETTINGS)})
        say(str(rows[-1]))
    table = pd.DataFrame(rows)
    table.insert(1, "outputs_gb", (table["test_images"] * OUTPUTS / 1e9).round(2))
    return table.assign(beyond_gib=table["peak_gib"] - table["peak_gib"][0]).round(3)


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    shown = pd.DataFrame(
        {
            "test images": [f"{count:,}" for count in table["test_images"]],
            "outputs of each model, GB": [f"{size:g}" for size in table["outputs_gb"]],
            "peak memory of all processes, GiB": [f"{peak:.2f}" for peak in table["peak_gib"]],
            "beyond the run on a few images, GiB": [f"{more:+.2f}" for more in table["beyond_gib"]],
            "minutes": [f"{seconds / 60:.1f}" for seconds in table["seconds"]],
        }
    )
    return markdown(shown)


BENCHMARK = Benchmark(
    name="large_outputs",
    title="The memory of runs whose models have large outputs",
    minutes=6,
    tables=(own("large_outputs", published_table),),
)


def main() -> None:
    """Measure, and write the results."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_GIB * GIB, LIMIT_GIB * GIB))  # of the runs as well
    table = measured((500,) if asked.quick else COUNTS)
    beyond, allowed = float(table["beyond_gib"].max()), allowed_gib(EDGE * EDGE * 3)
    failures = [] if beyond <= allowed else [f"{beyond:.2f} GiB beyond, more than {allowed:.2f}"]
    results.finish(table, asked.quick, failures, sweeps.command(SETTINGS))


if __name__ == "__main__":
    main()
