"""Time and accuracy of training a baseline in bfloat16: `python -m benchmarks.precision`.

The article's network on all of MNIST, in float32 and with training.precision=mixed_bfloat16, from the same initial
weights and with the same images in the same order: six seeds, three epochs each, in turns epoch by epoch. The seconds
of each pair of epochs give a ratio; what the trained models, both float32, say of each test image gives the difference
of their accuracies. Writes benchmarks/results/precision/ (precision.csv, epochs.csv with the seconds of each epoch).
"""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, options
from benchmarks.harness.trained import article_cnn
from experiments.comparison.columns import ends
from experiments.dataset import Dataset
from experiments.dataset.mnist import Mnist
from experiments.measure.accuracy import keras_logits
from experiments.statistics.estimates import difference_over_seeds, over_seeds, ratio_of_medians
from experiments.statistics.rounding import percent, times
from experiments.training.loop import Trained
from experiments.training.precision import Precision

EQUIVALENT_WITHIN = 0.003  # of accuracy, between baselines of two precisions
PRECISIONS: tuple[Precision, Precision] = ("float32", "mixed_bfloat16")
SEEDS, EPOCHS = 6, 3


def right(model: Trained, data: Dataset) -> npt.NDArray[np.bool_]:
    """Return which test images the model classifies correctly."""
    correct: npt.NDArray[np.bool_] = keras_logits(model.model, data.test.x).argmax(axis=1) == data.test.y
    return correct


def in_turns(data: Dataset, seeds: int, epochs: int) -> tuple[pd.DataFrame, dict[Precision, npt.NDArray[np.bool_]]]:
    """Return the seconds of every epoch, and which predictions (seeds, images) are correct after the last one."""
    seconds, correct = [], {precision: np.empty((seeds, len(data.test)), np.bool_) for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for epoch in range(1, epochs + 1):
                for precision in PRECISIONS if epoch % 2 else reversed(PRECISIONS):
                    model = article_cnn(data, Path(folder), seed, epoch, precision)
                    own = model.seconds - model.seconds_reused
                    seconds.append({"seed": seed, "epoch": epoch, "precision": precision, "seconds": own})
                    if epoch == epochs:
                        correct[precision][seed] = right(model, data)
    return pd.DataFrame(seconds), correct


def summary(seconds: pd.DataFrame, correct: dict[Precision, npt.NDArray[np.bool_]]) -> pd.DataFrame:
    """Return a row for each precision: seconds an epoch, accuracy, and both against float32, paired."""
    times = seconds.pivot(index=["seed", "epoch"], columns="precision", values="seconds")
    rows = []
    for precision in PRECISIONS:
        accuracy = over_seeds(correct[precision])
        difference = difference_over_seeds(correct[precision], correct["float32"])
        faster = ratio_of_medians(times["float32"].to_numpy(), times[precision].to_numpy())
        rows.append(
            {
                "precision": precision,
                "epoch_seconds": times[precision].median(),
                **faster.columns("faster"),
                **accuracy.columns("accuracy"),
                **difference.columns("difference"),
                "seeds": len(correct[precision]),
                "epochs": seconds["epoch"].max(),
            }
        )
    return pd.DataFrame(rows)


def published_table(table: pd.DataFrame) -> str:
    """Return the table of the results."""
    shown = pd.DataFrame(
        {
            "training.precision": table["precision"],
            "an epoch, s": [f"{value:.1f}" for value in table["epoch_seconds"]],
            "speedup": [times(*ends(row, "faster")) for row in table.itertuples()],
            "accuracy (%)": [percent(*ends(row, "accuracy")) for row in table.itertuples()],
            "Δ accuracy vs float32 (pp)": [percent(*ends(row, "difference"), sign="+") for row in table.itertuples()],
        }
    )
    row = table.iloc[0]
    return f"{markdown(shown)}\n{row['seeds']} seeds, {row['epochs']} epochs. [low, high]: 95 % interval.\n"


def failures(table: pd.DataFrame) -> list[str]:
    """Return precisions that are not faster, or whose accuracy may differ by more than EQUIVALENT_WITHIN."""
    shorter = table[table["precision"] != "float32"]
    slow = shorter[shorter["faster_low"] <= 1]
    worse = shorter[shorter[["difference_low", "difference_high"]].abs().max(axis=1) > EQUIVALENT_WITHIN]
    return [
        *(f"{name}: not faster than float32" for name in slow["precision"]),
        *(
            f"{name}: accuracy may differ by more than {percent(EQUIVALENT_WITHIN)} points"
            for name in worse["precision"]
        ),
    ]


BENCHMARK = Benchmark(
    name="precision",
    title="Time and accuracy of training a baseline in bfloat16",
    minutes=30,
    tables=(own("precision", published_table),),
)


def main() -> None:
    """Measure, and write the results."""
    asked = options(BENCHMARK, __doc__).parse_args()
    results = Results(BENCHMARK)
    data = Mnist(train_samples=1000, test_samples=500).load() if asked.quick else Mnist().load()
    seconds, correct = in_turns(data, SEEDS, 2 if asked.quick else EPOCHS)
    table = summary(seconds, correct)
    results.finish(table, asked.quick, failures(table), more={"epochs.csv": seconds})


if __name__ == "__main__":
    main()
