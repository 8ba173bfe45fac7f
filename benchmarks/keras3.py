"""Quantization-aware training of Keras 3 models, against TFMOT's on Keras 2: `python -m benchmarks.keras3`.

Four networks: the article's, ds_cnn, resnet8, and an encoder-decoder with a skip connection. For each:

- Exactness: every subset of the article's layers, and twenty random ones of each other network, is annotated and
  converted, untrained; a file is exact if the chosen layers compute in int8 and all others in float.
- Accuracy: for each of five seeds, a baseline is trained in Keras 3 for two epochs on 20,000 images of MNIST. Its
  weights are copied to the same network in Keras 2, and both get another epoch of quantization-aware training on the
  same batches, with a tenth of the learning rate, by this package's engine and by TFMOT. The table has the
  difference of the files' accuracies over the seeds, and the share of test images for which our file and its Keras
  model predict the same class.

Writes benchmarks/results/keras3/ (keras3.csv, seeds.csv).
"""

import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, of_some_rows, options
from experiments.dataset import Dataset, Images
from experiments.dataset.mnist import Mnist
from experiments.measure.accuracy import keras_logits, tflite_logits
from experiments.model.article_cnn import ArticleCNN
from experiments.model.configuration import layer_names
from experiments.model.copies import copied
from experiments.model.ds_cnn import DSCNN
from experiments.model.resnet8 import ResNet8
from experiments.quantization.engines import engine_of
from experiments.runs.trial import constants_varied
from experiments.statistics.estimates import Estimate, difference_over_seeds, over_seeds
from experiments.statistics.rounding import percent, points
from experiments.strategy.annotate import Annotate
from experiments.strategy.qat import QAT
from experiments.system.cache import Cache
from experiments.system.keras_version import Version
from experiments.system.progress import bar
from experiments.tflite.conversion import TFLiteModel, convert
from experiments.tflite.expectation import broken
from experiments.tflite.graph import read_ops
from experiments.training.loop import Trained, Training, fit

SEEDS, SUBSETS = 5, 20
IMAGES = 20_000  # of MNIST's training split
BASELINE = Training(epochs=2, batch_size=100)
FURTHER = Training(epochs=1, batch_size=100, learning_rate=0.0001)  # quantization-aware
WITHIN, INTERVAL_WITHIN = 0.001, 0.003  # of accuracy, between the two engines
LEAST_AGREEMENT = 0.999


def encoder_decoder(input_shape: tuple[int, ...], classes: int, version: Version) -> Any:
    """Return a classifier whose body halves the image, restores it by a transposed convolution, and joins both."""
    from experiments.system.tensorflow import keras_version

    keras = keras_version(version)
    layers = keras.layers
    images = layers.Input(input_shape, name="image")
    wide = layers.Conv2D(8, 3, padding="same", activation="relu", name="wide")(images)
    deep = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="down")(wide)
    deep = layers.Conv2D(16, 3, padding="same", activation="relu", name="bottom")(deep)
    deep = layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu", name="up")(deep)
    joined = layers.Concatenate(name="joined")([wide, deep])
    joined = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="last")(joined)
    flat = layers.Flatten(name="flatten")(joined)
    return keras.Model(images, layers.Dense(classes, name="dense")(flat), name="encoder_decoder")


Build = Callable[[tuple[int, ...], int, Version], Any]
NETWORKS: dict[str, Build] = {
    "article_cnn": lambda shape, classes, version: ArticleCNN(keras=version).build(shape, classes),
    "ds_cnn": lambda shape, classes, version: DSCNN(keras=version).build(shape, classes),
    "resnet8": lambda shape, classes, version: ResNet8(keras=version).build(shape, classes),
    "encoder_decoder": encoder_decoder,
}


