"""Quantization after training, option by option: `python -m benchmarks.post_training`.

The article's network and ds_cnn are trained for two epochs on 20,000 images of MNIST and of Fashion-MNIST each. Every
way to quantize them afterwards makes a file of the same weights: 4-bit weights with three algorithms for their ranges,
16-bit activations in all layers or in the last one, one scale for a whole kernel, other types at the interface. Each
file is read back and compared with what was asked for, is run on the test images, and is given to TensorFlow Lite
Micro. A way pays if no other one that runs there too gives a smaller file without evidence of less accuracy.

Writes benchmarks/results/post_training/post_training.csv. `--fashion-mnist` names a folder with the four files of
Fashion-MNIST, such as Debian's package dataset-fashion-mnist has; otherwise Keras downloads them.
"""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import filled, markdown, true
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.dataset import Dataset
from experiments.dataset.fashion_mnist import FashionMnist
from experiments.dataset.mnist import Mnist
from experiments.measure.accuracy import keras_logits, tflite_logits
from experiments.measure.memory import arena
from experiments.model.article_cnn import ArticleCNN
from experiments.model.configuration import layer_names
from experiments.model.ds_cnn import DSCNN
from experiments.runs.trial import try_conversion
from experiments.statistics.estimates import Estimate, paired_difference
from experiments.statistics.rounding import points, whole
from experiments.strategy import Strategy
from experiments.strategy.none import Nothing
from experiments.strategy.post_training import PTQDynamic, PTQFloat16, PTQInt4, PTQInt4Int8, PTQInt8, PTQInt16x8
from experiments.system.cache import Cache
from experiments.system.progress import bar
from experiments.tflite.conversion import convert
from experiments.tflite.expectation import broken
from experiments.tflite.graph import read_ops
from experiments.training.loop import Training, fit

IMAGES, SAMPLES = 20_000, 200  # of the training split; calibration samples
BASELINE = Training(epochs=2, batch_size=100)
NETWORKS: Mapping[str, Any] = {"article_cnn": ArticleCNN, "ds_cnn": DSCNN}

FLOAT = "none"
LAST = ("last:1",)
_few: dict[str, Any] = {"calibration_samples": SAMPLES}
WAYS: Mapping[str, Strategy] = {
    FLOAT: Nothing(),
    "ptq_dynamic": PTQDynamic(),
    "ptq_float16": PTQFloat16(),
    "ptq_int4": PTQInt4(),
    "ptq_int8": PTQInt8(**_few),
    "ptq_int8 interface=int8": PTQInt8(**_few, interface="int8"),
    "ptq_int8 interface=uint8": PTQInt8(**_few, interface="uint8"),
    "ptq_int8 weight_ranges=mse": PTQInt8(**_few, weight_ranges="mse"),
    "ptq_int8 weight_ranges=octav": PTQInt8(**_few, weight_ranges="octav"),
    "ptq_int8 weight_scales=tensor": PTQInt8(**_few, weight_scales="tensor"),
    "ptq_int16x8 layers=[last:1]": PTQInt16x8(**_few, layers=LAST),
    "ptq_int16x8": PTQInt16x8(**_few),
    "ptq_int4_int8 weight_ranges=min_max": PTQInt4Int8(**_few, weight_ranges="min_max"),
    "ptq_int4_int8 weight_ranges=mse": PTQInt4Int8(**_few, weight_ranges="mse"),
    "ptq_int4_int8 weight_ranges=octav": PTQInt4Int8(**_few, weight_ranges="octav"),
    "ptq_int4_int8 layers=[last:1]": PTQInt4Int8(**_few, layers=LAST),
}
SLOW = 1_000  # test images for files whose kernels for 16 bits are the reference ones: tens of milliseconds for each


def baseline(network: str, data: Dataset, folder: Path, title: str) -> Any:
    """Return the trained network."""
    from experiments.system.tensorflow import clear_session, keras

    clear_session()
    keras.utils.set_random_seed(0)
    model = NETWORKS[network]().build(data.input_shape, data.classes)
    return fit(model, data=data, settings=BASELINE, seed=0, cache=Cache(dir=folder), title=title).model


