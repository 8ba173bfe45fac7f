"""How the cost of a run grows with the model and its data: `python -m benchmarks.growth`.

Each run quantizes a chain of small convolutions by `strategy=ptq_int8`, without training. From the first run on, one
thing grows at a time: layers, width of the images, images in each split, classes. Times are those that the store has:
of the whole run, and of its parts. Writes benchmarks/results/growth/, a row a run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness import sweeps
from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.system.progress import bar

SETTINGS = ("model=keras_file", "dataset=npz", "strategy=ptq_int8", "epochs=0", "latency.seconds=1", "resume=false")
PARTS = ("conversion", "evaluation", "latency", "profile")
GROWS_AT_MOST = 3.5  # times as long for three times as many layers
CHANNELS = 8


@dataclass(frozen=True)
class Size:
    """The size of a run: convolutions, width and height of an image, images in each split, and classes."""

    layers: int = 10
    image: int = 16
    images: int = 400
    classes: int = 10


SMALLEST = Size()
SIZES = (
    SMALLEST,
    *(replace(SMALLEST, layers=layers) for layers in (50, 150)),
    *(replace(SMALLEST, image=image) for image in (32, 64)),
    *(replace(SMALLEST, images=images) for images in (2_000, 10_000)),
    *(replace(SMALLEST, classes=classes) for classes in (100, 1_000)),
)
QUICK_SIZES = (Size(layers=2, images=40), Size(layers=4, images=40))


def save_chain(path: Path, size: Size) -> None:
    """Save a chain of convolutions with random weights."""
    from experiments.system.tensorflow import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = x = layers.Input((size.image, size.image, 3), name="image")
    for number in range(size.layers):
        x = layers.Conv2D(CHANNELS, 3, padding="same", activation="relu", name=f"conv_{number}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    keras.Model(image, layers.Dense(size.classes, name="dense")(x), name="chain").save(path)


def save_images(path: Path, size: Size) -> None:
    """Save random images, the same number for training and test, with labels of all classes in turn."""
    rng = np.random.default_rng(0)
    shape = (size.images, size.image, size.image, 3)
    x_train, x_test = (rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2))
    labels = np.arange(size.images) % size.classes
    np.savez(path, x_train=x_train, y_train=labels, x_test=x_test, y_test=labels)


def run(folder: Path, size: Size) -> dict[str, float]:
    """Quantize a chain of this size, and return the seconds of the run and of its parts."""
    model, data = folder / "chain.keras", folder / "images.npz"
    save_chain(model, size)
    save_images(data, size)
    sweeps.sweep(folder, [*SETTINGS, f"model.path={model}", f"dataset.path={data}"])
    (done,) = sweeps.store(folder).find("tags.kind = 'run'")
    seconds = {part: done.data.metrics[f"{part}_seconds"] for part in PARTS}
    return {"run": (done.info.end_time - done.info.start_time) / 1000, **seconds}


def measured(sizes: Sequence[Size]) -> pd.DataFrame:
    """Return one row per run."""
    rows = []
    with bar("Runs", total=len(sizes)) as advance:
        for size in sizes:
            with sweeps.fresh_folder() as folder:
                rows.append({**asdict(size), **{name: round(each, 2) for name, each in run(folder, size).items()}})
            advance(1)
    return pd.DataFrame(rows)


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results, and how they grow with the layers."""
    sizes = {field.name: [f"{value:,}" for value in table[field.name]] for field in fields(Size)}
    seconds = {f"{name}, s": [f"{value:.1f}" for value in table[name]] for name in ("run", *PARTS)}
    shown = markdown(pd.DataFrame({**sizes, **seconds}).rename(columns={"image": "image, pixels"}))
    return f"{shown}\n{described(table)}\n"


def described(table: pd.DataFrame) -> str:
    """Return by what the time grows from the second largest number of layers to the largest."""
    before, after = (row for _, row in table[table["layers"] > SMALLEST.layers].iterrows())
    times = {part: f"{after[part] / before[part]:.1f}" for part in ("run", "conversion", "evaluation")}
    return (
        f"From {before['layers']:.0f} to {after['layers']:.0f} layers, a run takes {times['run']} times as long, its "
        f"conversions {times['conversion']} times,\nits evaluation {times['evaluation']} times. Conversions are "
        f"{100 * after['conversion'] / after['run']:.0f} % of the run of {after['layers']:.0f} layers."
    )


def failures(table: pd.DataFrame) -> Iterator[str]:
    """Yield what grows faster than the model, from the second largest number of layers to three times as many."""
    deep = table[table["layers"] > SMALLEST.layers]
    if len(deep) < 2:
        return
    for part in ("run", "conversion", "evaluation"):
        before, after = deep[part]
        if after > GROWS_AT_MOST * before:
            yield f"{part}: {after / before:.1f} times as long for three times as many layers"


BENCHMARK = Benchmark(
    name="growth",
    title="How the cost of a run grows with layers, image size, images and classes",
    minutes=3,
    tables=(own("growth", published_table),),
)


def main() -> None:
    """Measure, write the results, and publish the table."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    table = measured(QUICK_SIZES if asked.quick else SIZES)
    results.finish(table, asked.quick, list(failures(table)), sweeps.command(SETTINGS))


if __name__ == "__main__":
    main()