@dataclass(frozen=True)
class Asked:
    """The size of the measurement."""

    seeds: int
    subsets: int
    data: Dataset

    def calibration(self, count: int) -> Images:
        """Return training images."""
        return self.data.calibration(count, seed=0)[:]

    def built(self, network: str, version: Version, seed: int = 0) -> Any:
        """Return the untrained network."""
        from experiments.system.tensorflow import clear_session, keras

        clear_session()
        keras.utils.set_random_seed(seed)
        return NETWORKS[network](self.data.input_shape, self.data.classes, version)


def subsets(units: Collection[str], network: str, most: int) -> Iterator[tuple[str, ...]]:
    """Yield all subsets of the article's layers, or `most` random ones of another network's."""
    names = tuple(units)
    if network == "article_cnn":
        yield from (subset for size in range(1, len(names) + 1) for subset in combinations(names, size))
        return
    rng = np.random.default_rng(0)
    for _ in range(most):
        chosen = rng.random(len(names)) < rng.uniform(0.1, 0.9)
        yield tuple(name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen) or names[:1]


def is_exact(model: Any, chosen: tuple[str, ...], asked: Asked) -> bool:
    """Whether exactly these layers of a Keras 3 model compute in int8."""
    strategy = Annotate(layers=chosen)
    scheme = strategy.scheme(model)
    prepared = strategy.apply(scheme, model, Trained.untouched, asked.calibration).model
    file = convert(prepared, scheme, asked.calibration)
    return not broken(strategy.expectation(model), read_ops(file.content, layer_names(model)))


def exactness(network: str, asked: Asked) -> dict[str, object]:
    """Count the exact files among those of subsets, and say in which types the whole model computes."""
    model = asked.built(network, 3)
    chosen = list(subsets(engine_of(model).survey(model).units, network, asked.subsets))
    with bar(f"{network}: subsets", total=len(chosen)) as advance:
        exact = []
        with constants_varied(model):  # as in the trial of a run: the converter drops biases that are zero
            for each in chosen:
                exact.append(is_exact(model, each, asked))
                advance(1)
    return {"network": network, "subsets": len(chosen), "exact": sum(exact)}


def trained_file(model: Any, train: Callable[..., Trained], asked: Asked) -> tuple[Any, TFLiteModel, str]:
    """Train a model quantization-aware; return it, its file, and the types that the file computes in."""
    strategy = QAT()
    scheme = strategy.scheme(model)
    prepared = strategy.apply(scheme, model, train, asked.calibration).model
    file = convert(prepared, scheme, asked.calibration)
    computing = [op.types for op in read_ops(file.content, layer_names(model)) if op.computes]
    return prepared, file, ", ".join(sorted(set(computing)))


def twins(network: str, seed: int, asked: Asked, folder: Path) -> dict[str, object]:
    """Train a baseline, quantize it with both engines, and return the predictions of their files."""
    data = asked.data
    train = partial(fit, data=data, seed=seed, cache=Cache(dir=folder))
    title = f"{network}, seed {seed}"
    baseline = train(asked.built(network, 3, seed), settings=BASELINE, title=f"{title}, float").model
    twin = asked.built(network, 2, seed)
    twin.set_weights(baseline.get_weights())
    row: dict[str, object] = {"network": network, "seed": seed}
    for name, model in (("own", copied(baseline)), ("tfmot", twin)):
        parent, file, types = trained_file(model, partial(train, settings=FURTHER, title=f"{title}, {name}"), asked)
        predicted = tflite_logits(file, data.test.x).argmax(axis=1)
        row |= {
            f"{name}_right": predicted == data.test.y,
            f"{name}_types": types,
            f"{name}_bytes": file.bytes,
            f"{name}_agreement": float(np.mean(predicted == keras_logits(parent, data.test.x).argmax(axis=1))),
        }
    return row


def summary(found: pd.DataFrame) -> dict[str, object]:
    """Return the results of a network over its seeds."""
    own_right, tfmot_right = (np.stack(list(found[f"{name}_right"])) for name in ("own", "tfmot"))
    return {
        "types": ", ".join(sorted(set(found["own_types"]))),
        "bytes": int(found["own_bytes"].iloc[0]),
        "agreement": float(found["own_agreement"].min()),
        **over_seeds(own_right).columns("own_accuracy"),
        **over_seeds(tfmot_right).columns("tfmot_accuracy"),
        **difference_over_seeds(own_right, tfmot_right).columns("difference"),
    }


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples())


