"""The memory of runs on data larger than memory: `python -m benchmarks.large_data`.

Folders of generated images that take 1 and 4 GB as bytes (four times as much as float32) or, with `--gigabytes 1 4 16`,
other sizes, in a run that decodes them, trains an epoch, converts to int8, and evaluates. Ten times a second the
resident memory of all its processes is read, without what they share. The same run on a few images shows what
TensorFlow and the program take in any case. The system refuses a process more than 8 GiB of its own memory (Linux).
Writes benchmarks/results/large_data/ (large_data.csv).
"""

import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from benchmarks.harness import sweeps
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.system.errors import UserError
from experiments.system.progress import say

EDGE = 512  # pixels
IMAGE = EDGE * EDGE * 3  # bytes
BATCH = 32
FEW = 200  # images of the run that shows the memory needed in any case
GIGABYTES = (1.0, 4.0)
GIB = 2**30
ALLOWED_GIB, ALLOWED_BATCHES = 0.5, 1.3
LIMIT_GIB = 8  # of each process
INTERVAL = 0.1  # seconds
DISTINCT = 32  # files of each class; all others are links to them
SETTINGS = (
    "strategy=ptq_int8", "model=keras_file", "model.path=small.keras", "dataset=image_folder", "dataset.path=images",
    "epochs=1", f"training.batch_size={BATCH}", "latency.seconds=0.2", "cache.gib=64",
)  # fmt: skip


def save_images(folder: Path, count: int) -> None:
    """Save about `count` images in two classes, dark and bright, nine tenths of them for training."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, images in (("train", count * 9 // 10), ("test", count // 10)):
        for name, low in (("dark", 0), ("bright", 128)):
            place = folder / part / name
            place.mkdir(parents=True)
            for number in range(images // 2):
                path = place / f"{number}.png"
                if number < DISTINCT:
                    blocks = rng.integers(low, low + 128, (8, 8, 3), np.uint8)
                    Image.fromarray(blocks.repeat(EDGE // 8, 0).repeat(EDGE // 8, 1)).save(path)
                else:
                    os.link(place / f"{number % DISTINCT}.png", path)


def save_model(path: Path) -> None:
    """Save a small convolutional model that reads every pixel."""
    from experiments.system.tensorflow import keras

    keras.Sequential(
        [
            keras.layers.InputLayer((EDGE, EDGE, 3)),
            keras.layers.AveragePooling2D(16),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    ).save(path)


@contextmanager
def ready(images: int) -> Iterator[Path]:
    """Create a folder with images and a model; it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        save_images(folder / "images", images)
        save_model(folder / "small.keras")
        yield folder


def peak_memory(folder: Path, settings: Sequence[str]) -> dict[str, float]:
    """Run in a folder; returns the most memory of all processes together, and the duration."""
    process, began, peak = sweeps.start(folder, settings), time.monotonic(), 0.0
    main = psutil.Process(process.pid)
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            peak = max(peak, sum(map(_own_bytes, [main, *main.children(recursive=True)])))
        time.sleep(INTERVAL)
    if process.returncode != 0:
        log = (folder / sweeps.LOG).read_text()[-2000:]
        raise UserError(f"{sweeps.command(settings)} ended with {process.returncode}: {log}")
    return {"peak_gib": peak / GIB, "seconds": time.monotonic() - began}


def _own_bytes(process: psutil.Process) -> int:
    """Return the resident memory of a process without files that are mapped and pages that it shares."""
    try:
        about = process.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return int(about.rss - about.shared)


def measured(gigabytes: tuple[float, ...]) -> pd.DataFrame:
    """Return a row for each size, first that of a few images."""
    rows = []
    for count in (FEW, *(round(size * 1e9 / IMAGE) for size in gigabytes)):
        with ready(count) as folder:
            rows.append({"images": count, **peak_memory(folder, SETTINGS)})
        say(str(rows[-1]))
    table = pd.DataFrame(rows)
    table.insert(1, "gigabytes", (table["images"] * IMAGE / 1e9).round(2))
    return table.assign(beyond_gib=table["peak_gib"] - table["peak_gib"][0]).round(3)


def allowed_gib(image: int) -> float:
    """Return the memory that a run may take beyond that of a run on a few images, of so many values each."""
    return ALLOWED_GIB + ALLOWED_BATCHES * BATCH * 4 * image / GIB


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    shown = pd.DataFrame(
        {
            "images": [f"{count:,}" for count in table["images"]],
            "as bytes, GB": [f"{size:g}" for size in table["gigabytes"]],
            "as float32, GB": [f"{4 * size:g}" for size in table["gigabytes"]],
            "peak memory of all processes, GiB": [f"{peak:.2f}" for peak in table["peak_gib"]],
            "beyond the run on a few images, GiB": [f"{more:+.2f}" for more in table["beyond_gib"]],
            "minutes": [f"{seconds / 60:.1f}" for seconds in table["seconds"]],
        }
    )
    return markdown(shown)


BENCHMARK = Benchmark(
    name="large_data",
    title="The memory of runs on data larger than memory",
    minutes=10,
    tables=(own("large_data", published_table),),
)


def main() -> None:
    """Measure, and write the results."""
    parser = options(BENCHMARK, __doc__)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=GIGABYTES, help="sizes of the data, as bytes")
    asked = parser.parse_args()
    results = Results(BENCHMARK)
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_GIB * GIB, LIMIT_GIB * GIB))  # of the runs as well
    table = measured((0.2,) if asked.quick else tuple(asked.gigabytes))
    beyond = float(table["beyond_gib"].max())
    allowed = allowed_gib(IMAGE)
    failures = [] if beyond <= allowed else [f"{beyond:.2f} GiB beyond, more than {allowed:.2f}"]
    results.finish(table, asked.quick, failures, sweeps.command(SETTINGS))


if __name__ == "__main__":
    main()
