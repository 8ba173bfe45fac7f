"""Quantization-aware training of three networks of keras.applications: `python -m benchmarks.applications`.

MobileNetV2, MobileNetV3Small and EfficientNetB0 with random weights, for images of 96 x 96 pixels, in Keras 2 (TFMOT,
with this package's configurations for layers that it refuses) and in Keras 3 (this package's engine). Each BatchNorm
begins with the statistics of a few generated images, as after some training. Each network is trained with strategy=qat
for an epoch on these images, then converted. Every op of the file computes in int8: TFLite has int8 kernels for all of
them. `steps` is how far the file's outputs are from those of its Keras model, on average, in steps of the output's
integers. No target is set for it: a deep network with random weights amplifies each rounding, and says nothing about
the accuracy of a trained one. Writes benchmarks/results/applications/.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from experiments.dataset import Images
from experiments.measure.accuracy import Logits, keras_logits, tflite_logits
from experiments.model.configuration import layer_names
from experiments.model.flattening import flatten
from experiments.quantization.engines import NAMES
from experiments.runs.trial import try_conversion
from experiments.strategy.qat import QAT
from experiments.system.errors import UserError
from experiments.system.keras_version import Version
from experiments.system.progress import say
from experiments.tflite.conversion import convert
from experiments.tflite.expectation import broken
from experiments.tflite.graph import SCALE_KEEPING, read_ops
from experiments.training.loop import Trained

NETWORKS = ("MobileNetV2", "MobileNetV3Small", "EfficientNetB0")
VERSIONS: tuple[Version, Version] = (2, 3)
SHAPE, CLASSES = (96, 96, 3), 10
IMAGES, BATCH = 48, 16


def images(network: str) -> Images:
    """Return generated images in the scale that the network takes."""
    values = np.random.default_rng(0).uniform(0, 255, (IMAGES, *SHAPE)).astype(np.float32)
    return values / 127.5 - 1 if network == "MobileNetV2" else values  # the others scale their input


def trained(model: Any, examples: Images) -> Trained:
    """Train a model for an epoch."""
    from experiments.system.tensorflow import keras_of

    keras = keras_of(model)
    labels = np.arange(IMAGES) % CLASSES
    model.compile(keras.optimizers.Adam(0.0001), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(examples, labels, batch_size=BATCH, epochs=1, verbose=0)
    return Trained.untouched(model)


def set_statistics(model: Any, examples: Images) -> None:
    """Give each BatchNorm the statistics of some examples, as a training does.

    With those of a new model the values vanish with the depth, so their ranges say nothing about training.
    """
    from experiments.system.tensorflow import keras_of

    norms = [layer for layer in model.layers if isinstance(layer, keras_of(model).layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(examples[:BATCH], training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def step_of(outputs: Logits) -> float:
    """Return the step between the values that a file's outputs have."""
    between = np.diff(np.unique(outputs))
    return float(between[between > np.ptp(outputs) / 1000].min(initial=np.inf))


def outcome(network: str, version: Version) -> dict[str, object]:
    """Train a network quantization-aware, convert it, and compare the file with what was named before."""
    from experiments.system.tensorflow import clear_session, keras, keras_version

    clear_session()
    keras.utils.set_random_seed(0)
    build, examples = getattr(keras_version(version).applications, network), images(network)
    model = flatten(
        build(weights=None, input_shape=SHAPE, classes=CLASSES, classifier_activation=None), [SHAPE], network
    )
    set_statistics(model, examples)

    def calibration(count: int) -> Images:
        return examples[:count]

    def fit(model: Any, callbacks: Sequence[Any] = ()) -> Trained:
        return trained(model, examples)

    strategy = QAT()
    scheme, expectation = try_conversion(strategy, strategy.scheme(model), model, calibration)
    parent = strategy.apply(scheme, model, fit, calibration).model
    file = convert(parent, scheme, calibration)
    ops = [op for op in read_ops(file.content, layer_names(model)) if op.computes]
    in_float = [op for op in ops if op.types == "float32" and op.op not in SCALE_KEEPING]
    wanted, found = keras_logits(parent, examples), tflite_logits(file, examples)
    steps = np.abs(found - wanted).mean() / step_of(found)
    say(f"  {network}, Keras {version}: {len(in_float)} of {len(ops)} ops in float; {steps:.2f} steps")
    return {
        "network": network,
        "keras": version,
        "ops": len(ops),
        "float_ops": len(in_float),
        "in_float": ", ".join(f"{count} {name}" for name, count in sorted(Counter(op.op for op in in_float).items())),
        "named": "; ".join(sorted(set(expectation.left_float.values()))),
        "not_named": "; ".join(broken(expectation, read_ops(file.content, layer_names(model)))),
        "bytes": file.bytes,
        "steps": float(steps),
    }


def outcome_or_refusal(network: str, version: Version) -> dict[str, object]:
    """Return the outcome, or a row with the reason why there is no file."""
    try:
        return outcome(network, version)
    except UserError as error:
        say(f"  {network}, Keras {version}: {error}")
        none = {"ops": 0, "float_ops": 0, "in_float": "", "named": "", "bytes": 0, "steps": 0.0}
        return {"network": network, "keras": version, **none, "not_named": str(error)}


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.astype(object).where(table.notna(), "").itertuples())


def failures(table: pd.DataFrame) -> list[str]:
    """Return the missed targets."""
    found = []
    for row in _rows(table):
        if row.not_named:
            found.append(f"{row.network} in Keras {row.keras}: {row.not_named}")
        if row.float_ops:  # TFLite has int8 kernels for all ops of these networks
            found.append(f"{row.network} in Keras {row.keras} has ops in float: {row.in_float}")
    return found


def published_table(table: pd.DataFrame) -> str:
    """Return the table of benchmarks.applications."""
    rows = _rows(table)
    shown = pd.DataFrame({"network": table["network"]})
    shown["engine"] = [f"{NAMES[row.keras]}, Keras {row.keras}" for row in rows]
    shown["ops in int8"] = [f"{row.ops - row.float_ops} of {row.ops}" if row.ops else "refused" for row in rows]
    shown["ops in float"] = [row.in_float for row in rows]
    shown["bytes"] = [f"{row.bytes:,}" if row.ops else "" for row in rows]
    shown["steps"] = [f"{row.steps:.1f}" if row.ops else "" for row in rows]
    missed = "\n".join(f"- {each}" for each in failures(table)) or "- none"
    return f"{markdown(shown)}\nMissed targets:\n\n{missed}\n"


BENCHMARK = Benchmark(
    name="applications",
    title="Whether quantization-aware training makes three networks of keras.applications int8, in Keras 2 and 3",
    minutes=10,
    tables=(own("applications", published_table),),
)


def main() -> None:
    """Measure and write."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    networks = NETWORKS[:1] if asked.quick else NETWORKS
    table = pd.DataFrame([outcome_or_refusal(network, version) for network in networks for version in VERSIONS])
    results.finish(table, asked.quick, failures(table))


if __name__ == "__main__":
    main()