def failures(table: pd.DataFrame) -> list[str]:
    """Return the missed targets."""
    missed = []
    for row in _rows(table):
        if row.exact < row.subsets:
            missed.append(f"{row.network}: {row.exact} of {row.subsets} subsets are exact")
        if row.types != "int8":
            missed.append(f"{row.network} computes in {row.types}")
        if row.agreement < LEAST_AGREEMENT:
            missed.append(f"{row.network}: agreement {row.agreement:.2%}")
        if abs(row.difference) > WITHIN:
            missed.append(f"{row.network}: its accuracy differs from TFMOT's by {100 * row.difference:+.2f} points")
        if max(abs(row.difference_low), abs(row.difference_high)) > INTERVAL_WITHIN:
            interval = f"[{100 * row.difference_low:+.2f}, {100 * row.difference_high:+.2f}]"
            missed.append(f"{row.network}: the interval of that difference is {interval} points")
    return missed


def published_table(table: pd.DataFrame) -> str:
    """Return the table of benchmarks.keras3."""
    rows = _rows(table)
    shown = pd.DataFrame({"network": table["network"]})
    shown["exact subsets"] = [f"{row.exact} of {row.subsets}" for row in rows]
    shown["whole model in"] = table["types"]
    shown["bytes"] = [f"{row.bytes:,}" for row in rows]
    shown["agreement (%)"] = [f"{100 * row.agreement:.2f}" for row in rows]
    for name, title in (("own", "accuracy (%)"), ("tfmot", "accuracy by TFMOT, Keras 2 (%)")):
        shown[title] = [percent(getattr(row, f"{name}_accuracy")) for row in rows]
    shown["difference (pp)"] = [
        points(Estimate(row.difference, row.difference_low, row.difference_high)) for row in rows
    ]
    return markdown(shown)


BENCHMARK = Benchmark(
    name="keras3",
    title="Quantization-aware training of Keras 3 models against TFMOT's on Keras 2",
    minutes=25,
    tables=(own("keras3", published_table),),
)


def main() -> None:
    """Measure and write."""
    parser = options(BENCHMARK, __doc__)
    parser.add_argument("--only", nargs="+", metavar="NETWORK", choices=NETWORKS, help="renew only these rows")
    asked_for = parser.parse_args()
    results = of_some_rows(BENCHMARK) if asked_for.only else Results(BENCHMARK)
    quick = asked_for.quick
    data = Mnist(train_samples=1000, test_samples=200).load() if quick else Mnist(train_samples=IMAGES).load()
    asked = Asked(2 if quick else SEEDS, 2 if quick else SUBSETS, data)
    rows, seeds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for network in asked_for.only or NETWORKS:
            exact = exactness(network, asked)
            found = pd.DataFrame([twins(network, seed, asked, Path(folder)) for seed in range(asked.seeds)])
            rows.append({**exact, **summary(found)})
            for name in ("own", "tfmot"):
                found[f"{name}_accuracy"] = [float(np.mean(right)) for right in found.pop(f"{name}_right")]
            seeds.append(found)
    table, every_seed = pd.DataFrame(rows), pd.concat(seeds)
    if asked_for.only:
        table, every_seed = (
            _with_other_rows(new, pd.read_csv(results.folder / name, float_precision="round_trip"))
            for new, name in ((table, "keras3.csv"), (every_seed, "seeds.csv"))
        )
    results.finish(table, quick, failures(table), more={"seeds.csv": every_seed})


def _with_other_rows(new: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Return the new rows, and the published ones of all other networks, in the order of the networks."""
    both = pd.concat([published[~published["network"].isin(new["network"])], new])
    order = list(NETWORKS)
    return both.sort_values("network", key=lambda names: names.map(order.index), kind="stable")


if __name__ == "__main__":
    main()