def measured(way: str, model: Any, data: Dataset, keras: npt.NDArray[Any]) -> dict[str, object]:
    """Quantize a model with one setting; return the types, predictions and costs of the file."""
    strategy, calibration = WAYS[way], partial(data.calibration, seed=0)
    scheme = strategy.scheme(model)
    file = convert(model, scheme, calibration)
    _, expectation = try_conversion(strategy, scheme, model, calibration, file)
    ops = read_ops(file.content, layer_names(model))
    types = [op.types for op in ops if op.computes]
    most = SLOW if any(each.startswith("int16") for each in types) else len(data.test)
    test = data.test.take(np.arange(len(data.test))[:most])
    predicted = tflite_logits(file, test.x).argmax(axis=1)
    micro = arena(file)
    return {
        "way": way,
        "types": ", ".join(dict.fromkeys(types)),
        "broken": "; ".join(broken(expectation, ops)),
        "bytes": file.bytes,
        "gzip_bytes": file.gzip_bytes,
        "agreement": float(np.mean(predicted == keras[: len(test)])),
        "test_images": len(test),
        "micro": "" if micro is None else micro.reason or f"{micro.bytes}",
        "right": predicted == test.y,
    }


def compared(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Add accuracies, their differences from the float file on the same images, and which settings are worth it."""
    right = {row["way"]: row.pop("right") for row in rows}
    for row in rows:
        its = right[row["way"]]
        difference = paired_difference(its, right[FLOAT][: len(its)])
        row.update(accuracy=float(np.mean(its)), **difference.columns("difference"))
    table = pd.DataFrame(rows)
    table["pays"] = [not any(_beats(other, row, right) for other in rows if other is not row) for row in rows]
    return table


def _beats(one: Mapping[str, Any], other: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Whether a setting gives a smaller file without evidence of less accuracy, and runs wherever the other does."""
    images = min(one["test_images"], other["test_images"])
    difference = paired_difference(right[one["way"]][:images], right[other["way"]][:images])
    runs = str(one["micro"]).isdigit() or not str(other["micro"]).isdigit()
    return bool(one["bytes"] < other["bytes"] and difference.high >= 0 and runs)


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples())


def failures(table: pd.DataFrame) -> list[str]:
    """Return the files that compute in other types than requested."""
    wrong = table[filled(table["broken"])]
    return [f"{row['dataset']}, {row['network']}, {row['way']}: {row['broken']}" for _, row in wrong.iterrows()]


def published_table(table: pd.DataFrame) -> str:
    """Return the table: one row per setting, with its differences on each data set and network."""
    cases = list(dict.fromkeys(zip(table["dataset"], table["network"], strict=True)))
    rows = []
    for way, its in table.groupby("way", sort=False):
        by_case: dict[tuple[str, str], Any] = {(row.dataset, row.network): row for row in _rows(its)}
        row = {"strategy": way, "types": by_case[cases[0]].types}
        for dataset, network in cases:
            found = by_case[dataset, network]
            estimate = Estimate(found.difference, found.difference_low, found.difference_high)
            row[f"Δ accuracy, {network}, {dataset} (pp)"] = points(estimate)
        for network in dict.fromkeys(network for _, network in cases):
            row[f"bytes, {network}"] = whole(next(by_case[case].bytes for case in cases if case[1] == network))
        pays = sum(true(each.pays) for each in by_case.values())
        rows.append({**row, "in TFLM": _in_micro(its["micro"]), "worth it": f"{pays} of {len(by_case)}"})
    return markdown(pd.DataFrame(rows))


def _in_micro(found: "pd.Series[Any]") -> str:
    reasons = [str(each) for each in found.fillna("").unique()]
    if "" in reasons:
        return "not measured"
    refused = [reason.partition(" ")[0] for reason in reasons if not reason.isdigit()]
    return f"no ({', '.join(dict.fromkeys(refused))})" if refused else "yes"


BENCHMARK = Benchmark(
    name="post_training",
    title="Ways to quantize after training: 4-bit weights, 16-bit activations, ranges and scales of weights",
    minutes=10,
    tables=(own("post_training", published_table),),
)


def main() -> None:
    """Measure and write."""
    parser = options(BENCHMARK, __doc__)
    parser.add_argument("--fashion-mnist", type=Path, metavar="FOLDER", help="where the four files are")
    asked = parser.parse_args()
    results = Results(BENCHMARK)
    size: dict[str, Any] = {"train_samples": 500, "test_samples": 200} if asked.quick else {"train_samples": IMAGES}
    sources = {"mnist": Mnist(**size), "fashion_mnist": FashionMnist(path=asked.fashion_mnist, **size)}
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for name, source in sources.items():
            data = source.load()
            for network in NETWORKS:
                model = baseline(network, data, Path(folder), f"{network}, {name}")
                keras = keras_logits(model, data.test.x).argmax(axis=1)
                rows = []
                with bar(f"{network}, {name}: ways to quantize", total=len(WAYS)) as advance:
                    for way in WAYS:
                        rows.append(measured(way, model, data, keras))
                        advance(1)
                tables.append(compared(rows).assign(dataset=name, network=network))
    table = pd.concat(tables)
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
